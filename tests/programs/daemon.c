// daemon FIFO: becomes a daemon (forked twice, a session of its own, every descriptor closed, in
// the root folder), which allocates 100 blocks of 7500 bytes once somebody opens and closes FIFO.
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv) {
    void *volatile block = malloc(7400);
    (void)argc;
    pid_t child = fork();
    if (child) return child < 0 || waitpid(child, NULL, 0) != child;
    setsid();
    if (fork()) _exit(0);
    umask(0);
    if (chdir("/")) return 1;
    for (int fd = 0; fd < 1024; fd++) close(fd);
    char byte;
    int fifo = open(argv[1], O_RDONLY);
    while (read(fifo, &byte, 1) > 0) {}
    for (int i = 0; i < 100; i++) block = malloc(7500);
    (void)block;
    return fifo == 0 ? 0 : 2;
}
