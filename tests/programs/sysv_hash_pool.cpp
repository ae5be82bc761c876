// A library with operators of its own: blocks begin 64 bytes behind what malloc gave.
#include <cstdlib>
#include <new>

int live_objects;

void *operator new(std::size_t size) {
    void *block = std::malloc(size + 64);
    if (!block) throw std::bad_alloc();
    live_objects++;
    return static_cast<char *>(block) + 64;
}

void operator delete(void *object) noexcept {
    if (!object) return;
    live_objects--;
    std::free(static_cast<char *>(object) - 64);
}

void operator delete(void *object, std::size_t) noexcept { operator delete(object); }
