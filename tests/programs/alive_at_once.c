/* argv[1] threads alive at once on stacks of argv[2] KiB. Each keeps a block of its own while the
 * others make theirs, and frees the one of the thread before it. With argv[3], the process kills itself
 * while all are alive. */
#include "counts.h"
#include <pthread.h>
#include <signal.h>

static pthread_barrier_t all;
static void **blocks;
static int count, is_killed;

static void *work(void *argument)
{
    int self = (int)(long)argument, before = (self + count - 1) % count;
    for (int round = 0; round < 3; round++) {
        blocks[self] = make(round);
        pthread_barrier_wait(&all);
        end(blocks[before], round);
        pthread_barrier_wait(&all);
    }
    if (is_killed && self == 0) {
        print_counts();
        raise(SIGKILL);
    }
    if (is_killed)
        pthread_barrier_wait(&all); /* for ever */
    return NULL;
}

int main(int argc, char **argv)
{
    if (argc < 3)
        return 2;
    count = atoi(argv[1]);
    is_killed = argc > 3;
    blocks = calloc(count, sizeof *blocks);
    pthread_t *threads = calloc(count, sizeof *threads);
    pthread_barrier_init(&all, NULL, count);
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    if (pthread_attr_setstacksize(&attributes, atol(argv[2]) << 10))
        return 3;
    for (long i = 0; i < count; i++)
        if (pthread_create(&threads[i], &attributes, work, (void *)i))
            _Exit(77); /* the machine has no room for so many */
    for (int i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
    print_counts();
    return 0;
}
