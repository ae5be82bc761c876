// has_no_descriptor THREADS END [free]: allows itself three descriptors, takes them all for files of its
// own, and goes on, in THREADS threads if there are to be any. With `free`, it leaves descriptors as
// they are.
//   END  exit, abort or kill
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { MOST = 64 };

static pthread_barrier_t all;

static void work(int count) {
    void *volatile window[8] = {0};
    for (int i = 0; i < count; i++) {
        free(window[i % 8]);
        window[i % 8] = malloc(3400);
    }
}

static void *thread(void *unused) {
    work(400);
    pthread_barrier_wait(&all);
    pause();
    return unused;
}

int main(int argc, char **argv) {
    if (argc < 3) return 1;
    int threads = atoi(argv[1]);
    struct rlimit none = {0, 0}, three = {3, 3};
    setrlimit(RLIMIT_CORE, &none);
    work(20000);
    if (argc < 4) {
        setrlimit(RLIMIT_NOFILE, &three);
        for (int fd = 0; fd < 1024; fd++) close(fd);
        for (int i = 0; i < 3; i++)
            if (open("own", O_CREAT | O_RDWR, 0600) != i) return 1;
    }
    work(20000);
    pthread_barrier_init(&all, NULL, threads + 1);
    for (int i = 0; i < threads; i++) {
        pthread_t started;
        if (pthread_create(&started, NULL, thread, NULL)) return 1;
    }
    pthread_barrier_wait(&all);
    if (!strcmp(argv[2], "abort")) abort();
    if (!strcmp(argv[2], "kill")) raise(SIGKILL);
    return 0;
}
