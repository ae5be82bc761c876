/* A thread executes the program anew while another allocates: with the argument "again" it makes other
 * blocks and ends. */
#include "counts.h"
#include <pthread.h>
#include <stdatomic.h>
#include <sched.h>
#include <unistd.h>

static atomic_int steps;

static void *allocate(void *unused)
{
    for (;;) {
        void *block = malloc(100);
        __asm__ volatile("" : "+r"(block));
        free(block);
        steps++;
    }
    return unused;
}

static void *execute(void *path)
{
    end(make(0), 0);
    make(1);
    print_counts();
    execl(path, path, "again", (char *)NULL);
    _exit(3);
}

int main(int argc, char **argv)
{
    pthread_t threads[2];
    if (argc > 1) {
        make(2);
        end(make(3), 3);
        print_counts();
        return 7;
    }
    pthread_create(&threads[0], NULL, allocate, NULL);
    while (steps < 1000)
        sched_yield();
    pthread_create(&threads[1], NULL, execute, argv[0]);
    pthread_join(threads[1], NULL);
    return 4;
}
