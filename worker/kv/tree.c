#include <string.h>

#include "common/model/block.h"
#include "common/rng.h"
#include "worker/kv/tree_internal.h"

enum {
    TAIL_SCAN_MAX = 64, /* a node with thousands of children must not slow an admission down */
    USES_MAX = UINT16_MAX,
};

struct wk_kv_tree *wk_kv_tree_create(const struct wk_kv_tree_conf *conf)
{
    struct wk_kv_tree *t = ps_calloc(1, sizeof(*t));
    uint64_t n = conf->n_extra;
    uint32_t n_buckets = 1;

    PS_ASSERT(conf->page_tokens % PS_BLOCK_TOKENS == 0 && conf->page_tokens > 0);
    PS_ASSERT(conf->n_group > 0 && conf->n_group <= WK_KV_N_GROUPS_MAX);
    PS_ASSERT(conf->stride_pages > 0 && (conf->stride_pages & (conf->stride_pages - 1)) == 0);
    t->conf = *conf;
    t->pools[WK_KV_T0] = conf->t0;
    t->pools[WK_KV_T1] = conf->t1;
    n += wk_kv_pool_n_total(conf->t0, WK_KV_ROWS_GROUP) + (uint64_t)conf->n_t2[WK_KV_ROWS_GROUP];
    n += conf->t1 != NULL ? wk_kv_pool_n_total(conf->t1, WK_KV_ROWS_GROUP) : 0;
    PS_ASSERT(n < UINT32_MAX / 2);
    t->n_nodes_max = (uint32_t)n;
    while (n_buckets < t->n_nodes_max)
        n_buckets *= 2;
    t->bucket_mask = n_buckets - 1;
    t->buckets = ps_calloc(n_buckets, sizeof(*t->buckets));
    t->nodes = ps_calloc(n, sizeof(*t->nodes));
    t->ids = ps_calloc(n, conf->page_tokens * sizeof(*t->ids));
    t->digests = ps_calloc(n, PS_SHA256_BYTES);
    t->far = wk_order_create(t->n_nodes_max, t->n_nodes_max);
    for (uint32_t g = 0; g < conf->n_group; g++) {
        t->cells[g] = ps_calloc(n, sizeof(*t->cells[g]));
        t->order[WK_KV_T0][g] = wk_order_create(t->n_nodes_max, wk_kv_pool_n_total(conf->t0, g));
        if (conf->t1 != NULL)
            t->order[WK_KV_T1][g] =
                wk_order_create(t->n_nodes_max, wk_kv_pool_n_total(conf->t1, g));
        if (conf->n_t2[g] > 0)
            t->order[WK_KV_T2][g] = wk_order_create(t->n_nodes_max, conf->n_t2[g]);
        wk_tree_slots_init(&t->slots[g], conf->n_t2[g]);
    }
    ps_random_bytes(&t->secret, sizeof(t->secret));
    ps_map_init(&t->roots, t->secret);
    ps_map_init(&t->strays, t->secret);
    t->keep = NONE;
    return t;
}

void wk_kv_tree_destroy(struct wk_kv_tree *t)
{
    if (t == NULL)
        return;
    t->conf.announce = NULL; /* the process ends this cache's life, not its content */
    wk_kv_tree_flush(t);
    PS_ASSERT(t->n_nodes == 0);
    for (uint32_t g = 0; g < t->conf.n_group; g++) {
        for (uint32_t tier = 0; tier < WK_TREE_N_LOCAL; tier++)
            wk_order_destroy(t->order[tier][g]);
        ps_free(t->cells[g]);
        ps_free(t->slots[g].next);
        ps_free(t->slots[g].prev);
    }
    wk_order_destroy(t->far);
    ps_map_fini(&t->roots);
    ps_map_fini(&t->strays);
    ps_free(t->buckets);
    ps_free(t->digests);
    ps_free(t->nodes);
    ps_free(t->ids);
    ps_free(t);
}

static uint32_t *ids_of(const struct wk_kv_tree *t, uint32_t node)
{
    return t->ids + (size_t)node * t->conf.page_tokens;
}

static uint8_t *digest_of(const struct wk_kv_tree *t, uint32_t node)
{
    return t->digests + (size_t)node * PS_SHA256_BYTES;
}

/* ---- links ---- */

static uint32_t first_child(const struct wk_kv_tree *t, uint64_t seed, uint32_t parent)
{
    uint64_t at;

    if (parent != NONE)
        return t->nodes[parent].first_child;
    return ps_map_get(&t->roots, seed, &at) ? (uint32_t)at : NONE;
}

static void set_first_child(struct wk_kv_tree *t, uint64_t seed, uint32_t parent, uint32_t node)
{
    if (parent != NONE)
        t->nodes[parent].first_child = node;
    else if (node != NONE)
        ps_map_put(&t->roots, seed, node);
    else
        ps_map_del(&t->roots, seed);
}

static void link_node(struct wk_kv_tree *t, uint32_t node)
{
    struct wk_tree_node *n = &t->nodes[node];
    uint32_t *bucket = &t->buckets[wk_tree_bucket(t, n->hash)];
    uint32_t first = first_child(t, n->seed, n->parent);

    n->sib_prev = NONE;
    n->sib_next = first;
    if (first != NONE)
        t->nodes[first].sib_prev = node;
    set_first_child(t, n->seed, n->parent, node);
    n->chain_next = *bucket;
    *bucket = node + 1;
}

static void unlink_node(struct wk_kv_tree *t, uint32_t node)
{
    struct wk_tree_node *n = &t->nodes[node];
    uint32_t *at = &t->buckets[wk_tree_bucket(t, n->hash)];

    if (n->sib_prev != NONE)
        t->nodes[n->sib_prev].sib_next = n->sib_next;
    else
        set_first_child(t, n->seed, n->parent, n->sib_next);
    if (n->sib_next != NONE)
        t->nodes[n->sib_next].sib_prev = n->sib_prev;
    while (*at != node + 1) {
        PS_ASSERT(*at != 0);
        at = &t->nodes[*at - 1].chain_next;
    }
    *at = n->chain_next;
}

/* ---- life ---- */

/* A free node; when there is none, what is only known to be elsewhere is forgotten, coldest first. */
static uint32_t take_node(struct wk_kv_tree *t)
{
    uint32_t node;

    if (t->first_free == 0 && t->n_carved < t->n_nodes_max)
        return t->n_carved++;
    if (t->first_free == 0) {
        node = wk_order_first(t->far);
        if (node != NONE && node == t->keep)
            node = wk_order_next(t->far, node);
        if (node == NONE)
            return NONE;
        for (uint32_t g = 0; g < t->conf.n_group; g++)
            wk_tree_cell(t, node, g)->in_t3 = wk_tree_cell(t, node, g)->has_peer = 0;
        wk_tree_tell(t, node);
        wk_tree_settle_node(t, node);
    }
    PS_ASSERT(t->first_free != 0);
    node = t->first_free - 1;
    t->first_free = t->nodes[node].chain_next;
    return node;
}

/* For a page that was computed there must be a node, and there are more nodes than items: so others
 * stand for hollow pages above copies in lower tiers, and some of those copies go. */
static uint32_t squeeze_node(struct wk_kv_tree *t)
{
    uint32_t node = take_node(t);

    for (int tier = WK_KV_T2; tier >= WK_KV_T0 && node == NONE; tier--) {
        for (uint32_t g = 0; g < t->conf.n_group && node == NONE; g++) {
            const struct wk_order *o = t->order[tier][g];

            while (o != NULL && node == NONE && wk_order_n(o) > 0) {
                uint32_t victim = wk_order_first(o);

                if (victim == t->keep)
                    victim = wk_order_next(o, victim);
                if (victim == NONE)
                    break;
                wk_tree_evict(t, (enum wk_kv_tier)tier, g, victim);
                node = take_node(t);
            }
        }
    }
    return node;
}

/* What is made again soon after it was lost counts as used; not below what was never used, for uses
 * must not rise along a path. */
static bool was_lost(const struct wk_kv_tree *t, uint32_t parent, uint64_t hash)
{
    if (parent != NONE && t->nodes[parent].n_uses == 0)
        return false;
    for (uint32_t tier = 0; tier < WK_TREE_N_LOCAL; tier++) {
        const struct wk_order *o = t->order[tier][WK_KV_ROWS_GROUP];

        if (o != NULL && wk_order_is_ghost(o, hash))
            return true;
    }
    return false;
}

static uint32_t make_node(struct wk_kv_tree *t, uint64_t seed, uint32_t parent, uint64_t hash,
                          const uint32_t *ids, bool must)
{
    uint32_t node;

    PS_ASSERT(parent == NONE || !wk_tree_is(t, parent, WK_TREE_FLUSHED));
    t->keep = parent;
    node = must ? squeeze_node(t) : take_node(t);
    t->keep = NONE;
    if (node == NONE) {
        if (parent != NONE)
            wk_tree_settle_node(t, parent);
        return NONE;
    }
    t->nodes[node] = (struct wk_tree_node){.seed = seed,
                                           .hash = hash,
                                           .parent = parent,
                                           .first_child = NONE,
                                           .n_uses = was_lost(t, parent, hash),
                                           .flags = WK_TREE_LIVE,
                                           .tell = WK_TREE_HOLLOW};
    for (uint32_t g = 0; g < t->conf.n_group; g++)
        t->cells[g][node] = (struct wk_kv_cell){.t0 = NONE, .t1 = NONE, .t2 = NONE};
    memcpy(ids_of(t, node), ids, t->conf.page_tokens * sizeof(*ids));
    link_node(t, node);
    t->n_nodes++;
    if (parent != NONE) {
        t->nodes[node].depth = t->nodes[parent].depth + 1;
        wk_tree_settle_node(t, parent); /* no leaf any more */
    }
    return node;
}

static void set_far(struct wk_kv_tree *t, uint32_t node, bool far)
{
    struct wk_tree_node *n = &t->nodes[node];

    if (far == wk_tree_is(t, node, WK_TREE_FAR))
        return;
    n->flags ^= WK_TREE_FAR;
    if (far)
        wk_order_push(t->far, node, n->n_uses);
    else
        wk_order_remove(t->far, node);
}

static void end_node(struct wk_kv_tree *t, uint32_t node)
{
    struct wk_tree_node *n = wk_tree_at(t, node);

    PS_ASSERT(n->tell == WK_TREE_HOLLOW && !wk_tree_is(t, node, WK_TREE_ANNOUNCED));
    set_far(t, node, false);
    if (!wk_tree_is(t, node, WK_TREE_FLUSHED))
        unlink_node(t, node);
    n->flags = 0;
    n->chain_next = t->first_free;
    t->first_free = node + 1;
    PS_ASSERT(t->n_nodes > 0);
    t->n_nodes--;
}

void wk_tree_settle_node(struct wk_kv_tree *t, uint32_t node)
{
    while (node != NONE) {
        const struct wk_tree_node *n = wk_tree_at(t, node);
        bool held = n->n_pins > 0 || n->first_child != NONE, local = false, elsewhere = false;
        uint32_t parent = n->parent;

        for (uint32_t g = 0; g < t->conf.n_group; g++) {
            const struct wk_kv_cell *c = wk_tree_cell(t, node, g);

            held |= c->n_io > 0 || c->has_stray;
            local |= c->t0 != NONE || c->t1 != NONE || c->t2 != NONE;
            elsewhere |= c->in_t3 || c->has_peer;
        }
        if (held || local || elsewhere || node == t->keep) {
            set_far(t, node, elsewhere && !held && !local);
            return;
        }
        end_node(t, node);
        node = parent;
    }
}

/* ---- tokens ---- */

uint64_t wk_kv_tree_hash(const struct wk_kv_tree *t, uint64_t parent, const uint32_t *ids)
{
    for (uint32_t i = 0; i < t->conf.page_tokens; i += PS_BLOCK_TOKENS)
        parent = ps_block_hash(parent, ids + i);
    return parent;
}

uint32_t wk_kv_tree_find(const struct wk_kv_tree *t, uint64_t seed, uint32_t parent, uint64_t hash,
                         const uint32_t *ids)
{
    uint32_t at = t->buckets[wk_tree_bucket(t, hash)];

    while (at != 0) {
        const struct wk_tree_node *n = wk_tree_at(t, at - 1);

        if (n->hash == hash && n->parent == parent && n->seed == seed &&
            memcmp(ids_of(t, at - 1), ids, t->conf.page_tokens * sizeof(*ids)) == 0)
            return at - 1;
        at = n->chain_next;
    }
    return NONE;
}

static void match_tail(const struct wk_kv_tree *t, uint64_t seed, uint32_t parent,
                       const uint32_t *ids, uint32_t n_ids, struct wk_kv_match *out)
{
    uint32_t n_max = ps_min_u32(n_ids - 1, t->conf.page_tokens), n_seen = 0;

    for (uint32_t p = first_child(t, seed, parent); p != NONE && n_seen < TAIL_SCAN_MAX;
         p = t->nodes[p].sib_next, n_seen++) {
        const uint32_t *own = ids_of(t, p);
        uint32_t n = 0;

        if (wk_tree_cell(t, p, WK_KV_ROWS_GROUP)->hot != WK_KV_READY)
            continue;
        while (n < n_max && own[n] == ids[n])
            n++;
        if (n > out->n_tail) {
            out->n_tail = n;
            out->tail_node = p;
            out->tail_idle = wk_order_has(t->order[WK_KV_T0][WK_KV_ROWS_GROUP], p);
        }
    }
}

void wk_kv_tree_match(const struct wk_kv_tree *t, uint64_t seed, const uint32_t *ids,
                      uint32_t n_ids, const uint64_t *hashes, uint32_t *nodes,
                      struct wk_kv_match *out)
{
    uint32_t parent = NONE, pt = t->conf.page_tokens, n_full = n_ids / pt;

    *out = (struct wk_kv_match){.tail_node = NONE};
    for (uint32_t i = 0; i < n_full; i++) {
        uint32_t p = wk_kv_tree_find(t, seed, parent, hashes[i], ids + (size_t)i * pt);

        if (p == NONE || !wk_kv_tree_has_copy(t, p, WK_KV_ROWS_GROUP))
            break;
        nodes[out->n_found++] = p;
        if (out->n_hot == i && wk_tree_cell(t, p, WK_KV_ROWS_GROUP)->hot == WK_KV_READY) {
            out->n_hot++;
            out->n_idle += wk_order_has(t->order[WK_KV_T0][WK_KV_ROWS_GROUP], p);
        }
        parent = p;
    }
    if (out->n_hot == out->n_found && out->n_found * pt + 1 < n_ids)
        match_tail(t, seed, parent, ids + (size_t)out->n_found * pt, n_ids - out->n_found * pt,
                   out);
}

uint32_t wk_kv_tree_publish(struct wk_kv_tree *t, uint64_t seed, uint32_t parent, uint64_t hash,
                            const uint32_t *ids, uint32_t item, bool *out_adopted)
{
    uint32_t node = wk_kv_tree_find(t, seed, parent, hash, ids);
    struct wk_kv_cell *c;

    PS_ASSERT(wk_kv_pool_holders(t->conf.t0, WK_KV_ROWS_GROUP, item) == 1);
    PS_ASSERT(parent == NONE || wk_tree_at(t, parent)->n_pins > 0);
    *out_adopted = false;
    if (node == NONE)
        node = make_node(t, seed, parent, hash, ids, true);
    if (node == NONE)
        return NONE;
    t->nodes[node].n_pins++;
    c = wk_tree_cell(t, node, WK_KV_ROWS_GROUP);
    *out_adopted = c->hot != WK_KV_READY;
    if (*out_adopted)
        wk_tree_adopt(t, node, WK_KV_ROWS_GROUP, item);
    else
        PS_ASSERT(c->t0 != item);
    wk_tree_settle_cell(t, node, WK_KV_ROWS_GROUP);
    wk_tree_settle_node(t, node);
    return node;
}

uint32_t wk_kv_tree_add(struct wk_kv_tree *t, uint64_t seed, uint32_t parent, uint64_t hash,
                        const uint32_t *ids)
{
    uint32_t node = wk_kv_tree_find(t, seed, parent, hash, ids);

    return node != NONE ? node : make_node(t, seed, parent, hash, ids, false);
}

void wk_kv_tree_root_digest(const struct wk_kv_tree *t, uint64_t seed, uint8_t out[PS_SHA256_BYTES])
{
    wk_kv_root_digest(t->conf.space_id, seed, out);
}

/* Computes what is missing from the nearest ancestor that has a digest down to the node. The way back
 * down is written where the digests will be: a path may be longer than any stack should be. */
static void make_digests(struct wk_kv_tree *t, uint32_t node)
{
    uint32_t at = node, below = NONE;
    uint8_t root[PS_SHA256_BYTES];
    const uint8_t *above = root;

    while (at != NONE && !wk_tree_is(t, at, WK_TREE_DIGEST)) {
        memcpy(digest_of(t, at), &below, sizeof(below));
        below = at;
        at = t->nodes[at].parent;
    }
    if (at != NONE)
        above = digest_of(t, at);
    else
        wk_kv_tree_root_digest(t, t->nodes[node].seed, root);
    while (below != NONE) {
        at = below;
        memcpy(&below, digest_of(t, at), sizeof(below));
        wk_kv_digest(above, ids_of(t, at), t->conf.page_tokens, digest_of(t, at));
        t->nodes[at].flags |= WK_TREE_DIGEST;
        above = digest_of(t, at);
    }
}

void wk_kv_tree_key(struct wk_kv_tree *t, uint32_t node, uint32_t group, struct wk_kv_key *out)
{
    const struct wk_tree_node *n = wk_tree_at(t, node);

    PS_ASSERT(!wk_tree_is(t, node, WK_TREE_FLUSHED) && group < t->conf.n_group);
    make_digests(t, node);
    *out = (struct wk_kv_key){.seed = n->seed,
                              .hash = n->hash,
                              .group = group,
                              .first_pos = n->depth * t->conf.page_tokens,
                              .n_tok = t->conf.page_tokens,
                              .ids = ids_of(t, node)};
    memcpy(out->digest, digest_of(t, node), PS_SHA256_BYTES);
    if (n->parent != NONE)
        memcpy(out->parent, digest_of(t, n->parent), PS_SHA256_BYTES);
    else
        wk_kv_tree_root_digest(t, n->seed, out->parent);
}

uint32_t wk_kv_tree_lookup(struct wk_kv_tree *t, const struct wk_kv_key *key)
{
    uint32_t at = t->buckets[wk_tree_bucket(t, key->hash)], pt = t->conf.page_tokens;

    for (; at != 0; at = t->nodes[at - 1].chain_next) {
        const struct wk_tree_node *n = &t->nodes[at - 1];

        if (n->hash != key->hash || n->seed != key->seed || key->n_tok != pt ||
            (uint64_t)n->depth * pt != key->first_pos ||
            memcmp(ids_of(t, at - 1), key->ids, pt * sizeof(*key->ids)) != 0)
            continue;
        make_digests(t, at - 1);
        if (memcmp(digest_of(t, at - 1), key->digest, PS_SHA256_BYTES) == 0)
            return at - 1;
    }
    return NONE;
}

uint32_t wk_kv_tree_parent(const struct wk_kv_tree *t, uint32_t node)
{
    return wk_tree_at(t, node)->parent;
}

uint32_t wk_kv_tree_depth(const struct wk_kv_tree *t, uint32_t node)
{
    return wk_tree_at(t, node)->depth;
}

uint32_t wk_kv_tree_uses(const struct wk_kv_tree *t, uint32_t node)
{
    return wk_tree_at(t, node)->n_uses;
}

const uint32_t *wk_kv_tree_ids(const struct wk_kv_tree *t, uint32_t node)
{
    PS_ASSERT(node < t->n_carved && wk_tree_is(t, node, WK_TREE_LIVE));
    return ids_of(t, node);
}

/* ---- holders ---- */

void wk_kv_tree_pin(struct wk_kv_tree *t, uint32_t node)
{
    struct wk_tree_node *n = wk_tree_at(t, node);

    PS_ASSERT(wk_tree_is(t, node, WK_TREE_LIVE));
    PS_ASSERT(n->n_pins > 0 || !wk_tree_is(t, node, WK_TREE_FLUSHED));
    if (n->n_pins++ > 0)
        return;
    wk_tree_settle_cell(t, node, WK_KV_ROWS_GROUP);
    wk_tree_settle_node(t, node);
}

void wk_kv_tree_unpin(struct wk_kv_tree *t, uint32_t node)
{
    struct wk_tree_node *n = wk_tree_at(t, node);

    PS_ASSERT(n->n_pins > 0);
    if (--n->n_pins > 0)
        return;
    wk_tree_settle_cell(t, node, WK_KV_ROWS_GROUP);
    wk_tree_settle_node(t, node);
}

uint32_t wk_kv_tree_n_pins(const struct wk_kv_tree *t, uint32_t node)
{
    return wk_tree_at(t, node)->n_pins;
}

static void warm(struct wk_order *o, uint32_t node, const struct wk_tree_node *n)
{
    bool is_held;

    if (o == NULL)
        return;
    is_held = wk_order_is_held(o, node);
    if (!is_held && !wk_order_has(o, node))
        return;
    wk_order_remove(o, node);
    wk_order_push(o, node, n->n_uses);
    if (is_held)
        wk_order_hold(o, node);
}

void wk_kv_tree_touch(struct wk_kv_tree *t, const uint32_t *nodes, uint32_t n)
{
    for (uint32_t i = n; i-- > 0;) {
        struct wk_tree_node *at = wk_tree_at(t, nodes[i]);

        PS_ASSERT(at->parent == (i > 0 ? nodes[i - 1] : NONE));
        if (at->n_uses < USES_MAX)
            at->n_uses++;
        for (uint32_t g = 0; g < t->conf.n_group; g++) {
            warm(t->order[WK_KV_T1][g], nodes[i], at);
            warm(t->order[WK_KV_T2][g], nodes[i], at);
        }
        if (wk_tree_is(t, nodes[i], WK_TREE_FAR))
            warm(t->far, nodes[i], at);
    }
}

/* ---- the rest ---- */

void wk_kv_tree_flush(struct wk_kv_tree *t)
{
    if (t->conf.announce != NULL)
        wk_announce_cleared(t->conf.announce);
    memset(t->buckets, 0, ((size_t)t->bucket_mask + 1) * sizeof(*t->buckets));
    ps_map_clear(&t->roots);
    t->n_shadowed = 0;
    t->epoch++;
    for (uint32_t i = 0; i < t->n_carved; i++) {
        struct wk_tree_node *n = &t->nodes[i];

        if ((n->flags & (WK_TREE_LIVE | WK_TREE_FLUSHED)) != WK_TREE_LIVE)
            continue;
        set_far(t, i, false);
        n->flags = WK_TREE_LIVE | WK_TREE_FLUSHED;
        n->tell = WK_TREE_HOLLOW;
        n->parent = n->first_child = n->sib_prev = n->sib_next = NONE;
        for (uint32_t g = 0; g < t->conf.n_group; g++) {
            struct wk_kv_cell *c = wk_tree_cell(t, i, g);

            c->in_t3 = c->has_peer = 0;
            wk_tree_settle_cell(t, i, g);
        }
        wk_tree_settle_node(t, i);
    }
}

uint32_t wk_kv_tree_epoch(const struct wk_kv_tree *t)
{
    return t->epoch;
}

bool wk_kv_tree_is_flushed(const struct wk_kv_tree *t, uint32_t node)
{
    return (wk_tree_at(t, node)->flags & WK_TREE_FLUSHED) != 0;
}

uint32_t wk_kv_tree_n_nodes(const struct wk_kv_tree *t)
{
    return t->n_nodes;
}
