/* late_block [limited] [ANYTHING]: a thread is in realloc (slow_realloc.c) while others' lines go on for
 * some blocks of the log. Then no file may be written to for a while, if it is `limited`, and the thread
 * goes on: the block that its line is in is the first that cannot be written, and what follows it is there.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

enum { EVENTS = 3000 };

static pthread_barrier_t barrier;

/* Called in realloc. */
void is_in_realloc(void)
{
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
}

static void allocate(void)
{
    for (int i = 0; i < EVENTS; i++) {
        volatile char *block = malloc(1000 + i);
        block[0] = 1;
        free((void *)block);
    }
}

static void *work(void *block)
{
    block = realloc(block, 77777);
    free(block);
    return NULL;
}

static void limit(rlim_t bytes)
{
    struct rlimit new = { bytes, RLIM_INFINITY };
    if (setrlimit(RLIMIT_FSIZE, &new))
        abort();
}

int main(int argc, char **argv)
{
    pthread_t thread;
    pthread_barrier_init(&barrier, NULL, 2);
    if (pthread_create(&thread, NULL, work, malloc(100)))
        return 2;
    pthread_barrier_wait(&barrier);
    allocate();
    if (argc > 1 && !strcmp(argv[1], "limited"))
        limit(0);
    pthread_barrier_wait(&barrier);
    pthread_join(thread, NULL);
    allocate();
    limit(RLIM_INFINITY);
    return 0;
}
