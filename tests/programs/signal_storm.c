/* A timer sends signals at 10 kHz, and a thread more without pause, while main() allocates. The handler
 * does nothing. */
#define _GNU_SOURCE
#include "counts.h"
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <time.h>

static atomic_int done;
static atomic_ulong handled;
static pthread_t main_thread;

static void handler(int signal)
{
    (void)signal;
    handled++;
}

static void *storm(void *unused)
{
    while (!done)
        pthread_kill(main_thread, SIGUSR1);
    return unused;
}

int main(void)
{
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};
    sigaction(SIGUSR1, &action, NULL);
    sigaction(SIGRTMIN, &action, NULL);
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN};
    struct itimerspec often = {{0, 100000}, {0, 100000}};
    timer_t timer;
    if (timer_create(CLOCK_MONOTONIC, &event, &timer) || timer_settime(timer, 0, &often, NULL))
        return 1;
    main_thread = pthread_self();
    pthread_t thread;
    if (pthread_create(&thread, NULL, storm, NULL))
        return 1;
    errno = 77;
    int changed = 0;
    void *window[16] = {0};
    for (int i = 0; i < 60000; i++) {
        end(window[i % 16], i % 16);
        window[i % 16] = make(i % 16);
        changed += errno != 77;
    }
    done = 1;
    pthread_join(thread, NULL);
    timer_delete(timer);
    if (!handled)
        return 2;
    dprintf(1, "errno changed %d times\n", changed);
    print_counts();
    return 0;
}
