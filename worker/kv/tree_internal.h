#pragma once

/*
 * The inside of the prefix tree, shared by its parts. Scheduler thread, like all of it.
 *
 *   tree.c        nodes: found, made, pinned, ended; what they hold of tokens
 *   tree_copy.c   cells: items and slots, who is idle, who is evicted
 *   tree_tell.c   which strides are announced, and when that changes
 *   tree_check.c  every invariant, node by node
 *
 * Arrays are sized at create and never touched before a node needs them, so what a worker does not
 * use (digests, lower tiers) costs address space only. Ids are stored as id + 1 where memory that was
 * never touched must say "none".
 */

#include "common/map.h"
#include "worker/kv/order.h"
#include "worker/kv/tree.h"

#define NONE WK_KV_NO_NODE
_Static_assert(WK_KV_NO_NODE == WK_KV_NO_ITEM && WK_KV_NO_NODE == WK_ORDER_NONE,
               "one word for none");

#define WK_TREE_N_LOCAL 3u /* tiers whose room the tree hands out: T0, T1, T2 */

enum wk_tree_flag {
    WK_TREE_LIVE = 1,
    WK_TREE_FLUSHED = 2,   /* forgotten; it only waits for its pins and ios */
    WK_TREE_FAR = 4,       /* a leaf known only to be elsewhere: in tree->far */
    WK_TREE_DIGEST = 8,    /* its digest has been computed */
    WK_TREE_ANNOUNCED = 16 /* its hash is in the announced set, with tier `tell` */
};

/* Of wk_tree_node.tell: the page, or one above it, has no copy of our own. */
#define WK_TREE_HOLLOW WK_KV_PEER

struct wk_tree_node {
    uint64_t seed, hash;
    uint32_t parent, first_child, sib_prev, sib_next;
    uint32_t chain_next; /* id + 1: next of its hash bucket, or next free node */
    uint32_t depth, n_pins;
    uint16_t n_uses;
    uint8_t flags;
    uint8_t tell; /* slowest of the best tiers from its stride's first page to it, or HOLLOW */
};
_Static_assert(sizeof(struct wk_tree_node) == 48, "bench/results says what a page costs");

struct wk_tree_slots { /* T2: numbers only */
    uint32_t n, n_free, n_carved, first_free;
    uint32_t *next, *prev; /* of the free ones; SLOT_TAKEN in next of the others */
};

struct wk_kv_tree {
    struct wk_kv_tree_conf conf;
    struct wk_kv_pool *pools[2];                         /* of T0 and T1 */
    uint32_t n_nodes_max, n_nodes, n_carved, first_free; /* first_free: id + 1 */
    struct wk_tree_node *nodes;
    uint32_t *ids;                                /* [n_nodes_max][page_tokens] */
    uint8_t *digests;                             /* [n_nodes_max][PS_SHA256_BYTES] */
    struct wk_kv_cell *cells[WK_KV_N_GROUPS_MAX]; /* [n_nodes_max] */
    uint32_t *buckets;                            /* of hashes: id + 1 */
    uint32_t bucket_mask;
    uint64_t secret;     /* clients choose tokens, hence hashes: how tables order them is secret */
    struct ps_map roots; /* seed -> first of the nodes without parent */
    struct ps_map
        strays; /* node, group -> the item of T0 that a load overtaken by a publish fills */
    struct wk_order *order[WK_TREE_N_LOCAL][WK_KV_N_GROUPS_MAX]; /* NULL: no such tier */
    struct wk_order *far;
    struct wk_tree_slots slots[WK_KV_N_GROUPS_MAX];
    uint64_t n_evicted[WK_TREE_N_LOCAL], n_lost[WK_TREE_N_LOCAL];
    uint32_t epoch;
    uint32_t keep;       /* a node that may not end just now */
    uint32_t n_shadowed; /* strides that would be announced but for another with the same hash */
};

static inline struct wk_tree_node *wk_tree_at(const struct wk_kv_tree *t, uint32_t node)
{
    PS_DASSERT(node < t->n_carved && (t->nodes[node].flags & WK_TREE_LIVE) != 0);
    return &t->nodes[node];
}

static inline bool wk_tree_is(const struct wk_kv_tree *t, uint32_t node, enum wk_tree_flag flag)
{
    return (t->nodes[node].flags & flag) != 0;
}

static inline struct wk_kv_cell *wk_tree_cell(const struct wk_kv_tree *t, uint32_t node,
                                              uint32_t group)
{
    PS_DASSERT(group < t->conf.n_group);
    return &t->cells[group][node];
}

static inline uint32_t wk_tree_item(const struct wk_kv_cell *c, enum wk_kv_tier tier)
{
    return tier == WK_KV_T0 ? c->t0 : tier == WK_KV_T1 ? c->t1 : c->t2;
}

/* The fastest tier that has a copy of our own; HOLLOW: none. */
static inline uint8_t wk_tree_best(const struct wk_kv_cell *c)
{
    if (c->hot == WK_KV_READY)
        return WK_KV_T0;
    return c->t1 != NONE   ? WK_KV_T1
           : c->t2 != NONE ? WK_KV_T2
           : c->in_t3      ? WK_KV_T3
                           : WK_TREE_HOLLOW;
}

static inline uint32_t wk_tree_bucket(const struct wk_kv_tree *t, uint64_t hash)
{
    return (uint32_t)ps_hash64(&hash, sizeof(hash), t->secret) & t->bucket_mask;
}

/* tree.c: the node ends if nothing holds it any more, and so do ancestors that only it held. */
void wk_tree_settle_node(struct wk_kv_tree *t, uint32_t node);

/* tree_copy.c */
void wk_tree_slots_init(struct wk_tree_slots *s, uint32_t n);
/* Pins, ios or copies changed: the cell's copies go in or out of their tiers' orders; those of a
 * flushed node go. */
void wk_tree_settle_cell(struct wk_kv_tree *t, uint32_t node, uint32_t group);
/* The item, taken by the caller, is the cell's READY copy now. */
void wk_tree_adopt(struct wk_kv_tree *t, uint32_t node, uint32_t group, uint32_t item);
/* The idle copy goes, counted; may end the node. */
void wk_tree_evict(struct wk_kv_tree *t, enum wk_kv_tier tier, uint32_t group, uint32_t node);

/* tree_tell.c: after the copies of the node's rows changed. */
void wk_tree_tell(struct wk_kv_tree *t, uint32_t node);
/* What `tell` must be, from the cell and the parent's. */
uint8_t wk_tree_tell_of(const struct wk_kv_tree *t, uint32_t node);
bool wk_tree_is_stride_end(const struct wk_kv_tree *t, uint32_t node);
