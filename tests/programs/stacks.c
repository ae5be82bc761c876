/* Call stacks of C (see stacks.h): recursion, function pointers, qsort's callbacks, signal handlers
 * on an alternate stack, longjmp out of deep frames, coroutines, a thread, a constructor, a plugin
 * (argv[2]) that is opened three times. */
#include "stacks.h"
#include <dlfcn.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <ucontext.h>

static struct seen all;
#define NOINLINE __attribute__((noinline, noclone))

/* Six functions that call each other by chance; their frames differ in size and saved registers. */
static void (*const steps[6])(int depth);

#define STEP(number, padding, save)                                        \
    NOINLINE static void step##number(int depth)                           \
    {                                                                      \
        volatile char room[padding + 8 * (depth % 5)];                     \
        room[0] = (char)depth;                                             \
        long a = depth * 3, b = depth * 5, c = depth * 7;                  \
        if (save)                                                          \
            __asm__ volatile("" : "+r"(a), "+r"(b), "+r"(c) : : "memory"); \
        if (random_below(4) == 0)                                          \
            ALLOCATE();                                                    \
        if (depth > 0)                                                     \
            steps[random_below(6)](depth - 1 - (int)random_below(2));      \
        if (random_below(8) == 0)                                          \
            ALLOCATE();                                                    \
        __asm__ volatile("" : : "r"(a), "r"(b), "r"(c), "r"(room[0]));     \
    }
STEP(0, 8, 0)
STEP(1, 24, 1)
STEP(2, 200, 1)
STEP(3, 40, 0)
STEP(4, 1000, 1)

NOINLINE static void step5(int depth)
{
    /* libc between us and malloc. */
    char text[40000];
    ALLOCATE_BY((memset(text, 'x', size_), text[size_ - 1] = 0, strdup(text)), 1);
    if (depth > 0)
        steps[random_below(5)](depth - 1);
}
static void (*const steps[6])(int depth) = {step0, step1, step2, step3, step4, step5};

NOINLINE static int by_value(const void *a, const void *b)
{
    if (random_below(16) == 0)
        ALLOCATE();
    if (random_below(64) == 0)
        steps[1](3);
    return *(const int *)a - *(const int *)b;
}

NOINLINE static void sort(int length)
{
    int values[100];
    for (int i = 0; i < length; i++)
        values[i] = (int)random_below(1000);
    qsort(values, length, sizeof *values, by_value);
}

static jmp_buf out;

NOINLINE static void dive(int depth)
{
    if (random_below(3) == 0)
        ALLOCATE();
    if (depth == 0)
        longjmp(out, 1);
    if (depth % 2)
        dive(depth - 1);
    else
        steps[0](2), dive(depth - 1);
    __asm__ volatile("");
}

NOINLINE static void jump_about(int rounds)
{
    for (volatile int i = 0; i < rounds; i++)
        if (setjmp(out) == 0)
            dive(1 + (int)random_below(30));
        else
            ALLOCATE();
}

static void handle(int signal)
{
    (void)signal;
    ALLOCATE();
    steps[random_below(5)]((int)random_below(6));
}

static sigjmp_buf out_of_fault;

static void handle_fault(int signal)
{
    (void)signal;
    ALLOCATE();
    siglongjmp(out_of_fault, 1);
}

NOINLINE static void interrupted(int depth)
{
    volatile char room[64];
    room[0] = 1;
    if (depth == 0) {
        raise(SIGUSR1);
        kill(getpid(), SIGUSR1);
        if (sigsetjmp(out_of_fault, 1) == 0)
            *(volatile int *)(8 + (uintptr_t)room[0]) = 1;
    } else {
        interrupted(depth - 1);
    }
    ALLOCATE();
    __asm__ volatile("" : : "r"(room[0]));
}

static void install(void)
{
    static char memory[1 << 18];
    stack_t other = {.ss_sp = memory, .ss_size = sizeof memory};
    sigaltstack(&other, NULL);
    struct sigaction action = {.sa_handler = handle, .sa_flags = SA_ONSTACK};
    sigaction(SIGUSR1, &action, NULL);
    action.sa_handler = handle_fault;
    sigaction(SIGSEGV, &action, NULL);
    /* As the kernel has it. */
    struct {
        void *handler;
        unsigned long flags;
        void *restorer;
        unsigned long mask;
    } kernels;
    syscall(SYS_rt_sigaction, SIGUSR1, NULL, &kernels, 8);
    all.words[0] = (unsigned long)kernels.restorer;
}

static ucontext_t main_context, coroutines[3];
static char coroutine_stacks[3][1 << 18];

NOINLINE static void wander(int self, int depth)
{
    if (random_below(2) == 0)
        ALLOCATE();
    if (random_below(3) == 0)
        swapcontext(&coroutines[self], &main_context);
    if (depth > 0)
        wander(self, depth - 1);
    if (random_below(2) == 0)
        ALLOCATE();
}

static void coroutine(int self)
{
    for (;;)
        wander(self, (int)random_below(20));
}

NOINLINE static void switch_about(int rounds)
{
    for (int i = 0; i < 3; i++) {
        getcontext(&coroutines[i]);
        coroutines[i].uc_stack.ss_sp = coroutine_stacks[i];
        coroutines[i].uc_stack.ss_size = sizeof coroutine_stacks[i];
        coroutines[i].uc_link = NULL;
        makecontext(&coroutines[i], (void (*)(void))coroutine, 1, i);
    }
    for (int i = 0; i < rounds; i++) {
        swapcontext(&main_context, &coroutines[random_below(3)]);
        if (random_below(4) == 0)
            ALLOCATE();
    }
}

static void *thread(void *argument)
{
    for (int i = 0; i < 30; i++)
        steps[i % 5](10);
    sort(50);
    return argument;
}

__attribute__((constructor)) static void before_main(void)
{
    begin_seen(&all);
    ALLOCATE();
    steps[2](5);
}

int main(int argc, char **argv)
{
    if (argc < 3)
        return 2;
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 40; i++)
            steps[i % 6]((int)random_below(40));
        sort(100);
        jump_about(30);
        if (round == 0)
            install();
        for (int i = 0; i < 5; i++)
            interrupted(i);
        switch_about(100);
        pthread_t id;
        pthread_create(&id, NULL, thread, NULL);
        pthread_join(id, NULL);

        void *plugin = dlopen(argv[2], RTLD_NOW);
        void *symbol = plugin ? dlsym(plugin, "plugin_run") : NULL;
        if (!symbol)
            return fprintf(stderr, "%s\n", dlerror()), 3;
        void (*run)(struct seen *, void (*)(int));
        memcpy(&run, &symbol, sizeof run);
        run(&all, steps[0]);
        dlclose(plugin);
    }
    return write_seen(argv[1]);
}
