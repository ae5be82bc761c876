/* longjmp out of recursions of all depths, each frame of which allocates; what it jumped over is freed
 * later. */
#include "counts.h"
#include <setjmp.h>

static jmp_buf here;
static void *left[64];
static int count;

__attribute__((noinline)) static void deeper(int depth)
{
    volatile char frame[64];
    frame[0] = (char)depth;
    left[count++] = make(depth % 8);
    if (depth == 0)
        longjmp(here, 1);
    deeper(depth - 1);
    frame[1] = frame[0];
    end(left[0], 0);
}

int main(void)
{
    for (volatile int round = 0; round < 2000; round++) {
        count = 0;
        if (!setjmp(here))
            deeper(round % 60);
        for (int i = 0; i < count; i++)
            end(left[i], (round % 60 - i) % 8);
        end(make(9), 9);
    }
    print_counts();
    return 0;
}
