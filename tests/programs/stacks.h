/* Blocks of sizes that nothing else has, each with glibc's own view of the call stack: the function
 * that allocates calls backtrace() directly behind. What was seen goes to the file argv[1], as
 * 64-bit words: size, how many functions stand between malloc and the one that called backtrace(),
 * number of return addresses, return addresses. The first word of all is the address of the signal
 * trampoline (0 before a handler has run). */
#pragma once
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <execinfo.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MOST_FRAMES = 400, FIRST_SIZE = 20000, MOST_WORDS = 1 << 20 };

#ifdef REGISTER_FRAMES
/* Without an .eh_frame_hdr libgcc does not find the frames of a module that does not register them;
 * exceptions would not pass either. */
#ifdef __cplusplus
extern "C" {
#endif
extern const char first_frame[] __attribute__((visibility("hidden")));
void __register_frame(const void *);
void __deregister_frame(const void *);
#ifdef __cplusplus
}
#endif
__attribute__((constructor(101))) static void register_frames(void)
{
    __register_frame(first_frame);
}
__attribute__((destructor(101))) static void deregister_frames(void)
{
    __deregister_frame(first_frame);
}
#endif

struct seen {
    unsigned long words[MOST_WORDS];
    unsigned long length, blocks;
};

static struct seen *seen;

static inline void keep(size_t size, unsigned long between, void **frames, int count)
{
    if (seen->length + count + 3 > MOST_WORDS)
        _exit(98);
    unsigned long *place = &seen->words[seen->length];
    place[0] = size;
    place[1] = between;
    place[2] = count;
    memcpy(place + 3, frames, count * sizeof *frames);
    seen->length += 3 + count;
}

static inline size_t next_size(void)
{
    return FIRST_SIZE + seen->blocks++;
}

/* Macros: the call has to stand in the function that wants to know its stack. */
#define ALLOCATE_BY(call, between)                             \
    do {                                                       \
        void *frames_[MOST_FRAMES];                            \
        size_t size_ = next_size();                            \
        void *block_ = (call);                                 \
        int count_ = backtrace(frames_, MOST_FRAMES);          \
        __asm__ volatile("" : "+r"(block_) : : "memory");      \
        keep(size_, between, frames_, count_);                 \
        free(block_);                                          \
    } while (0)
#define ALLOCATE() ALLOCATE_BY(malloc(size_), 0)

static inline uint32_t random_below(uint32_t limit)
{
    static uint32_t state = 12345;
    state = state * 1664525 + 1013904223;
    return (uint32_t)(((uint64_t)state * limit) >> 32);
}

static inline void begin_seen(struct seen *place)
{
    void *frames[4];
    seen = place;
    seen->length = seen->length ? seen->length : 1;
    backtrace(frames, 4); /* the first call loads libgcc_s */
}

static inline int write_seen(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    const char *bytes = (const char *)seen->words;
    size_t length = seen->length * 8;
    while (length) {
        ssize_t n = write(fd, bytes, length);
        if (n < 0)
            return 1;
        bytes += n;
        length -= n;
    }
    return close(fd);
}
