/* Twenty detached threads hold blocks and wait for ever when main() returns. */
#include "counts.h"
#include <pthread.h>
#include <semaphore.h>
#include <unistd.h>

static sem_t ready;

static void *work(void *unused)
{
    end(make(1), 1);
    void *kept = make(2);
    __asm__ volatile("" : "+r"(kept));
    sem_post(&ready);
    for (;;)
        pause();
    return unused;
}

int main(void)
{
    sem_init(&ready, 0, 0);
    for (int i = 0; i < 20; i++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, work, NULL))
            return 1;
        pthread_detach(thread);
    }
    for (int i = 0; i < 20; i++)
        sem_wait(&ready);
    print_counts();
    return 5;
}
