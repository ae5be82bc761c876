/* Switches tracing on, off and on: 9,001 bytes before, 9,002 while on, 9,003 while off, 9,004 after
 * it is on again. The block of 9,001 bytes is freed while on, that of 9,003 when on again. */
#include <mcheck.h>
#include <stdlib.h>

int main(void)
{
    char *before = malloc(9001);
    mtrace();
    char *first = malloc(9002);
    free(before);
    muntrace();
    char *unseen = malloc(9003);
    mtrace();
    mtrace(); /* changes nothing */
    char *second = malloc(9004);
    free(unseen);
    return first && second ? 0 : 1;
}
