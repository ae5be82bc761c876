/* Frees what must not be freed: argv[1] says what. glibc ends the process. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *volatile block; /* the compiler must not see what becomes of it */

__attribute__((noinline)) static void allocate(void)
{
    block = malloc(5000);
    memset(block, 0, 5000);
}

__attribute__((noinline)) static void free_wrongly(char *address)
{
    free(address);
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    char local[64] = { 0 };
    char *volatile on_stack = local + 16;
    allocate();
    if (!strcmp(what, "twice")) {
        free_wrongly(block);
        free_wrongly(block);
    } else if (!strcmp(what, "inside")) {
        free_wrongly(block + 16);
    } else if (!strcmp(what, "stack")) {
        free_wrongly(on_stack);
    } else {
        free_wrongly(block);
    }
    puts("went on");
    return 0;
}
