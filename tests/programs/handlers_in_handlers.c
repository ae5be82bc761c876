/* Three timers whose handlers interrupt each other, a hook, and main(), and allocate all of them:
 * correct only with signal_safe_malloc.c preloaded. argv[1] signals of each, as often as every
 * 70 us. With argv[2] they run on an alternate stack. */
#define _GNU_SOURCE
#include "counts.h"
#include <signal.h>
#include <stdatomic.h>
#include <sys/time.h>
#include <unistd.h>

static const int signals[3] = {SIGALRM, SIGVTALRM, SIGPROF};
static const int timers[3] = {ITIMER_REAL, ITIMER_VIRTUAL, ITIMER_PROF};
static atomic_ulong handled[3];
static char alternate[1 << 18];
static int is_alternate;

static void handler(int signal)
{
    int n = signal == signals[0] ? 0 : signal == signals[1] ? 1 : 2;
    handled[n]++;
    char here;
    if (is_alternate != (&here >= alternate && &here < alternate + sizeof alternate))
        _exit(3);
    void *first = make(1 + n), *second = make(4 + n);
    end(first, 1 + n);
    if (n < 2 && handled[n] % 4 == 0)
        raise(signals[n + 1]);
    end(second, 4 + n);
}

int main(int argc, char **argv)
{
    unsigned long wanted = argc > 1 ? strtoul(argv[1], NULL, 10) : 100;
    struct itimerval often = {{0, 70}, {0, 70}}, never = {{0, 0}, {0, 0}};
    int flags = SA_RESTART;
    if (argc > 2) {
        stack_t stack = {.ss_sp = alternate, .ss_size = sizeof alternate};
        if (sigaltstack(&stack, NULL) != 0)
            return 2;
        flags |= SA_ONSTACK;
        is_alternate = 1;
    }
    for (int i = 0; i < 3; i++) {
        struct sigaction action = {.sa_handler = handler, .sa_flags = flags};
        sigaction(signals[i], &action, NULL);
        setitimer(timers[i], &often, NULL);
    }
    while (handled[0] < wanted || handled[1] < wanted || handled[2] < wanted)
        end(make(0), 0);
    for (int i = 0; i < 3; i++) {
        setitimer(timers[i], &never, NULL);
        signal(signals[i], SIG_IGN);
    }
    print_counts();
    return 0;
}
