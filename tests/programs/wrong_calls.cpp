// Gives free, delete or realloc what it must not be given: argv[1] says what. glibc ends the process for
// most of it. With argv[2] another thread than the one that allocates does so, beside a third one.
#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>
#include <string>
#include <thread>

#define APART __attribute__((noinline))
#pragma GCC diagnostic ignored "-Wpragmas"
#pragma GCC diagnostic ignored "-Wmismatched-new-delete"
#pragma GCC diagnostic ignored "-Wfree-nonheap-object"
#pragma GCC diagnostic ignored "-Wuse-after-free"

static char *volatile block; // the compiler must not see what becomes of it
static char *volatile next;
static char *volatile small[9];
static char global[4096];

APART static void allocate(const std::string &what)
{
    if (what.compare(0, 5, "new[]") == 0)
        block = new char[5001];
    else if (what.compare(0, 3, "new") == 0)
        block = static_cast<char *>(::operator new(5002));
    else
        block = static_cast<char *>(std::malloc(5000));
    next = static_cast<char *>(std::malloc(60)); // so that the block does not become part of the top
    for (auto &piece : small)
        piece = static_cast<char *>(std::malloc(40));
}

APART static void free_wrongly(char *address) { std::free(address); }
APART static void delete_wrongly(char *address) { ::operator delete(address); }
APART static void delete_array_wrongly(char *address) { ::operator delete[](address); }
APART static void realloc_wrongly(char *address) { next = static_cast<char *>(std::realloc(address, 9000)); }

static void do_wrong(const std::string &what)
{
    char local[64] = {0};
    char *volatile on_stack = local + 16;
    if (what == "free twice") {
        free_wrongly(block);
        free_wrongly(block);
    } else if (what == "free a b a") {
        for (int i = 0; i < 7; i++) // the cache of the thread is full
            std::free(small[i]);
        free_wrongly(small[7]);
        free_wrongly(small[8]);
        free_wrongly(small[7]);
    } else if (what == "free inside") {
        free_wrongly(block + 16);
    } else if (what == "free misaligned") {
        free_wrongly(block + 3);
    } else if (what == "free stack") {
        free_wrongly(on_stack);
    } else if (what == "free global") {
        free_wrongly(global + 16);
    } else if (what == "new, delete twice") {
        delete_wrongly(block);
        delete_wrongly(block);
    } else if (what == "delete stack") {
        delete_wrongly(on_stack);
    } else if (what == "new[], free") {
        free_wrongly(block);
    } else if (what == "new, delete[]") {
        delete_array_wrongly(block);
    } else if (what == "realloc freed") {
        free_wrongly(block);
        realloc_wrongly(block);
    } else if (what == "realloc inside") {
        realloc_wrongly(block + 16);
    } else if (what == "realloc stack") {
        realloc_wrongly(on_stack);
    }
}

int main(int argc, char **argv)
{
    const std::string what = argc > 1 ? argv[1] : "";
    std::setvbuf(stdout, nullptr, _IONBF, 0); // nothing is allocated behind the wrong call
    allocate(what);
    if (argc > 2) {
        std::mutex mutex;
        std::condition_variable changed;
        bool is_busy = true, is_over = false;
        std::thread third([&] {
            for (int i = 0; i < 1000; i++)
                std::free(std::malloc(70 + i));
            std::unique_lock<std::mutex> lock(mutex);
            is_busy = false;
            changed.notify_all();
            changed.wait(lock, [&] { return is_over; });
        });
        {
            std::unique_lock<std::mutex> lock(mutex);
            changed.wait(lock, [&] { return !is_busy; });
        }
        std::thread second(do_wrong, what);
        second.join();
        {
            std::lock_guard<std::mutex> lock(mutex);
            is_over = true;
            changed.notify_all();
        }
        third.join();
    } else {
        do_wrong(what);
    }
    std::puts("went on");
    return 0;
}
