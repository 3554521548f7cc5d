#pragma once

/*
 * Deadlines of the sequences that have no token yet, earliest first: a binary heap, so that a tick
 * looks at one number however many wait. Scheduler thread.
 *
 * Invariant: a sequence is in it exactly while deadline_us != 0; deadline_at is its place.
 */

#include "worker/sched/seq.h"

struct wk_deadlines {
    struct wk_seq **heap;
    uint32_t n, cap;
};

void wk_deadlines_add(struct wk_deadlines *d, struct wk_seq *q, uint64_t deadline_us);
void wk_deadlines_remove(struct wk_deadlines *d, struct wk_seq *q); /* it may have none */
struct wk_seq *wk_deadlines_first(const struct wk_deadlines *d);    /* NULL: none */
void wk_deadlines_fini(struct wk_deadlines *d);
