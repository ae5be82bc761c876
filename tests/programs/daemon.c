// daemon FIFO [spawn]: becomes a daemon (forked twice, a session of its own, every descriptor closed,
// in the root folder), which allocates 100 blocks of 7500 bytes once somebody opens and closes FIFO.
// With `spawn` it then starts two programs one after the other, which allocate 100 blocks of 7601 and
// of 7602 bytes. FIFO stays open until it ends.
#include <fcntl.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static void *volatile block;

static int spawn(char *program, char *size) {
    char *arguments[] = {program, "leaf", size, NULL};
    pid_t child;
    int status;
    if (posix_spawn(&child, program, NULL, NULL, arguments, environ)) return 3;
    return waitpid(child, &status, 0) == child ? status : 4;
}

int main(int argc, char **argv) {
    if (!strcmp(argv[1], "leaf")) {
        for (int i = 0; i < 100; i++) block = malloc(strtoul(argv[2], NULL, 10));
        return 0;
    }
    block = malloc(7400);
    pid_t child = fork();
    if (child) return child < 0 || waitpid(child, NULL, 0) != child;
    setsid();
    if (fork()) _exit(0);
    umask(0);
    if (chdir("/")) return 1;
    for (int fd = 0; fd < 1024; fd++) close(fd);
    char byte;
    int fifo = open(argv[1], O_RDONLY | O_CLOEXEC);
    while (read(fifo, &byte, 1) > 0) {}
    for (int i = 0; i < 100; i++) block = malloc(7500);
    if (argc > 2 && (spawn(argv[0], "7601") || spawn(argv[0], "7602"))) return 5;
    return fifo == 0 ? 0 : 2;
}
