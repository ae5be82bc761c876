/* Requests at the edges: prints results and errno, which the library must not change. Addresses are
   printed as what is promised of them. */
#define _GNU_SOURCE
#include <errno.h>
#include <malloc.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#pragma GCC diagnostic ignored "-Wuse-after-free" /* a failed realloc leaves its block */

static volatile size_t huge = SIZE_MAX, half = SIZE_MAX / 2 + 2, most = PTRDIFF_MAX;

static void show(const char *what, void *block, size_t align)
{
    printf("%s: %s, aligned %d, usable %zu, errno %d\n", what, block ? "a block" : "NULL",
           block && align ? (uintptr_t)block % align == 0 : -1,
           block && align <= 4096 ? malloc_usable_size(block) : 0, errno);
    free(block);
    errno = 77;
}

int main(void)
{
    errno = 77;
    printf("usable of NULL: %zu\n", malloc_usable_size(NULL));
    for (size_t size = 0; size < 200; size += 13)
        show("malloc", malloc(size), 16);
    show("malloc huge", malloc(huge), 0);
    show("malloc most", malloc(most), 0);
    show("calloc overflow", calloc(half, 2), 0);
    show("calloc zero", calloc(0, huge), 16);
    show("realloc NULL", realloc(NULL, 40), 16);
    show("reallocarray overflow", reallocarray(NULL, half, 2), 0);
    void *kept = malloc(60);
    void *volatile failed = realloc(kept, huge);
    printf("realloc huge: %s, errno %d\n", failed ? "a block" : "NULL", errno);
    errno = 77;
    failed = reallocarray(kept, half, 2);
    printf("reallocarray of a block: %s, errno %d\n", failed ? "a block" : "NULL", errno);
    errno = 77;
    failed = realloc(kept, 0);
    printf("realloc to 0: %s, errno %d\n", failed ? "a block" : "NULL", errno);
    free(failed);
    errno = 77;
    const size_t alignments[] = { 0, 1, 2, 3, 8, 16, 24, 64, 4096, 1 << 20, (size_t)1 << 62,
                                  (size_t)1 << 63, SIZE_MAX };
    for (size_t i = 0; i < sizeof alignments / sizeof *alignments; ++i) {
        volatile size_t align = alignments[i];
        size_t promised = align & (align - 1) ? 16 : align; /* of one that is no power of two */
        printf("alignment %zu\n", align);
        show("memalign", memalign(align, 100), promised);
        show("aligned_alloc", aligned_alloc(align, 100), promised);
        void *block = (void *)7;
        int result = posix_memalign(&block, align, 100);
        printf("posix_memalign: %d\n", result);
        if (result)
            printf("left %s\n", block == (void *)7 ? "alone" : "changed");
        else
            show("its block", block, promised);
        block = (void *)7;
        printf("posix_memalign huge: %d, errno %d\n", posix_memalign(&block, align, huge), errno);
        show("memalign huge", memalign(align, most), 0);
        show("aligned_alloc huge", aligned_alloc(align, huge), 0);
    }
    show("valloc", valloc(100), 4096);
    show("valloc huge", valloc(huge), 0);
    show("pvalloc", pvalloc(100), 4096);
    show("pvalloc huge", pvalloc(huge), 0);
    errno = 77;
    free(malloc(10));
    free(NULL);
    printf("errno behind free: %d\n", errno);
    return 0;
}
