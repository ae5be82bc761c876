/* A thread is interrupted argv[1] times by a handler that allocates 7,600 bytes, often in the middle
 * of a hook, and ends. Then four threads live at the same time and allocate 7,700 + n bytes each;
 * prints their IDs in the order of n. To be run with signal_safe_malloc.c preloaded. */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

enum { THREADS = 4 };

static atomic_ulong handled;
static unsigned long wanted;
static pthread_barrier_t all_live;
static long ids[THREADS];

static void handler(int signal)
{
    (void)signal;
    void *block = malloc(7600);
    __asm__ volatile("" : "+r"(block));
    free(block);
    handled++;
}

__attribute__((noinline)) static void nested(int depth)
{
    if (depth > 0)
        nested(depth - 1);
    void *block = malloc(100 + depth);
    __asm__ volatile("" : "+r"(block));
    free(block);
}

static void *interrupted(void *unused)
{
    sigset_t alarm;
    sigemptyset(&alarm);
    sigaddset(&alarm, SIGALRM);
    pthread_sigmask(SIG_UNBLOCK, &alarm, NULL);
    while (handled < wanted)
        nested(20);
    pthread_sigmask(SIG_BLOCK, &alarm, NULL);
    return unused;
}

static void *work(void *argument)
{
    long *id = argument;
    *id = syscall(SYS_gettid);
    for (int i = 0; i < 3; i++) {
        void *block = malloc(7700 + (id - ids));
        __asm__ volatile("" : "+r"(block));
        free(block);
        pthread_barrier_wait(&all_live);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    wanted = argc > 1 ? strtoul(argv[1], NULL, 10) : 100;
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};
    sigaction(SIGALRM, &action, NULL);
    sigset_t alarm;
    sigemptyset(&alarm);
    sigaddset(&alarm, SIGALRM);
    pthread_sigmask(SIG_BLOCK, &alarm, NULL);
    struct itimerval often = {{0, 50}, {0, 50}}, never = {{0, 0}, {0, 0}};
    setitimer(ITIMER_REAL, &often, NULL);
    pthread_t threads[THREADS];
    pthread_create(&threads[0], NULL, interrupted, NULL);
    pthread_join(threads[0], NULL);
    setitimer(ITIMER_REAL, &never, NULL);
    pthread_barrier_init(&all_live, NULL, THREADS);
    for (int i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, work, &ids[i]);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < THREADS; i++)
        printf("%ld\n", ids[i]);
    return 0;
}
