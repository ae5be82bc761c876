// Everything that is live at its end is libstdc++'s or libc's, which keep it by design.
#include <iostream>
#include <locale>

int main(int argc, char **argv)
{
    std::cout << "called as " << argv[0] << "\n";
    if (argc > 1) {
        std::locale::global(std::locale(""));
        std::cout.imbue(std::locale());
        std::cout << 1234.5 << "\n";
    }
}
