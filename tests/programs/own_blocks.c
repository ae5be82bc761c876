/* An allocator for tickets.c, preloaded behind libmtr.so: blocks of 5,000 to 5,063 bytes are those of a stack
 * without locks, the last one freed is the next one handed out, whatever the thread. All else is libc's.
 * At most 4,096 of them. */
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

void *__libc_malloc(size_t size);
void __libc_free(void *block);

enum { FIRST_SIZE = 5000, SIZES = 64, PLACE = 5072, PLACES = 4096 };

static _Alignas(16) char memory[PLACES][PLACE];
static _Atomic uint16_t next[PLACES];
/* Number of the first free place, from 1; above it a count, so that no place is taken twice. */
static atomic_ulong first;
static atomic_ulong used;

void *malloc(size_t size)
{
    if (size < FIRST_SIZE || size >= FIRST_SIZE + SIZES)
        return __libc_malloc(size);
    unsigned long head = first;
    while (head & 0xffff) {
        unsigned long rest = (head & ~0xfffful) | next[(head & 0xffff) - 1];
        if (atomic_compare_exchange_weak(&first, &head, rest))
            return memory[(head & 0xffff) - 1];
    }
    unsigned long place = used++;
    return place < PLACES ? memory[place] : NULL;
}

void free(void *block)
{
    uintptr_t at = (uintptr_t)block - (uintptr_t)memory;
    if (at >= sizeof memory) {
        __libc_free(block);
        return;
    }
    unsigned long place = at / PLACE, head = first;
    do
        next[place] = head & 0xffff;
    while (!atomic_compare_exchange_weak(&first, &head,
                                         ((head & ~0xfffful) + 0x10000) | (place + 1)));
}
