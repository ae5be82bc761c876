// loses_the_name HOW FOLDER END: comes to where it can open nothing by the name that it had, then has
// 50 threads at once, more than have room for their records from the first.
//   HOW  uid     it becomes a user without rights (77 where it may not)
//        chroot  FOLDER becomes its root folder (77 where it may not)
//        rename  FOLDER gets the name FOLDER.moved
//        stay    it stays as it is
//        fill    FOLDER/full takes all that is left of the disk
//   END  exit, abort or kill
#define _GNU_SOURCE
#include "counts.h"
#include <fcntl.h>
#include <grp.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { THREADS = 50 };

static pthread_barrier_t all;

static void *work(void *unused) {
    (void)unused;
    for (int i = 0; i < 300; i++) end(make(1), 1);
    void *kept = make(2);
    pthread_barrier_wait(&all);
    end(make(3), 3);
    pthread_barrier_wait(&all);
    // Until the counts are printed nobody goes on.
    pthread_barrier_wait(&all);
    return kept;
}

static void lose(const char *how, const char *folder) {
    char name[4096];
    if (!strcmp(how, "uid")) {
        if (setgroups(0, NULL) || setresgid(65534, 65534, 65534) || setresuid(65534, 65534, 65534)) _exit(77);
    } else if (!strcmp(how, "chroot")) {
        if (chroot(folder) || chdir("/")) _exit(77);
    } else if (!strcmp(how, "rename")) {
        snprintf(name, sizeof name, "%s.moved", folder);
        if (rename(folder, name)) _exit(1);
    } else if (!strcmp(how, "fill")) {
        static char zeros[1 << 12];
        snprintf(name, sizeof name, "%s/full", folder);
        int fd = open(name, O_CREAT | O_WRONLY, 0600);
        while (write(fd, zeros, sizeof zeros) > 0) {}
        close(fd);
    }
}

int main(int argc, char **argv) {
    if (argc < 4) return 1;
    struct rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);
    void *window[8] = {0};
    // Some of it has been written out by then.
    int before = strcmp(argv[1], "fill") ? 20000 : 0;
    for (int i = 0; i < before; i++) {
        end(window[i % 8], 0);
        window[i % 8] = make(0);
    }
    lose(argv[1], argv[2]);
    for (int i = 0; i < before; i++) {
        end(window[i % 8], 0);
        window[i % 8] = make(0);
    }
    pthread_barrier_init(&all, NULL, THREADS + 1);
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        if (pthread_create(threads + i, NULL, work, NULL)) return 1;
    pthread_barrier_wait(&all);
    pthread_barrier_wait(&all);
    if (!strcmp(argv[3], "exit")) {
        pthread_barrier_wait(&all);
        for (int i = 0; i < THREADS; i++) {
            void *kept;
            pthread_join(threads[i], &kept);
            end(kept, 2);
        }
    }
    print_counts();
    if (!strcmp(argv[3], "abort")) abort();
    if (!strcmp(argv[3], "kill")) raise(SIGKILL);
    return 0;
}
