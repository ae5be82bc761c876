/* goes_on_after_a_pause COUNT: allocates COUNT blocks and frees each a while later, says so, waits until
 * its stdin ends, and does it once more: frees of before the pause stand behind it. */
#include <stdlib.h>
#include <unistd.h>

static void *volatile kept[8];

static void allocate(long count)
{
    for (long i = 0; i < count; i++) {
        free(kept[i % 8]);
        kept[i % 8] = malloc(4343);
    }
}

int main(int argc, char **argv)
{
    long count = argc > 1 ? atol(argv[1]) : 1000;
    char byte;
    allocate(count);
    (void)!write(1, "ready\n", 6);
    while (read(0, &byte, 1) > 0) { }
    allocate(count);
    return 0;
}
