/* A C program (no C++ runtime in its global scope) that opens the plugin argv[1] RTLD_LOCAL. */
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
    void *handle = argc > 1 ? dlopen(argv[1], RTLD_NOW | RTLD_LOCAL) : NULL;
    void *symbol = handle ? dlsym(handle, "plugin_work") : NULL;
    if (!symbol) {
        fprintf(stderr, "%s\n", dlerror());
        return 3;
    }
    int (*work)(void);
    memcpy(&work, &symbol, sizeof work);
    return work();
}
