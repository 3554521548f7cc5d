#pragma once

/*
 * What a sequence holds of the KV pool: attach to cached pages, grow, publish, let go.
 *
 * A sequence's pages are a path of the tree (the first n_attached), then its own. It writes only its
 * own ones. When a page it computed is in the tree already (another sequence was first), it takes
 * that one and gives its own back, so equal prefixes end up stored once. Scheduler thread.
 *
 * Invariants
 *   1 the first n_attached pages are full, committed, and held by the sequence.
 *   2 pages are let go deepest first (see tree.h), and never while a step in flight names them: what
 *     is replaced under a step in flight waits in `limbo` until that step is committed.
 */

#include "worker/sched/seq.h"

struct wk_limbo { /* pages that steps in flight still name */
    struct {
        uint32_t page;
        uint64_t ticket; /* the last that names it */
    } * items;
    uint32_t n, cap;
};

struct wk_hold_offer { /* what the cache has for a sequence that is to be admitted */
    struct wk_kv_match match;
    uint32_t need;    /* pages to take, and pages that stop being evictable */
    uint32_t n_pages; /* it will hold */
    uint32_t n_kv;    /* positions it need not compute */
};

/* scratch has room for every page of the pool; it carries the matched path from offer to attach. */
void wk_hold_offer(const struct wk_kv_tree *t, struct wk_seq *q, uint32_t page_tokens,
                   uint32_t *scratch, struct wk_hold_offer *out);
/* The same without the copy of a partly matching page: one page less for the moment of the copy. */
void wk_hold_offer_no_tail(const struct wk_seq *q, uint32_t page_tokens, struct wk_hold_offer *o);
/* Takes everything that was offered; admission has made sure that it is there. */
void wk_hold_attach(struct wk_kv_tree *t, struct wk_seq *q, const struct wk_hold_offer *o,
                    const uint32_t *scratch);
PS_MUST int wk_hold_grow(struct wk_kv_tree *t, struct wk_seq *q,
                         uint32_t n_pages); /* WK_KV_E_FULL */
/* After n_kv_done rose. last_ticket: the newest enqueued; limbo may get pages. */
void wk_hold_publish(struct wk_kv_tree *t, struct wk_seq *q, uint32_t page_tokens,
                     uint64_t last_ticket, struct wk_limbo *limbo);
void wk_hold_end_copy(struct wk_kv_tree *t, struct wk_seq *q); /* the copy is done */
void wk_hold_release(struct wk_kv_tree *t, struct wk_seq *q);
uint32_t wk_hold_unshared(const struct wk_kv_tree *t, const struct wk_seq *q);

void wk_limbo_drop(struct wk_limbo *l, struct wk_kv_tree *t, uint64_t done_ticket);
void wk_limbo_fini(struct wk_limbo *l);
