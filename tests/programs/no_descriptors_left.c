/* no_descriptors_left: closes all descriptors but the first three and lowers the limit of their number to
 * those, so that nothing can be opened; allocates before and after, counts it (counts.h), and counts how
 * often errno was changed. */
#define _GNU_SOURCE
#include "counts.h"
#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

static int changed;

static void allocate(int n)
{
    void *held[8] = { 0 };
    errno = 77;
    for (int i = 0; i < 20000; i++) {
        end(held[i % 8], n);
        held[i % 8] = make(n);
        changed += errno != 77;
        errno = 77;
    }
}

int main(void)
{
    struct rlimit three = { 3, 3 };
    allocate(0);
    close_range(3, ~0U, 0);
    if (setrlimit(RLIMIT_NOFILE, &three) || dup(1) >= 0)
        return 1;
    allocate(1);
    dprintf(1, "errno was changed %d times\n", changed);
    print_counts();
    return 7;
}
