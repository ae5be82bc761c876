// Prints how many bytes below the caller's frame malloc, free and realloc have used: the first time
// in a thread, at most in many calls that fill the log's blocks, in a signal handler, below code
// whose frame can be found by an expression of the CFI only, from a register that no rule keeps, below
// code without any CFI, and the first time in a child that was forked without libc's handlers.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

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

static long handled, below, generated;

// After it, nothing that was found out about modules is taken for granted.
static void unload(void) {
    dlclose(dlopen(NULL, RTLD_NOW));
}

static void handle(int signal) {
    void *block;
    unload();
    MEASURE(handled, block = allocate(signal));
    MEASURE(handled, release(block));
    MEASURE(handled, block = change(NULL, 5));
    MEASURE(handled, block = change(block, 50));
    release(block);
}

static void allocate_below(void) {
    void *block;
    unload();
    MEASURE(below, block = allocate(77));
    MEASURE(below, block = change(block, 150));
    MEASURE(below, release(block));
}

// DW_CFA_def_cfa_expression: rbx + 16.
__asm__(".pushsection .text\n"
        ".type call_by_expression, @function\n"
        "call_by_expression:\n"
        ".cfi_startproc\n"
        "push %rbx\n"
        ".cfi_adjust_cfa_offset 8\n"
        ".cfi_offset rbx, -16\n"
        "mov %rsp, %rbx\n"
        ".cfi_escape 0x0f, 2, 0x73, 16\n"
        "sub $160, %rsp\n"
        "and $-16, %rsp\n"
        "call *%rdi\n"
        "mov %rbx, %rsp\n"
        "pop %rbx\n"
        ".cfi_def_cfa rsp, 8\n"
        "ret\n"
        ".cfi_endproc\n"
        ".popsection\n");
void call_by_expression(void (*function)(void));

// push %rbp; mov %rsp, %rbp; mov %rdi, %rax; mov %rsi, %rdi; call *%rax; pop %rbp; ret
static const unsigned char call[] = {0x55, 0x48, 0x89, 0xe5, 0x48, 0x89, 0xf8,
                                     0x48, 0x89, 0xf7, 0xff, 0xd0, 0x5d, 0xc3};

static void allocate_by_generated_code(void) {
    void *page = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    void *(*function)(void *(*)(size_t), size_t), *block;
    memcpy(page, call, sizeof call);
    memcpy(&function, &page, sizeof function);
    mprotect(page, 4096, PROT_READ | PROT_EXEC);
    unload();
    MEASURE(generated, block = function(allocate, 33));
    release(block);
    munmap(page, 4096);
}

static long in_child(void) {
    long *most = mmap(0, sizeof *most, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int child = _Fork();
    if (child == 0) {
        long deepest = 0;
        void *block;
        MEASURE(deepest, block = allocate(99));
        MEASURE(deepest, release(block));
        *most = deepest;
        _exit(0);
    }
    int status;
    return waitpid(child, &status, 0) == child && status == 0 ? *most : -1;
}

static void *measure(void *argument) {
    long first = 0, steady = 0, moving = 0;
    void *block;
    unload();
    MEASURE(first, block = allocate(10));
    release(block);
    for (int i = 0; i < 3000; i++) {
        MEASURE(steady, block = allocate(i % 50));
        MEASURE(steady, release(block));
    }
    block = allocate(1);
    for (int i = 0; i < 2000; i++) MEASURE(moving, block = change(block, 1 + i % 20));
    release(block);
    signal(SIGUSR1, handle);
    for (int i = 0; i < 5; i++) {
        raise(SIGUSR1);
        call_by_expression(allocate_below);
    }
    allocate_by_generated_code();
    long child = in_child();
    printf("%ld %ld %ld %ld %ld ", first, steady, moving, handled, below);
    printf("%ld %ld\n", generated, child);
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
