/* Handlers on an alternate stack that allocate; one of them is called for an overflow of the stack, and
 * leaves by a jump. In main() and in threads. The recursion itself allocates nothing near the end: the
 * handler must not interrupt an allocator. */
#define _GNU_SOURCE
#include "counts.h"
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>

static __thread sigjmp_buf before;

static void handler(int signal)
{
    end(make(1), 1);
    if (signal == SIGSEGV)
        siglongjmp(before, 1);
}

__attribute__((noinline)) static int for_ever(volatile char *above)
{
    volatile char frame[2000];
    frame[0] = above[0];
    return for_ever(frame) + frame[0];
}

static void *work(void *unused)
{
    enum { SIZE = 64 << 10 };
    stack_t stack = {.ss_size = SIZE};
    stack.ss_sp = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    sigaltstack(&stack, NULL);
    for (volatile int i = 0; i < 20; i++) {
        volatile char start = 0;
        end(make(0), 0);
        raise(SIGUSR1);
        if (!sigsetjmp(before, 1))
            for_ever(&start);
        end(make(2), 2);
    }
    stack.ss_flags = SS_DISABLE;
    sigaltstack(&stack, NULL);
    munmap(stack.ss_sp, SIZE);
    end(make(3), 3);
    return unused;
}

int main(void)
{
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_ONSTACK};
    sigaction(SIGUSR1, &action, NULL);
    sigaction(SIGSEGV, &action, NULL);
    work(NULL);
    for (int i = 0; i < 20; i++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, work, NULL))
            return 1;
        pthread_join(thread, NULL);
    }
    print_counts();
    return 0;
}
