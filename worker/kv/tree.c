#include "worker/kv/tree.h"

#include "common/map.h"
#include "common/model/block.h"
#include "common/rng.h"

#include <string.h>

#define NONE WK_KV_NO_PAGE

/* Children looked at for a tail: a node with thousands of them must not slow an admission down. */
enum { TAIL_SCAN_MAX = 64 };

struct node { /* index = page number */
    uint64_t seed, hash;
    uint32_t parent, first_child, sib_prev, sib_next;
    uint32_t same_next; /* another node with the same hash */
    uint32_t lru_prev, lru_next;
    bool in_tree, in_lru;
};

struct wk_kv_tree {
    struct wk_kv_pool *pool;
    uint32_t page_tokens, n_pages;
    struct node *nodes;
    uint32_t *ids;               /* [n_pages][page_tokens] */
    struct ps_map by_hash;       /* hash -> first node */
    struct ps_map roots;         /* seed -> first of the nodes without parent */
    uint32_t lru_head, lru_tail; /* head: unused for longest */
    uint32_t n_evictable, epoch;
    uint64_t n_evicted;
};

struct wk_kv_tree *wk_kv_tree_create(struct wk_kv_pool *pool, uint32_t page_tokens)
{
    struct wk_kv_tree *t = ps_calloc(1, sizeof(*t));
    uint64_t key; /* clients choose tokens, hence hashes: the tables' own seed is secret */

    PS_ASSERT(page_tokens % PS_BLOCK_TOKENS == 0 && page_tokens > 0);
    t->pool = pool;
    t->page_tokens = page_tokens;
    t->n_pages = wk_kv_pool_n_total(pool, 0);
    t->nodes = ps_calloc(t->n_pages, sizeof(*t->nodes));
    t->ids = ps_calloc((size_t)t->n_pages * page_tokens, sizeof(*t->ids));
    ps_random_bytes(&key, sizeof(key));
    ps_map_init(&t->by_hash, key);
    ps_map_init(&t->roots, key);
    t->lru_head = t->lru_tail = NONE;
    return t;
}

void wk_kv_tree_destroy(struct wk_kv_tree *t)
{
    if (t == NULL)
        return;
    wk_kv_tree_flush(t);
    ps_map_fini(&t->by_hash);
    ps_map_fini(&t->roots);
    ps_free(t->nodes);
    ps_free(t->ids);
    ps_free(t);
}

static uint32_t *ids_of(const struct wk_kv_tree *t, uint32_t page)
{
    return t->ids + (size_t)page * t->page_tokens;
}

static void lru_push(struct wk_kv_tree *t, uint32_t page)
{
    struct node *n = &t->nodes[page];

    PS_ASSERT(n->in_tree && !n->in_lru);
    n->in_lru = true;
    n->lru_prev = t->lru_tail;
    n->lru_next = NONE;
    if (t->lru_tail != NONE)
        t->nodes[t->lru_tail].lru_next = page;
    else
        t->lru_head = page;
    t->lru_tail = page;
    t->n_evictable++;
}

static void lru_remove(struct wk_kv_tree *t, uint32_t page)
{
    struct node *n = &t->nodes[page];

    PS_ASSERT(n->in_lru && t->n_evictable > 0);
    n->in_lru = false;
    if (n->lru_prev != NONE)
        t->nodes[n->lru_prev].lru_next = n->lru_next;
    else
        t->lru_head = n->lru_next;
    if (n->lru_next != NONE)
        t->nodes[n->lru_next].lru_prev = n->lru_prev;
    else
        t->lru_tail = n->lru_prev;
    t->n_evictable--;
}

uint64_t wk_kv_tree_hash(const struct wk_kv_tree *t, uint64_t parent, const uint32_t *ids)
{
    for (uint32_t i = 0; i < t->page_tokens; i += PS_BLOCK_TOKENS)
        parent = ps_block_hash(parent, ids + i);
    return parent;
}

static uint32_t find(const struct wk_kv_tree *t, uint64_t seed, uint32_t parent, uint64_t hash,
                     const uint32_t *ids)
{
    uint64_t at;

    if (!ps_map_get(&t->by_hash, hash, &at))
        return NONE;
    for (uint32_t p = (uint32_t)at; p != NONE; p = t->nodes[p].same_next) {
        const struct node *n = &t->nodes[p];

        PS_ASSERT(n->in_tree && n->hash == hash);
        if (n->parent == parent && n->seed == seed &&
            memcmp(ids_of(t, p), ids, t->page_tokens * sizeof(*ids)) == 0)
            return p;
    }
    return NONE;
}

static uint32_t first_child(const struct wk_kv_tree *t, uint64_t seed, uint32_t parent)
{
    uint64_t at;

    if (parent != NONE)
        return t->nodes[parent].first_child;
    return ps_map_get(&t->roots, seed, &at) ? (uint32_t)at : NONE;
}

static void set_first_child(struct wk_kv_tree *t, uint64_t seed, uint32_t parent, uint32_t page)
{
    if (parent != NONE)
        t->nodes[parent].first_child = page;
    else if (page != NONE)
        ps_map_put(&t->roots, seed, page);
    else
        ps_map_del(&t->roots, seed);
}

static void match_tail(const struct wk_kv_tree *t, uint64_t seed, uint32_t parent,
                       const uint32_t *ids, uint32_t n_ids, struct wk_kv_match *out)
{
    uint32_t n_max = ps_min_u32(n_ids - 1, t->page_tokens), n_seen = 0;

    for (uint32_t p = first_child(t, seed, parent); p != NONE && n_seen < TAIL_SCAN_MAX;
         p = t->nodes[p].sib_next, n_seen++) {
        const uint32_t *own = ids_of(t, p);
        uint32_t n = 0;

        while (n < n_max && own[n] == ids[n])
            n++;
        if (n > out->n_tail) {
            out->n_tail = n;
            out->tail_page = p;
            out->tail_idle = t->nodes[p].in_lru;
        }
    }
}

void wk_kv_tree_match(const struct wk_kv_tree *t, uint64_t seed, const uint32_t *ids,
                      uint32_t n_ids, const uint64_t *hashes, uint32_t *pages,
                      struct wk_kv_match *out)
{
    uint32_t parent = NONE, n_full = n_ids / t->page_tokens;

    *out = (struct wk_kv_match){.tail_page = NONE};
    for (uint32_t i = 0; i < n_full; i++) {
        uint32_t p = find(t, seed, parent, hashes[i], ids + (size_t)i * t->page_tokens);

        if (p == NONE)
            break;
        pages[out->n_pages++] = p;
        out->n_idle += t->nodes[p].in_lru;
        PS_ASSERT(parent == NONE || t->nodes[p].in_lru || !t->nodes[parent].in_lru);
        parent = p;
    }
    if (out->n_pages * t->page_tokens + 1 < n_ids)
        match_tail(t, seed, parent, ids + (size_t)out->n_pages * t->page_tokens,
                   n_ids - out->n_pages * t->page_tokens, out);
}

/* Takes the node out of every list; its page keeps its other holders. */
static void forget(struct wk_kv_tree *t, uint32_t page)
{
    struct node *n = &t->nodes[page];
    uint64_t at;

    PS_ASSERT(n->in_tree && n->first_child == NONE);
    if (n->in_lru)
        lru_remove(t, page);
    if (n->sib_prev != NONE)
        t->nodes[n->sib_prev].sib_next = n->sib_next;
    else
        set_first_child(t, n->seed, n->parent, n->sib_next);
    if (n->sib_next != NONE)
        t->nodes[n->sib_next].sib_prev = n->sib_prev;
    PS_ASSERT(ps_map_get(&t->by_hash, n->hash, &at));
    if (at == page) {
        if (n->same_next != NONE)
            ps_map_put(&t->by_hash, n->hash, n->same_next);
        else
            ps_map_del(&t->by_hash, n->hash);
    } else {
        uint32_t p = (uint32_t)at;

        while (t->nodes[p].same_next != page)
            p = t->nodes[p].same_next;
        t->nodes[p].same_next = n->same_next;
    }
    n->in_tree = false;
    wk_kv_pool_drop(t->pool, 0, page);
}

int wk_kv_tree_take(struct wk_kv_tree *t, uint32_t *out_page)
{
    if (wk_kv_pool_n_free(t->pool, 0) == 0) {
        if (t->lru_head == NONE)
            return WK_KV_E_FULL;
        PS_ASSERT(wk_kv_pool_holders(t->pool, 0, t->lru_head) == 1);
        forget(t, t->lru_head);
        t->n_evicted++;
    }
    return wk_kv_pool_take(t->pool, 0, out_page);
}

void wk_kv_tree_pin(struct wk_kv_tree *t, uint32_t page)
{
    if (t->nodes[page].in_lru)
        lru_remove(t, page);
    wk_kv_pool_share(t->pool, 0, page);
}

void wk_kv_tree_drop(struct wk_kv_tree *t, uint32_t page)
{
    PS_ASSERT(!t->nodes[page].in_lru);
    wk_kv_pool_drop(t->pool, 0, page);
    if (t->nodes[page].in_tree && wk_kv_pool_holders(t->pool, 0, page) == 1)
        lru_push(t, page);
}

uint32_t wk_kv_tree_publish(struct wk_kv_tree *t, uint64_t seed, uint32_t parent, uint64_t hash,
                            const uint32_t *ids, uint32_t page)
{
    struct node *n = &t->nodes[page];
    uint32_t there = find(t, seed, parent, hash, ids), first;
    uint64_t at;

    if (there != NONE)
        return there;
    PS_ASSERT(!n->in_tree && wk_kv_pool_holders(t->pool, 0, page) > 0);
    PS_ASSERT(parent == NONE || (t->nodes[parent].in_tree && !t->nodes[parent].in_lru));
    first = first_child(t, seed, parent);
    *n = (struct node){.seed = seed,
                       .hash = hash,
                       .parent = parent,
                       .first_child = NONE,
                       .sib_prev = NONE,
                       .sib_next = first,
                       .same_next = NONE,
                       .in_tree = true};
    if (first != NONE)
        t->nodes[first].sib_prev = page;
    set_first_child(t, seed, parent, page);
    if (ps_map_get(&t->by_hash, hash, &at))
        n->same_next = (uint32_t)at;
    ps_map_put(&t->by_hash, hash, page);
    memcpy(ids_of(t, page), ids, t->page_tokens * sizeof(*ids));
    wk_kv_pool_share(t->pool, 0, page);
    return page;
}

void wk_kv_tree_flush(struct wk_kv_tree *t)
{
    while (t->lru_head != NONE)
        forget(t, t->lru_head);
    for (uint32_t p = 0; p < t->n_pages; p++) {
        if (t->nodes[p].in_tree) {
            t->nodes[p].in_tree = false;
            wk_kv_pool_drop(t->pool, 0, p);
        }
    }
    ps_map_clear(&t->by_hash);
    ps_map_clear(&t->roots);
    PS_ASSERT(t->n_evictable == 0);
    t->epoch++;
}

uint32_t wk_kv_tree_epoch(const struct wk_kv_tree *t)
{
    return t->epoch;
}

uint32_t wk_kv_tree_n_avail(const struct wk_kv_tree *t)
{
    return wk_kv_pool_n_free(t->pool, 0) + t->n_evictable;
}

uint32_t wk_kv_tree_n_free(const struct wk_kv_tree *t)
{
    return wk_kv_pool_n_free(t->pool, 0);
}

uint32_t wk_kv_tree_n_evictable(const struct wk_kv_tree *t)
{
    return t->n_evictable;
}

uint32_t wk_kv_tree_n_total(const struct wk_kv_tree *t)
{
    return t->n_pages;
}

uint64_t wk_kv_tree_n_evicted(const struct wk_kv_tree *t)
{
    return t->n_evicted;
}

uint32_t wk_kv_tree_n_pins(const struct wk_kv_tree *t, uint32_t page)
{
    return wk_kv_pool_holders(t->pool, 0, page) - (t->nodes[page].in_tree ? 1 : 0);
}
