/* Works under a limit of the address space (RLIMIT_AS) that leaves argv[1] KiB: threads come and go,
 * allocations fail and set errno. The last line depends on
 * how much the limit leaves: glibc changes errno where it had to look for another arena. */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

static size_t address_space(void)
{
    size_t pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (!file || fscanf(file, "%zu", &pages) != 1)
        exit(2);
    fclose(file);
    return pages * 4096;
}

static void *work(void *failures)
{
    for (int i = 0; i < 200; i++) {
        errno = 77;
        char *block = malloc(100 + i);
        if (block)
            block[0] = 1;
        if ((block && errno != 77) || (!block && errno != ENOMEM))
            ++*(int *)failures;
        free(block);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    struct rlimit limit;
    getrlimit(RLIMIT_AS, &limit);
    limit.rlim_cur = address_space() + (argc > 1 ? strtoul(argv[1], NULL, 10) << 10 : 0);
    if (setrlimit(RLIMIT_AS, &limit))
        return 3;
    int failures = 0;
    work(&failures);
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 64 << 10);
    for (int i = 0; i < 50; i++) {
        pthread_t thread;
        if (!pthread_create(&thread, &attributes, work, &failures))
            pthread_join(thread, NULL);
    }
    errno = 77;
    volatile size_t much = (size_t)1 << 40;
    char *block = malloc(much);
    printf("much: %s, errno %d\n", block ? "a block" : "NULL", errno);
    printf("%d failures\n", failures);
    return 0;
}
