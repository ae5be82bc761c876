// A plugin whose operators new and delete work on a static pool: a pointer of it in free() would
// end the process. Objects of the pool are no allocations; the plugin also takes one block of 3,100
// bytes from malloc and frees it.
#include <cstdio>
#include <cstdlib>
#include <new>
#include <string>
#include <vector>

alignas(64) static char pool[1 << 20];
static std::size_t used;
static long taken, returned, foreign;

#define LOCAL __attribute__((visibility("default")))

LOCAL void *operator new(std::size_t size)
{
    size = (size + 63) / 64 * 64;
    if (size > sizeof pool - used)
        throw std::bad_alloc();
    ++taken;
    return pool + (used += size) - size;
}

LOCAL void operator delete(void *block) noexcept
{
    if (!block)
        return;
    const char *bytes = static_cast<char *>(block);
    (bytes >= pool && bytes < pool + sizeof pool ? returned : foreign)++;
}

LOCAL void operator delete(void *block, std::size_t) noexcept
{
    ::operator delete(block);
}

LOCAL void *operator new[](std::size_t size)
{
    return ::operator new(size);
}

LOCAL void operator delete[](void *block) noexcept
{
    ::operator delete(block);
}

LOCAL void operator delete[](void *block, std::size_t) noexcept
{
    ::operator delete(block);
}

struct Big {
    char bytes[2 << 20];
};

extern "C" LOCAL int plugin_work()
{
    for (int i = 0; i < 50; ++i) {
        delete new long(i);
        delete[] new int[100];
    }
    {
        std::vector<std::string> names;
        for (int i = 0; i < 20; ++i)
            names.push_back(std::string(100, 'a'));
    }
    bool caught = false;
    try {
        delete new Big;
    } catch (const std::bad_alloc &) {
        caught = true;
    }
    volatile char *block = static_cast<char *>(std::malloc(3100));
    block[0] = 1;
    std::free(const_cast<char *>(block));
    std::printf("%ld taken, %ld returned, %ld foreign, bad_alloc %s\n", taken, returned, foreign,
                caught ? "caught" : "missed");
    return taken == returned && !foreign && caught ? 0 : 1;
}
