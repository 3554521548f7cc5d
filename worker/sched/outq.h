#pragma once

/*
 * Events on their way to the link: kept in order until its ring takes them, sent at the end of a tick
 * so that the device has its next step first. Scheduler thread. Bounded by the steps that are planned
 * while it is not empty: none.
 */

#include "worker/link.h"

struct wk_outq {
    struct wk_out *items;
    uint32_t n, cap, first;
    uint64_t n_pushed; /* ever */
};

void wk_outq_push(struct wk_outq *q, const struct wk_out *o);
bool wk_outq_flush(struct wk_outq *q, const struct wk_port *p); /* true: empty now */
void wk_outq_fini(struct wk_outq *q);                           /* frees what was never taken */

static inline bool wk_outq_is_empty(const struct wk_outq *q)
{
    return q->first == q->n;
}
