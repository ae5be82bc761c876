/* Leaks 9,200 bytes and knows nothing of mtrace(). */
#include <stdlib.h>

int main(void)
{
    char *block = malloc(9200);
    return block ? 0 : 1;
}
