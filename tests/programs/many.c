// many COUNT [stay|again]: allocates and frees COUNT blocks of 4242 bytes; with `stay` says so and waits
// until its stdin ends; with `again` it then does all of it once more.
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void allocate(long count) {
    for (long i = count; i > 0; i--) {
        void *volatile block = malloc(4242);
        free(block);
    }
}

int main(int argc, char **argv) {
    if (argc < 2) return 1;
    allocate(atol(argv[1]));
    if (argc > 2) {
        char byte;
        (void)!write(1, "ready\n", 6);
        while (read(0, &byte, 1) > 0) {}
        if (!strcmp(argv[2], "again")) allocate(atol(argv[1]));
    }
    return 0;
}
