/* vfork children that allocate before they execute something, or leave by _exit(). It is the heap of the
 * parent; so are the records. */
#define _GNU_SOURCE
#include "counts.h"
#include <sys/wait.h>
#include <unistd.h>

int main(void)
{
    for (int round = 0; round < 20; round++) {
        int status;
        void *volatile block = make(0);
        pid_t pid = vfork();
        if (pid == 0) {
            end(block, 0);
            block = make(1);
            if (round % 2)
                execl("/bin/true", "true", (char *)NULL);
            _exit(0);
        }
        if (pid < 0 || waitpid(pid, &status, 0) != pid || status)
            return 1;
        end(block, 1);
    }
    print_counts();
    return 0;
}
