// reused_pid: starts six children one after the other which all have the process ID 701, in a PID
// namespace of their own. Child number i allocates 100 blocks of 8000 + i bytes. The first three are
// forked, as soon as the one before has ended; the next three at another tick of the clock that start
// times are given in, and the last two of them execute the program anew. Exits with 77 where it is not
// permitted to make such a namespace.
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { CHILDREN = 6, NOT_PERMITTED = 77 };

static void *volatile block;

static int work(int number) {
    for (int i = 0; i < 100; i++) block = malloc(8000 + number);
    return getpid() == 701 ? 0 : 3;
}

static long ticks(void) {
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return now.tv_sec * 100 + now.tv_nsec / 10000000;
}

static int status_of(pid_t child) {
    int status;
    if (child < 0 || waitpid(child, &status, 0) != child || !WIFEXITED(status)) return 2;
    return WEXITSTATUS(status);
}

static int start_all(char *program) {
    block = malloc(7001);
    for (int number = 0; number < CHILDREN; number++) {
        for (long now = ticks(); number > 2 && ticks() == now;) {}
        int fd = open("/proc/sys/kernel/ns_last_pid", O_WRONLY);
        if (fd < 0 || write(fd, "700", 3) != 3) return NOT_PERMITTED;
        close(fd);
        pid_t child = fork();
        if (child == 0) {
            if (number < 4) exit(work(number));
            char digit[] = {(char)('0' + number), 0};
            execl(program, program, digit, NULL);
            _exit(4);
        }
        int status = status_of(child);
        if (status) return status;
    }
    return 0;
}

int main(int argc, char **argv) {
    if (argc > 1) return work(atoi(argv[1]));
    block = malloc(7000);
    if (unshare(CLONE_NEWUSER | CLONE_NEWPID)) return NOT_PERMITTED;
    pid_t first = fork();
    if (first == 0) exit(start_all(argv[0]));
    return status_of(first);
}
