// tree NUMBER [WIDTH]...: a process with as many children as the first WIDTH says, which have as many
// as the next one says, and so on. All work at once. Children with odd numbers are forked, and free a
// block that they have from their parent; those with even ones execute the program. Each process
// prints a line `PID ALLOCATIONS FREES BYTES BYTES_LIVE BLOCKS_LIVE` about its own blocks.
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MOST = 100 };

static unsigned long allocations, frees, bytes, live_bytes, live_blocks;

static void *make(unsigned long size) {
    volatile char *block = malloc(size);
    block[0] = 1;
    allocations++, live_blocks++;
    bytes += size, live_bytes += size;
    return (void *)block;
}

static void end(void *block, unsigned long size) {
    free(block);
    frees++, live_blocks--;
    live_bytes -= size;
}

static int tree(int number, char *program, char **widths);

// In a child made by fork.
static int grow(int number, char *program, char **widths, void *inherited) {
    if (number % 2 == 0) {
        char text[16], *arguments[MOST] = {program, text};
        snprintf(text, sizeof text, "%d", number);
        for (int i = 0; widths[i]; i++) arguments[2 + i] = widths[i];
        execv(program, arguments);
        return 1;
    }
    allocations = frees = bytes = live_bytes = live_blocks = 0;
    free(inherited);
    return tree(number, program, widths);
}

static int tree(int number, char *program, char **widths) {
    void *blocks[MOST];
    int count = 10 + number % 80, width = *widths ? atoi(*widths) : 0, failed = 0, status;
    for (int i = 0; i < count; i++) blocks[i] = make(1000 + number);
    for (int i = 0; i < width; i++) {
        void *for_it = make(5000 + i);
        pid_t child = fork();
        if (child == 0) exit(grow(10 * number + 1 + i, program, widths + 1, for_it));
        failed |= child < 0;
    }
    for (int i = 0; i < count / 2; i++) end(blocks[i], 1000 + number);
    while (wait(&status) > 0) failed |= status;
    // Without a block of libc's own.
    char line[200];
    int len = snprintf(line, sizeof line, "%d %lu %lu %lu %lu %lu\n", getpid(), allocations, frees,
                       bytes, live_bytes, live_blocks);
    return failed || write(1, line, len) != len;
}

int main(int argc, char **argv) {
    (void)argc;
    return tree(atoi(argv[1]), argv[0], argv + 2);
}
