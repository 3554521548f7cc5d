#include "common/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { FIRST_CAP = 64 };

void ps_buf_init(struct ps_buf *b)
{
    *b = (struct ps_buf)PS_BUF_INIT;
}

void ps_buf_fini(struct ps_buf *b)
{
    ps_free(b->data);
    ps_buf_init(b);
}

void ps_buf_clear(struct ps_buf *b)
{
    ps_buf_truncate(b, 0);
}

void ps_buf_reserve(struct ps_buf *b, size_t n_more_bytes)
{
    size_t need, cap;

    PS_ASSERT(n_more_bytes < SIZE_MAX / 2 - b->len);
    need = b->len + n_more_bytes + 1; /* the terminator */
    if (need <= b->cap)
        return;
    cap = b->cap > 0 ? b->cap : (size_t)FIRST_CAP;
    while (cap < need)
        cap *= 2;
    b->data = ps_realloc(b->data, cap);
    b->cap = cap;
    b->data[b->len] = '\0';
}

char *ps_buf_grow(struct ps_buf *b, size_t n_bytes)
{
    char *p;

    ps_buf_reserve(b, n_bytes);
    p = b->data + b->len;
    b->len += n_bytes;
    b->data[b->len] = '\0';
    return p;
}

void ps_buf_add(struct ps_buf *b, const void *p, size_t n_bytes)
{
    char *to = ps_buf_grow(b, n_bytes);

    if (n_bytes > 0)
        memcpy(to, p, n_bytes);
}

void ps_buf_add_str(struct ps_buf *b, const char *s)
{
    ps_buf_add(b, s, strlen(s));
}

void ps_buf_add_byte(struct ps_buf *b, char c)
{
    *ps_buf_grow(b, 1) = c;
}

void ps_buf_addf(struct ps_buf *b, const char *fmt, ...)
{
    va_list ap, again;
    size_t room;
    int n;

    ps_buf_reserve(b, FIRST_CAP);
    room = b->cap - b->len;
    va_start(ap, fmt);
    va_copy(again, ap);
    n = vsnprintf(b->data + b->len, room, fmt, ap);
    PS_ASSERT(n >= 0);
    if ((size_t)n >= room) {
        ps_buf_reserve(b, (size_t)n);
        n = vsnprintf(b->data + b->len, b->cap - b->len, fmt, again);
        PS_ASSERT(n >= 0 && (size_t)n < b->cap - b->len);
    }
    va_end(again);
    va_end(ap);
    b->len += (size_t)n;
}

void ps_buf_consume(struct ps_buf *b, size_t n_bytes)
{
    PS_ASSERT(n_bytes <= b->len);
    if (n_bytes == 0)
        return;
    b->len -= n_bytes;
    memmove(b->data, b->data + n_bytes, b->len + 1);
}

void ps_buf_truncate(struct ps_buf *b, size_t len)
{
    PS_ASSERT(len <= b->len);
    b->len = len;
    if (b->data != NULL)
        b->data[len] = '\0';
}

static void add_le(struct ps_buf *b, uint64_t v, size_t n_bytes)
{
    char *p = ps_buf_grow(b, n_bytes);

    for (size_t i = 0; i < n_bytes; i++)
        p[i] = (char)(uint8_t)(v >> (8 * i));
}

void ps_buf_add_u32(struct ps_buf *b, uint32_t v)
{
    add_le(b, v, sizeof(v));
}

void ps_buf_add_u64(struct ps_buf *b, uint64_t v)
{
    add_le(b, v, sizeof(v));
}
