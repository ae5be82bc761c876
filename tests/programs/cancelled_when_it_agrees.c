/* argv[1] threads are cancelled (deferred) between their allocations; a handler frees what they have
 * in hand. */
#include "counts.h"
#include <pthread.h>
#include <semaphore.h>

static sem_t ready;

static void clean_up(void *block)
{
    end(block, 1);
    end(make(2), 2);
}

static void *work(void *unused)
{
    void *block = make(1);
    pthread_cleanup_push(clean_up, block);
    sem_post(&ready);
    for (;;) {
        void *other = malloc(100);
        __asm__ volatile("" : "+r"(other));
        free(other);
        pthread_testcancel();
    }
    pthread_cleanup_pop(0);
    return unused;
}

int main(int argc, char **argv)
{
    sem_init(&ready, 0, 0);
    for (int i = argc > 1 ? atoi(argv[1]) : 10; i > 0; i--) {
        pthread_t thread;
        void *result;
        if (pthread_create(&thread, NULL, work, NULL))
            return 1;
        sem_wait(&ready);
        pthread_cancel(thread);
        pthread_join(thread, &result);
        if (result != PTHREAD_CANCELED)
            return 2;
        end(make(0), 0);
    }
    print_counts();
    return 0;
}
