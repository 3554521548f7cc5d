#include "common/arena.h"

#include <string.h>

enum {
    ALIGN = 16,
    DEFAULT_CHUNK_BYTES = 4096,
};

struct ps_arena_chunk {
    struct ps_arena_chunk *next;
    size_t cap, used;
    _Alignas(ALIGN) char data[];
};

void ps_arena_init(struct ps_arena *a, size_t chunk_bytes)
{
    a->head = NULL;
    a->chunk_bytes = chunk_bytes > 0 ? (chunk_bytes + ALIGN - 1) & ~(size_t)(ALIGN - 1)
                                     : (size_t)DEFAULT_CHUNK_BYTES;
}

void ps_arena_fini(struct ps_arena *a)
{
    struct ps_arena_chunk *c = a->head;

    while (c != NULL) {
        struct ps_arena_chunk *next = c->next;

        ps_free(c);
        c = next;
    }
    a->head = NULL;
}

static struct ps_arena_chunk *add_chunk(struct ps_arena *a, size_t cap)
{
    struct ps_arena_chunk *c;

    PS_ASSERT(cap <= SIZE_MAX - sizeof(*c));
    c = ps_alloc_aligned(ALIGN, sizeof(*c) + cap);
    c->cap = cap;
    c->used = 0;
    /* An oversized chunk is full at once: behind the head, so that the head's room is not lost. */
    if (cap > a->chunk_bytes && a->head != NULL) {
        c->next = a->head->next;
        a->head->next = c;
    } else {
        c->next = a->head;
        a->head = c;
    }
    return c;
}

void *ps_arena_alloc(struct ps_arena *a, size_t n_bytes)
{
    struct ps_arena_chunk *c = a->head;
    void *p;

    PS_ASSERT(n_bytes <= SIZE_MAX / 2);
    n_bytes = n_bytes > 0 ? (n_bytes + ALIGN - 1) & ~(size_t)(ALIGN - 1) : (size_t)ALIGN;
    if (c == NULL || c->cap - c->used < n_bytes)
        c = add_chunk(a, n_bytes > a->chunk_bytes ? n_bytes : a->chunk_bytes);
    p = c->data + c->used;
    c->used += n_bytes;
    PS_DASSERT(c->used <= c->cap);
    return p;
}

void *ps_arena_calloc(struct ps_arena *a, size_t n, size_t size)
{
    void *p;

    PS_ASSERT(size == 0 || n <= SIZE_MAX / size);
    p = ps_arena_alloc(a, n * size);
    memset(p, 0, n * size);
    return p;
}

char *ps_arena_strndup(struct ps_arena *a, const char *s, size_t n)
{
    size_t len = n > 0 ? strnlen(s, n) : 0;
    char *p = ps_arena_alloc(a, len + 1);

    if (len > 0)
        memcpy(p, s, len);
    p[len] = '\0';
    return p;
}

void *ps_arena_memdup(struct ps_arena *a, const void *p, size_t n_bytes)
{
    void *q = ps_arena_alloc(a, n_bytes);

    if (n_bytes > 0)
        memcpy(q, p, n_bytes);
    return q;
}
