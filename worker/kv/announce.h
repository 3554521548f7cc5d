#pragma once

/*
 * Announcing: what routers may know of this worker's cache, as an ordered log of changes.
 *
 * A block hash is announced with one tier: the slowest among the best tiers of the pages of its
 * stride (64 tokens, or a page when that is larger). Who replays the log from an empty set reaches
 * exactly the set the tree holds; the digest of 256 buckets by hash prefix, each {count, XOR of
 * H(hash, tier)}, proves it at any sequence number. Scheduler thread.
 *
 * Invariants
 *   1 a hash is in the set with one tier or not at all; Stored follows absence, Moved and Removed
 *     follow presence in `from`.
 *   2 seq rises by one with each event and is never reused in one life of the process.
 */

#include "common/base.h"
#include "worker/tier/tier.h"

enum wk_kv_event_kind { WK_KV_STORED, WK_KV_REMOVED, WK_KV_MOVED, WK_KV_CLEARED };

struct wk_kv_event {
    uint64_t seq;
    uint64_t hash;      /* not for CLEARED */
    uint8_t kind;       /* enum wk_kv_event_kind */
    uint8_t tier, from; /* enum wk_kv_tier; CLEARED: everything */
};

enum { WK_KV_BUCKETS = 256 };

struct wk_kv_bucket {
    uint64_t n, xor_of;
};

enum {
    WK_ANNOUNCE_OK,
    WK_ANNOUNCE_E_TOO_OLD, /* from is no longer kept: ask for a snapshot */
};

struct wk_announce;

struct wk_announce *wk_announce_create(uint32_t n_kept); /* events kept for replay, power of two */
void wk_announce_destroy(struct wk_announce *a);         /* NULL is fine */
void wk_announce_stored(struct wk_announce *a, uint64_t hash, enum wk_kv_tier tier);
void wk_announce_removed(struct wk_announce *a, uint64_t hash, enum wk_kv_tier tier);
void wk_announce_moved(struct wk_announce *a, uint64_t hash, enum wk_kv_tier from,
                       enum wk_kv_tier to);
void wk_announce_cleared(struct wk_announce *a);
uint64_t wk_announce_seq(const struct wk_announce *a); /* of the last event; 0: none yet */
/* Copies events (from, ...] into out[n]; out_n tells how many. */
PS_MUST int wk_announce_replay(const struct wk_announce *a, uint64_t from, struct wk_kv_event *out,
                               uint32_t n, uint32_t *out_n);
const struct wk_kv_bucket *wk_announce_buckets(const struct wk_announce *a); /* [WK_KV_BUCKETS] */

/* Both sides of the wire use these. */
uint32_t wk_kv_bucket_of(uint64_t hash);
uint64_t wk_kv_bucket_mix(uint64_t hash, enum wk_kv_tier tier); /* H(hash, tier) */
