/* A plugin that allocates, and calls back into the program (stacks.c). */
#include "stacks.h"

void plugin_run(struct seen *place, void (*back)(int));

__attribute__((noinline)) static void deeper(int depth, void (*back)(int))
{
    ALLOCATE();
    if (depth > 0)
        deeper(depth - 1, back);
    back(depth);
}

void plugin_run(struct seen *place, void (*back)(int))
{
    seen = place;
    ALLOCATE();
    deeper(4, back);
}
