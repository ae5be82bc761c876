/* Recurses argv[1..] frames deep and allocates 30,000 bytes there, 30,001 at the next depth, and so
 * on. */
#include <stdlib.h>

static size_t size = 30000;

__attribute__((noinline, noclone)) static int descend(long depth)
{
    volatile char *block = NULL;
    int result = 0;
    if (depth > 0) {
        result = descend(depth - 1) + 1;
    } else {
        block = malloc(size);
        block[0] = 1;
        free((void *)block);
    }
    __asm__ volatile("");
    return result;
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++, size++)
        if (descend(atol(argv[i])) != atol(argv[i]))
            return 1;
    return 0;
}
