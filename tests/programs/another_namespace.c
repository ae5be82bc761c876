/* Opens the plugin argv[1] 20 times in a namespace of its own, with a libc of its own: its blocks are
 * none of ours, and its code lies where the next one's will. */
#define _GNU_SOURCE
#include "counts.h"
#include <dlfcn.h>
#include <string.h>

int main(int argc, char **argv)
{
    for (int i = 0; argc > 1 && i < 20; i++) {
        void *plugin = dlmopen(LM_ID_NEWLM, argv[1], RTLD_NOW | RTLD_LOCAL);
        void *symbol = plugin ? dlsym(plugin, "make") : NULL;
        if (!symbol)
            return 3;
        void *(*other_make)(void);
        memcpy(&other_make, &symbol, sizeof other_make);
        void *volatile block = other_make();
        if (!block)
            return 4;
        end(make(0), 0);
        dlclose(plugin);
        end(make(1), 1);
    }
    print_counts();
    return 0;
}
