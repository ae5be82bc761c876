/* A library that allocates in its constructor (90,010 bytes, a hundred times, and 90,011 bytes once) and
 * in its destructor, which frees what is left. It counts for early_program.c. */
#include "counts.h"

static void *kept;

__attribute__((constructor)) static void begin(void)
{
    for (int i = 0; i < 100; i++)
        end(make(10), 10);
    kept = make(11);
}

__attribute__((destructor)) static void finish(void)
{
    end(make(12), 12);
    end(kept, 11);
    print_counts();
}
