// stays SIZE: allocates SIZE bytes, says so, and waits until its stdin ends. `stays SIZE leader`
// does so in a thread, when the first thread has ended.
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void *volatile block;
static pthread_t first;

static void *stay(void *size) {
    char byte;
    if (first) pthread_join(first, NULL);
    block = malloc(strtoul(size, NULL, 10));
    (void)!write(1, "ready\n", 6);
    while (read(0, &byte, 1) > 0) {}
    return NULL;
}

int main(int argc, char **argv) {
    if (argc > 2) {
        pthread_t thread;
        first = pthread_self();
        if (pthread_create(&thread, NULL, stay, argv[1])) return 1;
        pthread_exit(NULL);
    }
    stay(argv[1]);
    return 0;
}
