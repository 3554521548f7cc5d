#include "worker/kv/tree_internal.h"

/*
 * `tell` of a node sums up its stride so far: the slowest of the best tiers of the pages from the
 * stride's first one to this one, or HOLLOW when one of these, or any page above, has no copy of our
 * own. It follows from the node's cell and its parent's `tell`, so a change runs down the tree only
 * as far as it changes something: within the stride, and beyond its end only between hollow and not.
 * At the end of a stride it is what is announced.
 */

bool wk_tree_is_stride_end(const struct wk_kv_tree *t, uint32_t node)
{
    return ((t->nodes[node].depth + 1) & (t->conf.stride_pages - 1)) == 0;
}

uint8_t wk_tree_tell_of(const struct wk_kv_tree *t, uint32_t node)
{
    const struct wk_tree_node *n = wk_tree_at(t, node);
    uint8_t own = wk_tree_best(wk_tree_cell(t, node, WK_KV_ROWS_GROUP)), above;

    if (n->parent == NONE || own == WK_TREE_HOLLOW)
        return own;
    above = t->nodes[n->parent].tell;
    if (above != WK_TREE_HOLLOW && wk_tree_is_stride_end(t, n->parent))
        return own;
    return own > above ? own : above;
}

/* Another stride with the same hash that is announced, or that could be: hashes are only hints, and
 * a set holds each once. */
static uint32_t find_twin(const struct wk_kv_tree *t, uint32_t node, bool announced)
{
    uint64_t hash = t->nodes[node].hash;
    uint32_t at = t->buckets[wk_tree_bucket(t, hash)];

    for (; at != 0; at = t->nodes[at - 1].chain_next) {
        const struct wk_tree_node *n = wk_tree_at(t, at - 1);

        if (n->hash == hash && at - 1 != node && wk_tree_is_stride_end(t, at - 1) &&
            n->tell != WK_TREE_HOLLOW && wk_tree_is(t, at - 1, WK_TREE_ANNOUNCED) == announced)
            return at - 1;
    }
    return NONE;
}

static void say_stored(struct wk_kv_tree *t, uint32_t node)
{
    struct wk_tree_node *n = &t->nodes[node];

    if (find_twin(t, node, true) != NONE) {
        t->n_shadowed++;
        return;
    }
    wk_announce_stored(t->conf.announce, n->hash, (enum wk_kv_tier)n->tell);
    n->flags |= WK_TREE_ANNOUNCED;
}

static void say_removed(struct wk_kv_tree *t, uint32_t node, uint8_t was)
{
    struct wk_tree_node *n = &t->nodes[node];
    uint32_t twin;

    if ((n->flags & WK_TREE_ANNOUNCED) == 0) {
        PS_ASSERT(t->n_shadowed > 0);
        t->n_shadowed--;
        return;
    }
    wk_announce_removed(t->conf.announce, n->hash, (enum wk_kv_tier)was);
    n->flags &= (uint8_t)~WK_TREE_ANNOUNCED;
    if (t->n_shadowed == 0)
        return;
    twin = find_twin(t, node, false);
    if (twin == NONE)
        return;
    t->n_shadowed--;
    say_stored(t, twin);
}

/* Brings one node up to date; returns whether its children may have to change as well. */
static bool tell_one(struct wk_kv_tree *t, uint32_t node)
{
    struct wk_tree_node *n = wk_tree_at(t, node);
    uint8_t was = n->tell;

    n->tell = wk_tree_tell_of(t, node);
    if (n->tell == was)
        return false;
    if (!wk_tree_is_stride_end(t, node))
        return true;
    if (was == WK_TREE_HOLLOW)
        say_stored(t, node);
    else if (n->tell == WK_TREE_HOLLOW)
        say_removed(t, node, was);
    else if (wk_tree_is(t, node, WK_TREE_ANNOUNCED))
        wk_announce_moved(t->conf.announce, n->hash, (enum wk_kv_tier)was,
                          (enum wk_kv_tier)n->tell);
    return was == WK_TREE_HOLLOW || n->tell == WK_TREE_HOLLOW;
}

void wk_tree_tell(struct wk_kv_tree *t, uint32_t node)
{
    uint32_t at = node;

    if (t->conf.announce == NULL || wk_tree_is(t, node, WK_TREE_FLUSHED))
        return;
    for (;;) {
        if (tell_one(t, at) && t->nodes[at].first_child != NONE) {
            at = t->nodes[at].first_child;
            continue;
        }
        while (at != node && t->nodes[at].sib_next == NONE)
            at = t->nodes[at].parent;
        if (at == node)
            return;
        at = t->nodes[at].sib_next;
    }
}
