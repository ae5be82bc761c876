/* Children that no fork handler hears of: the system call itself, and _Fork(). The child allocates
 * 7,401 bytes fifty times and frees a block of its parent (7,400 bytes); the parent goes on with
 * 7,402 bytes. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <signal.h>
#include <unistd.h>

static pid_t system_call(void)
{
    return syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
}

int main(int argc, char **argv)
{
    int by_system_call = argc > 1 && !strcmp(argv[1], "clone");
    char *inherited = malloc(7400);
    for (int round = 0; round < 10; round++) {
        pid_t child = by_system_call ? system_call() : _Fork();
        if (child == 0) {
            for (int i = 0; i < 50; i++) {
                volatile char *block = malloc(7401);
                block[0] = 1;
            }
            free(inherited);
            _exit(0);
        }
        volatile char *mine = malloc(7402);
        mine[0] = 1;
        int status;
        waitpid(child, &status, 0);
        if (status)
            return 1;
        free((void *)mine);
    }
    free(inherited);
    return 0;
}
