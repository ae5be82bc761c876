// meddles_with_its_tail HOW END TAIL: does to the file TAIL, which its own trace has mapped, what somebody
// else could do by accident, and goes on.
//   HOW  empty   tries to truncate it in each way that there is; exits with 3 if one of them works
//        remove  removes it
//   END  exit or kill
#define _GNU_SOURCE
#include "counts.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

static void work(int n) {
    void *window[8] = {0};
    for (int i = 0; i < 20000; i++) {
        end(window[i % 8], n);
        window[i % 8] = make(n);
    }
}

static int is_refused(int result) {
    return result == -1 && errno == EACCES;
}

int main(int argc, char **argv) {
    if (argc < 4) return 1;
    const char *tail = argv[3];
    work(0);
    // It is there, and may be read.
    int fd = open(tail, O_RDONLY);
    if (fd < 0) return 2;
    close(fd);
    if (!strcmp(argv[1], "empty")) {
        if (!is_refused(open(tail, O_WRONLY | O_TRUNC))) return 3;
        if (!is_refused(open(tail, O_RDONLY | O_TRUNC))) return 3;
        if (!is_refused(open(tail, O_RDWR))) return 3;
        if (!is_refused(creat(tail, 0600))) return 3;
        if (!is_refused(truncate(tail, 0))) return 3;
    } else if (unlink(tail)) {
        return 4;
    }
    work(1);
    print_counts();
    if (!strcmp(argv[2], "kill")) raise(SIGKILL);
    return 0;
}
