/* An allocator that a signal handler may use: it keeps signals out of glibc's while that works.
 * Preloaded behind libmtr.so, so that a signal can come at any point of the hooks, where only they
 * have to cope with it. */
#define _GNU_SOURCE
#include <signal.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *block, size_t size);
void __libc_free(void *block);

/* By the system call: libc's leaves the signal of pthread_cancel() alone. */
#define GUARDED(call)                                              \
    unsigned long all = -1ul, before;                              \
    syscall(SYS_rt_sigprocmask, SIG_BLOCK, &all, &before, 8);      \
    call;                                                          \
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &before, NULL, 8)

void *malloc(size_t size)
{
    void *block;
    GUARDED(block = __libc_malloc(size));
    return block;
}

void *calloc(size_t count, size_t size)
{
    void *block;
    GUARDED(block = __libc_calloc(count, size));
    return block;
}

void *realloc(void *old, size_t size)
{
    void *block;
    GUARDED(block = __libc_realloc(old, size));
    return block;
}

void free(void *block)
{
    GUARDED(__libc_free(block));
}
