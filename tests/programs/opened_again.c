/* Opens the plugins argv[2] and argv[3] in turn, argv[1] times, and closes each before the next: they
 * land at the same address. Each allocates its own size (opened_plugin.c) and what it keeps is freed
 * here. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv)
{
    if (argc < 4)
        return 2;
    void *places[2] = {NULL, NULL};
    for (int i = 0; i < atoi(argv[1]); i++) {
        void *plugin = dlopen(argv[2 + i % 2], RTLD_NOW);
        void *symbol = plugin ? dlsym(plugin, "make") : NULL;
        if (!symbol)
            return 3;
        void *(*make)(void);
        memcpy(&make, &symbol, sizeof make);
        void *block = make();
        places[i % 2] = symbol;
        dlclose(plugin);
        free(block);
    }
    puts("done");
    return places[0] == places[1] ? 0 : 5;
}
