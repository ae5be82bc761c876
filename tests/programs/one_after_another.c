/* argv[1] threads, one after another; each frees the block of the one before it. */
#include "counts.h"
#include <pthread.h>

static void *last;

static void *work(void *unused)
{
    void *block = make(0);
    end(last, 0);
    last = block;
    return unused;
}

int main(int argc, char **argv)
{
    for (int i = argc > 1 ? atoi(argv[1]) : 10; i > 0; i--) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, work, NULL))
            return 1;
        pthread_join(thread, NULL);
    }
    print_counts();
    return 0;
}
