/* Forks argv[1] children one after another without waiting. Child number i allocates 8,000 + i
 * bytes a hundred times and frees them; the parent allocates 7,000 bytes before each fork. Prints
 * each child's process ID. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    int children = argc > 1 ? atoi(argv[1]) : 10;
    for (int i = 0; i < children; i++) {
        volatile char *mine = malloc(7000);
        mine[0] = 1;
        pid_t child = fork();
        if (child == 0) {
            for (int n = 0; n < 100; n++) {
                volatile char *block = malloc(8000 + i);
                block[0] = 1;
                free((void *)block);
            }
            exit(0);
        }
        dprintf(1, "%d\n", (int)child);
    }
    int failed = 0, status;
    while (wait(&status) > 0)
        failed |= status;
    return failed != 0;
}
