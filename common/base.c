#include "common/base.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static _Thread_local const char *fault_file;
static _Thread_local int fault_line;
static _Thread_local char fault_text[256];

int ps_fault_at(int neg_errno, const char *file, int line)
{
    PS_ASSERT(neg_errno < 0);
    fault_file = file;
    fault_line = line;
    return neg_errno;
}

const char *ps_fault_where(void)
{
    if (fault_file == NULL)
        return "";
    snprintf(fault_text, sizeof(fault_text), "%s:%d", fault_file, fault_line);
    return fault_text;
}

/* One write(), no allocation: the heap may be what is broken. */
static void say(const char *text, size_t len)
{
    while (len > 0) {
        ssize_t n = write(STDERR_FILENO, text, len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return;
        text += n;
        len -= (size_t)n;
    }
}

void ps_assert_failed(const char *expr, const char *file, int line)
{
    char text[512];
    int n = snprintf(text, sizeof(text) - 1, "assertion failed: %s at %s:%d", expr, file, line);
    size_t len = n < 0 ? 0 : ps_min_size((size_t)n, sizeof(text) - 2);

    text[len++] = '\n';
    say(text, len);
    abort();
}

static PS_NORETURN void out_of_memory(size_t n_bytes)
{
    char text[96];
    int n = snprintf(text, sizeof(text), "out of memory: %zu bytes\n", n_bytes);

    if (n > 0)
        say(text, (size_t)n);
    abort();
}

void *ps_alloc(size_t n_bytes)
{
    void *p = malloc(n_bytes > 0 ? n_bytes : 1);

    if (p == NULL)
        out_of_memory(n_bytes);
    return p;
}

void *ps_calloc(size_t n, size_t size)
{
    void *p = n > 0 && size > 0 ? calloc(n, size) : calloc(1, 1); /* calloc checks n * size */

    if (p == NULL)
        out_of_memory(size > 0 && n > SIZE_MAX / size ? SIZE_MAX : n * size);
    return p;
}

void *ps_realloc(void *p, size_t n_bytes)
{
    void *q = realloc(p, n_bytes > 0 ? n_bytes : 1);

    if (q == NULL)
        out_of_memory(n_bytes);
    return q;
}

void *ps_alloc_aligned(size_t align, size_t n_bytes)
{
    void *p = NULL;

    PS_ASSERT(align >= sizeof(void *) && (align & (align - 1)) == 0);
    if (posix_memalign(&p, align, n_bytes > 0 ? n_bytes : 1) != 0)
        out_of_memory(n_bytes);
    return p;
}

char *ps_strdup(const char *s)
{
    return ps_strndup(s, strlen(s));
}

/* Copies at most n bytes and always terminates, like strndup. */
char *ps_strndup(const char *s, size_t n)
{
    size_t len = strnlen(s, n);
    char *p = ps_alloc(len + 1);

    memcpy(p, s, len);
    p[len] = '\0';
    return p;
}

void ps_free(void *p)
{
    free(p);
}

void ps_close_fd(int *fd)
{
    PS_ASSERT(fd != NULL);
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}
