/* Another thread allocates a block (7,400 bytes) between the moment at which libmtr.so hears of a fork
 * and the fork itself: in a handler that was registered before any library's. The child frees the
 * block, and so does a child of its own, which it forks alone. */
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static sem_t wanted, made;
static char *block;
static int is_parent = 1;

static void *make(void *unused)
{
    (void)unused;
    sem_wait(&wanted);
    block = malloc(7400);
    sem_post(&made);
    return NULL;
}

static void before_fork(void)
{
    if (is_parent) {
        sem_post(&wanted);
        sem_wait(&made);
    }
}

static void register_handler(void)
{
    pthread_atfork(before_fork, NULL, NULL);
}

__attribute__((section(".preinit_array"), used)) static void (*const early)(void) = register_handler;

static int status_of(pid_t child)
{
    int status;
    waitpid(child, &status, 0);
    return status;
}

int main(void)
{
    pthread_t thread;
    sem_init(&wanted, 0, 0);
    sem_init(&made, 0, 0);
    pthread_create(&thread, NULL, make, NULL);
    pid_t child = fork();
    if (child == 0) {
        is_parent = 0;
        pid_t its_own = fork();
        free(block);
        exit(its_own ? status_of(its_own) != 0 : 0);
    }
    pthread_join(thread, NULL);
    return status_of(child) != 0;
}
