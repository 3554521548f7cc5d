#include "worker/kv/pool.h"

#include <string.h>

enum { NO_GROUP = 0xff };
#define NONE UINT32_MAX
#define IDLE (UINT32_C(1) << 31) /* in holders */

/* Small enough that a slab empties now and then, large enough that its book-keeping is nothing. */
#define SLAB_TARGET_BYTES (UINT64_C(8) << 20)

struct slab {
    uint32_t n_used;     /* items with holders */
    uint32_t n_idle;     /* of these */
    uint32_t n_carved;   /* items handed out at least once since the slab got its group */
    uint32_t first_free; /* of the carved ones */
    uint32_t prev, next; /* slabs of the same group with a free item, or the unowned ones */
    uint8_t group;       /* NO_GROUP: unowned */
};

struct group {
    uint32_t item_bytes;
    uint32_t n_items, n_free;
    uint32_t n_reclaim;  /* items that loose slabs of other groups could hold */
    uint32_t first_slab; /* with a free item */
    uint32_t *holders;   /* [n_items], and IDLE */
    uint32_t *next_free; /* [n_items] */
};

struct wk_kv_pool {
    uint64_t arena_bytes, slab_bytes;
    uint32_t n_slabs, n_groups;
    uint32_t first_unowned;
    struct slab *slabs;
    struct group groups[WK_MAX_GROUP];
};

static uint64_t gcd(uint64_t a, uint64_t b)
{
    while (b != 0) {
        uint64_t r = a % b;

        a = b;
        b = r;
    }
    return a;
}

/* Items of group g that slab s holds; the arena's last slab may be short. */
static uint32_t slab_items(const struct wk_kv_pool *p, uint32_t s, uint32_t g)
{
    uint64_t lo = (uint64_t)s * p->slab_bytes;
    uint64_t span = ps_min_u64(p->slab_bytes, p->arena_bytes - lo);

    return (uint32_t)(span / p->groups[g].item_bytes);
}

static uint32_t slab_first(const struct wk_kv_pool *p, uint32_t s, uint32_t g)
{
    return (uint32_t)((uint64_t)s * p->slab_bytes / p->groups[g].item_bytes);
}

static uint32_t slab_of(const struct wk_kv_pool *p, uint32_t item, uint32_t g)
{
    return (uint32_t)((uint64_t)item * p->groups[g].item_bytes / p->slab_bytes);
}

static void list_push(struct wk_kv_pool *p, uint32_t *head, uint32_t s)
{
    p->slabs[s].prev = NONE;
    p->slabs[s].next = *head;
    if (*head != NONE)
        p->slabs[*head].prev = s;
    *head = s;
}

static void list_remove(struct wk_kv_pool *p, uint32_t *head, uint32_t s)
{
    const struct slab *b = &p->slabs[s];

    if (b->prev != NONE)
        p->slabs[b->prev].next = b->next;
    else
        *head = b->next;
    if (b->next != NONE)
        p->slabs[b->next].prev = b->prev;
}

struct wk_kv_pool *wk_kv_pool_create(const struct wk_kv_layout *l, uint32_t n_items)
{
    return wk_kv_pool_create_slabs(l, n_items, SLAB_TARGET_BYTES);
}

struct wk_kv_pool *wk_kv_pool_create_slabs(const struct wk_kv_layout *l, uint32_t n_items,
                                           uint64_t slab_bytes)
{
    struct wk_kv_pool *p = ps_calloc(1, sizeof(*p));
    uint64_t unit = 1;

    PS_ASSERT(l->layout_id != 0 && n_items > 0 && n_items < NONE);
    p->n_groups = l->n_group;
    for (uint32_t g = 0; g < l->n_group; g++) {
        uint64_t bytes = l->group[g].item_bytes;

        unit = unit / gcd(unit, bytes) * bytes;
        p->groups[g].item_bytes = (uint32_t)bytes;
    }
    p->slab_bytes = unit * ps_max_u64(1, slab_bytes / unit);
    p->arena_bytes = (uint64_t)n_items * p->groups[0].item_bytes;
    p->n_slabs = (uint32_t)ps_div_up_u64(p->arena_bytes, p->slab_bytes);
    p->slabs = ps_calloc(p->n_slabs, sizeof(*p->slabs));
    for (uint32_t g = 0; g < p->n_groups; g++) {
        struct group *gr = &p->groups[g];

        gr->n_items = (uint32_t)(p->arena_bytes / gr->item_bytes);
        gr->holders = ps_calloc(gr->n_items, sizeof(*gr->holders));
        gr->next_free = ps_calloc(gr->n_items, sizeof(*gr->next_free));
        gr->first_slab = NONE;
        for (uint32_t s = 0; s < p->n_slabs; s++)
            gr->n_free += slab_items(p, s, g);
    }
    p->first_unowned = NONE;
    for (uint32_t s = p->n_slabs; s-- > 0;) {
        p->slabs[s].group = NO_GROUP;
        list_push(p, &p->first_unowned, s);
    }
    PS_ASSERT(p->groups[0].n_free == n_items);
    return p;
}

void wk_kv_pool_destroy(struct wk_kv_pool *p)
{
    if (p == NULL)
        return;
    for (uint32_t g = 0; g < p->n_groups; g++) {
        ps_free(p->groups[g].holders);
        ps_free(p->groups[g].next_free);
    }
    ps_free(p->slabs);
    ps_free(p);
}

/* Brackets each change of a slab's owner, n_used or n_idle: takes the slab out of what others could
 * reclaim, and puts it there again when it is loose then. */
static void count_loose(struct wk_kv_pool *p, uint32_t s, bool add)
{
    const struct slab *b = &p->slabs[s];

    PS_ASSERT(b->n_idle <= b->n_used);
    if (p->n_groups == 1 || b->group == NO_GROUP || b->n_used != b->n_idle)
        return;
    for (uint32_t g = 0; g < p->n_groups; g++) {
        uint32_t n = slab_items(p, s, g);

        if (g == b->group)
            continue;
        PS_ASSERT(add || p->groups[g].n_reclaim >= n);
        p->groups[g].n_reclaim = add ? p->groups[g].n_reclaim + n : p->groups[g].n_reclaim - n;
    }
}

/* The slab stops, or starts again, to be one that any other group could have. */
static void set_owner(struct wk_kv_pool *p, uint32_t s, uint8_t group)
{
    struct slab *b = &p->slabs[s];
    bool take = group != NO_GROUP;

    PS_ASSERT((b->group == NO_GROUP) == take && b->n_used == 0);
    for (uint32_t g = 0; g < p->n_groups; g++) {
        if (g == (take ? group : b->group))
            continue;
        if (take)
            p->groups[g].n_free -= slab_items(p, s, g);
        else
            p->groups[g].n_free += slab_items(p, s, g);
    }
    b->group = group;
    b->n_carved = 0;
    b->first_free = NONE;
}

int wk_kv_pool_take(struct wk_kv_pool *p, uint32_t group, uint32_t *out_item)
{
    struct group *gr = &p->groups[group];
    struct slab *b;
    uint32_t s, item;

    PS_ASSERT(group < p->n_groups);
    s = gr->first_slab;
    if (s == NONE) {
        s = p->first_unowned;
        while (s != NONE && slab_items(p, s, group) == 0) /* a short last slab may hold no item */
            s = p->slabs[s].next;
        if (s == NONE) {
            PS_ASSERT(gr->n_free == 0);
            return WK_KV_E_FULL;
        }
        list_remove(p, &p->first_unowned, s);
        set_owner(p, s, (uint8_t)group);
        list_push(p, &gr->first_slab, s);
    } else {
        count_loose(p, s, false);
    }
    b = &p->slabs[s];
    if (b->first_free != NONE) {
        item = b->first_free;
        b->first_free = gr->next_free[item];
    } else {
        item = slab_first(p, s, group) + b->n_carved++;
    }
    b->n_used++;
    count_loose(p, s, true);
    if (b->n_used == slab_items(p, s, group))
        list_remove(p, &gr->first_slab, s);
    PS_ASSERT(gr->holders[item] == 0 && gr->n_free > 0);
    gr->holders[item] = 1;
    gr->n_free--;
    *out_item = item;
    return WK_KV_OK;
}

void wk_kv_pool_share(struct wk_kv_pool *p, uint32_t group, uint32_t item)
{
    PS_ASSERT(group < p->n_groups && item < p->groups[group].n_items);
    PS_ASSERT(p->groups[group].holders[item] > 0 && p->groups[group].holders[item] < IDLE - 1);
    p->groups[group].holders[item]++;
}

void wk_kv_pool_drop(struct wk_kv_pool *p, uint32_t group, uint32_t item)
{
    struct group *gr = &p->groups[group];
    struct slab *b;
    uint32_t s;

    PS_ASSERT(group < p->n_groups && item < gr->n_items && gr->holders[item] > 0);
    PS_ASSERT((gr->holders[item] & IDLE) == 0);
    if (--gr->holders[item] > 0)
        return;
    s = slab_of(p, item, group);
    b = &p->slabs[s];
    PS_ASSERT(b->group == group && b->n_used > 0);
    if (b->n_used == slab_items(p, s, group))
        list_push(p, &gr->first_slab, s);
    gr->next_free[item] = b->first_free;
    b->first_free = item;
    count_loose(p, s, false);
    b->n_used--;
    gr->n_free++;
    if (b->n_used > 0) {
        count_loose(p, s, true);
    } else {
        list_remove(p, &gr->first_slab, s);
        set_owner(p, s, NO_GROUP);
        list_push(p, &p->first_unowned, s);
    }
}

uint32_t wk_kv_pool_holders(const struct wk_kv_pool *p, uint32_t group, uint32_t item)
{
    PS_ASSERT(group < p->n_groups && item < p->groups[group].n_items);
    return p->groups[group].holders[item] & ~IDLE;
}

void wk_kv_pool_set_idle(struct wk_kv_pool *p, uint32_t group, uint32_t item, bool idle)
{
    struct group *gr = &p->groups[group];
    uint32_t s;

    PS_ASSERT(group < p->n_groups && item < gr->n_items);
    PS_ASSERT(gr->holders[item] == (idle ? 1 : 1 | IDLE));
    gr->holders[item] ^= IDLE;
    if (p->n_groups == 1)
        return; /* nobody else could have the slab */
    s = slab_of(p, item, group);
    PS_ASSERT(p->slabs[s].group == group);
    count_loose(p, s, false);
    p->slabs[s].n_idle = idle ? p->slabs[s].n_idle + 1 : p->slabs[s].n_idle - 1;
    count_loose(p, s, true);
}

bool wk_kv_pool_is_idle(const struct wk_kv_pool *p, uint32_t group, uint32_t item)
{
    PS_ASSERT(group < p->n_groups && item < p->groups[group].n_items);
    return (p->groups[group].holders[item] & IDLE) != 0;
}

uint32_t wk_kv_pool_n_reclaim(const struct wk_kv_pool *p, uint32_t group)
{
    PS_ASSERT(group < p->n_groups);
    return p->groups[group].n_reclaim;
}

uint32_t wk_kv_pool_n_free(const struct wk_kv_pool *p, uint32_t group)
{
    return p->groups[group].n_free;
}

uint32_t wk_kv_pool_n_total(const struct wk_kv_pool *p, uint32_t group)
{
    return p->groups[group].n_items;
}

uint64_t wk_kv_pool_slab_bytes(const struct wk_kv_pool *p)
{
    return p->slab_bytes;
}

uint32_t wk_kv_pool_slab_items(const struct wk_kv_pool *p, uint32_t group)
{
    PS_ASSERT(group < p->n_groups);
    return (uint32_t)(p->slab_bytes / p->groups[group].item_bytes);
}
