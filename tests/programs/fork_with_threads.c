/* Two threads allocate (7,100 bytes) while main() forks argv[1] children. Each child starts two
 * threads of its own, each of which allocates 7,200 bytes a hundred times and frees them. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static atomic_int stop;

static void *until_stopped(void *unused)
{
    (void)unused;
    while (!atomic_load(&stop)) {
        volatile char *block = malloc(7100);
        block[0] = 1;
        free((void *)block);
    }
    return NULL;
}

static void *hundred(void *unused)
{
    (void)unused;
    for (int i = 0; i < 100; i++) {
        volatile char *block = malloc(7200);
        block[0] = 1;
        free((void *)block);
    }
    return NULL;
}

static void two_threads(void *(*work)(void *), pthread_t *threads)
{
    for (int i = 0; i < 2; i++)
        pthread_create(&threads[i], NULL, work, NULL);
}

int main(int argc, char **argv)
{
    int children = argc > 1 ? atoi(argv[1]) : 10;
    pthread_t threads[2];
    two_threads(until_stopped, threads);
    int failed = 0, status;
    for (int i = 0; i < children; i++) {
        pid_t child = fork();
        if (child == 0) {
            two_threads(hundred, threads);
            for (int t = 0; t < 2; t++)
                pthread_join(threads[t], NULL);
            exit(0);
        }
        waitpid(child, &status, 0);
        failed |= status;
    }
    atomic_store(&stop, 1);
    for (int t = 0; t < 2; t++)
        pthread_join(threads[t], NULL);
    return failed != 0;
}
