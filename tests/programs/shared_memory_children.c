/* Children that share the memory of their parent, by the system call itself: with CLONE_VFORK, and
 * without it on a stack of their own while the parent waits. What they do to the heap is done to that of
 * the parent: they free its block and leave it one. Then one that has a copy of the memory. */
#define _GNU_SOURCE
#include "counts.h"
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static void *shared;

static int child(void *unused)
{
    (void)unused;
    end(shared, 0);
    shared = make(1);
    for (int i = 0; i < 100; i++)
        end(make(2), 2);
    return 0;
}

static int copy(void *unused)
{
    (void)unused;
    for (int i = 0; i < 100; i++)
        end(make(3), 3);
    _exit(0);
}

int main(void)
{
    enum { SIZE = 64 << 10 };
    char *stack = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (stack == MAP_FAILED)
        return 1;
    for (int round = 0; round < 20; round++) {
        int flags = CLONE_VM | SIGCHLD | (round % 2 ? CLONE_VFORK : 0), status;
        shared = make(0);
        pid_t pid = clone(child, stack + SIZE, flags, NULL);
        if (pid < 0 || waitpid(pid, &status, 0) != pid || status)
            return 2;
        end(shared, 1);
        pid = clone(copy, stack + SIZE, SIGCHLD, NULL);
        if (pid < 0 || waitpid(pid, &status, 0) != pid || status)
            return 3;
        end(make(4), 4);
    }
    print_counts();
    return 0;
}
