/* Allocates argv[2] blocks of 4,242 bytes, frees every second one, then ends as argv[1] says. */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static void *call_exit(void *unused)
{
    (void)unused;
    exit(7);
}

static void *last_thread(void *unused)
{
    (void)unused;
    char *late = malloc(4343);
    free(late);
    return NULL;
}

int main(int argc, char **argv)
{
    if (argc < 3)
        return 2;
    const char *end = argv[1];
    struct rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);

    long count = atol(argv[2]);
    for (long i = 0; i < count; i++) {
        volatile char *block = malloc(4242);
        block[0] = 1;
        if (i % 2)
            free((void *)block);
    }

    pthread_t thread;
    if (!strcmp(end, "return"))
        return 7;
    if (!strcmp(end, "exit"))
        exit(7);
    if (!strcmp(end, "exit_in_thread")) {
        pthread_create(&thread, NULL, call_exit, NULL);
        pthread_join(thread, NULL);
    }
    if (!strcmp(end, "pthread_exit")) {
        pthread_create(&thread, NULL, last_thread, NULL);
        pthread_exit(NULL);
    }
    if (!strcmp(end, "_exit"))
        _exit(7);
    if (!strcmp(end, "_Exit"))
        _Exit(7);
    if (!strcmp(end, "quick_exit"))
        quick_exit(7);
    if (!strcmp(end, "abort"))
        abort();
    if (!strcmp(end, "segv"))
        *(volatile int *)8 = 1;
    if (!strcmp(end, "kill"))
        raise(SIGKILL);
    if (!strcmp(end, "term"))
        raise(SIGTERM);
    if (!strcmp(end, "exec_self"))
        execl("/proc/self/exe", argv[0], "return", argv[2], (char *)NULL);
    if (!strcmp(end, "exec_other"))
        execl("/bin/sh", "sh", "-c", "exit 7", (char *)NULL);
    return 99;
}
