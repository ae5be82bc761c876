/* Removes its own file before it allocates for the first time, and puts in its place what argv[1] says:
 * "nothing", "another" program, a "fifo". Allocates 20001 bytes. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

__attribute__((noinline, noclone)) static void inner(void)
{
    void *block = malloc(20001);
    __asm__ volatile("" : "+r"(block) : : "memory");
    free(block);
}

__attribute__((noinline, noclone)) static void outer(void)
{
    inner();
    __asm__ volatile("" : : : "memory");
}

int main(int argc, char **argv)
{
    if (argc < 2 || unlink(argv[0]))
        return 2;
    if (!strcmp(argv[1], "another") && symlink("/bin/sh", argv[0]))
        return 3;
    if (!strcmp(argv[1], "fifo") && mkfifo(argv[0], 0600))
        return 4;
    outer();
    return 0;
}
