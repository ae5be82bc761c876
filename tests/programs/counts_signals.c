// counts_signals [apart]: writes a letter for each SIGHUP, SIGINT, SIGQUIT and SIGTERM that it gets,
// until its stdin ends; in a process group of its own if it is told so.
#include <signal.h>
#include <string.h>
#include <unistd.h>

static void tell(int signal) {
    const char *letter = signal == SIGHUP ? "h" : signal == SIGINT ? "i" : signal == SIGQUIT ? "q" : "t";
    (void)!write(1, letter, 1);
}

int main(int argc, char **argv) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = tell;
    action.sa_flags = SA_RESTART;
    const int signals[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM};
    for (int i = 0; i < 4; i++) sigaction(signals[i], &action, NULL);
    if (argc > 1 && !strcmp(argv[1], "apart") && setpgid(0, 0)) return 1;
    (void)!write(1, ".", 1);
    char byte;
    return read(0, &byte, 1) != 0;
}
