// secure: prints whether the kernel says that this process has more rights than who started it, and
// allocates.
#include <stdio.h>
#include <stdlib.h>
#include <sys/auxv.h>

static void *volatile block;

int main(void) {
    block = malloc(7900);
    printf("secure: %lu\n", getauxval(AT_SECURE));
    return 0;
}
