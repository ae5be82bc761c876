// environment [again]: prints its environment, as `environ` and as main got it, whether the auxiliary
// vector stands behind the list, and what setenv, putenv, unsetenv and clearenv make of it. `again`:
// is executed anew first, with the environment that it has.
#include <elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

extern char **environ;

static unsigned long behind(char **list, unsigned long type) {
    while (*list) list++;
    Elf64_auxv_t *entry = (Elf64_auxv_t *)(list + 1);
    while (entry->a_type != AT_NULL && entry->a_type != type) entry++;
    return entry->a_un.a_val;
}

static void print(const char *name) {
    const char *value = getenv(name);
    printf("%s is %s\n", name, value ? value : "not set");
}

int main(int argc, char **argv, char **list) {
    if (argc > 1) return execl(argv[0], argv[0], NULL);
    for (char **entry = environ; *entry; entry++) printf("%s\n", *entry);
    printf("main got %s\n", list == environ ? "the same" : "another");
    int is_there = behind(list, AT_PAGESZ) == getauxval(AT_PAGESZ)
        && behind(list, AT_RANDOM) == getauxval(AT_RANDOM);
    printf("the auxiliary vector is %s\n", is_there ? "behind it" : "not there");
    for (int i = 0; i < 100; i++) {
        char name[32];
        sprintf(name, "NEW_%d", i);
        if (setenv(name, "value", 1)) return 1;
    }
    static char put[] = "PUT=1";
    putenv(put);
    print("NEW_99");
    print("PUT");
    print("GIVEN");
    unsetenv("GIVEN");
    print("GIVEN");
    clearenv();
    print("PUT");
    setenv("LAST", "1", 0);
    print("LAST");
    return 0;
}
