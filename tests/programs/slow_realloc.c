/* realloc to 77,777 bytes calls is_in_realloc() of the program first. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>

void is_in_realloc(void);

void *realloc(void *block, size_t size)
{
    static void *(*real)(void *, size_t);
    if (!real)
        real = (void *(*)(void *, size_t))dlsym(RTLD_NEXT, "realloc");
    if (size == 77777)
        is_in_realloc();
    return real(block, size);
}
