/* argv[1] threads, four at a time. Each allocates and frees in the destructor of a thread_local and in
 * those of two keys, over as many rounds as there are: behind those of anything preloaded. */
#include "counts.h"
#include <pthread.h>
#include <unistd.h>

static pthread_key_t keys[2];

struct Local {
    void *block;
    Local() : block(make(10)) {}
    ~Local()
    {
        end(block, 10);
        end(make(11), 11);
        delete new int(7);
    }
};

static thread_local Local local;

static void destroy(int key, void *block)
{
    int round = (int)(*(volatile char *)block);
    end(block, key);
    end(make(20 + round), 20 + round);
    if (round < 4) { /* there are PTHREAD_DESTRUCTOR_ITERATIONS of them */
        char *next = (char *)make(key);
        *next = (char)(round + 1);
        pthread_setspecific(keys[key], next);
    }
}

static void destroy_first(void *block) { destroy(0, block); }
static void destroy_second(void *block) { destroy(1, block); }

static void *work(void *unused)
{
    if (!local.block)
        abort();
    for (int key = 0; key < 2; key++) {
        char *block = (char *)make(key);
        *block = 1;
        pthread_setspecific(keys[key], block);
    }
    return unused;
}

int main(int argc, char **argv)
{
    pthread_key_create(&keys[0], destroy_first);
    pthread_key_create(&keys[1], destroy_second);
    for (int i = argc > 1 ? atoi(argv[1]) / 4 : 10; i > 0; i--) {
        pthread_t threads[4];
        for (int t = 0; t < 4; t++)
            if (pthread_create(&threads[t], NULL, work, NULL))
                return 1;
        for (int t = 0; t < 4; t++)
            pthread_join(threads[t], NULL);
    }
    print_counts();
    return 0;
}
