/* A function with an internal name, which the debug information has, and two that are exported. */
#include <stdlib.h>

void *__GI___make_block(void);
extern void *__make_block(void) __attribute__((alias("__GI___make_block")));
extern void *make_block(void) __attribute__((alias("__GI___make_block")));

__attribute__((visibility("hidden"))) void *__GI___make_block(void)
{
    return malloc(7777);
}

int main(void)
{
    return make_block() == NULL;
}
