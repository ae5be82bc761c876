/* Makes every call whose record is documented, between two marker blocks of 0xbe91 and 0xe4d1
 * bytes. Writes the records it expects to argv[1], and what each call returned and did to errno to
 * stdout. Called with BEGIN_MTRACE set it switches on the tracer of glibc, if that is preloaded. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* volatile, or the compiler folds realloc(NULL, n) into malloc(n) and warns of huge sizes. */
static void *volatile nil = NULL;
static volatile size_t huge = SIZE_MAX - 4096 * 4;
static volatile size_t zero = 0, three = 3, sixteen = 16;

static char expected[16384], results[16384];
static size_t expected_length, results_length;

/* A record: "WHO OP PTR SIZE". A leading '?' marks one that may be absent. */
static void expect(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    expected_length += vsnprintf(expected + expected_length, sizeof expected - expected_length,
                                 format, arguments);
    va_end(arguments);
}

enum { UNTOUCHED = 77 };

static void result(const char *call, const void *p)
{
    int error = errno;
    results_length += snprintf(results + results_length, sizeof results - results_length,
                               "%s: %s, errno %d\n", call, p ? "a block" : "nil", error);
    errno = UNTOUCHED;
}

static void write_all(int fd, const char *text, size_t length)
{
    while (length) {
        ssize_t n = write(fd, text, length);
        if (n < 0)
            _exit(99);
        text += n;
        length -= n;
    }
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    if (getenv("BEGIN_MTRACE")) {
        void *symbol = dlvsym(RTLD_DEFAULT, "mtrace", "GLIBC_2.2.5");
        void (*begin)(void);
        memcpy(&begin, &symbol, sizeof begin);
        begin();
    }
    free(malloc(0xbe91));
    errno = UNTOUCHED;

    void *volatile a = malloc(100); /* volatile: it is used after a realloc that fails */
    result("malloc", a);
    expect("program + %p 0x64\n", a);

    void *b = calloc(7, 3);
    result("calloc", b);
    expect("program + %p 0x15\n", b);

    void *c = malloc(zero);
    result("malloc of nothing", c);
    expect("program + %p 0\n", c);

    void *d = malloc(huge);
    result("malloc too big", d);
    expect("program + (nil) %#zx\n", huge);

    d = calloc(huge, 1);
    result("calloc too big", d);
    expect("program + (nil) %#zx\n", huge);

    d = calloc(huge, sixteen);
    result("calloc overflow", d);

    d = memalign(64, huge);
    result("memalign too big", d);
    expect("program + (nil) %#zx\n", huge);

    d = reallocarray(nil, huge, sixteen);
    result("reallocarray overflow", d);

    free(nil);
    result("free of nil", nil);

    void *old = a;
    expect("program < %p\n", old);
    a = realloc(a, 120); /* grows where it is */
    result("realloc in place", a);
    expect("program > %p 0x78\n", a);

    void *wall = malloc(100);
    result("malloc behind", wall);
    expect("program + %p 0x64\n", wall);
    expect("program < %p\n", a);
    a = realloc(a, 200000); /* has to move */
    result("realloc that moves", a);
    expect("program > %p 0x30d40\n", a);

    d = realloc(a, huge);
    result("realloc too big", d);
    expect("program ! %p %#zx\n", a, huge);

    d = reallocarray(a, huge, sixteen);
    result("reallocarray overflow of a block", d);

    expect("program - %p\n", a);
    d = realloc(a, zero);
    result("realloc to nothing", d);

    void *e = realloc(nil, 33);
    result("realloc of nil", e);
    expect("program + %p 0x21\n", e);

    void *f = realloc(nil, zero);
    result("realloc of nil to nothing", f);
    expect("program + %p 0\n", f);

    d = realloc(nil, huge);
    result("realloc of nil too big", d);
    expect("program ! (nil) %#zx\n", huge);

    expect("program < %p\n", e);
    e = reallocarray(e, 10, 20);
    result("reallocarray", e);
    expect("program > %p 0xc8\n", e);

    void *g = NULL;
    int status = posix_memalign(&g, 64, 1000);
    result(status ? "posix_memalign fails" : "posix_memalign", g);
    expect("program + %p 0x3e8\n", g);

    void *h = NULL;
    status = posix_memalign(&h, three, 1000);
    result(status == EINVAL ? "posix_memalign EINVAL" : "posix_memalign?", h);

    status = posix_memalign(&h, 64, huge);
    result(status == ENOMEM ? "posix_memalign ENOMEM" : "posix_memalign?", h);
    expect("program + (nil) %#zx\n", huge);

    void *i = memalign(24, 50);
    result("memalign", i);
    expect("program + %p 0x32\n", i);

    void *j = aligned_alloc(64, 128);
    result("aligned_alloc", j);
    expect("program + %p 0x80\n", j);

    void *k = aligned_alloc(three, 40); /* glibc 2.38 refuses it */
    result("aligned_alloc to 3", k);
    if (k)
        expect("program + %p 0x28\n", k);

    void *l = valloc(70);
    result("valloc", l);
    expect("program + %p 0x46\n", l);

    void *m = pvalloc(10);
    result("pvalloc", m);
    expect("program + %p 0xa pvalloc\n", m);

    d = pvalloc(huge + 4096 * 4);
    result("pvalloc overflow", d);
    expect("?program + (nil) 0xffffffffffffffff\n");

    char *n = strdup("twelve bytes");
    result("strdup", n);
    expect("libc + %p 0xd\n", (void *)n);

    void *blocks[] = {b, c, wall, e, f, g, i, j, k, l, m, n};
    for (size_t x = 0; x < sizeof blocks / sizeof *blocks; x++) {
        if (blocks[x])
            expect("program - %p\n", blocks[x]);
        free(blocks[x]);
        result("free", blocks[x]);
    }

    free(malloc(0xe4d1));

    int fd = open(argv[1], O_WRONLY | O_CREAT | O_TRUNC, 0600);
    write_all(fd, expected, expected_length);
    close(fd);
    write_all(1, results, results_length);
    return 0;
}
