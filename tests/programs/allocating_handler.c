/* A signal handler allocates (7,601 bytes) and frees while main() does (7,600 bytes); they also
 * free each other's blocks. Correct only with signal_safe_malloc.c preloaded. A timer sends the
 * signals, argv[1] of them. Prints how many blocks of each kind were allocated. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>

static _Atomic(void *) shared;
static atomic_ulong handled;

static void handler(int signal)
{
    (void)signal;
    free(atomic_exchange(&shared, malloc(7601)));
    atomic_fetch_add(&handled, 1);
}

int main(int argc, char **argv)
{
    unsigned long wanted = argc > 1 ? strtoul(argv[1], NULL, 10) : 100, own = 0;
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};
    sigaction(SIGALRM, &action, NULL);
    struct itimerval often = {{0, 50}, {0, 50}}, never = {{0, 0}, {0, 0}};
    setitimer(ITIMER_REAL, &often, NULL);
    while (atomic_load(&handled) < wanted) {
        free(atomic_exchange(&shared, malloc(7600)));
        own++;
    }
    setitimer(ITIMER_REAL, &never, NULL);
    signal(SIGALRM, SIG_IGN);
    free(shared);
    printf("%lu %lu\n", own, atomic_load(&handled));
    return 0;
}
