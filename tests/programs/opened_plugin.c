/* A plugin of opened_again.c: allocates SIZE bytes when asked, SIZE + 2 in its constructor, which its
 * destructor frees after an allocation of SIZE + 4. */
#include <stdlib.h>

static void *kept;

void *make(void)
{
    void *volatile block = malloc(SIZE);
    return block;
}

__attribute__((constructor)) static void begin(void)
{
    void *volatile block = malloc(SIZE + 2);
    kept = block;
}

__attribute__((destructor)) static void finish(void)
{
    void *volatile block = malloc(SIZE + 4);
    free(block);
    free(kept);
}
