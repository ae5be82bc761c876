/* Makes every descriptor one of its own file, in the middle of a run: with argv[1] "dup2" over all of
 * them, with "open" by closing all and opening the file until there is no number left, with "range" by
 * close_range and then dup. What is in the file at the end is what the program has written. */
#define _GNU_SOURCE
#include "counts.h"
#include <fcntl.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static void work(int n)
{
    for (int i = 0; i < 20000; i++)
        end(make(n), n);
}

int main(int argc, char **argv)
{
    const char *how = argc > 1 ? argv[1] : "dup2";
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    int most = limit.rlim_cur < 4096 ? (int)limit.rlim_cur : 4096;
    int own = open("own", O_CREAT | O_TRUNC | O_RDWR | O_APPEND, 0600);
    if (own < 0)
        return 2;
    work(0);
    if (!strcmp(how, "dup2")) {
        for (int fd = 3; fd < most; fd++)
            dup2(own, fd);
    } else {
        if (!strcmp(how, "range"))
            close_range(3, ~0U, 0);
        else
            for (int fd = 3; fd < most; fd++)
                close(fd);
        /* Up to what the limit allows. */
        own = open("own", O_RDWR | O_APPEND);
        for (int fd = own; fd >= 0 && fd < most;)
            fd = dup(own);
    }
    work(1);
    for (int fd = 3; fd < most; fd += 97)
        if (write(fd, "mine\n", 5) != 5)
            return 3;
    work(2);
    struct stat end;
    if (fstat(own, &end))
        return 4;
    /* As many lines as were written, and nothing else. */
    char text[8192];
    long length = pread(own, text, sizeof text, 0);
    if (length != end.st_size || length % 5)
        return 5;
    for (long i = 0; i < length; i += 5)
        if (memcmp(text + i, "mine\n", 5))
            return 6;
    print_counts();
    return 0;
}
