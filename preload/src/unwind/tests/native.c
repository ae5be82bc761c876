// Frames of C code, compiled with many options by native.rs. Every `hook` compares the call stack.
#define _GNU_SOURCE
#include <alloca.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <stddef.h>
#include <ucontext.h>

typedef size_t (*hook_t)(size_t);
hook_t hook; // exported, so that it is reached through the GOT
#define NOINLINE __attribute__((noinline, noclone))
#define EXPORT __attribute__((visibility("default"), noinline, noclone))

static volatile size_t sink;

NOINLINE static size_t leaf(size_t n) { return hook(n) + 1; }
NOINLINE static size_t tail(size_t n) { sink = n; return hook(n); }

NOINLINE static size_t recurse(size_t n, size_t a, size_t b, size_t c, size_t d) {
    if (!n) return leaf(a + b + c + d);
    size_t r = recurse(n - 1, a * 3, b ^ n, c + a, d - b);
    return r + a * b + c * d + (n < 20 || n % 64 == 0 ? leaf(n) : n);
}

NOINLINE static size_t with_alloca(size_t n) {
    volatile char *p = alloca(n * 17 + 1);
    p[0] = 1;
    size_t r = leaf(n);
    volatile char *q = alloca(n * 5 + 100);
    q[n] = p[0];
    return r + leaf(n) + q[n];
}

NOINLINE static size_t with_vla(size_t n) {
    size_t r = 0;
    for (size_t i = 1; i < n; i++) {
        volatile int v[i * 13];
        v[i] = (int)i;
        r += leaf(i) + v[i];
    }
    return r;
}

// More alignment than the caller keeps: the frame is found through a saved pointer (DRAP).
NOINLINE static size_t aligned(size_t n, ...) {
    __attribute__((aligned(64))) volatile char buffer[256];
    va_list arguments;
    va_start(arguments, n);
    buffer[n & 255] = (char)va_arg(arguments, int);
    va_end(arguments);
    return leaf(n) + buffer[n & 255];
}

NOINLINE static size_t aligned_recursion(size_t n, size_t m) {
    __attribute__((aligned(128))) volatile size_t buffer[40];
    buffer[n] = m;
    volatile char *more = alloca(n + 1);
    more[n] = 1;
    return leaf(n) + (n ? aligned_recursion(n - 1, m + 1) : with_alloca(9)) + buffer[n] + more[n];
}

NOINLINE static size_t many_arguments(size_t a, size_t b, size_t c, size_t d, size_t e, size_t f,
                                      size_t g, size_t h, size_t i, size_t j) {
    return leaf(a + j) + b + c + d + e + f + g + h + i;
}

NOINLINE static size_t big_frame(size_t n) {
    volatile char buffer[3 << 16];
    memset((char *)buffer, (int)n, sizeof buffer);
    return leaf(n) + buffer[n];
}

// Calls that never return leave a return address behind the function.
NOINLINE static void leave(jmp_buf buffer) { leaf(1); longjmp(buffer, 1); }
__attribute__((noreturn)) NOINLINE static void last_call(jmp_buf buffer) { leave(buffer); __builtin_unreachable(); }
NOINLINE static size_t jumps(size_t n) {
    jmp_buf buffer;
    if (setjmp(buffer)) return leaf(n);
    last_call(buffer);
}

static int order(const void *a, const void *b) {
    leaf(1);
    return *(const int *)a - *(const int *)b;
}
NOINLINE static size_t sorts(void) {
    int v[60];
    for (int i = 0; i < 60; i++) v[i] = i * 37 % 60;
    qsort(v, 60, sizeof *v, order);
    int key = 30;
    return (size_t)bsearch(&key, v, 60, sizeof *v, order);
}

#ifdef __clang__ // has no nested functions
NOINLINE static size_t nested(size_t n) { return leaf(n); }
#else
NOINLINE static size_t nested(size_t n) {
    size_t inner(size_t m) { return m ? inner(m - 1) + n : leaf(n); }
    return inner(3);
}
#endif

// A PLT entry whose function is chosen at its first call, inside the loader.
static size_t chosen_function(size_t n) { return leaf(n); }
static void *choose(void) { if (hook) leaf(5); return (void *)chosen_function; }
EXPORT size_t chosen(size_t) __attribute__((ifunc("choose")));
EXPORT size_t through_plt(size_t n) { return n ? through_plt(n - 1) + leaf(n) : chosen(7); }

static ucontext_t main_context, coroutine_context;
static void coroutine(void) {
    recurse(5, 1, 2, 3, 4);
    swapcontext(&coroutine_context, &main_context);
    with_alloca(20);
}
NOINLINE static size_t coroutines(void) {
    char *stack = malloc(128 << 10);
    getcontext(&coroutine_context);
    coroutine_context.uc_stack.ss_sp = stack;
    coroutine_context.uc_stack.ss_size = 128 << 10;
    coroutine_context.uc_link = &main_context;
    makecontext(&coroutine_context, coroutine, 0);
    swapcontext(&main_context, &coroutine_context);
    leaf(1);
    swapcontext(&main_context, &coroutine_context);
    free(stack);
    return leaf(2);
}

NOINLINE static size_t all(void) {
    size_t r = 0;
    for (size_t n = 0; n < 4; n++) r += recurse(n * 6, n, 2, 3, 4);
    r += recurse(600, 1, 2, 3, 4) + tail(3);
    r += with_alloca(100) + with_vla(9) + aligned(30, 7) + aligned_recursion(5, 6);
    r += many_arguments(1, 2, 3, 4, 5, 6, 7, 8, 9, 10) + big_frame(77) + jumps(3) + sorts();
    r += nested(4) + through_plt(3);
    return r;
}

EXPORT size_t run(hook_t with) {
    hook = with;
    return all() + coroutines();
}

// Every instruction of some calls, by the trap flag.
static hook_t at_step;
static void on_step(int signal) { (void)signal; at_step(0); }
NOINLINE static size_t nothing(size_t n) { return n; }
// Its frame is found by rbp, because of the array: the instructions below move rsp.
EXPORT size_t single_step(hook_t with) {
    volatile char room[1 + ((size_t)with & 7)];
    struct sigaction action = {0}, before;
    room[0] = 1;
    action.sa_handler = on_step;
    at_step = with;
    hook = nothing;
    sigaction(SIGTRAP, &action, &before);
    __asm__ volatile("lea -128(%%rsp), %%rsp\n pushfq\n orl $0x100, (%%rsp)\n popfq\n lea 128(%%rsp), %%rsp" ::: "memory", "cc");
    size_t r = recurse(2, 1, 2, 3, 4) + with_alloca(10) + with_vla(3) + aligned(30, 7);
    r += aligned_recursion(1, 6) + many_arguments(1, 2, 3, 4, 5, 6, 7, 8, 9, 10) + nested(1);
    r += through_plt(1) + tail(2) + (size_t)memchr("abcdef", 'e', 6) + strlen(getenv("PATH"));
    free(malloc(100));
    __asm__ volatile("lea -128(%%rsp), %%rsp\n pushfq\n andl $~0x100, (%%rsp)\n popfq\n lea 128(%%rsp), %%rsp" ::: "memory", "cc");
    sigaction(SIGTRAP, &before, 0);
    return r;
}

#ifdef REGISTER_FRAMES
// libgcc does not find them without a header.
extern const char first_frame[] __attribute__((visibility("hidden")));
void __register_frame(const void *), __deregister_frame(const void *);
__attribute__((constructor(101))) static void register_frames(void) { __register_frame(first_frame); }
__attribute__((destructor(101))) static void deregister_frames(void) { __deregister_frame(first_frame); }
#endif

static hook_t at_load;
__attribute__((constructor)) static void constructor(void) {
    const char *text = getenv("MTR_TEST_HOOK");
    if (text) { hook = at_load = (hook_t)strtoull(text, 0, 16); leaf(1); }
}
__attribute__((destructor)) static void destructor(void) {
    if (at_load) { hook = at_load; leaf(2); }
}
