// descriptors WHAT: prints the numbers that the program's own files get when
//   low     no descriptor beyond 2 is allowed and all are closed,
//   child   all are closed, three files are opened, and a child starts its log where it cannot.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static void allocate(int count) {
    for (int i = 0; i < count; i++) {
        void *volatile block = malloc(3400);
        free(block);
    }
}

int main(int argc, char **argv) {
    int low = argc > 1 && !strcmp(argv[1], "low");
    allocate(10);
    if (low) {
        struct rlimit limit = {3, 3};
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    for (int fd = 0; fd < 1024; fd++) close(fd);
    // Enough for the log to be written out several times.
    allocate(5000);
    int numbers[3];
    char name[] = "own0";
    for (int i = 0; i < 3; i++) {
        name[3] = '0' + i;
        numbers[i] = open(name, O_CREAT | O_TRUNC | O_RDWR, 0600);
    }
    if (!low) {
        // The log of the child is to be created where there is a file in place of the folder.
        rename("out", "moved");
        close(open("out", O_CREAT | O_WRONLY, 0600));
        pid_t child = fork();
        if (child == 0) {
            allocate(1);
            _exit(0);
        }
        waitpid(child, NULL, 0);
    }
    dprintf(0, "%d %d %d\n", numbers[0], numbers[1], numbers[2]);
    return 0;
}
