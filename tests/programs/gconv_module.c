/* A module of iconv (GCONV_PATH). Those of different ROOM have the same code at the same places, but
 * frames of another size. */
#include <gconv.h>

void called_by_module(void); /* the program's */

int gconv_init(struct __gconv_step *step)
{
    volatile char room[ROOM];
    __asm__ volatile("" : : "r"(room) : "memory");
    step->__data = 0;
    step->__min_needed_from = step->__max_needed_from = 1;
    step->__min_needed_to = step->__max_needed_to = 4;
    step->__stateful = 0;
    called_by_module();
    __asm__ volatile("" : : "r"(room) : "memory");
    return __GCONV_OK;
}

int gconv(struct __gconv_step *step, struct __gconv_step_data *data, const unsigned char **from,
          const unsigned char *end, unsigned char **out, size_t *irreversible, int flush, int consume)
{
    (void)step, (void)data, (void)from, (void)end, (void)out, (void)irreversible, (void)flush;
    (void)consume;
    return __GCONV_EMPTY_INPUT;
}
