/* Allocates and frees for bypass_host.c. */
#include <stdlib.h>
#include <string.h>

char *make(size_t size)
{
    char *block = malloc(size);
    memset(block, 1, size);
    return block;
}

void give_back(void *block)
{
    free(block);
}
