// A facet of its own leaks where libstdc++ calls it, inside of what libstdc++ keeps by design.
#include <iostream>
#include <locale>

static char *left;

struct Grouping : std::numpunct<char> {
    std::string do_grouping() const override
    {
        left = new char[555];
        return "";
    }
};

int main()
{
    std::cout.imbue(std::locale(std::locale::classic(), new Grouping));
    std::cout << 1234567 << "\n";
    return left == nullptr;
}
