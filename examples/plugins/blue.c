/* A plugin. It has the same functions as red.c and another leak; see host.c. */
#include <stdlib.h>
#include <string.h>

void *plugin_work(void);

/* Filled, so that it is not the code of red.c. */
static void *make(size_t size)
{
    void *block = calloc(1, size); /* blue: 222 bytes, never freed */
    if (block)
        memset(block, 'b', size);
    return block;
}

void *plugin_work(void)
{
    return make(222);
}
