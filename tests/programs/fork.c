/* Parent: a block of 7,001 bytes before fork, one of 7,002 after it. Child: one of 7,003, and it
 * frees the inherited one. Prints the child's process ID. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

int main(void)
{
    char *inherited = malloc(7001);
    pid_t child = fork();
    if (child == 0) {
        char *own = malloc(7003);
        free(inherited);
        exit(own ? 0 : 1);
    }
    char *own = malloc(7002);
    int status;
    waitpid(child, &status, 0);
    dprintf(1, "%d\n", (int)child);
    return own && WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
