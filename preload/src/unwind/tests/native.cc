// Frames of C++ code, compiled with many options by native.rs; linked with a libstdc++ of its own
// whose malloc is `__wrap_malloc`, so that stacks inside of the runtime are compared too.
#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <functional>
#include <map>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

using hook_t = size_t (*)(size_t);
static hook_t hook = nullptr;
extern "C" void *__real_malloc(size_t);
extern "C" void *__wrap_malloc(size_t size) {
    if (hook) hook(size);
    return __real_malloc(size);
}
#define NOINLINE __attribute__((noinline, noclone))

#ifdef REGISTER_FRAMES
// libgcc does not find them without a header.
extern "C" {
extern const char first_frame[] __attribute__((visibility("hidden")));
void __register_frame(const void *), __deregister_frame(const void *);
}
__attribute__((constructor(101))) static void register_frames() { __register_frame(first_frame); }
__attribute__((destructor(101))) static void deregister_frames() { __deregister_frame(first_frame); }
#endif

struct Guard {
    std::string text;
    explicit Guard(int n) : text(100 + n, 'x') {}
    ~Guard() { // allocates while the stack is being unwound
        std::string copy = text + text;
        hook(copy.size());
    }
};
struct Error : std::runtime_error {
    explicit Error(int n) : std::runtime_error(std::string(50 + n, 'e')) {}
};

NOINLINE static int throws(int n) {
    Guard guard(n);
    if (n == 0) throw Error(n);
    return throws(n - 1) + (int)guard.text.size();
}
NOINLINE static int rethrows(int n) {
    try {
        return throws(n);
    } catch (const Error &error) {
        hook(1);
        Guard guard(n);
        if (n & 1) throw;
        try {
            throw std::logic_error("nested");
        } catch (...) {
            hook(2);
            throw Error(n);
        }
    }
}

struct Base {
    virtual ~Base() { hook(3); }
    virtual size_t visit(size_t n) = 0;
};
template <size_t N> struct Derived : Base {
    std::vector<std::string> items;
    size_t visit(size_t n) override {
        items.emplace_back(40 + n, 'a');
        Derived<N - 1> next;
        return next.visit(n + 1) + hook(n);
    }
};
template <> struct Derived<0> : Base {
    size_t visit(size_t n) override { return hook(n); }
};

static size_t containers() {
    std::map<std::string, std::vector<int>> map;
    for (int i = 0; i < 60; i++) map[std::to_string(i * 7919) + "_a_rather_long_key"].push_back(i);
    std::vector<std::function<size_t(size_t)>> functions;
    for (size_t i = 0; i < 20; i++) functions.emplace_back([i, s = std::string(60, 'b')](size_t n) { return hook(n + i) + s.size(); });
    size_t r = 0;
    for (auto &f : functions) r += f(1);
    std::vector<std::string> keys;
    for (auto &[key, value] : map) keys.push_back(key);
    std::sort(keys.begin(), keys.end(), [](auto &a, auto &b) { hook(4); return a > b; });
    std::stable_sort(keys.begin(), keys.end(), [](auto &a, auto &b) { hook(4); return a < b; });
    std::ostringstream out;
    for (auto &key : keys) out << key << ' ' << 1.5 << std::endl;
    auto shared = std::make_shared<Derived<5>>();
    return r + shared->visit(1) + out.str().size();
}

extern "C" __attribute__((visibility("default"))) size_t run(hook_t with) {
    hook = with;
    size_t caught = 0;
    for (int n = 0; n < 5; n++) {
        try {
            rethrows(n);
        } catch (const std::exception &error) {
            caught += std::string(error.what()).size();
        }
    }
    caught += containers();
    hook = nullptr;
    return caught;
}
