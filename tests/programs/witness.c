/*
 * A slow and obvious recorder, preloaded: for each malloc and calloc one line "SIZE ADDRESS..."
 * with the return addresses that libgcc finds, innermost first. The file is named by WITNESS; it
 * begins with /proc/self/maps and an empty line.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <execinfo.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static int out = -1;
static __thread int inside;

__attribute__((noinline)) static void record(size_t size)
{
	void *frames[64];
	char line[64 * 20 + 24];
	int length, count;

	if (out < 0 || inside)
		return;
	inside = 1;
	count = backtrace(frames, 64);
	length = sprintf(line, "%zu", size);
	/* The first two are this function and the one that called it. */
	for (int i = 2; i < count; i++)
		length += sprintf(line + length, " %p", frames[i]);
	line[length++] = '\n';
	if (write(out, line, length) != length)
		abort();
	inside = 0;
}

#define REAL(name) static __typeof__(name) *real; if (!real) real = dlsym(RTLD_NEXT, #name)

/* The additions keep the calls from becoming jumps. */
void *malloc(size_t size)
{
	REAL(malloc);
	char *block = real(size);
	record(size);
	return block + (inside == 2);
}

void *calloc(size_t count, size_t size)
{
	REAL(calloc);
	char *block = real(count, size);
	record(count * size);
	return block + (inside == 2);
}

__attribute__((constructor)) static void begin(void)
{
	char buffer[4096];
	void *frame;
	int maps, length;

	backtrace(&frame, 1); /* loads libgcc_s */
	maps = open("/proc/self/maps", O_RDONLY);
	out = open(getenv("WITNESS"), O_WRONLY | O_CREAT | O_TRUNC, 0600);
	inside = 1;
	while ((length = read(maps, buffer, sizeof buffer)) > 0)
		if (write(out, buffer, length) != length)
			abort();
	if (write(out, "\n", 1) != 1)
		abort();
	inside = 0;
	close(maps);
}
