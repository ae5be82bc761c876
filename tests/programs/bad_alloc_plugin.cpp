// A plugin of pool_host.c that brings a C++ runtime along and catches its bad_alloc.
#include <cstdio>
#include <memory>
#include <new>
#include <string>
#include <vector>

static volatile std::size_t too_much = static_cast<std::size_t>(-1) / 4;

static int handler_calls;

static void handler()
{
    if (++handler_calls == 2)
        std::set_new_handler(nullptr);
}

extern "C" __attribute__((visibility("default"))) int plugin_work()
{
    int caught = 0;
    std::set_new_handler(handler);
    try {
        delete[] new char[too_much];
    } catch (const std::bad_alloc &) {
        caught |= 1;
    }
    try {
        ::operator delete(::operator new(too_much, std::align_val_t(64)), std::align_val_t(64));
    } catch (const std::bad_alloc &) {
        caught |= 2;
    }
    try {
        std::vector<std::string> names;
        names.reserve(too_much / sizeof(std::string));
    } catch (const std::exception &) { // length_error or bad_alloc
        caught |= 4;
    }
    if (!new (std::nothrow) char[too_much])
        caught |= 8;
    for (int i = 0; i < 10; ++i)
        delete[] new char[3400];
    std::printf("caught %d, handler called %d times\n", caught, handler_calls);
    return caught == 15 && handler_calls == 2 ? 0 : 1;
}
