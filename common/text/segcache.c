#include "common/text/segcache.h"

#include <string.h>

#include "common/hash.h"
#include "common/text/bpe.h"

enum {
    SLOTS = 4096, /* direct-mapped: a collision costs one re-tokenisation, never a wrong answer */
    ALIGN = 16,
    SHARE_MAX = 8, /* one entry takes at most this part of the ring */
};

struct head {
    uint64_t hash;
    uint32_t len, n; /* text bytes and ids that follow, the ids first */
    uint32_t kind, pad;
};

struct slot {
    uint64_t hash;
    uint64_t at; /* position in the endless stream of writes + 1; 0: free */
};

struct ps_segcache {
    char *ring;
    size_t cap;
    uint64_t end; /* bytes ever written, skipped tails included */
    struct slot slots[SLOTS];
};

struct ps_segcache *ps_segcache_create(size_t ring_bytes)
{
    struct ps_segcache *c = ps_calloc(1, sizeof(*c));

    c->cap = ring_bytes / ALIGN * ALIGN;
    PS_ASSERT(c->cap >= 4096);
    c->ring = ps_alloc(c->cap);
    return c;
}

void ps_segcache_destroy(struct ps_segcache *c)
{
    if (c == NULL)
        return;
    ps_free(c->ring);
    ps_free(c);
}

static size_t entry_bytes(size_t len, uint32_t n)
{
    size_t b = sizeof(struct head) + (size_t)n * sizeof(uint32_t) + len;

    return (b + ALIGN - 1) / ALIGN * ALIGN;
}

static uint64_t hash_of(const char *s, size_t len, uint32_t kind)
{
    return ps_hash64(s, len, kind);
}

bool ps_segcache_get(struct ps_segcache *c, const char *s, size_t len, uint32_t kind,
                     struct ps_tok_ids *ids)
{
    uint64_t hash = hash_of(s, len, kind);
    const struct slot *slot = &c->slots[hash % SLOTS];
    struct head h;
    const char *e;

    if (slot->at == 0 || slot->hash != hash || slot->at - 1 + c->cap < c->end)
        return false;
    e = c->ring + (slot->at - 1) % c->cap;
    memcpy(&h, e, sizeof(h));
    if (h.hash != hash || h.len != len || h.kind != kind)
        return false;
    if (memcmp(e + sizeof(h) + (size_t)h.n * sizeof(uint32_t), s, len) != 0)
        return false;
    ps_tok_ids_reserve(ids, h.n);
    if (h.n > 0)
        memcpy(ids->ids + ids->n, e + sizeof(h), (size_t)h.n * sizeof(uint32_t));
    ids->n += h.n;
    if (slot->at - 1 + c->cap / 2 < c->end) /* in the older half: keep it alive */
        ps_segcache_put(c, s, len, kind, ids->ids + ids->n - h.n, h.n);
    return true;
}

void ps_segcache_put(struct ps_segcache *c, const char *s, size_t len, uint32_t kind,
                     const uint32_t *ids, uint32_t n)
{
    size_t need = entry_bytes(len, n), off;
    struct head h;
    struct slot *slot;
    char *e;

    if (need > c->cap / SHARE_MAX)
        return;
    off = (size_t)(c->end % c->cap);
    if (c->cap - off < need) { /* an entry is contiguous: skip the tail */
        c->end += c->cap - off;
        off = 0;
    }
    memset(&h, 0, sizeof(h));
    h.hash = hash_of(s, len, kind);
    h.len = (uint32_t)len;
    h.n = n;
    h.kind = kind;
    e = c->ring + off;
    memcpy(e, &h, sizeof(h));
    if (n > 0)
        memcpy(e + sizeof(h), ids, (size_t)n * sizeof(uint32_t));
    memcpy(e + sizeof(h) + (size_t)n * sizeof(uint32_t), s, len);
    slot = &c->slots[h.hash % SLOTS];
    slot->hash = h.hash;
    slot->at = c->end + 1;
    c->end += need;
}
