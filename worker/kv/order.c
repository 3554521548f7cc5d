#include "worker/kv/order.h"

enum { OUT, IN, HELD };
enum { FRESH, PROTECTED, N_SEGMENTS };

/* Between a quarter and a half the traces see little difference; below, small tiers lose what is
 * used again and again, above, large ones lose what is new. */
enum { PROTECTED_SHARE = 3 };
enum { GHOST_WAYS = 4 };

/* Ids are kept as id + 1, so that memory that was never touched says "none". */
struct link {
    uint32_t prev, next;
};

struct list {
    uint32_t head, tail, n; /* head goes first; n with the held */
};

struct ghost {
    uint32_t mark, at; /* at: count of what was lost until then; 0: none */
};

struct wk_order {
    uint32_t n_ids, n, n_room;
    struct list segments[N_SEGMENTS];
    struct link *links;
    uint8_t *state, *segment;
    uint32_t n_lost, ghost_mask;
    struct ghost *ghosts; /* sets of GHOST_WAYS */
};

struct wk_order *wk_order_create(uint32_t n_ids, uint32_t n_room)
{
    struct wk_order *o = ps_calloc(1, sizeof(*o));
    uint32_t n_sets = 1;

    PS_ASSERT(n_ids < WK_ORDER_NONE && n_room < UINT32_MAX / 2);
    while (n_sets * GHOST_WAYS < n_room)
        n_sets *= 2;
    o->n_ids = n_ids;
    o->n_room = n_room;
    o->links = ps_calloc(n_ids, sizeof(*o->links));
    o->state = ps_calloc(n_ids, sizeof(*o->state));
    o->segment = ps_calloc(n_ids, sizeof(*o->segment));
    o->ghosts = ps_calloc(n_sets, GHOST_WAYS * sizeof(*o->ghosts));
    o->ghost_mask = n_sets - 1;
    return o;
}

void wk_order_destroy(struct wk_order *o)
{
    if (o == NULL)
        return;
    ps_free(o->links);
    ps_free(o->state);
    ps_free(o->segment);
    ps_free(o->ghosts);
    ps_free(o);
}

static void list_add(struct wk_order *o, uint32_t id, uint8_t segment)
{
    struct list *l = &o->segments[segment];

    o->segment[id] = segment;
    o->links[id] = (struct link){.prev = l->tail};
    if (l->tail != 0)
        o->links[l->tail - 1].next = id + 1;
    else
        l->head = id + 1;
    l->tail = id + 1;
    l->n++;
}

static void list_remove(struct wk_order *o, uint32_t id)
{
    struct list *l = &o->segments[o->segment[id]];
    const struct link *at = &o->links[id];

    if (at->prev != 0)
        o->links[at->prev - 1].next = at->next;
    else
        l->head = at->next;
    if (at->next != 0)
        o->links[at->next - 1].prev = at->prev;
    else
        l->tail = at->prev;
    PS_ASSERT(l->n > 0);
    l->n--;
}

/* An ancestor that is protected is younger there than what is below it, so it leaves later. */
void wk_order_push(struct wk_order *o, uint32_t id, uint32_t n_uses)
{
    PS_ASSERT(id < o->n_ids && o->state[id] == OUT);
    o->state[id] = IN;
    o->n++;
    list_add(o, id, n_uses > 0 ? PROTECTED : FRESH);
    if (o->segments[PROTECTED].n > o->n_room / PROTECTED_SHARE) {
        uint32_t oldest = o->segments[PROTECTED].head - 1;

        list_remove(o, oldest);
        list_add(o, oldest, FRESH);
    }
}

void wk_order_remove(struct wk_order *o, uint32_t id)
{
    PS_ASSERT(id < o->n_ids && o->state[id] != OUT);
    list_remove(o, id);
    o->n -= o->state[id] == IN;
    o->state[id] = OUT;
}

void wk_order_hold(struct wk_order *o, uint32_t id)
{
    PS_ASSERT(id < o->n_ids && o->state[id] == IN);
    o->state[id] = HELD;
    o->n--;
}

void wk_order_release(struct wk_order *o, uint32_t id)
{
    PS_ASSERT(id < o->n_ids && o->state[id] == HELD);
    o->state[id] = IN;
    o->n++;
}

bool wk_order_has(const struct wk_order *o, uint32_t id)
{
    return o->state[id] == IN;
}

bool wk_order_is_held(const struct wk_order *o, uint32_t id)
{
    return o->state[id] == HELD;
}

uint32_t wk_order_n(const struct wk_order *o)
{
    return o->n;
}

/* The first of the segment from `at` on, or of the next one, that is not held. */
static uint32_t skip_held(const struct wk_order *o, uint32_t at, uint32_t segment)
{
    for (;;) {
        while (at != 0 && o->state[at - 1] == HELD)
            at = o->links[at - 1].next;
        if (at != 0)
            return at - 1;
        if (++segment == N_SEGMENTS)
            return WK_ORDER_NONE;
        at = o->segments[segment].head;
    }
}

uint32_t wk_order_first(const struct wk_order *o)
{
    return skip_held(o, o->segments[FRESH].head, FRESH);
}

uint32_t wk_order_next(const struct wk_order *o, uint32_t id)
{
    PS_ASSERT(id < o->n_ids && o->state[id] == IN);
    return skip_held(o, o->links[id].next, o->segment[id]);
}

static struct ghost *ghost_set(const struct wk_order *o, uint64_t key)
{
    return o->ghosts + (size_t)((uint32_t)key & o->ghost_mask) * GHOST_WAYS;
}

void wk_order_remember(struct wk_order *o, uint64_t key)
{
    struct ghost *set = ghost_set(o, key), *oldest = set;

    if (++o->n_lost == 0) /* 0 says "none" */
        o->n_lost = 1;
    for (uint32_t i = 0; i < GHOST_WAYS && oldest->at != 0; i++) {
        if (set[i].at == 0 || o->n_lost - set[i].at > o->n_lost - oldest->at)
            oldest = &set[i];
    }
    *oldest = (struct ghost){.mark = (uint32_t)(key >> 32), .at = o->n_lost};
}

bool wk_order_is_ghost(const struct wk_order *o, uint64_t key)
{
    const struct ghost *set = ghost_set(o, key);

    for (uint32_t i = 0; i < GHOST_WAYS; i++) {
        if (set[i].at != 0 && set[i].mark == (uint32_t)(key >> 32) &&
            o->n_lost - set[i].at < o->n_room)
            return true;
    }
    return false;
}
