/* Signal handlers that allocate: 7,701 bytes where an instruction of the program's raised the signal,
 * 7,702 where the program was in a function of libc, 7,703 in a handler that interrupted a handler. */
#include <signal.h>
#include <stdlib.h>

static void *volatile kept[3];

static void on_usr2(int signal)
{
    (void)signal;
    kept[2] = malloc(7703);
}

static void on_usr1(int signal)
{
    (void)signal;
    kept[1] = malloc(7702);
    raise(SIGUSR2);
}

static void on_trap(int signal)
{
    (void)signal;
    kept[0] = malloc(7701);
}

__attribute__((noinline)) static void traps(void)
{
    __asm__ volatile("int3; nop");
}

__attribute__((noinline)) static void raises(void)
{
    raise(SIGUSR1);
    __asm__ volatile("");
}

int main(void)
{
    signal(SIGTRAP, on_trap);
    signal(SIGUSR1, on_usr1);
    signal(SIGUSR2, on_usr2);
    traps();
    raises();
    return 0;
}
