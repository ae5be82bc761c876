// many COUNT [stay]: allocates and frees COUNT blocks of 4242 bytes; with `stay` says so and waits
// until its stdin ends.
#include <stdlib.h>
#include <unistd.h>

int main(int argc, char **argv) {
    for (long i = argc > 1 ? atol(argv[1]) : 0; i > 0; i--) {
        void *volatile block = malloc(4242);
        free(block);
    }
    if (argc > 2) {
        char byte;
        (void)!write(1, "ready\n", 6);
        while (read(0, &byte, 1) > 0) {}
    }
    return 0;
}
