/* Starts itself as a leaf, which allocates 7,300 bytes: by vfork and exec, by posix_spawn and by
 * system(). The program itself allocates 7,301 bytes around each. */
#define _GNU_SOURCE
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

int main(int argc, char **argv)
{
    if (argc > 1 && !strcmp(argv[1], "leaf")) {
        volatile char *block = malloc(7300);
        block[0] = 1;
        return 0;
    }
    char *arguments[] = {argv[0], "leaf", NULL};
    volatile char *mine;
    int status, failed = 0;

    mine = malloc(7301);
    mine[0] = 1;
    pid_t child = vfork();
    if (child == 0) {
        execv(argv[0], arguments);
        _exit(1);
    }
    waitpid(child, &status, 0);
    failed |= status;

    mine = malloc(7301);
    mine[0] = 1;
    if (posix_spawn(&child, argv[0], NULL, NULL, arguments, environ))
        return 1;
    waitpid(child, &status, 0);
    failed |= status;

    mine = malloc(7301);
    mine[0] = 1;
    char command[4096];
    snprintf(command, sizeof command, "'%s' leaf", argv[0]);
    failed |= system(command);
    return failed != 0;
}
