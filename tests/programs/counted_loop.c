/* argv[2] threads allocate and free blocks of 6,161 bytes until the process dies. Each counts its
 * completed calls in the file argv[1], which is shared memory: two uint64_t per thread. With
 * argv[3], main() exits once every thread has done that many; without, it waits for a signal. */
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>

struct calls {
    _Atomic uint64_t allocations, frees;
};

static void *work(void *argument)
{
    struct calls *calls = argument;
    char *window[8] = {0};
    for (unsigned i = 0;; i = (i + 1) % 8) {
        if (window[i]) {
            free(window[i]);
            atomic_fetch_add(&calls->frees, 1);
        }
        window[i] = malloc(6161);
        atomic_fetch_add(&calls->allocations, 1);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    if (argc < 3)
        return 2;
    size_t threads = strtoul(argv[2], NULL, 10);
    int fd = open(argv[1], O_RDWR);
    struct calls *calls = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (calls == MAP_FAILED)
        return 3;
    close(fd);
    for (size_t i = 0; i < threads; i++) {
        pthread_t thread;
        pthread_create(&thread, NULL, work, &calls[i]);
    }
    if (argc < 4)
        for (;;)
            pause();
    uint64_t enough = strtoul(argv[3], NULL, 10);
    for (size_t i = 0; i < threads; i++)
        while (atomic_load(&calls[i].allocations) < enough)
            sched_yield();
    exit(7);
}
