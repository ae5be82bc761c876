/* A handler that interrupts allocations leaves them by siglongjmp, argv[1] times: hooks that never come
 * to their end. Correct only with signal_safe_malloc.c preloaded. Each jump may cost a block that is
 * not counted (90,001 bytes); then main() makes 1,000 of 90,000 bytes in peace. Prints the jumps, too. */
#define _GNU_SOURCE
#include "counts.h"
#include <setjmp.h>
#include <signal.h>
#include <sys/time.h>

static sigjmp_buf before;
static volatile sig_atomic_t may_jump;

static void handler(int signal)
{
    (void)signal;
    if (may_jump)
        siglongjmp(before, 1);
}

__attribute__((noinline)) static void in_a_loop(int depth)
{
    volatile char frame[16];
    frame[0] = 1;
    if (depth > 0)
        in_a_loop(depth - 1);
    for (;;)
        end(make(1), 1);
}

int main(int argc, char **argv)
{
    volatile int wanted = argc > 1 ? atoi(argv[1]) : 100, jumps = 0;
    struct sigaction action = {.sa_handler = handler};
    sigaction(SIGALRM, &action, NULL);
    while (jumps < wanted) {
        if (sigsetjmp(before, 1)) {
            may_jump = 0;
            jumps++;
            for (int i = 0; i < 5; i++)
                end(make(0), 0);
        } else {
            struct itimerval soon = {{0, 0}, {0, 30 + jumps % 50}};
            may_jump = 1;
            setitimer(ITIMER_REAL, &soon, NULL);
            in_a_loop(jumps % 10);
        }
    }
    for (int i = 0; i < 1000; i++)
        end(make(2), 2);
    dprintf(1, "%d jumps\n", jumps);
    print_counts();
    return 0;
}
