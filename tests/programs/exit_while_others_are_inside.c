/* main() exits while eight threads are held by a signal, most of them in the middle of a realloc. With
 * an argument, membarrier(2) would be the end of the process. */
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { THREADS = 8 };
static atomic_int at_work, held;

static void hold(int signal)
{
    (void)signal;
    held++;
    for (;;)
        pause();
}

static void *work(void *block)
{
    for (unsigned i = 0;; i++) {
        block = realloc(block, 5000 + i % 2 * 5000);
        at_work += i == 100;
    }
    return NULL;
}

static int forbid_membarrier(void)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_membarrier, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {4, filter};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

int main(int argc, char **argv)
{
    (void)argv;
    if (argc > 1 && forbid_membarrier())
        return 3;
    signal(SIGUSR1, hold);
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, work, NULL);
    while (at_work < THREADS)
        sched_yield();
    for (int i = 0; i < THREADS; i++)
        pthread_kill(threads[i], SIGUSR1);
    while (held < THREADS)
        sched_yield();
    exit(7);
}
