/* 64 threads start and allocate while main() lowers the limit of the address space (RLIMIT_AS) to what
 * is in use and argv[1] KiB. Each checks what it gets; prints the number of blocks of 6,161 bytes made
 * and freed, and of results that are wrong. */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

enum { THREADS = 64, ROUNDS = 400, HELD = 4, SIZE = 6161 };

static atomic_long made, freed, wrong, at_work;
static atomic_int is_limited;

static size_t address_space(void)
{
    size_t pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (!file || fscanf(file, "%zu", &pages) != 1)
        exit(2);
    fclose(file);
    return pages * 4096;
}

static void *work(void *argument)
{
    unsigned char *held[HELD] = {0}, mark = (long)argument;
    at_work++;
    for (int i = 0; i < ROUNDS; i++) {
        unsigned char **place = &held[i % HELD];
        if (*place) {
            wrong += (*place)[0] != mark || (*place)[SIZE - 1] != mark;
            free(*place);
            freed++;
        }
        errno = 0;
        *place = malloc(SIZE);
        if (*place) {
            memset(*place, mark, SIZE);
            made++;
        } else {
            wrong += errno != ENOMEM;
        }
        // The first threads are in the middle when the limit comes.
        while (i == ROUNDS / 2 && !is_limited)
            sched_yield();
    }
    for (int i = 0; i < HELD; i++) {
        freed += held[i] != NULL;
        free(held[i]);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    pthread_t threads[THREADS];
    int is_there[THREADS] = {0};
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 64 << 10);
    for (long i = 0; i < THREADS; i++) {
        is_there[i] = !pthread_create(&threads[i], &attributes, work, (void *)i);
        if (i != THREADS / 2)
            continue;
        // Half of them are there, at work or about to begin.
        struct rlimit limit;
        getrlimit(RLIMIT_AS, &limit);
        limit.rlim_cur = address_space() + (argc > 1 ? strtoul(argv[1], NULL, 10) << 10 : 0);
        if (setrlimit(RLIMIT_AS, &limit))
            return 3;
        is_limited = 1;
    }
    for (int i = 0; i < THREADS; i++)
        if (is_there[i])
            pthread_join(threads[i], NULL);
    printf("%ld %ld %ld\n", made, freed, wrong);
    return 0;
}
