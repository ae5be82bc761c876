/* A callback of dl_iterate_phdr() allocates (the loader's lock is held) while another thread opens and
 * closes the plugin argv[1] 300 times, and a third one allocates. */
#define _GNU_SOURCE
#include "counts.h"
#include <dlfcn.h>
#include <link.h>
#include <pthread.h>
#include <stdatomic.h>

static const char *plugin;

static int callback(struct dl_phdr_info *info, size_t size, void *data)
{
    (void)info;
    (void)size;
    (void)data;
    void *block = make(0);
    end(make(1), 1);
    end(block, 0);
    return 1;
}

static void *iterate(void *unused)
{
    for (int i = 0; i < 3000; i++)
        dl_iterate_phdr(callback, NULL);
    return unused;
}

static void *open_and_close(void *unused)
{
    for (int i = 0; i < 300; i++) {
        void *handle = dlopen(plugin, RTLD_NOW);
        if (!handle)
            abort();
        end(make(2), 2);
        dlclose(handle);
    }
    return unused;
}

static void *allocate(void *unused)
{
    for (int i = 0; i < 5000; i++)
        end(make(3), 3);
    return unused;
}

int main(int argc, char **argv)
{
    if (argc < 2)
        return 2;
    plugin = argv[1];
    pthread_t threads[3];
    pthread_create(&threads[0], NULL, iterate, NULL);
    pthread_create(&threads[1], NULL, open_and_close, NULL);
    pthread_create(&threads[2], NULL, allocate, NULL);
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    print_counts();
    return 0;
}
