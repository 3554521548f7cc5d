#pragma once

/*
 * Prefix tree: which pages hold which tokens, so that a prompt computes only what nobody has computed.
 *
 * A node is a full page: its token ids, its parent and the chained block hash at its end. The hash
 * finds a candidate; it is attached only when the ids along the whole path are equal, and paths under
 * different seeds (tenants) never meet. A page that nobody but the tree holds is evictable; the least
 * recently used goes first, always a leaf. Sequences publish pages when a step is committed, never
 * before, and then hold their whole path.
 *
 * Owned by the scheduler thread; no call blocks, and only the hash tables ever allocate.
 *
 * Invariants
 *   1 the tree is one holder of each of its pages; a page is evictable iff it is the only one.
 *   2 who holds a node holds its ancestors; so the ancestors of a held node are held, the descendants
 *     of an evictable node are evictable, and the oldest of the LRU list is a leaf.
 *   3 a holder drops its path deepest first: that keeps 2 and makes the LRU order leaf-first.
 *   4 no two nodes have the same seed, parent and ids.
 */

#include "worker/kv/pool.h"

#define WK_KV_NO_PAGE UINT32_MAX

struct wk_kv_tree;

struct wk_kv_match {
    uint32_t n_pages;   /* full pages found along the path */
    uint32_t n_idle;    /* of these, evictable until pinned */
    uint32_t tail_page; /* a child of the last whose first n_tail tokens match as well */
    uint32_t n_tail;    /* 0: none. At least one token is always left to compute */
    bool tail_idle;
};

/* Serves group 0 of the pool, which outlives the tree. */
struct wk_kv_tree *wk_kv_tree_create(struct wk_kv_pool *pool, uint32_t page_tokens);
void wk_kv_tree_destroy(struct wk_kv_tree *t); /* NULL is fine; drops the tree's holders */

/* Chained hash at the end of the page that follows `parent` (the seed for the first). */
uint64_t wk_kv_tree_hash(const struct wk_kv_tree *t, uint64_t parent, const uint32_t *ids);
/* Looks along ids; hashes[n_ids / page_tokens] are the chained ones. Fills pages. Changes nothing. */
void wk_kv_tree_match(const struct wk_kv_tree *t, uint64_t seed, const uint32_t *ids,
                      uint32_t n_ids, const uint64_t *hashes, uint32_t *pages,
                      struct wk_kv_match *out);

/* A page for new tokens, with one holder: a free one, else the one unused for longest is evicted. */
PS_MUST int wk_kv_tree_take(struct wk_kv_tree *t, uint32_t *out_page);
void wk_kv_tree_pin(struct wk_kv_tree *t, uint32_t page);
void wk_kv_tree_drop(struct wk_kv_tree *t, uint32_t page);
/*
 * The full page holds ids after the path that ends in parent (WK_KV_NO_PAGE: the root). Returns the
 * page that stands for this path: `page` itself, or another with the same tokens that was there
 * before; then nothing has changed and the caller had better use that one.
 */
uint32_t wk_kv_tree_publish(struct wk_kv_tree *t, uint64_t seed, uint32_t parent, uint64_t hash,
                            const uint32_t *ids, uint32_t page);
/* Forgets everything. Held pages live on as their holders' own; the epoch rises, and what was
 * attached in an earlier epoch must not publish. */
void wk_kv_tree_flush(struct wk_kv_tree *t);

uint32_t wk_kv_tree_epoch(const struct wk_kv_tree *t);
uint32_t wk_kv_tree_n_avail(const struct wk_kv_tree *t); /* free + evictable */
uint32_t wk_kv_tree_n_free(const struct wk_kv_tree *t);
uint32_t wk_kv_tree_n_evictable(const struct wk_kv_tree *t);
uint32_t wk_kv_tree_n_total(const struct wk_kv_tree *t);
uint64_t wk_kv_tree_n_evicted(const struct wk_kv_tree *t);
uint32_t wk_kv_tree_n_pins(const struct wk_kv_tree *t, uint32_t page); /* holders but the tree */
