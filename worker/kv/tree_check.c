#include "worker/kv/tree_internal.h"

#include <string.h>

struct tally {
    uint8_t *used[WK_TREE_N_LOCAL][WK_KV_N_GROUPS_MAX]; /* by item or slot */
    uint32_t n_idle[WK_TREE_N_LOCAL][WK_KV_N_GROUPS_MAX], n_nodes, n_shadowed;
    uint32_t n_strays, n_far;
    struct wk_kv_bucket buckets[WK_KV_BUCKETS];
};

static void check_links(const struct wk_kv_tree *t, uint32_t node)
{
    const struct wk_tree_node *n = &t->nodes[node];
    uint32_t prev = NONE;

    for (uint32_t c = n->first_child; c != NONE; c = t->nodes[c].sib_next) {
        PS_ASSERT(wk_tree_is(t, c, WK_TREE_LIVE) && t->nodes[c].parent == node);
        PS_ASSERT(t->nodes[c].sib_prev == prev && t->nodes[c].depth == n->depth + 1);
        prev = c;
    }
    if (wk_tree_is(t, node, WK_TREE_FLUSHED)) {
        PS_ASSERT(n->parent == NONE && n->first_child == NONE);
        return;
    }
    /* Found by what it is, and by that alone: also says that there is no second one. */
    PS_ASSERT(wk_kv_tree_find(t, n->seed, n->parent, n->hash, wk_kv_tree_ids(t, node)) == node);
    if (n->sib_prev != NONE) {
        PS_ASSERT(t->nodes[n->sib_prev].sib_next == node);
    } else if (n->parent != NONE) {
        PS_ASSERT(t->nodes[n->parent].first_child == node);
    } else {
        uint64_t at;

        PS_ASSERT(ps_map_get(&t->roots, n->seed, &at) && at == node && n->depth == 0);
    }
    if (n->parent != NONE && n->n_pins > 0)
        PS_ASSERT(t->nodes[n->parent].n_pins > 0);
}

static void check_cell(const struct wk_kv_tree *t, uint32_t node, uint32_t g, struct tally *y)
{
    const struct wk_tree_node *n = &t->nodes[node];
    const struct wk_kv_cell *c = wk_tree_cell(t, node, g);

    PS_ASSERT((c->hot == WK_KV_COLD) == (c->t0 == NONE));
    PS_ASSERT(!c->has_stray || c->hot == WK_KV_READY);
    PS_ASSERT(c->n_io >= c->n_low_io);
    y->n_strays += c->has_stray;
    for (uint32_t tier = 0; tier < WK_TREE_N_LOCAL; tier++) {
        const struct wk_order *o = t->order[tier][g];
        uint32_t item = wk_tree_item(c, (enum wk_kv_tier)tier);
        bool idle = item != NONE && c->n_io == (tier == WK_KV_T0 ? c->n_low_io : 0);

        if (o == NULL) {
            PS_ASSERT(item == NONE);
            continue;
        }
        if (tier == WK_KV_T0)
            idle = idle && c->hot == WK_KV_READY && !c->has_stray &&
                   (g != WK_KV_ROWS_GROUP || n->n_pins == 0);
        PS_ASSERT(wk_order_has(o, node) == idle);
        PS_ASSERT(!idle || !wk_tree_is(t, node, WK_TREE_FLUSHED));
        y->n_idle[tier][g] += idle;
        if (item == NONE)
            continue;
        PS_ASSERT(item < wk_kv_tree_n_total(t, (enum wk_kv_tier)tier, g));
        PS_ASSERT(y->used[tier][g][item]++ == 0);
        if (tier != WK_KV_T2) {
            PS_ASSERT(wk_kv_pool_holders(t->pools[tier], g, item) == 1);
            PS_ASSERT(wk_kv_pool_is_idle(t->pools[tier], g, item) == idle);
        }
    }
}

static void check_life(const struct wk_kv_tree *t, uint32_t node, struct tally *y)
{
    const struct wk_tree_node *n = &t->nodes[node];
    bool held = n->n_pins > 0 || n->first_child != NONE, local = false, elsewhere = false;

    for (uint32_t g = 0; g < t->conf.n_group; g++) {
        const struct wk_kv_cell *c = wk_tree_cell(t, node, g);

        held |= c->n_io > 0;
        local |= c->t0 != NONE || c->t1 != NONE || c->t2 != NONE;
        elsewhere |= c->in_t3 || c->has_peer;
    }
    PS_ASSERT(held || local || elsewhere);
    PS_ASSERT(wk_order_has(t->far, node) == (elsewhere && !held && !local));
    PS_ASSERT(wk_order_has(t->far, node) == wk_tree_is(t, node, WK_TREE_FAR));
    y->n_far += wk_tree_is(t, node, WK_TREE_FAR);
}

static void check_tell(const struct wk_kv_tree *t, uint32_t node, struct tally *y)
{
    const struct wk_tree_node *n = &t->nodes[node];
    bool announced = wk_tree_is(t, node, WK_TREE_ANNOUNCED);
    struct wk_kv_bucket *b = &y->buckets[wk_kv_bucket_of(n->hash)];

    if (t->conf.announce == NULL)
        return;
    PS_ASSERT(n->tell ==
              (wk_tree_is(t, node, WK_TREE_FLUSHED) ? WK_TREE_HOLLOW : wk_tree_tell_of(t, node)));
    PS_ASSERT(!announced || (n->tell != WK_TREE_HOLLOW && wk_tree_is_stride_end(t, node)));
    if (n->tell != WK_TREE_HOLLOW && wk_tree_is_stride_end(t, node))
        y->n_shadowed += !announced;
    if (announced) {
        b->n++;
        b->xor_of ^= wk_kv_bucket_mix(n->hash, (enum wk_kv_tier)n->tell);
    }
}

static void check_tally(const struct wk_kv_tree *t, const struct tally *y)
{
    PS_ASSERT(y->n_nodes == t->n_nodes && y->n_strays == t->strays.n);
    PS_ASSERT(y->n_far == wk_order_n(t->far) && y->n_shadowed == t->n_shadowed);
    for (uint32_t g = 0; g < t->conf.n_group; g++) {
        for (uint32_t tier = 0; tier < WK_TREE_N_LOCAL; tier++) {
            if (t->order[tier][g] != NULL)
                PS_ASSERT(y->n_idle[tier][g] == wk_order_n(t->order[tier][g]));
        }
    }
    if (t->conf.announce != NULL)
        PS_ASSERT(memcmp(y->buckets, wk_announce_buckets(t->conf.announce), sizeof(y->buckets)) ==
                  0);
}

void wk_kv_tree_check(const struct wk_kv_tree *t)
{
    struct tally y = {0};

    for (uint32_t g = 0; g < t->conf.n_group; g++) {
        for (uint32_t tier = 0; tier < WK_TREE_N_LOCAL; tier++) {
            if (t->order[tier][g] != NULL)
                y.used[tier][g] = ps_calloc(wk_kv_tree_n_total(t, (enum wk_kv_tier)tier, g), 1);
        }
    }
    for (uint32_t i = 0; i < t->n_carved; i++) {
        if (!wk_tree_is(t, i, WK_TREE_LIVE))
            continue;
        y.n_nodes++;
        check_links(t, i);
        for (uint32_t g = 0; g < t->conf.n_group; g++)
            check_cell(t, i, g, &y);
        check_life(t, i, &y);
        check_tell(t, i, &y);
    }
    check_tally(t, &y);
    for (uint32_t g = 0; g < t->conf.n_group; g++) {
        for (uint32_t tier = 0; tier < WK_TREE_N_LOCAL; tier++)
            ps_free(y.used[tier][g]);
    }
}
