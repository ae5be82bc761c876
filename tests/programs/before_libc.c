// before_libc: allocates 7,800 bytes before libc has been initialized, as the runtimes of sanitizers
// do, and 7,801 in main.
#include <stdlib.h>

static void *volatile early, *volatile late;

static void before(void) { early = malloc(7800); }

__attribute__((section(".preinit_array"), used)) static void (*const entry)(void) = before;

int main(void) {
    late = malloc(7801);
    free(early);
    return 0;
}
