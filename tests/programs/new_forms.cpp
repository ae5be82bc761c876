// Every form of new and delete, each with a size of its own (3,000 + i), and the ways they fail.
// Prints what happened, which the library must not change.
#include <cstdio>
#include <cstdlib>
#include <new>

static int handler_calls;

static void handler()
{
    if (++handler_calls == 3)
        std::set_new_handler(nullptr);
}

static volatile std::size_t too_much = static_cast<std::size_t>(-1) / 4;

struct alignas(64) Wide {
    char bytes[3008 + 64 - 3008 % 64]; // 3,072
};

struct Throws {
    char bytes[3009];
    Throws() { throw 1; }
};

struct Destroyed {
    char bytes[3010];
    ~Destroyed() { std::puts("destroyed"); }
};

int main()
{
    ::operator delete(::operator new(3000));
    ::operator delete(::operator new(3001), std::size_t(3001));
    ::operator delete[](::operator new[](3002));
    ::operator delete[](::operator new[](3003), std::size_t(3003));
    ::operator delete(::operator new(3004, std::nothrow), std::nothrow);
    ::operator delete[](::operator new[](3005, std::nothrow), std::nothrow);
    const auto alignment = std::align_val_t(128);
    ::operator delete(::operator new(3072 + 128, alignment), alignment);
    ::operator delete[](::operator new[](3072 + 256, alignment), alignment);
    ::operator delete(::operator new(3072 + 384, alignment), std::size_t(3072 + 384), alignment);
    ::operator delete(::operator new(3072 + 512, alignment, std::nothrow), alignment, std::nothrow);
    delete new Wide;
    delete static_cast<char *>(nullptr);

    try {
        Throws *never = new Throws; // frees its memory by itself
        std::printf("%p\n", static_cast<void *>(never));
    } catch (int) {
        std::puts("constructor threw");
    }
    delete new Destroyed;

    std::set_new_handler(handler);
    try {
        void *never = ::operator new(too_much);
        std::printf("%p\n", never);
    } catch (const std::bad_alloc &error) {
        std::printf("%s after %d calls of the handler\n", error.what(), handler_calls);
    }
    std::printf("nothrow gives %p\n", ::operator new(too_much, std::nothrow));
    try {
        char *never = new char[too_much];
        std::printf("%p\n", static_cast<void *>(never));
    } catch (const std::bad_alloc &error) {
        std::printf("new[]: %s\n", error.what());
    }
    return 0;
}
