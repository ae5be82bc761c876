/* Allocations below code that is made at run time: it keeps a frame pointer, and nothing describes it.
 * 100 times each: a block of 20001 bytes, allocated by such code; one of 20002, by such code that a
 * function called which such code called; one of 20003, by such code that such code called. Prints the
 * address behind the call instruction of each of the three pieces of code. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

typedef void *(*allocate)(size_t);
typedef void *(*caller)(allocate, size_t);

/* push %rbp; mov %rsp, %rbp; mov %rdi, %rax; mov %rsi, %rdi; call *%rax; pop %rbp; ret */
static const unsigned char calls[] = {0x55, 0x48, 0x89, 0xe5, 0x48, 0x89, 0xf8,
                                      0x48, 0x89, 0xf7, 0xff, 0xd0, 0x5d, 0xc3};
/* push %rbp; mov %rsp, %rbp; movabs $0, %rax; call *%rax; pop %rbp; ret */
static const unsigned char allocates[] = {0x55, 0x48, 0x89, 0xe5, 0x48, 0xb8, 0,    0,    0,   0,
                                          0,    0,    0,    0,    0xff, 0xd0, 0x5d, 0xc3};

static caller inside;

__attribute__((noinline, noclone)) static void *between(size_t size)
{
    void *block = inside(malloc, size);
    __asm__ volatile("" : "+r"(block) : : "memory");
    return block;
}

static unsigned char *make(const unsigned char *code, size_t length, size_t behind_call)
{
    unsigned char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED)
        exit(3);
    memcpy(page, code, length);
    if (code == allocates) {
        allocate function = malloc;
        memcpy(page + 6, &function, sizeof function);
    }
    if (mprotect(page, 4096, PROT_READ | PROT_EXEC))
        exit(4);
    printf("%p\n", (void *)(page + behind_call));
    return page;
}

int main(void)
{
    unsigned char *pages[3] = {make(calls, sizeof calls, 12), make(calls, sizeof calls, 12),
                               make(allocates, sizeof allocates, 16)};
    caller outside;
    allocate innermost;
    memcpy(&outside, &pages[0], sizeof outside);
    memcpy(&inside, &pages[1], sizeof inside);
    memcpy(&innermost, &pages[2], sizeof innermost);
    for (int i = 0; i < 100; i++) {
        free(outside(malloc, 20001));
        free(outside(between, 20002));
        free(outside(innermost, 20003));
    }
    return 0;
}
