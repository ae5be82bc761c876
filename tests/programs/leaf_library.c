/* A shared library that leaks on behalf of its caller (with_library.c). */
#include <stdlib.h>

char *library_leak(size_t size);

char *library_leak(size_t size)
{
    return malloc(size); /* the library's leaks */
}
