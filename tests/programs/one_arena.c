/* Four threads on one arena hand blocks to each other: malloc, realloc and free of 2,000 to 4,000
 * bytes (too large for the thread cache, so that an address passes from thread to thread at once),
 * argv[1] steps per thread. Prints how many calls of each it made. */
#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { THREADS = 4, SLOTS = 64 };

static _Atomic(void *) slots[SLOTS];
static long steps;

struct calls {
    unsigned long allocations, frees, reallocations;
};

static uint64_t next(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static void *work(void *argument)
{
    struct calls *calls = argument, count = {0, 0, 0};
    uint64_t state = 0x9e3779b97f4a7c15u ^ (uintptr_t)argument;
    for (long i = 0; i < steps; i++) {
        uint64_t random = next(&state);
        size_t size = 2000 + random % 2000;
        _Atomic(void *) *slot = &slots[(random >> 32) % SLOTS];
        if (random >> 60 == 0) { /* one step in 16 */
            void *taken = atomic_exchange(slot, NULL);
            if (taken) {
                taken = realloc(taken, size);
                count.reallocations++;
            }
            taken = atomic_exchange(slot, taken);
            count.frees += taken != NULL;
            free(taken);
        } else {
            void *block = malloc(size);
            count.allocations++;
            block = atomic_exchange(slot, block);
            count.frees += block != NULL;
            free(block);
        }
    }
    *calls = count;
    return NULL;
}

int main(int argc, char **argv)
{
    mallopt(M_ARENA_MAX, 1);
    steps = argc > 1 ? atol(argv[1]) : 1000;
    pthread_t threads[THREADS];
    struct calls calls[THREADS], all = {0, 0, 0};
    for (int i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, work, &calls[i]);
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        all.allocations += calls[i].allocations;
        all.frees += calls[i].frees;
        all.reallocations += calls[i].reallocations;
    }
    for (int i = 0; i < SLOTS; i++) {
        all.frees += slots[i] != NULL;
        free(slots[i]);
    }
    printf("%lu %lu %lu\n", all.allocations, all.frees, all.reallocations);
    return 0;
}
