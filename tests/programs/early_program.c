/* Does as good as nothing: what is preloaded with it allocates (early_library.c). */
#include <stdlib.h>

int main(void)
{
    void *volatile block = malloc(77);
    free(block);
    return 0;
}
