/* Opens the plugin argv[1] (opened_plugin.c), lets it allocate, and leaves it open: its destructor runs
 * when the process exits. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv)
{
    void *plugin = argc > 1 ? dlopen(argv[1], RTLD_NOW) : NULL;
    void *symbol = plugin ? dlsym(plugin, "make") : NULL;
    if (!symbol)
        return 3;
    void *(*make)(void);
    memcpy(&make, &symbol, sizeof make);
    free(make());
    puts("done");
    return 0;
}
