// Everything at once, by a seed: threads that come and go, forks that end in several ways, execs,
// signal handlers that allocate, plugins, all families of allocation, frees by other threads and by
// other processes. Counts what it does in a file that outlives it; tests/stress.rs has the layout.
//
// stress SEED STEPS COUNTERS PLUGIN [SLOT]
#include <atomic>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <fcntl.h>
#include <malloc.h>
#include <new>
#include <pthread.h>
#include <sched.h>
#include <spawn.h>
#include <string>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

namespace {

constexpr int CLASSES = 20, SLOTS = 1000, DEPTH = 2;

// Sizes that nobody else asks for.
constexpr size_t size_of_class(int c) { return 1001 + 994 * size_t(c); }

struct Slot {
    std::atomic<uint64_t> pid, is_exec, inherited_frees, finished;
    struct {
        std::atomic<uint64_t> allocated, freed;
    } classes[CLASSES];
};
struct Shared {
    std::atomic<uint64_t> slots;
    Slot slot[SLOTS];
};

Shared *shared;
unsigned own; // number of this process's slot
const char *const *arguments;

// At the front of each block.
struct Block {
    uint32_t owner, size_class;
};

struct Random {
    uint64_t state;
    explicit Random(uint64_t seed) : state(seed * 0x9e3779b97f4a7c15 + 0x1234567) {
        for (int i = 0; i < 5; i++)
            below(2);
    }
    uint64_t below(uint64_t limit) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        return (state >> 11) % limit;
    }
};

[[noreturn]] void fail(const char *what) {
    perror(what);
    abort();
}

// Counts a block that `address` has just become.
Block *count_alloc(void *address, int c) {
    if (!address)
        fail("memory");
    memset(address, 0x5a, size_of_class(c));
    Block *block = static_cast<Block *>(address);
    *block = {own, uint32_t(c)};
    shared->slot[own].classes[c].allocated++;
    return block;
}

void count_free(const Block *block) {
    if (block->owner == own)
        shared->slot[own].classes[block->size_class].freed++;
    else
        shared->slot[own].inherited_frees++;
}

void release(Block *block) {
    if (block) {
        count_free(block);
        free(block);
    }
}

__attribute__((noinline)) Block *make(Random &random, int depth);

__attribute__((noinline)) Block *make_at_bottom(Random &random) {
    int c = int(random.below(CLASSES));
    size_t size = size_of_class(c), alignment = size_t(16) << random.below(9);
    void *address = nullptr;
    switch (random.below(8)) {
    case 0:
        address = calloc(1, size);
        break;
    case 1:
        if (posix_memalign(&address, alignment, size))
            address = nullptr;
        break;
    case 2:
        address = aligned_alloc(alignment, size);
        break;
    case 3:
        address = memalign(alignment, size);
        break;
    case 4:
        address = realloc(nullptr, size);
        break;
    case 5:
        address = reallocarray(nullptr, 1, size);
        break;
    default:
        address = malloc(size);
    }
    return count_alloc(address, c);
}

Block *make(Random &random, int depth) {
    Block *block = depth ? make(random, depth - 1) : make_at_bottom(random);
    __asm__ volatile("" : : "r"(block));
    return block;
}

Block *resize(Random &random, Block *block) {
    int c = int(random.below(CLASSES));
    count_free(block);
    return count_alloc(realloc(block, size_of_class(c)), c);
}

// new and delete belong together.
void new_and_delete(Random &random) {
    int c = int(random.below(CLASSES));
    char *bytes = new char[size_of_class(c)];
    release_new:
    Block *block = count_alloc(bytes, c);
    count_free(block);
    delete[] bytes;
    if (random.below(4) == 0) {
        bytes = new (std::nothrow) char[size_of_class(c)];
        goto release_new;
    }
}

// Blocks change hands here.
constexpr int BOXES = 64;
std::atomic<Block *> boxes[BOXES];

Block *swap_in_box(Random &random, Block *block) {
    return boxes[random.below(BOXES)].exchange(block);
}

void on_signal(int) {
    Random random(shared->slot[own].classes[0].allocated);
    release(swap_in_box(random, make(random, 3)));
}

std::atomic<uint64_t> ticks;
void on_timer(int) { ticks++; }

// A child forked while another thread is in dlopen could never open anything: the loader's lock is
// held for ever there.
pthread_mutex_t loader = PTHREAD_MUTEX_INITIALIZER;

void use_plugin(Random &random) {
    pthread_mutex_lock(&loader);
    void *plugin = dlopen(arguments[4], RTLD_NOW | RTLD_LOCAL);
    if (!plugin)
        fail("dlopen");
    auto make_one = reinterpret_cast<void *(*)(size_t)>(dlsym(plugin, "plugin_make"));
    auto free_one = reinterpret_cast<void (*)(void *)>(dlsym(plugin, "plugin_free"));
    for (int i = 0; i < 5; i++) {
        int c = int(random.below(CLASSES));
        Block *block = count_alloc(make_one(size_of_class(c)), c);
        if (Block *other = swap_in_box(random, block)) {
            count_free(other);
            free_one(other);
        }
    }
    dlclose(plugin);
    pthread_mutex_unlock(&loader);
}

// What any thread does.
void step(Random &random, std::vector<Block *> &kept) {
    switch (random.below(200)) {
    case 0:
        use_plugin(random);
        break;
    case 1:
        raise(SIGUSR1);
        break;
    case 2 ... 3:
        new_and_delete(random);
        break;
    case 4 ... 90: {
        Block *&place = kept[random.below(kept.size())];
        release(place);
        place = make(random, int(random.below(30)));
        break;
    }
    case 91 ... 110: {
        Block *&place = kept[random.below(kept.size())];
        if (place)
            place = resize(random, place);
        break;
    }
    case 111:
        sched_yield();
        break;
    default:
        release(swap_in_box(random, make(random, int(random.below(8)))));
    }
}

struct Work {
    uint64_t seed, steps;
};

void *thread(void *argument) {
    Work *work = static_cast<Work *>(argument);
    Random random(work->seed);
    std::vector<Block *> kept(20);
    for (uint64_t i = 0; i < work->steps; i++)
        step(random, kept);
    for (Block *block : kept)
        release(block);
    delete work;
    return nullptr;
}

void run(uint64_t seed, uint64_t steps, int depth);

// A child of fork or an image of exec: it has a slot of its own.
void become(unsigned slot, bool is_exec) {
    own = slot;
    shared->slot[own].pid = uint64_t(getpid());
    shared->slot[own].is_exec = is_exec;
}

[[noreturn]] void child(Random &random, unsigned slot, int depth) {
    become(slot, false);
    // Some have no event at all, others free only what they have inherited.
    uint64_t end = random.below(8);
    if (end < 6)
        run(random.below(1 << 30), 100 + random.below(300), depth);
    for (auto &box : boxes)
        if (random.below(2))
            release(box.exchange(nullptr));
    switch (end) {
    case 0:
        shared->slot[own].finished = 1;
        exit(0);
    case 1:
        kill(getpid(), SIGKILL);
        break;
    case 2: {
        struct rlimit none = {0, 0};
        setrlimit(RLIMIT_CORE, &none);
        abort();
    }
    case 3: {
        unsigned next = unsigned(shared->slots++);
        if (next >= SLOTS)
            _exit(0);
        std::string number = std::to_string(next), steps = "300";
        std::string seed = std::to_string(random.below(1 << 30));
        execl("/proc/self/exe", arguments[0], seed.c_str(), steps.c_str(), arguments[3],
              arguments[4], number.c_str(), nullptr);
        fail("exec");
    }
    case 4:
        exit(0);
    default:
        _exit(0);
    }
    _exit(9);
}

// Threads, forks and steps of this one.
void run(uint64_t seed, uint64_t steps, int depth) {
    Random random(seed);
    std::vector<Block *> kept(50);
    std::vector<pthread_t> threads;
    for (uint64_t i = 0; i < steps; i++) {
        step(random, kept);
        if (random.below(60) == 0) {
            if (threads.size() >= 5) {
                pthread_t &place = threads[random.below(threads.size())];
                pthread_join(place, nullptr);
                place = threads.back();
                threads.pop_back();
            }
            pthread_t id;
            Work *work = new Work{random.below(1 << 30), random.below(400)};
            if (pthread_create(&id, nullptr, thread, work))
                fail("thread");
            threads.push_back(id);
        }
        if (depth < DEPTH && random.below(depth ? 300 : 150) == 0) {
            unsigned slot = unsigned(shared->slots++);
            if (slot >= SLOTS)
                continue;
            Random theirs(random.below(1 << 30));
            pthread_mutex_lock(&loader);
            pid_t pid = fork();
            pthread_mutex_unlock(&loader);
            if (pid == 0)
                child(theirs, slot, depth + 1);
            if (pid < 0)
                fail("fork");
            if (waitpid(pid, nullptr, 0) != pid)
                fail("wait");
        }
        if (random.below(500) == 0) {
            char *const none[] = {nullptr};
            char name[] = "true", *const spawned[] = {name, nullptr};
            pid_t pid;
            if (posix_spawn(&pid, "/bin/true", nullptr, nullptr, spawned, none) == 0)
                waitpid(pid, nullptr, 0);
        }
    }
    for (pthread_t id : threads)
        pthread_join(id, nullptr);
    for (Block *block : kept)
        release(block);
}

} // namespace

int main(int argc, char **argv) {
    if (argc < 5)
        return 2;
    arguments = argv;
    int file = open(argv[3], O_RDWR);
    void *mapped = mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (file < 0 || mapped == MAP_FAILED)
        fail("counters");
    close(file);
    shared = static_cast<Shared *>(mapped);
    become(argc > 5 ? unsigned(atoi(argv[5])) : unsigned(shared->slots++), argc > 5);
    struct sigaction action = {};
    action.sa_handler = on_signal;
    sigaction(SIGUSR1, &action, nullptr);
    action.sa_handler = on_timer;
    action.sa_flags = SA_RESTART;
    sigaction(SIGALRM, &action, nullptr);
    struct itimerval every = {{0, 700}, {0, 700}};
    setitimer(ITIMER_REAL, &every, nullptr);
    run(strtoull(argv[1], nullptr, 10), strtoull(argv[2], nullptr, 10), argc > 5 ? DEPTH : 0);
    shared->slot[own].finished = 1;
    return 0;
}
