/* The order of events, certain: threads pass blocks to each other, and each operation takes a ticket
 * while it has the block in hand, so that the tickets are the order in which the operations on an
 * address were. The allocator is own_blocks.c, which hands each block out again at once.
 *
 * argv[1] threads, argv[2] steps of each, argv[3]: the file for the operations in the order of their
 * tickets, two words of 8 bytes each: address, then TID << 32 and the size (0 for a free). A block that
 * is alive is in one of few slots, from which any thread takes it. Prints the number of tickets. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { SLOTS = 6, FIRST_SIZE = 5000, SIZES = 64 };

static _Atomic(void *) slots[SLOTS];
static atomic_ulong tickets;
static uint64_t (*notes)[2];
static long steps;

static __thread uint64_t thread;

static void note(void *block, size_t size)
{
    uint64_t *place = notes[atomic_fetch_add(&tickets, 1)];
    place[0] = (uintptr_t)block;
    place[1] = thread << 32 | size;
}

static void release(void *block)
{
    if (!block)
        return;
    note(block, 0);
    free(block);
}

static void *allocate(uint64_t random)
{
    size_t size = FIRST_SIZE + random % SIZES;
    void *block = malloc(size);
    if (!block)
        abort();
    note(block, size);
    return block;
}

static void *work(void *argument)
{
    uint64_t random = 0x9e3779b97f4a7c15u * ((uintptr_t)argument + 1);
    thread = gettid();
    for (long i = 0; i < steps; i++) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        _Atomic(void *) *slot = &slots[(random >> 32) % SLOTS];
        switch (random >> 60) {
        case 0: /* lets others go first */
            release(atomic_exchange(slot, NULL));
            sched_yield();
            break;
        case 1:
        case 2:
        case 3:
            release(atomic_exchange(slot, NULL));
            break;
        case 4: { /* freed and made again by the same thread, at once */
            void *block = allocate(random);
            release(block);
            break;
        }
        default:
            release(atomic_exchange(slot, allocate(random)));
        }
    }
    return NULL;
}

int main(int argc, char **argv)
{
    if (argc < 4)
        return 2;
    long count = atol(argv[1]);
    steps = atol(argv[2]);
    size_t size = (size_t)(count * steps * 2 + 64) * sizeof *notes;
    int fd = open(argv[3], O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (ftruncate(fd, size))
        return 3;
    notes = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (notes == MAP_FAILED)
        return 4;
    pthread_t threads[64];
    for (long i = 0; i < count; i++)
        pthread_create(&threads[i], NULL, work, (void *)i);
    for (long i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
    thread = gettid();
    for (int i = 0; i < SLOTS; i++)
        release(slots[i]);
    printf("%lu\n", (unsigned long)tickets);
    return 0;
}
