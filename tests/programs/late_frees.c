/* Allocates and frees behind main: blocks of 5,001 bytes live from main to the atexit handler,
 * 5,002 from there to the destructor; 5,003 are allocated in the destructor and stay. */
#include <stdlib.h>

static char *of_main, *of_handler, *of_destructor;

static void handler(void)
{
    of_handler = malloc(5002);
    free(of_main);
}

__attribute__((destructor)) static void destructor(void)
{
    of_destructor = malloc(5003);
    free(of_handler);
}

int main(void)
{
    of_main = malloc(5001);
    return atexit(handler);
}
