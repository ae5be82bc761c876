/* Leaves behind what libc has allocated for it: the program's blocks, not libc's. */
#define _GNU_SOURCE
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int by_letter(const void *one, const void *other)
{
    static int calls;
    if (calls++ == 0 && malloc(555) == NULL)
        abort();
    return *(const char *)one - *(const char *)other;
}

int main(int argc, char **argv)
{
    static char letters[] = "cab";
    const char *what = argc > 1 ? argv[1] : "";
    char *text = NULL;
    size_t size = 0;
    printf("%s\n", what);
    if (strcmp(what, "strdup") == 0)
        return strdup("a copy") == NULL;
    if (strcmp(what, "asprintf") == 0)
        return asprintf(&text, "%s", what) < 0;
    if (strcmp(what, "fopen") == 0)
        return fopen("/dev/null", "r") == NULL;
    if (strcmp(what, "getline") == 0) {
        FILE *own = fopen(argv[0], "r");
        return own == NULL || getline(&text, &size, own) < 0 || fclose(own) != 0;
    }
    if (strcmp(what, "newlocale") == 0)
        return newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0) == (locale_t)0;
    if (strcmp(what, "qsort") == 0)
        qsort(letters, sizeof letters - 1, 1, by_letter);
    if (strcmp(what, "streams") == 0) {
        /* More buffers than there are standard streams, in FILEs that nobody closes. */
        for (int i = 0; i < 7; i++) {
            FILE *own = fopen("/dev/null", "w");
            if (own == NULL || fputs("text", own) < 0)
                return 1;
        }
    }
    return 0;
}
