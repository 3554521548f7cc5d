#include "common/pool.h"

#include <string.h>

enum {
    ALIGN = 16,
    POISON = 0xA5,
};

struct ps_pool {
    char *slab;
    size_t obj_bytes; /* multiple of ALIGN */
    uint32_t *free_ids;
    uint8_t *is_out;
    uint32_t n_obj, n_free;
};

struct ps_pool *ps_pool_create(uint32_t n_obj, size_t obj_bytes)
{
    struct ps_pool *p = ps_calloc(1, sizeof(*p));

    PS_ASSERT(n_obj > 0 && obj_bytes > 0 && obj_bytes <= SIZE_MAX / 2);
    p->obj_bytes = (obj_bytes + ALIGN - 1) & ~(size_t)(ALIGN - 1);
    PS_ASSERT(p->obj_bytes <= SIZE_MAX / n_obj);
    p->slab = ps_alloc_aligned(PS_CACHE_LINE, n_obj * p->obj_bytes);
    memset(p->slab, POISON, n_obj * p->obj_bytes);
    p->free_ids = ps_calloc(n_obj, sizeof(*p->free_ids));
    p->is_out = ps_calloc(n_obj, sizeof(*p->is_out));
    p->n_obj = n_obj;
    p->n_free = n_obj;
    for (uint32_t i = 0; i < n_obj; i++)
        p->free_ids[i] = n_obj - 1 - i; /* index 0 is taken first */
    return p;
}

void ps_pool_destroy(struct ps_pool *p)
{
    if (p == NULL)
        return;
    ps_free(p->slab);
    ps_free(p->free_ids);
    ps_free(p->is_out);
    ps_free(p);
}

/* A free object that is not all poison was written after it was given back. */
static bool is_poisoned(const char *obj, size_t n_bytes)
{
    for (size_t i = 0; i < n_bytes; i++) {
        if ((uint8_t)obj[i] != POISON)
            return false;
    }
    return true;
}

void *ps_pool_take(struct ps_pool *p)
{
    uint32_t id;
    char *obj;

    if (p->n_free == 0)
        return NULL;
    id = p->free_ids[--p->n_free];
    PS_ASSERT(p->is_out[id] == 0);
    p->is_out[id] = 1;
    obj = p->slab + id * p->obj_bytes;
    PS_DASSERT(is_poisoned(obj, p->obj_bytes));
    memset(obj, 0, p->obj_bytes);
    return obj;
}

uint32_t ps_pool_index(const struct ps_pool *p, const void *obj)
{
    const char *at = obj;
    size_t off;

    PS_ASSERT(at >= p->slab && at < p->slab + p->n_obj * p->obj_bytes);
    off = (size_t)(at - p->slab);
    PS_ASSERT(off % p->obj_bytes == 0);
    return (uint32_t)(off / p->obj_bytes);
}

void ps_pool_give(struct ps_pool *p, void *obj)
{
    uint32_t id = ps_pool_index(p, obj);

    PS_ASSERT(p->is_out[id] == 1);
    p->is_out[id] = 0;
    memset(obj, POISON, p->obj_bytes);
    p->free_ids[p->n_free++] = id;
    PS_ASSERT(p->n_free <= p->n_obj);
}

void *ps_pool_at(struct ps_pool *p, uint32_t index)
{
    PS_ASSERT(index < p->n_obj);
    return p->is_out[index] ? p->slab + index * p->obj_bytes : NULL;
}

uint32_t ps_pool_n_out(const struct ps_pool *p)
{
    return p->n_obj - p->n_free;
}
