/* file_size_limit LIMIT WHEN THREADS [kill]: lowers the limit of the size of files (RLIMIT_FSIZE) while it
 * allocates, and counts what it does (counts.h) and how often errno was changed.
 *
 * LIMIT: `=N` bytes, or `+N` and `-N` relative to the size that the trace has at that moment; `none`; or
 * `swings`: a thread lowers the limit to 0 and takes it back until the others are done; `steady`: as
 * `swings`, but the limit stays as it is.
 * WHEN: `start`, `middle`, `threads` (when these have begun) or `end`.
 */
#define _GNU_SOURCE
#include "counts.h"
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

enum { EVENTS = 6000, EACH = 300, MOST = 100 };

static int changed; /* how often errno was */
static int is_done;
static pthread_barrier_t barrier;
static const char *limit, *when;

static void allocate(int events, int n)
{
    void *held[8] = { 0 };
    errno = 77;
    for (int i = 0; i < events; i++) {
        end(held[i % 8], n);
        held[i % 8] = make(n);
        if (errno != 77)
            __atomic_fetch_add(&changed, 1, __ATOMIC_RELAXED);
        errno = 77;
    }
}

static void lower_at(const char *moment)
{
    const char *trace = getenv("MTR_OUTPUT") ? getenv("MTR_OUTPUT") : getenv("MALLOC_TRACE");
    struct stat found;
    long size = 0;
    struct rlimit new;
    if (strcmp(moment, when) || strchr("ns", *limit))
        return;
    if (*limit != '=' && trace && !stat(trace, &found))
        size = found.st_size;
    size += atol(limit + (*limit == '='));
    new.rlim_cur = size < 0 ? 0 : size;
    new.rlim_max = RLIM_INFINITY;
    if (setrlimit(RLIMIT_FSIZE, &new))
        abort();
}

static void *swing(void *unused)
{
    struct rlimit none = { 0, RLIM_INFINITY }, all = { RLIM_INFINITY, RLIM_INFINITY };
    (void)unused;
    while (!strcmp(limit, "swings") && !__atomic_load_n(&is_done, __ATOMIC_ACQUIRE)) {
        setrlimit(RLIMIT_FSIZE, &none);
        setrlimit(RLIMIT_FSIZE, &all);
    }
    return NULL;
}

static void *work(void *unused)
{
    allocate(EACH, 1);
    pthread_barrier_wait(&barrier); /* all are there at once */
    pthread_barrier_wait(&barrier);
    allocate(*limit == 's' ? 20 * EACH : EACH, 2);
    pthread_barrier_wait(&barrier);
    return unused;
}

int main(int argc, char **argv)
{
    pthread_t threads[MOST], swinging;
    int count = argc > 3 ? atoi(argv[3]) : 0;
    if (argc < 4 || count > MOST)
        return 1;
    limit = argv[1];
    when = argv[2];
    lower_at("start");
    allocate(EVENTS, 0);
    lower_at("middle");
    allocate(EVENTS, 0);
    if (*limit == 's' && pthread_create(&swinging, NULL, swing, NULL))
        return 2;
    pthread_barrier_init(&barrier, NULL, count + 1);
    for (int i = 0; i < count; i++)
        if (pthread_create(&threads[i], NULL, work, NULL))
            return 2;
    if (count) {
        pthread_barrier_wait(&barrier);
        lower_at("threads");
        pthread_barrier_wait(&barrier);
        pthread_barrier_wait(&barrier);
    }
    for (int i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
    if (*limit == 's') {
        __atomic_store_n(&is_done, 1, __ATOMIC_RELEASE);
        pthread_join(swinging, NULL);
    }
    allocate(EVENTS, 3);
    lower_at("end");
    dprintf(1, "errno was changed %d times\n", changed);
    print_counts();
    if (argc > 4)
        raise(SIGKILL);
    return 7;
}
