/* The classic program, but its two leaks of 100 bytes are made by a shared library. */
#include <mcheck.h>
#include <stdlib.h>

char *library_leak(size_t size);

int main(void)
{
    mtrace();
    char *first = library_leak(100);
    char *second = library_leak(100);
    char *third = calloc(16, 16);
    return first && second && third ? 0 : 1;
}
