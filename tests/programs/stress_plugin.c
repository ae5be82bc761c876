// Allocates and frees on behalf of stress.cpp.
#include <stdlib.h>

void *plugin_make(size_t size) {
    void *block = malloc(size);
    __asm__ volatile("" : : "r"(block));
    return block;
}

void plugin_free(void *block) {
    free(block);
    __asm__ volatile("");
}
