#include "worker/sched/prefill.h"

enum { SHARES = 4 }; /* the head's share of a step, and what being passed over is worth */

/* Prompt tokens that it could compute, had the step room for all. */
static uint32_t rest_of(const struct wk_admit_row *r)
{
    return r->paused ? 0 : r->n_left;
}

/* Of these, those it could compute in this step. */
static uint32_t left_of(const struct wk_admit_row *r)
{
    return r->n_stop > 0 ? ps_min_u32(rest_of(r), r->n_stop) : rest_of(r);
}

static uint32_t pos_of(const struct wk_admit_row *r)
{
    PS_ASSERT(r->len >= r->n_left);
    return r->len - r->n_left;
}

/* Smaller goes first. */
static uint64_t weight_of(const struct wk_admit_row *r, uint32_t chunk)
{
    uint64_t size = ps_min_u32(r->n_left, r->pull);
    uint64_t off = (uint64_t)r->n_passed * ps_max_u32(chunk / SHARES, 1);

    return size > off ? size - off : 0;
}

static bool goes_before(const struct wk_admit_row *x, const struct wk_admit_row *y, uint32_t chunk)
{
    uint64_t wx = weight_of(x, chunk), wy = weight_of(y, chunk);

    if (x->priority != y->priority)
        return x->priority < y->priority;
    return wx != wy ? wx < wy : x->ticket < y->ticket;
}

/* Rows of this class or a higher one that are begun and not done after what they were granted. */
static uint32_t n_partial(const struct wk_admit *a, int32_t priority, const uint32_t *grants)
{
    uint32_t n = 0;

    for (uint32_t i = 1; i < a->n_rows && a->rows[i]->priority <= priority; i++)
        n += a->rows[i]->begun && rest_of(a->rows[i]) > grants[i];
    return n;
}

/* n tokens more do not make it one more half-done prompt, or that cannot be helped. */
static bool may_run(const struct wk_admit *a, const struct wk_admit_row *r, uint32_t n,
                    uint32_t chunk, const uint32_t *grants)
{
    return r->begun || n == r->n_left || (r->n_passed > 0 && weight_of(r, chunk) == 0) ||
           n_partial(a, r->priority, grants) < WK_PREFILL_PARTIAL_MAX;
}

static void grant(struct wk_admit_row *r, uint32_t n, struct wk_budget_room *room, uint32_t *sum)
{
    if (n == 0)
        return;
    wk_budget_spend(room, pos_of(r) + *sum, n);
    *sum += n;
    r->begun = true;
}

/* The first of those behind `last` (NULL: of all) that want more, or n_rows. */
static uint32_t next_of(const struct wk_admit *a, uint32_t chunk, const uint32_t *grants,
                        const struct wk_admit_row *last)
{
    uint32_t best = a->n_rows;

    for (uint32_t i = 0; i < a->n_rows; i++) {
        const struct wk_admit_row *r = a->rows[i];

        if (left_of(r) <= grants[i] || (last != NULL && !goes_before(last, r, chunk)))
            continue;
        if (best == a->n_rows || goes_before(r, a->rows[best], chunk))
            best = i;
    }
    return best;
}

/* Younger ones of its class got something and it got nothing. */
static void count_passed(const struct wk_admit *a, const uint32_t *grants)
{
    bool younger = false;

    for (uint32_t i = a->n_rows; i-- > 0;) { /* from the youngest of the lowest class */
        struct wk_admit_row *r = a->rows[i];

        if (i + 1 < a->n_rows && a->rows[i + 1]->priority != r->priority)
            younger = false;
        if (grants[i] > 0)
            younger = true;
        else if (left_of(r) > 0 && younger && r->n_passed < UINT32_MAX)
            r->n_passed++;
    }
}

uint32_t wk_prefill_share(const struct wk_admit *a, uint32_t chunk, struct wk_budget_room *room,
                          uint32_t *grants)
{
    const struct wk_admit_row *last = NULL;
    uint32_t sum = 0, before = room->tokens;

    for (uint32_t i = 0; i < a->n_rows; i++)
        grants[i] = 0;
    if (a->n_rows > 0 && left_of(a->rows[0]) > 0) {
        struct wk_admit_row *head = a->rows[0];
        uint32_t n = wk_budget_fit(room, pos_of(head), rest_of(head));

        n = ps_min_u32(n, ps_max_u32(n / SHARES, 1));
        grant(head, ps_min_u32(n, left_of(head)), room, &grants[0]);
    }
    while (room->tokens > 0) {
        uint32_t i = next_of(a, chunk, grants, last), n;
        struct wk_admit_row *r;

        if (i == a->n_rows)
            break;
        r = a->rows[i];
        last = r;
        n = wk_budget_fit(room, pos_of(r) + grants[i], left_of(r) - grants[i]);
        if (n == 0) /* whoever is next in line and finds no room ends the step */
            break;
        if (may_run(a, r, n, chunk, grants))
            grant(r, n, room, &grants[i]);
    }
    count_passed(a, grants);
    for (uint32_t i = 0; i < a->n_rows; i++)
        sum += grants[i];
    PS_ASSERT(sum == before - room->tokens);
    return sum;
}
