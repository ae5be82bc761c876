// Blocks that are freed by the wrong function, and some by the right one. argv[1] names the case; each
// has a size of its own. The allocators of this machine put up with all of them.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <vector>

#define APART __attribute__((noinline))

APART static char *by_malloc() { return static_cast<char *>(std::malloc(4001)); }
APART static char *by_new() { return static_cast<char *>(::operator new(4002)); }
APART static char *by_new_array() { return new char[4003]; }
APART static char *by_strdup() { return strdup(std::string(4003, 'x').c_str()); } // 4,004
APART static char *by_nothrow() { return new (std::nothrow) char[4005]; }
APART static char *by_realloc() { return static_cast<char *>(std::realloc(std::malloc(9), 4006)); }
APART static char *by_new_again() { return static_cast<char *>(::operator new(4007)); }

#pragma GCC diagnostic ignored "-Wpragmas"
#pragma GCC diagnostic ignored "-Wmismatched-new-delete"

int main(int argc, char **argv)
{
    const std::string what = argc > 1 ? argv[1] : "";
    for (int i = 0; i < 3; ++i) {
        if (what == "wrong") {
            ::operator delete(by_malloc());
            ::operator delete[](by_new());
            ::operator delete(by_new_array());
            delete by_strdup();
            ::operator delete(by_nothrow(), std::size_t(4005));
            ::operator delete[](by_realloc());
            std::free(by_new_again());
        } else {
            std::free(by_malloc());
            ::operator delete(by_new());
            ::operator delete[](by_new_array());
            std::free(by_strdup());
            ::operator delete[](by_nothrow(), std::nothrow);
            std::free(by_realloc());
            ::operator delete(by_new_again(), std::size_t(4007));
            std::vector<std::string> names(20, std::string(200, 'a'));
            delete[] new std::string[5];
            auto shared = std::make_shared<std::string>(std::string(100, 'b'));
        }
    }
    std::puts("done");
    return 0;
}
