/* Opens the plugin argv[1] with RTLD_DEEPBIND: its malloc is libc's own, past every preloaded library.
   Frees here what it allocated there, and the reverse; then takes libc's malloc by dlsym. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *function(void *handle, const char *name)
{
    void *found = dlsym(handle, name);
    if (!found) {
        fprintf(stderr, "%s\n", dlerror());
        exit(3);
    }
    return found;
}

int main(int argc, char **argv)
{
    void *plugin = argc > 1 ? dlopen(argv[1], RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND) : NULL;
    if (!plugin) {
        fprintf(stderr, "%s\n", dlerror());
        return 3;
    }
    char *(*make)(size_t);
    void (*give_back)(void *);
    void *(*libc_malloc)(size_t);
    void (*libc_free)(void *);
    void *symbol = function(plugin, "make");
    memcpy(&make, &symbol, sizeof make);
    symbol = function(plugin, "give_back");
    memcpy(&give_back, &symbol, sizeof give_back);
    void *libc = dlopen("libc.so.6", RTLD_NOW);
    symbol = function(libc, "malloc");
    memcpy(&libc_malloc, &symbol, sizeof libc_malloc);
    symbol = function(libc, "free");
    memcpy(&libc_free, &symbol, sizeof libc_free);

    for (int i = 0; i < 5; ++i) {
        free(make(6001));            /* never seen, freed here */
        give_back(malloc(6002));     /* seen, its end is not */
        free(libc_malloc(6003));
        libc_free(malloc(6004));
        free(malloc(6005));
        char *grown = realloc(make(6006), 7006);
        grown[7005] = 1;
        free(grown);
    }
    void *(*next_malloc)(size_t);
    symbol = function(RTLD_NEXT, "malloc"); /* of what comes behind the program: the hook, if any */
    memcpy(&next_malloc, &symbol, sizeof next_malloc);
    free(next_malloc(6007));
    puts("went on");
    return 0;
}
