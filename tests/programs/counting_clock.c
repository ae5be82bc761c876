// Gives up reading the time stamp counter, and takes that back: libmtr.so counts its stamps from here
// on, so what a program does under it no longer depends on the time that passes. Linked to workloads
// whose instructions are counted.
#include <sys/prctl.h>

__attribute__((constructor)) static void give_up_reading_the_counter(void) {
    prctl(PR_SET_TSC, PR_TSC_SIGSEGV, 0, 0, 0);
    prctl(PR_SET_TSC, PR_TSC_ENABLE, 0, 0, 0);
}
