// Leaks of C++: through new, new[], a std::string and a template.
//
//   c++ -g -Wall -Wextra -o leaks examples/leaks.cpp
#include <cstddef>
#include <string>

struct Point {
    double x, y, z;
};

// A list that forgets its nodes: no destructor.
template <class T> class List {
    struct Node {
        T value;
        Node *next;
    };
    Node *first = nullptr;

public:
    void push(const T &value)
    {
        first = new Node{value, first};
    }

    std::size_t size() const
    {
        std::size_t count = 0;
        for (const Node *node = first; node; node = node->next)
            ++count;
        return count;
    }
};

static Point *leak_point()
{
    return new Point{1, 2, 3}; // 24 bytes
}

static int *leak_array()
{
    return new int[1000](); // 4,000 bytes
}

static std::string *leak_string()
{
    return new std::string(500, 'x'); // the string and its 501 bytes
}

int main()
{
    Point *point = leak_point();
    int *array = leak_array();
    std::string *text = leak_string();

    List<long> numbers;
    for (long i = 0; i < 10; ++i)
        numbers.push(i); // ten nodes of 16 bytes

    delete new Point{4, 5, 6}; // this one is freed

    return point->x == 1 && array[0] == 0 && text->size() == 500 && numbers.size() == 10 ? 0 : 1;
}
