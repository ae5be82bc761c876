// state [closed]: prints what it was started with: the dispositions and the mask of its signals, and
// which descriptors are open.
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv) {
    (void)argv;
    char text[4096] = "ignored:", *end = text + strlen(text);
    sigset_t mask;
    sigprocmask(SIG_BLOCK, NULL, &mask);
    for (int n = 1; n < 65; n++) {
        struct sigaction action;
        if (sigaction(n, NULL, &action) == 0 && action.sa_handler == SIG_IGN)
            end += sprintf(end, " %d", n);
    }
    end += sprintf(end, "\nblocked:");
    for (int n = 1; n < 65; n++)
        if (sigismember(&mask, n) == 1) end += sprintf(end, " %d", n);
    end += sprintf(end, "\nopen:");
    for (int fd = 0; fd < 900; fd++)
        if (fcntl(fd, F_GETFD) >= 0) end += sprintf(end, " %d", fd);
    sprintf(end, "\n");
    FILE *out = argc > 1 ? fopen(argv[1], "w") : stdout;
    fputs(text, out);
    fclose(out);
    return 0;
}
