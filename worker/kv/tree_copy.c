#include "worker/kv/tree_internal.h"

#define SLOT_TAKEN (UINT32_MAX - 1)

/* Candidates looked at for one that leaves a copy behind: enough to meet what the cleaner, which runs
 * ahead of eviction, has written down; few enough to stay near the cold end. */
enum { EVICT_LOOK = 8 };

/* ---- slots of T2 ---- */

void wk_tree_slots_init(struct wk_tree_slots *s, uint32_t n)
{
    *s = (struct wk_tree_slots){.n = n, .n_free = n, .first_free = NONE};
    s->next = n > 0 ? ps_calloc(n, sizeof(*s->next)) : NULL;
    s->prev = n > 0 ? ps_calloc(n, sizeof(*s->prev)) : NULL;
}

static void push_slot(struct wk_tree_slots *s, uint32_t slot)
{
    s->next[slot] = s->first_free;
    s->prev[slot] = NONE;
    if (s->first_free != NONE)
        s->prev[s->first_free] = slot;
    s->first_free = slot;
}

static void pull_slot(struct wk_tree_slots *s, uint32_t slot)
{
    PS_ASSERT(s->n_free > 0 && s->next[slot] != SLOT_TAKEN);
    if (s->prev[slot] != NONE)
        s->next[s->prev[slot]] = s->next[slot];
    else
        s->first_free = s->next[slot];
    if (s->next[slot] != NONE)
        s->prev[s->next[slot]] = s->prev[slot];
    s->next[slot] = SLOT_TAKEN;
    s->n_free--;
}

static int take_slot(struct wk_tree_slots *s, uint32_t *out)
{
    if (s->n_free == 0)
        return WK_KV_E_FULL;
    if (s->first_free == NONE)
        push_slot(s, s->n_carved++);
    *out = s->first_free;
    pull_slot(s, *out);
    return WK_KV_OK;
}

static void give_slot(struct wk_tree_slots *s, uint32_t slot)
{
    PS_ASSERT(slot < s->n_carved && s->next[slot] == SLOT_TAKEN);
    push_slot(s, slot);
    s->n_free++;
}

void wk_kv_tree_take_slot(struct wk_kv_tree *t, uint32_t group, uint32_t slot)
{
    struct wk_tree_slots *s = &t->slots[group];

    PS_ASSERT(slot < s->n);
    while (s->n_carved <= slot)
        push_slot(s, s->n_carved++);
    pull_slot(s, slot);
}

void wk_kv_tree_give(struct wk_kv_tree *t, enum wk_kv_tier tier, uint32_t group, uint32_t item)
{
    PS_ASSERT(tier < WK_TREE_N_LOCAL && t->order[tier][group] != NULL);
    if (tier == WK_KV_T2)
        give_slot(&t->slots[group], item);
    else
        wk_kv_pool_drop(t->pools[tier], group, item);
}

static bool is_taken(const struct wk_kv_tree *t, enum wk_kv_tier tier, uint32_t group,
                     uint32_t item)
{
    if (tier == WK_KV_T2)
        return item < t->slots[group].n_carved && t->slots[group].next[item] == SLOT_TAKEN;
    return wk_kv_pool_holders(t->pools[tier], group, item) == 1;
}

/* ---- orders ---- */

static void set_idle(struct wk_kv_tree *t, enum wk_kv_tier tier, uint32_t group, uint32_t item,
                     bool idle)
{
    if (tier != WK_KV_T2)
        wk_kv_pool_set_idle(t->pools[tier], group, item, idle);
}

/* Takes the copy, whatever its place in the order, out of its cell and frees its item. */
static void drop_copy(struct wk_kv_tree *t, enum wk_kv_tier tier, uint32_t node, uint32_t group)
{
    struct wk_kv_cell *c = wk_tree_cell(t, node, group);
    struct wk_order *o = t->order[tier][group];
    uint32_t item = wk_tree_item(c, tier);

    PS_ASSERT(item != NONE);
    if (wk_order_has(o, node))
        set_idle(t, tier, group, item, false);
    if (wk_order_has(o, node) || wk_order_is_held(o, node))
        wk_order_remove(o, node);
    if (tier == WK_KV_T0) {
        c->t0 = NONE;
        c->hot = WK_KV_COLD;
    } else if (tier == WK_KV_T1) {
        c->t1 = NONE;
    } else {
        c->t2 = NONE;
    }
    wk_kv_tree_give(t, tier, group, item);
    if (group == WK_KV_ROWS_GROUP)
        wk_tree_tell(t, node);
}

static void settle_copy(struct wk_kv_tree *t, enum wk_kv_tier tier, uint32_t node, uint32_t group)
{
    const struct wk_tree_node *n = wk_tree_at(t, node);
    const struct wk_kv_cell *c = wk_tree_cell(t, node, group);
    struct wk_order *o = t->order[tier][group];
    uint32_t item = wk_tree_item(c, tier);
    bool has = wk_order_has(o, node), held = wk_order_is_held(o, node);
    bool in_use =
        tier == WK_KV_T0 && (c->hot != WK_KV_READY || (group == WK_KV_ROWS_GROUP && n->n_pins > 0));
    bool moving = tier == WK_KV_T0 ? c->n_io > c->n_low_io || c->has_stray : c->n_io > 0;

    if (item == NONE || in_use || (n->flags & WK_TREE_FLUSHED) != 0) {
        if (has)
            set_idle(t, tier, group, item, false);
        if (has || held)
            wk_order_remove(o, node);
        if (item != NONE && !in_use && !moving)
            drop_copy(t, tier, node, group);
    } else if (moving) {
        if (!has)
            return;
        set_idle(t, tier, group, item, false);
        wk_order_hold(o, node);
    } else if (!has) {
        if (held)
            wk_order_release(o, node);
        else
            wk_order_push(o, node, n->n_uses);
        set_idle(t, tier, group, item, true);
    }
}

void wk_tree_settle_cell(struct wk_kv_tree *t, uint32_t node, uint32_t group)
{
    for (uint32_t tier = 0; tier < WK_TREE_N_LOCAL; tier++) {
        if (t->order[tier][group] != NULL)
            settle_copy(t, (enum wk_kv_tier)tier, node, group);
    }
}

/* After a copy came or went. */
static void changed(struct wk_kv_tree *t, uint32_t node, uint32_t group)
{
    if (group == WK_KV_ROWS_GROUP)
        wk_tree_tell(t, node);
    wk_tree_settle_cell(t, node, group);
    wk_tree_settle_node(t, node);
}

/* ---- room ---- */

bool wk_kv_tree_has_copy(const struct wk_kv_tree *t, uint32_t node, uint32_t group)
{
    const struct wk_kv_cell *c = wk_tree_cell(t, node, group);

    return c->has_peer || wk_tree_best(c) != WK_TREE_HOLLOW;
}

static bool has_copy_below(const struct wk_kv_cell *c, enum wk_kv_tier tier)
{
    return c->in_t3 || (tier != WK_KV_T2 && c->t2 != NONE) || (tier == WK_KV_T0 && c->t1 != NONE) ||
           (tier == WK_KV_T1 && c->hot == WK_KV_READY);
}

void wk_tree_evict(struct wk_kv_tree *t, enum wk_kv_tier tier, uint32_t group, uint32_t node)
{
    PS_ASSERT(wk_order_has(t->order[tier][group], node));
    drop_copy(t, tier, node, group);
    t->n_evicted[tier]++;
    if (!wk_kv_tree_has_copy(t, node, group)) {
        t->n_lost[tier]++;
        wk_order_remember(t->order[tier][group], t->nodes[node].hash);
    }
    wk_tree_settle_node(t, node);
}

static void evict_coldest(struct wk_kv_tree *t, enum wk_kv_tier tier, uint32_t group)
{
    const struct wk_order *o = t->order[tier][group];
    uint32_t victim = wk_order_first(o), at = victim;
    uint32_t n_look = t->conf.t1 != NULL ? EVICT_LOOK : 0; /* T0 alone: there is no below */

    for (uint32_t i = 0; i < n_look && at != NONE; i++, at = wk_order_next(o, at)) {
        if (has_copy_below(wk_tree_cell(t, at, group), tier)) {
            victim = at;
            break;
        }
    }
    wk_tree_evict(t, tier, group, victim);
}

/* Empties slabs of the other group, which the pool says it can. */
static void reclaim(struct wk_kv_tree *t, enum wk_kv_tier tier, uint32_t group)
{
    struct wk_kv_pool *p = t->pools[tier];
    uint32_t other = t->conf.n_group - 1 - group;

    while (wk_kv_pool_n_free(p, group) == 0 && wk_kv_pool_n_reclaim(p, group) > 0)
        evict_coldest(t, tier, other);
}

int wk_kv_tree_take(struct wk_kv_tree *t, enum wk_kv_tier tier, uint32_t group, uint32_t *out)
{
    PS_ASSERT(tier < WK_TREE_N_LOCAL && t->order[tier][group] != NULL);
    if (wk_kv_tree_n_free(t, tier, group) == 0) {
        if (wk_order_n(t->order[tier][group]) > 0)
            evict_coldest(t, tier, group);
        else if (tier != WK_KV_T2 && t->conf.n_group > 1)
            reclaim(t, tier, group);
    }
    if (tier == WK_KV_T2)
        return take_slot(&t->slots[group], out);
    return wk_kv_pool_take(t->pools[tier], group, out);
}

uint32_t wk_kv_tree_n_avail(const struct wk_kv_tree *t, enum wk_kv_tier tier, uint32_t group)
{
    uint32_t n = wk_kv_tree_n_free(t, tier, group) + wk_kv_tree_n_idle(t, tier, group);

    return tier == WK_KV_T2 ? n : n + wk_kv_pool_n_reclaim(t->pools[tier], group);
}

uint32_t wk_kv_tree_n_free(const struct wk_kv_tree *t, enum wk_kv_tier tier, uint32_t group)
{
    return tier == WK_KV_T2 ? t->slots[group].n_free : wk_kv_pool_n_free(t->pools[tier], group);
}

uint32_t wk_kv_tree_n_idle(const struct wk_kv_tree *t, enum wk_kv_tier tier, uint32_t group)
{
    return wk_order_n(t->order[tier][group]);
}

uint32_t wk_kv_tree_n_total(const struct wk_kv_tree *t, enum wk_kv_tier tier, uint32_t group)
{
    return tier == WK_KV_T2 ? t->slots[group].n : wk_kv_pool_n_total(t->pools[tier], group);
}

uint64_t wk_kv_tree_n_evicted(const struct wk_kv_tree *t, enum wk_kv_tier tier)
{
    return t->n_evicted[tier];
}

uint64_t wk_kv_tree_n_lost(const struct wk_kv_tree *t, enum wk_kv_tier tier)
{
    return t->n_lost[tier];
}

uint32_t wk_kv_tree_coldest(const struct wk_kv_tree *t, enum wk_kv_tier tier, uint32_t group)
{
    return wk_order_first(t->order[tier][group]);
}

uint32_t wk_kv_tree_warmer(const struct wk_kv_tree *t, enum wk_kv_tier tier, uint32_t group,
                           uint32_t node)
{
    return wk_order_next(t->order[tier][group], node);
}

/* ---- copies ---- */

const struct wk_kv_cell *wk_kv_tree_cell(const struct wk_kv_tree *t, uint32_t node, uint32_t group)
{
    return wk_tree_cell(t, node, group);
}

static void io_begin(struct wk_kv_tree *t, uint32_t node, uint32_t group, bool low)
{
    struct wk_kv_cell *c = wk_tree_cell(t, node, group);

    PS_ASSERT(c->n_io < UINT16_MAX);
    c->n_io++;
    c->n_low_io = (uint16_t)(c->n_low_io + low);
    if (c->n_io > 1 && (low || c->n_io > c->n_low_io + 1))
        return; /* neither the first of all nor the first that T0 feels */
    wk_tree_settle_cell(t, node, group);
    wk_tree_settle_node(t, node);
}

static void io_end(struct wk_kv_tree *t, uint32_t node, uint32_t group, bool low)
{
    struct wk_kv_cell *c = wk_tree_cell(t, node, group);

    PS_ASSERT(c->n_io > 0 && c->n_low_io >= low);
    c->n_io--;
    c->n_low_io = (uint16_t)(c->n_low_io - low);
    PS_ASSERT(c->n_io >= c->n_low_io);
    if (c->n_io > 0 && (low || c->n_io > c->n_low_io))
        return;
    wk_tree_settle_cell(t, node, group);
    wk_tree_settle_node(t, node);
}

void wk_kv_tree_io_begin(struct wk_kv_tree *t, uint32_t node, uint32_t group)
{
    io_begin(t, node, group, false);
}

void wk_kv_tree_io_end(struct wk_kv_tree *t, uint32_t node, uint32_t group)
{
    io_end(t, node, group, false);
}

void wk_kv_tree_low_io_begin(struct wk_kv_tree *t, uint32_t node, uint32_t group)
{
    io_begin(t, node, group, true);
}

void wk_kv_tree_low_io_end(struct wk_kv_tree *t, uint32_t node, uint32_t group)
{
    io_end(t, node, group, true);
}

static uint64_t stray_key(uint32_t node, uint32_t group)
{
    return (uint64_t)node << 8 | group;
}

void wk_kv_tree_load_begin(struct wk_kv_tree *t, uint32_t node, uint32_t group, uint32_t item)
{
    struct wk_kv_cell *c = wk_tree_cell(t, node, group);

    PS_ASSERT(c->t0 == NONE && c->hot == WK_KV_COLD && !c->has_stray);
    PS_ASSERT(is_taken(t, WK_KV_T0, group, item));
    c->t0 = item;
    c->hot = WK_KV_LOADING;
    wk_tree_settle_node(t, node);
}

void wk_kv_tree_load_end(struct wk_kv_tree *t, uint32_t node, uint32_t group, bool ok)
{
    struct wk_kv_cell *c = wk_tree_cell(t, node, group);

    if (c->has_stray) {
        uint64_t item;

        PS_ASSERT(ps_map_get(&t->strays, stray_key(node, group), &item));
        ps_map_del(&t->strays, stray_key(node, group));
        c->has_stray = 0;
        wk_kv_pool_drop(t->conf.t0, group, (uint32_t)item);
    } else {
        PS_ASSERT(c->hot == WK_KV_LOADING);
        if (ok)
            c->hot = WK_KV_READY;
        else
            drop_copy(t, WK_KV_T0, node, group);
    }
    changed(t, node, group);
}

/* When a load into another item is under way, that item belongs to the load until it ends. */
void wk_tree_adopt(struct wk_kv_tree *t, uint32_t node, uint32_t group, uint32_t item)
{
    struct wk_kv_cell *c = wk_tree_cell(t, node, group);

    PS_ASSERT(c->hot != WK_KV_READY && c->t0 != item);
    if (c->hot == WK_KV_LOADING) {
        ps_map_put(&t->strays, stray_key(node, group), c->t0);
        c->has_stray = 1;
    }
    c->t0 = item;
    c->hot = WK_KV_READY;
    if (group == WK_KV_ROWS_GROUP)
        wk_tree_tell(t, node);
}

bool wk_kv_tree_put_snapshot(struct wk_kv_tree *t, uint32_t node, uint32_t item)
{
    PS_ASSERT(t->conf.n_group > WK_KV_SNAP_GROUP && is_taken(t, WK_KV_T0, WK_KV_SNAP_GROUP, item));
    if (wk_tree_cell(t, node, WK_KV_SNAP_GROUP)->hot == WK_KV_READY)
        return false;
    wk_tree_adopt(t, node, WK_KV_SNAP_GROUP, item);
    changed(t, node, WK_KV_SNAP_GROUP);
    return true;
}

void wk_kv_tree_set(struct wk_kv_tree *t, enum wk_kv_tier tier, uint32_t node, uint32_t group,
                    uint32_t slot)
{
    struct wk_kv_cell *c = wk_tree_cell(t, node, group);

    PS_ASSERT(tier == WK_KV_T1 || tier == WK_KV_T2);
    PS_ASSERT(wk_tree_item(c, tier) == NONE && is_taken(t, tier, group, slot));
    if (tier == WK_KV_T1)
        c->t1 = slot;
    else
        c->t2 = slot;
    changed(t, node, group);
}

void wk_kv_tree_clear(struct wk_kv_tree *t, enum wk_kv_tier tier, uint32_t node, uint32_t group)
{
    PS_ASSERT(tier < WK_TREE_N_LOCAL && wk_order_has(t->order[tier][group], node));
    drop_copy(t, tier, node, group);
    wk_tree_settle_node(t, node);
}

void wk_kv_tree_set_t3(struct wk_kv_tree *t, uint32_t node, uint32_t group, bool is_there)
{
    if (wk_tree_is(t, node, WK_TREE_FLUSHED))
        return; /* forgotten means that nobody finds it again, wherever it is */
    wk_tree_cell(t, node, group)->in_t3 = is_there;
    changed(t, node, group);
}

void wk_kv_tree_set_peer(struct wk_kv_tree *t, uint32_t node, uint32_t group, bool has,
                         uint8_t peer)
{
    struct wk_kv_cell *c = wk_tree_cell(t, node, group);

    if (wk_tree_is(t, node, WK_TREE_FLUSHED))
        return;
    c->has_peer = has;
    c->peer = peer;
    changed(t, node, group);
}
