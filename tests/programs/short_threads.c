/* argv[1] threads, one after another. Each allocates 7,500 bytes and frees the block of the one
 * before it. */
#include <pthread.h>
#include <stdlib.h>

static char *last;

static void *work(void *unused)
{
    (void)unused;
    char *block = malloc(7500);
    free(last);
    last = block;
    return NULL;
}

int main(int argc, char **argv)
{
    int count = argc > 1 ? atoi(argv[1]) : 10;
    for (int i = 0; i < count; i++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, work, NULL))
            return 1;
        pthread_join(thread, NULL);
    }
    free(last);
    return 0;
}
