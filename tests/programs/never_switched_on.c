/* Links mtrace() and never calls it. Leaks 9,100 bytes. */
#include <mcheck.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    (void)argv;
    if (argc > 100)
        mtrace();
    char *block = malloc(9100);
    return block ? 0 : 1;
}
