/* C++ exceptions through frames that allocate and whose destructors free, also out of operator new. */
#include "counts.h"
#include <new>
#include <stdexcept>
#include <string>

struct Held {
    int n;
    void *block;
    explicit Held(int n) : n(n), block(make(n)) {}
    ~Held() { end(block, n); }
};

__attribute__((noinline)) static int deeper(int depth)
{
    Held held(depth % 8);
    if (depth == 0)
        throw std::runtime_error(std::string(100, 'x'));
    return deeper(depth - 1) + held.n;
}

int main()
{
    int caught = 0;
    volatile std::size_t huge = ~std::size_t(0) / 2;
    for (int round = 0; round < 1500; round++) {
        try {
            deeper(round % 40);
        } catch (const std::exception &) {
            caught++;
        }
        try {
            Held held(8);
            delete[] new char[huge - 100];
        } catch (const std::bad_alloc &) {
            caught++;
        }
    }
    dprintf(1, "%d caught\n", caught);
    print_counts();
    return 0;
}
