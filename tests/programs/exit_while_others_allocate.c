/* main() exits while argv[1] threads allocate. They count what they have done in the file argv[2]:
 * two words of 8 bytes for each (blocks of 6,161 bytes made, and freed). */
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>

static atomic_ulong *counts;

static void *work(void *argument)
{
    atomic_ulong *mine = counts + 2 * (long)argument;
    void *window[8] = {0};
    for (unsigned i = 0;; i = (i + 1) % 8) {
        if (window[i]) {
            free(window[i]);
            mine[1]++;
        }
        window[i] = malloc(6161);
        mine[0]++;
        if (mine[0] % 7 == 0) {
            window[i] = realloc(window[i], 6162);
        }
    }
    return NULL;
}

int main(int argc, char **argv)
{
    long threads = argc > 2 ? atol(argv[1]) : 1;
    counts = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, open(argv[2], O_RDWR), 0);
    if (counts == MAP_FAILED)
        return 2;
    for (long i = 0; i < threads; i++) {
        pthread_t thread;
        pthread_create(&thread, NULL, work, (void *)i);
    }
    for (long i = 0; i < threads; i++)
        while (counts[2 * i] < 3000)
            sched_yield();
    exit(7);
}
