/* A thread with a cancellation pending allocates 7,700 bytes and frees them, 20,000 times: neither
 * malloc nor free is a cancellation point, so it gets through all of them before it reaches
 * pthread_testcancel(). Then main() does the same, as a lock left behind would stop it. */
#include <pthread.h>
#include <stdatomic.h>
#include <sched.h>
#include <stdlib.h>

enum { PAIRS = 20000 };
static atomic_int running, cancelled, done;

static void pairs(void)
{
    for (int i = 0; i < PAIRS; i++) {
        volatile char *block = malloc(7700);
        block[0] = 1;
        free((void *)block);
        done++;
    }
}

static void *work(void *unused)
{
    running = 1;
    while (!cancelled)
        ;
    pairs();
    pthread_testcancel();
    return unused;
}

int main(void)
{
    pthread_t thread;
    pthread_create(&thread, NULL, work, NULL);
    while (!running)
        sched_yield();
    pthread_cancel(thread);
    cancelled = 1;
    void *result;
    pthread_join(thread, &result);
    if (result != PTHREAD_CANCELED)
        return 1;
    if (done != PAIRS)
        return 2;
    pairs();
    return 0;
}
