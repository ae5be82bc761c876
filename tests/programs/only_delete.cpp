// Replaces operator delete (over free) and leaves operator new as it is. 3,300 bytes, 20 times.
#include <cstdlib>
#include <new>

void operator delete(void *block) noexcept { std::free(block); }
void operator delete(void *block, std::size_t) noexcept { std::free(block); }

struct Thing {
    char bytes[3300];
};

int main()
{
    for (int i = 0; i < 20; ++i) {
        Thing *volatile thing = new Thing;
        delete thing;
        char *volatile text = new char[3301];
        delete[] text; // the runtime's, which ends in the program's delete
    }
    return 0;
}
