#include "worker/sched/deadline.h"

static void place(struct wk_deadlines *d, uint32_t at, struct wk_seq *q)
{
    d->heap[at] = q;
    q->deadline_at = at;
}

/* Lets q sink or rise from a free place. */
static void settle(struct wk_deadlines *d, uint32_t at, struct wk_seq *q)
{
    while (at > 0 && d->heap[(at - 1) / 2]->deadline_us > q->deadline_us) {
        place(d, at, d->heap[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    for (;;) {
        uint32_t child = 2 * at + 1;

        if (child + 1 < d->n && d->heap[child + 1]->deadline_us < d->heap[child]->deadline_us)
            child++;
        if (child >= d->n || d->heap[child]->deadline_us >= q->deadline_us)
            break;
        place(d, at, d->heap[child]);
        at = child;
    }
    place(d, at, q);
}

void wk_deadlines_add(struct wk_deadlines *d, struct wk_seq *q, uint64_t deadline_us)
{
    PS_ASSERT(q->deadline_us == 0 && deadline_us != 0);
    if (d->n == d->cap) {
        d->cap = ps_max_u32(16, d->cap * 2);
        d->heap = ps_realloc(d->heap, d->cap * sizeof(struct wk_seq *));
    }
    q->deadline_us = deadline_us;
    d->n++;
    settle(d, d->n - 1, q);
}

void wk_deadlines_remove(struct wk_deadlines *d, struct wk_seq *q)
{
    uint32_t at = q->deadline_at;
    struct wk_seq *last;

    if (q->deadline_us == 0)
        return;
    PS_ASSERT(at < d->n && d->heap[at] == q);
    last = d->heap[--d->n];
    if (last != q)
        settle(d, at, last);
    q->deadline_us = 0;
}

struct wk_seq *wk_deadlines_first(const struct wk_deadlines *d)
{
    return d->n > 0 ? d->heap[0] : NULL;
}

void wk_deadlines_fini(struct wk_deadlines *d)
{
    PS_ASSERT(d->n == 0);
    ps_free(d->heap);
}
