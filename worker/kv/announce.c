#include "worker/kv/announce.h"

#include <string.h>

#include "common/hash.h"

struct wk_announce {
    uint64_t seq;
    uint32_t n_kept;
    struct wk_kv_event *events; /* [n_kept], at seq % n_kept */
    struct wk_kv_bucket buckets[WK_KV_BUCKETS];
};

uint32_t wk_kv_bucket_of(uint64_t hash)
{
    return (uint32_t)(hash >> 56);
}

uint64_t wk_kv_bucket_mix(uint64_t hash, enum wk_kv_tier tier)
{
    uint8_t bytes[9];

    for (uint32_t i = 0; i < 8; i++) /* the same on both sides, whatever their byte order */
        bytes[i] = (uint8_t)(hash >> (8 * i));
    bytes[8] = (uint8_t)tier;
    return ps_hash64(bytes, sizeof(bytes), 0);
}

struct wk_announce *wk_announce_create(uint32_t n_kept)
{
    struct wk_announce *a = ps_calloc(1, sizeof(*a));

    PS_ASSERT(n_kept > 0 && (n_kept & (n_kept - 1)) == 0);
    a->n_kept = n_kept;
    a->events = ps_calloc(n_kept, sizeof(*a->events));
    return a;
}

void wk_announce_destroy(struct wk_announce *a)
{
    if (a == NULL)
        return;
    ps_free(a->events);
    ps_free(a);
}

static void append(struct wk_announce *a, enum wk_kv_event_kind kind, uint64_t hash,
                   enum wk_kv_tier from, enum wk_kv_tier tier)
{
    a->seq++;
    a->events[a->seq & (a->n_kept - 1)] = (struct wk_kv_event){.seq = a->seq,
                                                               .hash = hash,
                                                               .kind = (uint8_t)kind,
                                                               .tier = (uint8_t)tier,
                                                               .from = (uint8_t)from};
}

static void mix(struct wk_announce *a, uint64_t hash, enum wk_kv_tier tier)
{
    PS_ASSERT(tier < WK_KV_PEER); /* what a peer has is the peer's to announce */
    a->buckets[wk_kv_bucket_of(hash)].xor_of ^= wk_kv_bucket_mix(hash, tier);
}

void wk_announce_stored(struct wk_announce *a, uint64_t hash, enum wk_kv_tier tier)
{
    a->buckets[wk_kv_bucket_of(hash)].n++;
    mix(a, hash, tier);
    append(a, WK_KV_STORED, hash, tier, tier);
}

void wk_announce_removed(struct wk_announce *a, uint64_t hash, enum wk_kv_tier tier)
{
    struct wk_kv_bucket *b = &a->buckets[wk_kv_bucket_of(hash)];

    PS_ASSERT(b->n > 0);
    b->n--;
    mix(a, hash, tier);
    PS_ASSERT(b->n > 0 || b->xor_of == 0); /* what was removed had been stored, tier by tier */
    append(a, WK_KV_REMOVED, hash, tier, tier);
}

void wk_announce_moved(struct wk_announce *a, uint64_t hash, enum wk_kv_tier from,
                       enum wk_kv_tier to)
{
    PS_ASSERT(from != to && a->buckets[wk_kv_bucket_of(hash)].n > 0);
    mix(a, hash, from);
    mix(a, hash, to);
    append(a, WK_KV_MOVED, hash, from, to);
}

void wk_announce_cleared(struct wk_announce *a)
{
    memset(a->buckets, 0, sizeof(a->buckets));
    append(a, WK_KV_CLEARED, 0, WK_KV_T0, WK_KV_T0);
}

uint64_t wk_announce_seq(const struct wk_announce *a)
{
    return a->seq;
}

int wk_announce_replay(const struct wk_announce *a, uint64_t from, struct wk_kv_event *out,
                       uint32_t n, uint32_t *out_n)
{
    uint64_t n_behind;

    /* Who claims to have seen what was never said knew another life of this process. */
    if (from > a->seq || a->seq - from > a->n_kept)
        return WK_ANNOUNCE_E_TOO_OLD;
    n_behind = a->seq - from;
    *out_n = (uint32_t)ps_min_u64(n_behind, n);
    for (uint32_t i = 0; i < *out_n; i++) {
        out[i] = a->events[(from + 1 + i) & (a->n_kept - 1)];
        PS_ASSERT(out[i].seq == from + 1 + i);
    }
    return WK_ANNOUNCE_OK;
}

const struct wk_kv_bucket *wk_announce_buckets(const struct wk_announce *a)
{
    return a->buckets;
}
