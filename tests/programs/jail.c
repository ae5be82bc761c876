// jail chroot|uid|both FOLDER: forks children where they cannot make a log: below another root
// folder, or as a user without rights. Exits with 77 where this is not permitted.
#define _GNU_SOURCE
#include <grp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void *volatile block;

int main(int argc, char **argv) {
    if (argc < 3) return 1;
    block = malloc(7600);
    if (strcmp(argv[1], "uid") && (chroot(argv[2]) || chdir("/"))) return 77;
    int status, all = 0;
    for (int i = 0; i < 3; i++) {
        pid_t child = fork();
        if (child == 0) {
            if (strcmp(argv[1], "chroot")) {
                setgroups(0, NULL);
                if (setresgid(65534, 65534, 65534) || setresuid(65534, 65534, 65534)) _exit(77);
            }
            for (int n = 0; n < 1000; n++) free(malloc(7601));
            exit(0);
        }
        waitpid(child, &status, 0);
        all |= status;
    }
    for (int n = 0; n < 1000; n++) free(block = malloc(7602));
    return WEXITSTATUS(all);
}
