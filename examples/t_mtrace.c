/* The classic of mtrace(3): main() leaks three blocks, of 100, 100 and 256 bytes.
 *
 *   cc -g -Wall -Wextra -o t_mtrace examples/t_mtrace.c
 */
#include <mcheck.h>
#include <stdlib.h>

int main(void)
{
    mtrace(); /* recording begins here */

    char *first = malloc(100);    /* never freed */
    char *second = malloc(100);   /* never freed */
    char *third = calloc(16, 16); /* never freed: 256 bytes */

    return first && second && third ? EXIT_SUCCESS : EXIT_FAILURE;
}
