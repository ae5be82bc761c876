/* Has its peak 0.3 s after its start by the clock: one block of argv[1] bytes, or more of them if that
 * is small, together 1,000,000 bytes. Then it waits for another 0.3 s and ends as argv[2] says: by
 * return, or by SIGKILL. Prints when the peak was and when it ended, in nanoseconds since it began. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { ALL = 1000000, MOST = 64 };

static long long now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static void wait_until(long long end)
{
    while (now() < end)
        ;
}

int main(int argc, char **argv)
{
    if (argc < 3)
        return 2;
    long long begin = now();
    size_t size = strtoul(argv[1], NULL, 10);
    /* More than there can be without a stamp. */
    for (int i = 0; i < 200; i++)
        free(malloc(100));
    wait_until(begin + 300000000);
    char *blocks[MOST];
    int count = ALL / size < MOST ? ALL / size : MOST;
    for (int i = 0; i < count; i++)
        blocks[i] = memset(malloc(size), 1, size);
    long long peak = now() - begin;
    for (int i = 0; i < count; i++)
        free(blocks[i]);
    wait_until(begin + 600000000);
    free(malloc(100));
    dprintf(1, "%lld %lld\n", peak, now() - begin);
    if (!strcmp(argv[2], "kill"))
        raise(SIGKILL);
    return 0;
}
