/* Opens each plugin given to it, lets it leak, closes it, and does so again: the next plugin is
 * often loaded where the one before it was.
 *
 *   cd examples/plugins && cc -g -Wall -Wextra -fPIC -shared -o red.so red.c && cc -g -Wall -Wextra -fPIC -shared -o blue.so blue.c && cc -g -Wall -Wextra -o host host.c
 *
 *   ./host ./red.so ./blue.so
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
    for (int round = 0; round < 3; round++) {
        for (int i = 1; i < argc; i++) {
            void *handle = dlopen(argv[i], RTLD_NOW | RTLD_LOCAL);
            if (!handle) {
                fprintf(stderr, "%s\n", dlerror());
                return 1;
            }
            void *symbol = dlsym(handle, "plugin_work");
            void *(*work)(void);
            memcpy(&work, &symbol, sizeof work);

            Dl_info info;
            dladdr(symbol, &info);
            printf("%s at %p leaks %p\n", argv[i], info.dli_fbase, work());

            dlclose(handle);
        }
    }
    return 0;
}
