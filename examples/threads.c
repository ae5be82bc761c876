/* Four threads hand blocks to each other: each frees what its neighbour allocated, and each leaks
 * one block of its own (1,000 bytes and its number).
 *
 *   cc -g -Wall -Wextra -pthread -o threads examples/threads.c
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

enum { THREADS = 4, ROUNDS = 10000 };

static _Atomic(void *) mailbox[THREADS];
static void *kept[THREADS];

static void *work(void *argument)
{
    size_t self = (size_t)argument;
    for (int round = 0; round < ROUNDS; round++) {
        void *letter = malloc(16 + round % 500);
        free(atomic_exchange(&mailbox[(self + 1) % THREADS], letter)); /* unread */
        free(atomic_exchange(&mailbox[self], NULL));                   /* read */
    }
    kept[self] = malloc(1000 + self); /* never freed */
    return NULL;
}

int main(void)
{
    pthread_t threads[THREADS];
    for (size_t i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, work, (void *)i);
    for (size_t i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    for (size_t i = 0; i < THREADS; i++)
        free(mailbox[i]);
    return kept[0] == NULL;
}
