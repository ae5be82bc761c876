/* A plugin. It has the same functions as blue.c and another leak; see host.c. */
#include <stdlib.h>

void *plugin_work(void);

static void *make(size_t size)
{
    return malloc(size); /* red: 111 bytes, never freed */
}

void *plugin_work(void)
{
    free(make(50));
    return make(111);
}
