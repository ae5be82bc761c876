/* argv[1] threads are cancelled at any moment of their allocations, hooks included. To be run with
 * signal_safe_malloc.c preloaded, which keeps the cancellation out of the allocator itself. What they
 * were doing is not known, so they have a size of their own (90,001) and each may have made one block
 * that it did not count; then main() makes 1,000 blocks of 90,000 bytes. */
#include "counts.h"
#include <pthread.h>
#include <stdatomic.h>
#include <sched.h>

static atomic_ulong steps;

static void *work(void *unused)
{
    pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL);
    for (;;) {
        end(make(1), 1);
        steps++;
    }
    return unused;
}

int main(int argc, char **argv)
{
    for (int i = argc > 1 ? atoi(argv[1]) : 10; i > 0; i--) {
        pthread_t thread;
        void *result;
        unsigned long before = steps;
        if (pthread_create(&thread, NULL, work, NULL))
            return 1;
        while (steps - before < 10 + (unsigned)i % 7)
            sched_yield();
        pthread_cancel(thread);
        pthread_join(thread, &result);
        if (result != PTHREAD_CANCELED)
            return 2;
        for (int n = 0; n < 5; n++)
            end(make(0), 0);
    }
    print_counts();
    return 0;
}
