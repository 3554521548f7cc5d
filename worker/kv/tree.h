#pragma once

/*
 * Prefix tree: which tokens are cached, and where each copy of them is.
 *
 * A node is a full page of tokens: its ids, its parent and the chained block hash at its end. The
 * hash finds a candidate; it is attached only when the ids along the whole path are equal, and paths
 * under different seeds (tenants) never meet. A node has a cell for each group of the layout: group 0
 * holds the rows of its tokens, group 1 (models with ring or state caches) a snapshot at exactly its
 * end. A cell tells the copies there are: an item of T0, one of T1, a slot of T2, whether T3 or a
 * peer has it. The tree hands out the items of T0 and T1 and the slots of T2; when a tier is full the
 * coldest idle copy there goes. It moves no bytes: the store (store.h) does, through tiers.
 *
 * A node whose rows have no copy left is hollow: matching stops there. Nodes below it keep their
 * copies and count again once somebody computes the page. An empty leaf that nobody holds is gone.
 *
 * Scheduler thread; no call blocks, and only the hash tables ever allocate after create.
 *
 * Invariants
 *   1 a T0 copy is idle (evictable) iff it is READY, its cell has no io but such as stay below T0
 *     and, for rows, its node no pin; a T1 or T2 copy iff its cell has no io at all. Idle copies, and
 *     only those, are in the tier's order. An io is no use: a copy that was idle before has its old
 *     place after.
 *   2 who pins a node pins its ancestors; so of a path whose pins are dropped deepest first, the
 *     deepest is the coldest, and eviction takes leaves first.
 *   3 no two nodes have the same seed, parent and ids.
 *   4 an item or slot belongs to one cell, to one caller who took it, or is free.
 *   5 a node lives while it has a pin, an io, a child or a copy, and no longer. When nodes run out,
 *     leaves that are only known to be in T3 or at a peer are forgotten, coldest first.
 *   6 what is announced is exactly: each stride whose pages, and those above it, all have a copy.
 */

#include "worker/kv/announce.h"
#include "worker/kv/pool.h"

#define WK_KV_NO_NODE UINT32_MAX
#define WK_KV_NO_ITEM UINT32_MAX

enum { WK_KV_ROWS_GROUP, WK_KV_SNAP_GROUP, WK_KV_N_GROUPS_MAX };

struct wk_kv_tree;

struct wk_kv_tree_conf {
    struct wk_kv_pool *t0, *t1; /* t1 NULL: no such tier. Both outlive the tree */
    uint32_t page_tokens, n_group;
    uint32_t n_t2[WK_KV_N_GROUPS_MAX]; /* slots of T2; 0: no such tier */
    uint32_t n_extra; /* nodes beyond one per item and slot: known to be in T3 or at a peer */
    struct wk_announce *announce; /* NULL: nobody is told */
    uint32_t stride_pages;        /* pages of an announced hash, a power of two */
    uint64_t space_id;            /* root of the SHA-256 chain */
};

enum wk_kv_hot { WK_KV_COLD, WK_KV_LOADING, WK_KV_READY }; /* of a T0 copy */

struct wk_kv_cell {
    uint32_t t0, t1, t2; /* WK_KV_NO_ITEM: none */
    uint16_t n_io;       /* moves that name one of its copies */
    uint16_t n_low_io;   /* of these, those that leave T0 alone */
    uint8_t hot;         /* enum wk_kv_hot; COLD iff t0 is none */
    uint8_t in_t3 : 1, has_peer : 1;
    uint8_t
        has_stray : 1; /* T0 was filled by a publish while a load still writes to another item */
    uint8_t peer;      /* index, when has_peer */
};

struct wk_kv_match {
    uint32_t n_found;   /* nodes along the path that have a copy somewhere; none is hollow */
    uint32_t n_hot;     /* leading ones whose rows are READY in T0 */
    uint32_t n_idle;    /* of the hot ones, evictable until pinned */
    uint32_t tail_node; /* a child of the last hot one whose first n_tail tokens match as well */
    uint32_t n_tail; /* 0: none, or n_found > n_hot. At least one token is always left to compute */
    bool tail_idle;
};

struct wk_kv_tree *wk_kv_tree_create(const struct wk_kv_tree_conf *conf);
void wk_kv_tree_destroy(struct wk_kv_tree *t); /* NULL is fine; nothing is pinned, no io runs */

/* ---- tokens ---- */

/* Chained hash at the end of the page that follows `parent` (the seed for the first). */
uint64_t wk_kv_tree_hash(const struct wk_kv_tree *t, uint64_t parent, const uint32_t *ids);
/* Looks along ids; hashes[n_ids / page_tokens] are the chained ones. Fills nodes. Changes nothing. */
void wk_kv_tree_match(const struct wk_kv_tree *t, uint64_t seed, const uint32_t *ids,
                      uint32_t n_ids, const uint64_t *hashes, uint32_t *nodes,
                      struct wk_kv_match *out);
/* The same path node by node, hollow or not; NO_NODE when there is none. */
uint32_t wk_kv_tree_find(const struct wk_kv_tree *t, uint64_t seed, uint32_t parent, uint64_t hash,
                         const uint32_t *ids);
/*
 * The page `item` of T0, held by the caller, has the rows of ids after the path that ends in parent
 * (NO_NODE: the root). Returns the node, with one pin for the caller. out_adopted: the item is the
 * node's now; otherwise the node had a READY copy before, the caller keeps its item and had better
 * give it. Parent is pinned by the caller. Also a node that is LOADING becomes READY with this item;
 * so the item of a cell is known only once it is READY. Returns NO_NODE, and the caller keeps its item
 * unpublished, when every node there is has to stay.
 */
uint32_t wk_kv_tree_publish(struct wk_kv_tree *t, uint64_t seed, uint32_t parent, uint64_t hash,
                            const uint32_t *ids, uint32_t item, bool *out_adopted);
/* A node that is known only from elsewhere (T2's scan, T3, a peer): found, or made without copies.
 * NO_NODE when there is no room. Follow it with a set_ before anything else is called. */
uint32_t wk_kv_tree_add(struct wk_kv_tree *t, uint64_t seed, uint32_t parent, uint64_t hash,
                        const uint32_t *ids);
/* The node that is exactly this, by hash, ids and digest; NO_NODE. For peers that ask. */
uint32_t wk_kv_tree_lookup(struct wk_kv_tree *t, const struct wk_kv_key *key);
/* Everything a tier or a peer needs to name the cell; key->ids stay valid while the node lives. */
void wk_kv_tree_key(struct wk_kv_tree *t, uint32_t node, uint32_t group, struct wk_kv_key *out);
/* Digest of the empty path under this seed: the parent of first pages. */
void wk_kv_tree_root_digest(const struct wk_kv_tree *t, uint64_t seed,
                            uint8_t out[PS_SHA256_BYTES]);

uint32_t wk_kv_tree_parent(const struct wk_kv_tree *t, uint32_t node);
uint32_t wk_kv_tree_depth(const struct wk_kv_tree *t, uint32_t node); /* pages above it */
uint32_t wk_kv_tree_uses(const struct wk_kv_tree *t, uint32_t node);
const uint32_t *wk_kv_tree_ids(const struct wk_kv_tree *t, uint32_t node);

/* ---- holders ---- */

void wk_kv_tree_pin(struct wk_kv_tree *t, uint32_t node);   /* it has a copy, or is pinned */
void wk_kv_tree_unpin(struct wk_kv_tree *t, uint32_t node); /* may end the node */
/* A request begins with this path: one more use of each. Moves T1's and T2's copies to the warm end,
 * deepest first. */
void wk_kv_tree_touch(struct wk_kv_tree *t, const uint32_t *nodes, uint32_t n);
uint32_t wk_kv_tree_n_pins(const struct wk_kv_tree *t, uint32_t node);

/* ---- room ---- */

/* An item or slot for the caller, with one holder; when none is free the coldest idle copy of the
 * tier goes: among the first few that could, one that has a copy below is preferred. WK_KV_E_FULL. */
PS_MUST int wk_kv_tree_take(struct wk_kv_tree *t, enum wk_kv_tier tier, uint32_t group,
                            uint32_t *out);
void wk_kv_tree_give(struct wk_kv_tree *t, enum wk_kv_tier tier, uint32_t group, uint32_t item);
/* T2's scan: this very slot, which is free, belongs to the caller now. */
void wk_kv_tree_take_slot(struct wk_kv_tree *t, uint32_t group, uint32_t slot);
/* Free + idle (+, with two groups, what emptying whole slabs of the other group would give). */
uint32_t wk_kv_tree_n_avail(const struct wk_kv_tree *t, enum wk_kv_tier tier, uint32_t group);
uint32_t wk_kv_tree_n_free(const struct wk_kv_tree *t, enum wk_kv_tier tier, uint32_t group);
uint32_t wk_kv_tree_n_idle(const struct wk_kv_tree *t, enum wk_kv_tier tier, uint32_t group);
uint32_t wk_kv_tree_n_total(const struct wk_kv_tree *t, enum wk_kv_tier tier, uint32_t group);
uint64_t wk_kv_tree_n_evicted(const struct wk_kv_tree *t, enum wk_kv_tier tier);
/* Of these, copies that were the last one anywhere: what must be computed again. */
uint64_t wk_kv_tree_n_lost(const struct wk_kv_tree *t, enum wk_kv_tier tier);
/* Idle copies from the coldest on; NO_NODE ends. Nothing may change between two calls. */
uint32_t wk_kv_tree_coldest(const struct wk_kv_tree *t, enum wk_kv_tier tier, uint32_t group);
uint32_t wk_kv_tree_warmer(const struct wk_kv_tree *t, enum wk_kv_tier tier, uint32_t group,
                           uint32_t node);

/* ---- copies; each keeps order, counts and announcements right ---- */

const struct wk_kv_cell *wk_kv_tree_cell(const struct wk_kv_tree *t, uint32_t node, uint32_t group);
bool wk_kv_tree_has_copy(const struct wk_kv_tree *t, uint32_t node, uint32_t group);
void wk_kv_tree_io_begin(struct wk_kv_tree *t, uint32_t node, uint32_t group);
void wk_kv_tree_io_end(struct wk_kv_tree *t, uint32_t node, uint32_t group); /* may end the node */
/* The same for a move between the tiers below T0: whatever hangs there holds nothing of T0. */
void wk_kv_tree_low_io_begin(struct wk_kv_tree *t, uint32_t node, uint32_t group);
void wk_kv_tree_low_io_end(struct wk_kv_tree *t, uint32_t node, uint32_t group);
/* item (taken by the caller) will be filled: COLD -> LOADING. */
void wk_kv_tree_load_begin(struct wk_kv_tree *t, uint32_t node, uint32_t group, uint32_t item);
void wk_kv_tree_load_end(struct wk_kv_tree *t, uint32_t node, uint32_t group, bool ok);
/* group 1: the item of T0, held by the caller, is the state at the node's end. False: it had one. */
bool wk_kv_tree_put_snapshot(struct wk_kv_tree *t, uint32_t node, uint32_t item);
/* tier T1 or T2: the slot (taken by the caller) holds the item now. */
void wk_kv_tree_set(struct wk_kv_tree *t, enum wk_kv_tier tier, uint32_t node, uint32_t group,
                    uint32_t slot);
/* Drops the copy in T0 (READY, idle), T1 or T2 (no io); frees its item or slot. May end the node. */
void wk_kv_tree_clear(struct wk_kv_tree *t, enum wk_kv_tier tier, uint32_t node, uint32_t group);
void wk_kv_tree_set_t3(struct wk_kv_tree *t, uint32_t node, uint32_t group, bool is_there);
void wk_kv_tree_set_peer(struct wk_kv_tree *t, uint32_t node, uint32_t group, bool has,
                         uint8_t peer);

/* Forgets everything, in every tier. What is pinned or moving lives on, unfound, until it is let go;
 * the epoch rises, and what was attached in an earlier epoch must not publish. */
void wk_kv_tree_flush(struct wk_kv_tree *t);
uint32_t wk_kv_tree_epoch(const struct wk_kv_tree *t);
bool wk_kv_tree_is_flushed(const struct wk_kv_tree *t, uint32_t node);
uint32_t wk_kv_tree_n_nodes(const struct wk_kv_tree *t);
/* Every invariant, node by node; aborts at the first that fails. For tests: slow. */
void wk_kv_tree_check(const struct wk_kv_tree *t);
