// Prints how many bytes below the caller's frame malloc, free and realloc have used: the first time
// in a thread, and at most in many calls that fill the log's blocks.
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

enum { SIZE = 65536, PAINT = 0x5a };
static volatile char *stack;

// Through pointers, so that the loader's own work at a first call is not measured.
static void *(*volatile allocate)(size_t) = malloc;
static void *(*volatile change)(void *, size_t) = realloc;
static void (*volatile release)(void *) = free;

static long used(volatile char *top) {
    volatile char *at = stack;
    while (at < top && *at == PAINT) at++;
    return top - at;
}

#define MEASURE(most, call)                                        \
    do {                                                           \
        volatile char *top;                                        \
        __asm__ volatile("mov %%rsp, %0" : "=r"(top));             \
        for (volatile char *p = stack; p < top; p++) *p = PAINT;   \
        call;                                                      \
        long now = used(top);                                      \
        if (now > most) most = now;                                \
    } while (0)

static void *measure(void *argument) {
    long first = 0, steady = 0, moving = 0;
    void *block;
    MEASURE(first, block = allocate(10));
    release(block);
    for (int i = 0; i < 3000; i++) {
        MEASURE(steady, block = allocate(i % 50));
        MEASURE(steady, release(block));
    }
    block = allocate(1);
    for (int i = 0; i < 2000; i++) MEASURE(moving, block = change(block, 1 + i % 20));
    release(block);
    printf("%ld %ld %ld\n", first, steady, moving);
    return argument;
}

int main(void) {
    void *memory = mmap(0, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return 1;
    stack = memory;
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstack(&attributes, memory, SIZE);
    pthread_t thread;
    if (pthread_create(&thread, &attributes, measure, NULL)) return 1;
    return pthread_join(thread, NULL);
}
