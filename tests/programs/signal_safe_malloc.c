/* An allocator that a signal handler may use: it keeps signals out of glibc's while that works.
 * Preloaded behind libmtr.so, so that a signal can come at any point of the hooks, where only they
 * have to cope with it. */
#include <signal.h>
#include <stddef.h>

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *block, size_t size);
void __libc_free(void *block);

#define GUARDED(call)                              \
    sigset_t all, before;                          \
    sigfillset(&all);                              \
    sigprocmask(SIG_BLOCK, &all, &before);         \
    call;                                          \
    sigprocmask(SIG_SETMASK, &before, NULL)

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
