#include "worker/sched/outq.h"

#include <string.h>

void wk_outq_push(struct wk_outq *q, const struct wk_out *o)
{
    if (q->n == q->cap && q->first > 0) {
        memmove(q->items, q->items + q->first, (q->n - q->first) * sizeof(*q->items));
        q->n -= q->first;
        q->first = 0;
    }
    if (q->n == q->cap) {
        q->cap = ps_max_u32(64, q->cap * 2);
        q->items = ps_realloc(q->items, q->cap * sizeof(*q->items));
    }
    q->items[q->n++] = *o;
    q->n_pushed++;
}

bool wk_outq_flush(struct wk_outq *q, const struct wk_port *p)
{
    while (q->first < q->n) {
        if (!p->push(p->ud, &q->items[q->first]))
            return false;
        q->first++;
    }
    q->first = q->n = 0;
    return true;
}

void wk_outq_fini(struct wk_outq *q)
{
    for (uint32_t i = q->first; i < q->n; i++) {
        ps_free(q->items[i].logprob);
        ps_free(q->items[i].prompt_scores);
    }
    ps_free(q->items);
    *q = (struct wk_outq){0};
}
