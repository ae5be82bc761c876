/* Opens the plugin argv[1] in a namespace of its own: with a libc of its own, and without what was
   preloaded. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv)
{
    void *plugin = argc > 1 ? dlmopen(LM_ID_NEWLM, argv[1], RTLD_NOW | RTLD_LOCAL) : NULL;
    void *symbols[2] = { NULL, NULL };
    if (plugin) {
        symbols[0] = dlsym(plugin, "make");
        symbols[1] = dlsym(plugin, "give_back");
    }
    if (!symbols[0] || !symbols[1]) {
        fprintf(stderr, "%s\n", dlerror());
        return 3;
    }
    char *(*make)(size_t);
    void (*give_back)(void *);
    memcpy(&make, &symbols[0], sizeof make);
    memcpy(&give_back, &symbols[1], sizeof give_back);
    for (int i = 0; i < 10; ++i) {
        give_back(make(6100));
        free(malloc(6101));
    }
    dlclose(plugin);
    puts("went on");
    return 0;
}
