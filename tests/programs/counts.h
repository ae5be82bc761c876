/* Blocks that a program counts itself: make(n) allocates 90,000 + n bytes, end(block, n) frees such a
 * block, print_counts() prints a line `SIZE ALLOCATED FREED` for each n that was used. */
#include <stdio.h>
#include <stdlib.h>

enum { FIRST_SIZE = 90000, SIZES = 64 };

static unsigned long made[SIZES], ended[SIZES];

__attribute__((unused)) static void *make(int n)
{
    volatile char *block = (volatile char *)malloc(FIRST_SIZE + n);
    if (!block)
        abort();
    block[0] = 1;
    __atomic_fetch_add(&made[n], 1, __ATOMIC_RELAXED);
    return (void *)block;
}

__attribute__((unused)) static void end(void *block, int n)
{
    if (!block)
        return;
    free(block);
    __atomic_fetch_add(&ended[n], 1, __ATOMIC_RELAXED);
}

__attribute__((unused)) static void print_counts(void)
{
    for (int n = 0; n < SIZES; n++)
        if (made[n] || ended[n])
            dprintf(1, "%d %lu %lu\n", FIRST_SIZE + n, made[n], ended[n]);
}
