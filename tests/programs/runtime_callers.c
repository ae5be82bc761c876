/* Allocates through libc's own functions, which call malloc themselves. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(void)
{
    char *text = NULL;
    char *copy = strdup("forty-one bytes, with the end that is NUL"); /* 42 bytes */
    if (asprintf(&text, "%s", copy) < 0) /* libc grows its buffer: an allocation and a realloc */
        return 1;
    free(text);
    return copy == NULL;
}
