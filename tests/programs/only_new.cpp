// Replaces operator new (over malloc) and leaves operator delete as it is. 3,200 bytes, 20 times.
#include <cstdlib>
#include <new>

void *operator new(std::size_t size)
{
    if (void *block = std::malloc(size))
        return block;
    throw std::bad_alloc();
}

struct Thing {
    char bytes[3200];
};

int main()
{
    for (int i = 0; i < 20; ++i) {
        Thing *volatile thing = new Thing;
        delete thing;
    }
    return 0;
}
