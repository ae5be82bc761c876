/* Everything that is live at its end is libc's or the loader's, which keep it by design. */
#include <locale.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static void *thread(void *argument)
{
    return argument;
}

int main(int argc, char **argv)
{
    time_t now = time(NULL);
    pthread_t id;
    printf("%d arguments, to %s\n", argc, argv[0]);
    if (getchar() != EOF)
        return 1;
    if (pthread_create(&id, NULL, thread, NULL) != 0 || pthread_join(id, NULL) != 0)
        return 1;
    if (argc == 1)
        return 0;
    /* By functions which do not call malloc themselves, as only a whole stack shows. */
    if (setlocale(LC_ALL, "") == NULL || strerror(123456) == NULL || localtime(&now) == NULL)
        return 1;
    if (setenv("KEEPS_BY_DESIGN", "value", 1) != 0 || setenv("KEEPS_BY_DESIGN", "other", 1) != 0)
        return 1;
    return 0;
}
