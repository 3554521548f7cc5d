#include "worker/sched/admit.h"

/* 256 times the reserve is a whole life for any context: more doublings mean nothing. */
enum { SUSPENDS_MAX_SHIFT = 8 };

void wk_admit_init(struct wk_admit *a, const struct wk_admit_conf *conf)
{
    PS_ASSERT(conf->chunk > 0 && conf->page_tokens > 0 && conf->n_rows_max > 0);
    *a = (struct wk_admit){.conf = *conf};
    a->rows = ps_calloc(conf->n_rows_max, sizeof(*a->rows));
}

void wk_admit_fini(struct wk_admit *a)
{
    PS_ASSERT(a->n_rows == 0 && a->n_waiting == 0);
    ps_free(a->rows);
}

void wk_admit_set_chunk(struct wk_admit *a, uint32_t chunk)
{
    PS_ASSERT(chunk > 0);
    a->conf.chunk = chunk;
}

static bool ranks_before(const struct wk_admit_row *x, const struct wk_admit_row *y)
{
    if (x->priority != y->priority)
        return x->priority < y->priority;
    return x->ticket < y->ticket;
}

/* Order of the queue: within a priority the suspended come first. */
static bool queues_before(const struct wk_admit_row *x, const struct wk_admit_row *y)
{
    if (x->priority != y->priority)
        return x->priority < y->priority;
    if ((x->n_suspends > 0) != (y->n_suspends > 0))
        return x->n_suspends > 0;
    return x->ticket < y->ticket;
}

void wk_admit_push(struct wk_admit *a, struct wk_admit_row *r)
{
    struct wk_admit_row *after = a->last; /* nearly always: tickets rise */

    PS_ASSERT(!r->admitted && !r->waiting);
    while (after != NULL && queues_before(r, after))
        after = after->prev;
    r->prev = after;
    r->next = after != NULL ? after->next : a->first;
    if (r->next != NULL)
        r->next->prev = r;
    else
        a->last = r;
    if (after != NULL)
        after->next = r;
    else
        a->first = r;
    r->waiting = true;
    a->n_waiting++;
}

static void unqueue(struct wk_admit *a, struct wk_admit_row *r)
{
    PS_ASSERT(r->waiting && a->n_waiting > 0);
    if (r->prev != NULL)
        r->prev->next = r->next;
    else
        a->first = r->next;
    if (r->next != NULL)
        r->next->prev = r->prev;
    else
        a->last = r->prev;
    r->prev = r->next = NULL;
    r->waiting = false;
    a->n_waiting--;
}

static void leave(struct wk_admit *a, struct wk_admit_row *r)
{
    uint32_t i = 0;

    PS_ASSERT(r->admitted);
    while (i < a->n_rows && a->rows[i] != r)
        i++;
    PS_ASSERT(i < a->n_rows);
    a->n_rows--;
    for (; i < a->n_rows; i++)
        a->rows[i] = a->rows[i + 1];
    r->admitted = false;
}

void wk_admit_remove(struct wk_admit *a, struct wk_admit_row *r)
{
    if (r->admitted)
        leave(a, r);
    else if (r->waiting)
        unqueue(a, r);
}

struct wk_admit_row *wk_admit_next(const struct wk_admit *a)
{
    if (a->n_rows == a->conf.n_rows_max || a->first == NULL || a->first->drains)
        return NULL;
    return a->first;
}

struct wk_admit_row *wk_admit_behind(const struct wk_admit *a, const struct wk_admit_row *r)
{
    PS_ASSERT(r->waiting && r->n_suspends == 0); /* so nobody suspended stands behind it: 6 holds */
    if (a->n_rows == a->conf.n_rows_max || r->next == NULL || r->next->priority != r->priority)
        return NULL;
    return r->next;
}

static uint64_t n_pages(const struct wk_admit *a, uint64_t n_tokens)
{
    return ps_div_up_u64(n_tokens, a->conf.page_tokens);
}

static uint64_t grow_from(const struct wk_admit *a, const struct wk_admit_row *r, uint32_t held,
                          uint64_t n_tokens)
{
    uint64_t want = n_pages(a, ps_min_u64(r->len + n_tokens, r->hard));

    return want > held ? want - held : 0;
}

uint32_t wk_admit_grow(const struct wk_admit *a, const struct wk_admit_row *r, uint64_t n_tokens)
{
    return (uint32_t)grow_from(a, r, r->held, n_tokens);
}

static uint64_t horizon(const struct wk_admit *a, uint64_t n_left)
{
    for (uint32_t i = 0; i < a->n_rows; i++)
        n_left += a->rows[i]->n_left;
    return a->conf.reserve + ps_div_up_u64(n_left, a->conf.chunk);
}

static uint64_t reach(const struct wk_admit_row *r, uint64_t n_tokens)
{
    return n_tokens << ps_min_u32(r->n_suspends, SUSPENDS_MAX_SHIFT);
}

bool wk_admit_fits(const struct wk_admit *a, const struct wk_admit_row *r, uint32_t need,
                   uint32_t held, uint64_t avail)
{
    uint64_t h = horizon(a, r->n_left);
    uint64_t sum = need + grow_from(a, r, held, reach(r, h));

    PS_ASSERT(!r->admitted && r->len <= r->hard);
    for (uint32_t i = 0; i < a->n_rows; i++)
        sum += wk_admit_grow(a, a->rows[i], reach(a->rows[i], h));
    return sum <= avail;
}

void wk_admit_enter(struct wk_admit *a, struct wk_admit_row *r)
{
    uint32_t i;

    PS_ASSERT(a->n_rows < a->conf.n_rows_max && !r->drains);
    unqueue(a, r);
    for (i = a->n_rows; i > 0 && ranks_before(r, a->rows[i - 1]); i--)
        a->rows[i] = a->rows[i - 1];
    a->rows[i] = r;
    a->n_rows++;
    r->n_passed = 0;
    r->begun = false;
    r->pull = UINT32_MAX;
    r->admitted = true;
}

static uint64_t growth_of_steps(const struct wk_admit *a, uint32_t n_steps)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < a->n_rows; i++)
        sum += wk_admit_grow(a, a->rows[i], n_steps);
    return sum;
}

bool wk_admit_is_short(const struct wk_admit *a, uint64_t avail)
{
    return growth_of_steps(a, a->conf.n_fly + 1) > avail;
}

bool wk_admit_may_lend(const struct wk_admit *a, uint64_t avail)
{
    /* It is back n_fly + 1 steps from now; until then each of them asks for as many to come. */
    return growth_of_steps(a, 2 * (a->conf.n_fly + 1)) <= avail;
}

struct wk_admit_row *wk_admit_victim(const struct wk_admit *a,
                                     uint32_t (*unshared)(const struct wk_admit_row *r, void *ud),
                                     void *ud)
{
    struct wk_admit_row *v = NULL;
    uint32_t v_pages = 0;

    for (uint32_t i = 1; i < a->n_rows; i++) { /* 0 is the head */
        struct wk_admit_row *r = a->rows[i];
        uint32_t pages = unshared(r, ud);
        bool better = v == NULL || r->priority > v->priority;

        if (!better && r->priority == v->priority)
            better = pages > v_pages || (pages == v_pages && r->ticket > v->ticket);
        if (better) {
            v = r;
            v_pages = pages;
        }
    }
    return v;
}

void wk_admit_suspend(struct wk_admit *a, struct wk_admit_row *r, bool drains)
{
    PS_ASSERT(r != a->rows[0]); /* invariant 2 */
    leave(a, r);
    r->n_suspends++;
    r->drains = drains;
    wk_admit_push(a, r);
}

void wk_admit_return(struct wk_admit *a, struct wk_admit_row *r)
{
    leave(a, r);
    wk_admit_push(a, r);
}

uint64_t wk_admit_growth(const struct wk_admit *a)
{
    uint64_t h = horizon(a, 0), sum = 0;

    for (uint32_t i = 0; i < a->n_rows; i++)
        sum += wk_admit_grow(a, a->rows[i], reach(a->rows[i], h));
    return sum;
}
