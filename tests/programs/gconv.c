/* Modules that libc itself loads and unloads, without a dlclose that could be hooked: iconv's. argv[2]
 * is a folder with four of them (gconv_module.c), which take turns at the same addresses. Prints at
 * how many addresses they were, and how many were loaded. */
#include "stacks.h"
#include <dlfcn.h>
#include <iconv.h>
#include <link.h>

static struct seen all;
static unsigned long starts[64], last;
static int places, loads;

static int note_module(struct dl_phdr_info *info, size_t size, void *name)
{
    (void)size;
    if (!strstr(info->dlpi_name, name))
        return 0;
    int i = 0;
    loads += last != info->dlpi_addr;
    last = info->dlpi_addr;
    while (i < places && starts[i] != info->dlpi_addr)
        i++;
    if (i == places && places < 64)
        starts[places++] = info->dlpi_addr;
    return 1;
}

void called_by_module(void);

__attribute__((noinline)) void called_by_module(void)
{
    ALLOCATE();
    ALLOCATE();
}

int main(int argc, char **argv)
{
    if (argc < 3)
        return 2;
    begin_seen(&all);
    setenv("GCONV_PATH", argv[2], 1);
    static char *const names[4] = {"MTRA", "MTRB", "MTRC", "MTRD"};
    static char *const files[4] = {"/mtra.so", "/mtrb.so", "/mtrc.so", "/mtrd.so"};
    for (int i = 0; i < 60; i++) {
        int which = i * 7 % 11 % 4;
        iconv_t converter = iconv_open("UTF-8", names[which]);
        if (converter == (iconv_t)-1)
            return perror("iconv_open"), 3;
        dl_iterate_phdr(note_module, files[which]);
        iconv_close(converter);
        ALLOCATE();
    }
    printf("%d %d\n", places, loads);
    return write_seen(argv[1]);
}
