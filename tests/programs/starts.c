// starts dropped|kept|failing|itself|stays [thread]: starts itself in every way that libc has, without
// LD_PRELOAD in the environment of what is started (dropped, itself), with it (kept), or under a name
// that does not exist (failing, stays). Prints how many programs it has started. `starts cancelled`
// cancels a thread that is in system(). `starts leaf ...` exits with the number of its arguments.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define ARGUMENTS "starts", "leaf", "1", "2", "3", "4", "5", "6", "7"
enum { COUNT = 9 };

extern char **environ;
static const char *mode, *path;
static char *list[] = {ARGUMENTS, NULL}, *nothing[] = {"NOTHING=1", NULL};
static int started, fd;

static int is(const char *name) { return !strcmp(mode, name); }

static void fail(const char *what, int got) {
    fprintf(stderr, "%s: %d\n", what, got);
    exit(1);
}

// What a child has to come to.
static void expect(const char *way, int status) {
    int expected = is("failing") ? ENOENT : COUNT;
    if (!WIFEXITED(status) || WEXITSTATUS(status) != expected) fail(way, status);
    started += !is("failing");
}

// Runs one of the exec functions; comes back when it has failed.
static void run(int way, char **environment) {
    switch (way) {
    case 0: execve(path, list, environment); break;
    case 1: execle(path, ARGUMENTS, NULL, environment); break;
    case 2: execvpe(path, list, environment); break;
    case 3: fexecve(fd, list, environment); break;
    case 4: execveat(AT_FDCWD, path, list, environment, 0); break;
    // The rest takes what `environ` is.
    case 5: execv(path, list); break;
    case 6: execvp(path, list); break;
    case 7: execl(path, ARGUMENTS, NULL); break;
    case 8: execlp(path, ARGUMENTS, NULL); break;
    }
    if (way == 3 && fd < 0 && errno == EINVAL) errno = ENOENT;
}

static char **environment(void) { return is("kept") ? environ : nothing; }

static void all_ways(void) {
    int status;
    for (int way = 0; way < 9; way++) {
        pid_t child = fork();
        if (child == 0) {
            // Some have a log of their own by then.
            if (way % 3 == 1) free(malloc(7700));
            if (way > 4) environ = environment();
            run(way, environment());
            _exit(errno);
        }
        waitpid(child, &status, 0);
        expect("exec", status);
    }
    for (int way = 0; way < 5; way++) {
        pid_t child = vfork();
        if (child == 0) {
            run(way, environment());
            _exit(errno);
        }
        waitpid(child, &status, 0);
        expect("exec after vfork", status);
    }
    pid_t child;
    int result = posix_spawn(&child, path, NULL, NULL, list, environment());
    if (result) status = result << 8; else waitpid(child, &status, 0);
    expect("posix_spawn", status);
    result = posix_spawnp(&child, path, NULL, NULL, list, environment());
    if (result) status = result << 8; else waitpid(child, &status, 0);
    expect("posix_spawnp", status);

    if (is("failing")) {
        // What the kernel refuses it has to be asked for.
        char **bad = (char **)16, *bad_text[] = {(char *)16, NULL};
        if (execve("/bin/true", list, bad) != -1 || errno != EFAULT) fail("bad list", errno);
        if (execve("/bin/true", list, bad_text) != -1 || errno != EFAULT) fail("bad text", errno);
        char *volatile bad_path = (char *)16;
        if (execve(bad_path, list, nothing) != -1 || errno != EFAULT) fail("bad path", errno);
        if (execl(path, "starts", NULL) != -1 || errno != ENOENT) fail("short list", errno);
        if (execle(path, "starts", "1", "2", "3", NULL, nothing) != -1 || errno != ENOENT)
            fail("list in registers", errno);
        environ = nothing;
        if (popen("true", "wrong") || errno != EINVAL) fail("popen", errno);
        if (!system(NULL)) fail("no shell", 0);
        return;
    }
    environ = environment();
    char command[4096];
    snprintf(command, sizeof command, "exec '%s' leaf 1 2 3 4 5 6 7", path);
    expect("system", system(command));
    FILE *stream = popen(command, "r");
    if (!stream) fail("popen", errno);
    expect("popen", pclose(stream));
}

static void *in_thread(void *unused) {
    all_ways();
    return unused;
}

static int ready[2];

static void clean(void *unused) {
    started++;
    (void)unused;
}

static void *wait_for_ever(void *unused) {
    char command[100];
    snprintf(command, sizeof command, "echo >&%d; read line <&%d", ready[1], fd);
    pthread_cleanup_push(clean, NULL);
    system(command);
    pthread_cleanup_pop(0);
    return unused;
}

static void cancel(void) {
    pthread_t thread;
    void *result;
    char byte;
    int never[2];
    unsetenv("LD_PRELOAD");
    if (pipe(ready) || pipe(never)) exit(1);
    fd = never[0];
    if (pthread_create(&thread, NULL, wait_for_ever, NULL) || read(ready[0], &byte, 1) != 1) exit(1);
    pthread_cancel(thread);
    pthread_join(thread, &result);
    if (result != PTHREAD_CANCELED) fail("cancelled", 0);
}

int main(int argc, char **argv) {
    mode = argv[1];
    if (is("leaf")) return argc;
    int fails = is("failing") || is("stays");
    path = fails ? "/no/such/program" : argv[0];
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (is("itself") || is("stays")) {
        run(1, nothing);
        if (!is("stays") || errno != ENOENT) fail("exec", errno);
        free(malloc(7701));
        return 0;
    }
    pthread_t thread;
    if (is("cancelled")) cancel();
    else if (argc == 2) all_ways();
    else if (pthread_create(&thread, NULL, in_thread, NULL) || pthread_join(thread, NULL)) return 1;
    printf("%d\n", started);
    fflush(stdout);
    _exit(0);
}
