/* A signal handler forks while main() allocates; the child returns from the handler and goes on with
 * whatever the signal interrupted, a hook included. Prints how many children died. argv[1]: how many
 * forks; with -DRAW_FORK they pass the C library's handlers by. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef RAW_FORK
#define FORK() _Fork()
#else
#define FORK() fork()
#endif

static volatile sig_atomic_t forks, died, is_child, wanted;

static void again(void)
{
    struct itimerval soon = {{0, 0}, {0, 300}};
    setitimer(ITIMER_REAL, &soon, NULL);
}

static void handler(int signal)
{
    int status;
    (void)signal;
    if (is_child)
        return;
    pid_t child = FORK();
    if (child == 0) {
        is_child = 1;
        return;
    }
    while (waitpid(child, &status, 0) < 0)
        ;
    died += status != 0;
    if (++forks < wanted)
        again();
}

int main(int argc, char **argv)
{
    void *kept[64] = {0};
    unsigned random = 1, steps = 0;
    wanted = argc > 1 ? atoi(argv[1]) : 100;
    signal(SIGALRM, handler);
    again();
    while (forks < wanted) {
        random = random * 1103515245 + 12345;
        void **place = &kept[random >> 16 & 63];
        free(*place);
        *place = malloc(10 + (random >> 20) % 200);
        if (is_child && ++steps > 2000)
            _exit(0);
    }
    for (int i = 0; i < 64; i++)
        free(kept[i]);
    printf("%d of %d died\n", died, forks);
    return 0;
}
