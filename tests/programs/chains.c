/* Call chains of known functions: ROUNDS times, `one` calls `two`, that `three`, that `one` and so on,
 * DEPTH levels deep, and level n allocates FIRST_SIZE + n bytes. Built with PLUGIN it is a plugin that
 * does so. The program opens its arguments one after another, each when the last was closed, and has
 * them do it too, below its own `one`. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROUNDS = 20, DEPTH = 12, FIRST_SIZE = 20000 };
#ifndef ROOM
#define ROOM 24 /* of a frame: plugins that differ in it differ in their layout */
#endif
#define NOINLINE __attribute__((noinline, noclone))

static void (*at_end)(int level);

NOINLINE static void one(int level);
NOINLINE static void two(int level);
NOINLINE static void three(int level);

/* The frames differ, or two of the functions could become one. */
#define LEVEL(number, name, next)                                          \
    NOINLINE static void name(int level)                                   \
    {                                                                      \
        volatile char room[ROOM * number];                                 \
        room[0] = (char)level;                                             \
        void *block = malloc(FIRST_SIZE + level);                          \
        __asm__ volatile("" : "+r"(block) : : "memory");                   \
        free(block);                                                       \
        if (level + 1 < DEPTH)                                             \
            next(level + 1);                                               \
        else if (at_end)                                                   \
            at_end(level + 1);                                             \
        __asm__ volatile("" : : "r"(room[0]) : "memory");                  \
    }
LEVEL(1, one, two)
LEVEL(2, two, three)
LEVEL(3, three, one)

#ifdef PLUGIN
/* Rarely used code of different size, in front of what is used. */
#if ROOM > 100
#define UNUSED(n) void unused##n(int a, char *b) { while (a-- > n) b[a % 7] += a * n, puts(b); }
UNUSED(1) UNUSED(2) UNUSED(3) UNUSED(4) UNUSED(5) UNUSED(6) UNUSED(7) UNUSED(8)
#endif
void plugin_run(int level);
void plugin_run(int level)
{
    void *block = malloc(FIRST_SIZE + level);
    __asm__ volatile("" : "+r"(block) : : "memory");
    free(block);
    for (int round = 0; round < ROUNDS; round++)
        one(0);
    __asm__ volatile("" : : : "memory");
}
#else
int main(int argc, char **argv)
{
    for (int i = 1; i <= argc; i++) {
        void *plugin = NULL;
        if (i < argc) {
            plugin = dlopen(argv[i], RTLD_NOW);
            void *symbol = plugin ? dlsym(plugin, "plugin_run") : NULL;
            if (!symbol)
                return fprintf(stderr, "%s\n", dlerror()), 3;
            memcpy(&at_end, &symbol, sizeof at_end);
        }
        for (int round = 0; round < ROUNDS; round++)
            one(0);
        at_end = NULL;
        if (plugin)
            dlclose(plugin);
    }
    return 0;
}
#endif
