// Uses every door of an allocator, whoever it is; each has a size of its own. Prints alignments and
// usable sizes, which are the allocator's.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <malloc.h>
#include <new>
#include <string>
#include <thread>
#include <vector>

static volatile std::size_t too_much = static_cast<std::size_t>(-1) / 4;

static void *seen(const char *what, void *block, std::size_t align)
{
    std::printf("%s: aligned %d, usable %zu\n", what, std::uintptr_t(block) % align == 0,
                malloc_usable_size(block));
    return block;
}

static void work()
{
    for (int i = 0; i < 1000; ++i) {
        delete[] new int[300];
        std::string text(100 + i, 'a');
        std::free(std::malloc(10 + i));
    }
}

int main(int argc, char **)
{
    const auto align = std::align_val_t(256);
    for (int i = 0; i < 4; ++i) {
        std::free(seen("malloc", std::malloc(2001), 16));
        std::free(seen("calloc", std::calloc(2, 1001), 16)); // 2,002
        std::free(seen("realloc", std::realloc(std::malloc(2003), 20030), 16));
        std::free(seen("aligned_alloc", aligned_alloc(64, 2048), 64));
        ::operator delete(seen("new", ::operator new(2005), 16));
        ::operator delete(seen("new", ::operator new(2006), 16), std::size_t(2006));
        ::operator delete[](seen("new[]", ::operator new[](2007), 16));
        ::operator delete[](seen("new[]", ::operator new[](2008), 16), std::size_t(2008));
        ::operator delete(seen("nothrow", ::operator new(2009, std::nothrow), 16), std::nothrow);
        ::operator delete[](seen("nothrow", ::operator new[](2010, std::nothrow), 16),
                            std::nothrow);
        ::operator delete(seen("aligned", ::operator new(2304, align), 256), align);
        ::operator delete[](seen("aligned", ::operator new[](2560, align), 256), align);
        ::operator delete(seen("aligned", ::operator new(2816, align), 256), 2816, align);
    }
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i)
        threads.emplace_back(work);
    for (auto &thread : threads)
        thread.join();
    if (argc > 1) { // mimalloc ends the process for want of memory
        try {
            delete[] new char[too_much];
        } catch (const std::bad_alloc &error) {
            std::puts("bad_alloc");
        }
        std::printf("nothrow gives %p\n", ::operator new(too_much, std::nothrow));
        try {
            ::operator delete(::operator new(too_much, align), align);
        } catch (const std::bad_alloc &error) {
            std::puts("bad_alloc, aligned");
        }
    }
    return 0;
}
