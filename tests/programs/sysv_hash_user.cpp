// Uses the operators of sysv_hash_pool.cpp.
#include <cstdio>

extern int live_objects;

int main() {
    long *volatile object = new long(3300);
    int before = live_objects;
    delete object;
    std::printf("%d %d\n", before, live_objects);
}
