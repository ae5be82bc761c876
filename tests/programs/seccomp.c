// Forbids itself system calls in several ways, then allocates and frees COUNT blocks and keeps 10.
//
// seccomp strict|kill-pwrite|list|allow|refused|vfork|no-tsc COUNT [small] [thread] [fork]
//
// small: files may have a megabyte at most.
#define _GNU_SOURCE
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define LOAD(what) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, what))
#define RETURN(what) BPF_STMT(BPF_RET | BPF_K, what)
#define IF(number, what) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1), RETURN(what)


static int install(struct sock_filter *filter, size_t len, int with_syscall) {
    struct sock_fprog program = {.len = len, .filter = filter};
    if (with_syscall) {
        return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program);
    }
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0);
}

#define INSTALL(filter, how) install(filter, sizeof(filter) / sizeof(*(filter)), how)

static int forbid(const char *how) {
    if (!strcmp(how, "strict"))
        return prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT);
    if (!strcmp(how, "no-tsc"))
        return prctl(PR_SET_TSC, PR_TSC_SIGSEGV);
    if (strcmp(how, "refused") && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        return -1;
    if (!strcmp(how, "kill-pwrite")) {
        struct sock_filter filter[] = {
            LOAD(arch), IF(AUDIT_ARCH_X86_64 ^ 1, SECCOMP_RET_KILL_PROCESS),
            LOAD(nr), IF(SYS_pwrite64, SECCOMP_RET_KILL_PROCESS), RETURN(SECCOMP_RET_ALLOW)};
        return INSTALL(filter, 0);
    }
    if (!strcmp(how, "list")) {
        struct sock_filter filter[] = {
            LOAD(nr),
            IF(SYS_write, SECCOMP_RET_ALLOW),
            IF(SYS_brk, SECCOMP_RET_ALLOW),
            IF(SYS_mmap, SECCOMP_RET_ALLOW),
            IF(SYS_munmap, SECCOMP_RET_ALLOW),
            IF(SYS_mprotect, SECCOMP_RET_ALLOW),
            IF(SYS_madvise, SECCOMP_RET_ALLOW),
            IF(SYS_futex, SECCOMP_RET_ALLOW),
            IF(SYS_clone, SECCOMP_RET_ALLOW),
            IF(SYS_clone3, SECCOMP_RET_ALLOW),
            IF(SYS_wait4, SECCOMP_RET_ALLOW),
            IF(SYS_rt_sigprocmask, SECCOMP_RET_ALLOW),
            IF(SYS_set_robust_list, SECCOMP_RET_ALLOW),
            IF(SYS_rseq, SECCOMP_RET_ALLOW),
            IF(SYS_exit, SECCOMP_RET_ALLOW),
            IF(SYS_exit_group, SECCOMP_RET_ALLOW),
            RETURN(SECCOMP_RET_ERRNO | EPERM)};
        return INSTALL(filter, 1);
    }
    if (!strcmp(how, "allow")) {
        struct sock_filter filter[] = {
            LOAD(nr), IF(SYS_ptrace, SECCOMP_RET_KILL_PROCESS),
            IF(SYS_uname, SECCOMP_RET_ERRNO | ENOSYS), RETURN(SECCOMP_RET_ALLOW)};
        return INSTALL(filter, 1);
    }
    // What a child forbids itself is no matter of its parent, in whose memory it does so.
    if (!strcmp(how, "vfork")) {
        pid_t child = vfork();
        if (child == 0)
            _exit(forbid("kill-pwrite"));
        int status;
        return waitpid(child, &status, 0) == child ? status : -1;
    }
    // Filters that the kernel refuses change nothing.
    struct sock_filter endless[] = {LOAD(nr)};
    struct sock_filter kills[] = {RETURN(SECCOMP_RET_KILL_PROCESS), RETURN(0x10), LOAD(nr)};
    if (!INSTALL(endless, 0) || !INSTALL(endless, 1) || !INSTALL(kills, 0) || !INSTALL(kills, 1))
        return -1;
    if (!prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, NULL) || errno != EFAULT)
        return -1;
    if (!syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, NULL) || errno != EFAULT)
        return -1;
    return 0;
}

static void *work(void *argument) {
    for (long i = 0, count = *(long *)argument; i < count; i++) {
        void *volatile block = malloc(24 + i % 8);
        free(block);
    }
    return NULL;
}

int main(int argc, char **argv) {
    if (argc < 3)
        return 2;
    long count = atol(argv[2]), few = 100;
    void *volatile kept[10];
    // Strict mode does not let the heap grow.
    void *volatile room = malloc(100000);
    free(room);
    work(&few);
    struct rlimit limit = {1 << 20, 1 << 20};
    if (argc > 3 && !strcmp(argv[3], "small") && setrlimit(RLIMIT_FSIZE, &limit))
        return 2;
    errno = 0;
    if (forbid(argv[1])) {
        perror("seccomp");
        return 3;
    }
    work(&count);
    for (int i = 0; i < 10; i++)
        kept[i] = malloc(1000 + i);
    (void)kept;
    for (int i = 3; i < argc; i++) {
        pthread_t thread;
        if (!strcmp(argv[i], "thread") && !pthread_create(&thread, NULL, work, &count))
            pthread_join(thread, NULL);
        if (!strcmp(argv[i], "fork")) {
            pid_t child = fork();
            if (child == 0) {
                work(&count);
                exit(5);
            }
            int status = 0;
            waitpid(child, &status, 0);
            if (!WIFEXITED(status) || WEXITSTATUS(status) != 5)
                return 4;
        }
    }
    if (write(1, "done\n", 5) != 5)
        return 6;
    if (!strcmp(argv[1], "strict"))
        syscall(SYS_exit, 7);
    return 7;
}
