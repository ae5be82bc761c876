/* Coroutines at one place of memory that is unmapped, or mapped again smaller, between their events:
 * what was on a stack a moment ago must not be read from there. Main and the coroutines take turns, so
 * each stack is the last one when the next is taken. */
#define _GNU_SOURCE
#include "counts.h"
#include <sys/mman.h>
#include <ucontext.h>

enum { SIZE = 256 << 10 };

static ucontext_t of_main, of_coroutine;
static char *place;

__attribute__((noinline)) static void deeper(int depth, int n)
{
    volatile char frame[512];
    frame[0] = (char)depth;
    end(make(n), n);
    if (depth > 0)
        deeper(depth - 1, n);
    else
        swapcontext(&of_coroutine, &of_main); /* and never back */
    frame[1] = frame[0];
}

static void coroutine(int depth)
{
    end(make(1), 1);
    deeper(depth, 2 + depth % 2);
}

/* Runs a coroutine in `size` bytes from `from` on until it leaves. */
static void run(char *from, size_t size, int depth)
{
    if (mmap(from, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0)
        != from)
        abort();
    getcontext(&of_coroutine);
    of_coroutine.uc_stack.ss_sp = from;
    of_coroutine.uc_stack.ss_size = size;
    of_coroutine.uc_link = NULL;
    makecontext(&of_coroutine, (void (*)(void))coroutine, 1, depth);
    swapcontext(&of_main, &of_coroutine);
    munmap(from, size);
}

int main(void)
{
    place = mmap(NULL, SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (place == MAP_FAILED)
        return 1;
    for (int round = 0; round < 600; round++) {
        run(place, SIZE, round % 60);
        if (round % 3 == 0)
            end(make(0), 0);
        /* The lower half: the frames of before were above its end. */
        run(place, SIZE / 2, round % 60);
        run(place, SIZE, 60 + round % 60);
        run(place + SIZE / 4, SIZE / 4, round % 40);
        if (round % 2)
            end(make(0), 0);
    }
    print_counts();
    return 0;
}
