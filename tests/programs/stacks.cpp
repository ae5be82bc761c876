/* Call stacks of C++ (see stacks.h): exceptions through frames with destructors that allocate,
 * catch blocks, virtual calls, lambdas, std::sort, std::function, operator new, a global constructor,
 * a std::thread. */
#include "stacks.h"
#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

static struct seen all;
#define NOINLINE __attribute__((noinline))
/* operator new is in libstdc++, between us and malloc. */
#define ALLOCATE_NEW() ALLOCATE_BY(::operator new(size_), 1)

struct Guard {
    int depth;
    ~Guard();
};

NOINLINE Guard::~Guard()
{
    if (random_below(3) == 0)
        ALLOCATE();
    if (random_below(9) == 0)
        ALLOCATE_NEW();
}

NOINLINE static void thrower(int depth)
{
    Guard guard{depth};
    if (random_below(3) == 0)
        ALLOCATE_NEW();
    if (depth == 0)
        throw std::runtime_error("out of here");
    thrower(depth - 1);
    __asm__ volatile("");
}

NOINLINE static void rethrower(int depth)
{
    try {
        Guard guard{depth};
        thrower((int)random_below(6));
    } catch (const std::exception &) {
        ALLOCATE();
        if (depth > 0)
            rethrower(depth - 1);
        throw;
    }
}

NOINLINE static void catcher(int depth)
{
    try {
        if (random_below(2))
            thrower(depth);
        else
            rethrower(depth / 2);
    } catch (const std::runtime_error &) {
        ALLOCATE();
        ALLOCATE_NEW();
    }
    ALLOCATE();
}

struct Shape {
    virtual ~Shape() {}
    virtual void visit(int depth) = 0;
};

static std::unique_ptr<Shape> shape(int kind);

struct Round : Shape {
    NOINLINE void visit(int depth) override
    {
        ALLOCATE_NEW();
        if (depth > 0)
            shape((int)random_below(2))->visit(depth - 1);
        ALLOCATE();
    }
};

struct Square : Shape {
    NOINLINE void visit(int depth) override
    {
        volatile long room[20];
        room[depth % 20] = depth, (void)room[0];
        std::function<void(int)> next = [this, &next](int left) {
            ALLOCATE();
            if (left > 0 && random_below(2))
                next(left - 1);
            else if (left > 0)
                this->visit(left - 1);
        };
        next(depth);
    }
};

static std::unique_ptr<Shape> shape(int kind)
{
    if (kind)
        return std::make_unique<Round>();
    return std::make_unique<Square>();
}

NOINLINE static void sort_things(int length)
{
    std::vector<std::string> names;
    std::map<std::string, int> index;
    for (int i = 0; i < length; i++) {
        names.push_back("a name that does not fit inside " + std::to_string(random_below(1000)));
        index[names.back()] = i;
    }
    std::sort(names.begin(), names.end(), [](const std::string &a, const std::string &b) {
        if (random_below(30) == 0)
            ALLOCATE_NEW();
        return a < b;
    });
    std::for_each(index.begin(), index.end(), [](auto &) {
        if (random_below(10) == 0)
            ALLOCATE();
    });
}

struct Early {
    NOINLINE Early()
    {
        begin_seen(&all);
        ALLOCATE_NEW();
        catcher(3);
    }
} early;

int main(int argc, char **argv)
{
    if (argc < 2)
        return 2;
    for (int round = 0; round < 4; round++) {
        for (int i = 0; i < 60; i++)
            catcher((int)random_below(20));
        for (int i = 0; i < 20; i++)
            shape(i % 2)->visit((int)random_below(12));
        sort_things(60);
        std::thread([] {
            for (int i = 0; i < 20; i++)
                catcher(i);
            sort_things(40);
        }).join();
    }
    return write_seen(argv[1]);
}
