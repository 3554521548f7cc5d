#pragma once

/*
 * What a sequence holds of the KV store: attach to cached pages, grow, publish, let go.
 *
 * A sequence's pages are a path of the tree (the first n_attached), then its own. It writes only its
 * own ones. When a page it computed is in the tree already (another sequence was first), it takes
 * that one and gives its own back, so equal prefixes end up stored once. Scheduler thread.
 *
 * Models with a state beside rows (group 1 of the layout): a sequence owns one item of that group, its
 * state as of the last step in flight, from admission to release. Rows without the state at their end
 * are no use, so it begins at the deepest snapshot of its path, which leaves a token to compute, and
 * its first step copies that. It keeps snapshots of its own state where snap.h says, if there is room.
 *
 * Invariants
 *   1 the first n_attached pages are full, committed, and pinned by the sequence; in state FETCH
 *     some of them are still on their way, in every later state none is.
 *   2 pages are let go deepest first (see tree.h), and never while a step in flight names them: what
 *     is replaced under a step in flight waits in `limbo` until that step is committed. A state goes
 *     with the pages.
 *   3 a snapshot is published by the commit of the step that copied it, and only while the node at
 *     its position is one that the sequence has pinned.
 */

#include "worker/sched/seq.h"

struct wk_limbo { /* items of T0 that steps in flight still name */
    struct {
        uint32_t page;
        uint64_t ticket; /* the last that names it */
    } * items;
    uint32_t n, cap;
};

struct wk_hold_offer { /* what the cache has for a sequence that is to be admitted */
    struct wk_kv_match match;
    uint32_t n_use;   /* nodes of the path it will attach to */
    uint32_t need;    /* pages to take, and pages that stop being evictable */
    uint32_t n_pages; /* it will hold */
    uint32_t n_kv;    /* positions it need not compute */
};

/* Makes q->hashes complete for its tokens. */
void wk_hold_hash(const struct wk_store *st, struct wk_seq *q, uint32_t page_tokens);
/* scratch has room for every page of a context; it carries the matched path from offer to attach. */
void wk_hold_offer(struct wk_store *st, struct wk_seq *q, uint32_t page_tokens, uint32_t *scratch,
                   struct wk_hold_offer *out);
/* The same without the copy of a partly matching page: one page less for the moment of the copy. A
 * model with a state, if nobody else runs (alone): without any of the cache, whose snapshot takes an
 * item more. False: that was all. */
bool wk_hold_offer_less(struct wk_store *st, const struct wk_seq *q, uint32_t page_tokens,
                        const uint32_t *scratch, bool alone, struct wk_hold_offer *o);
/* Models with a state, before attach: takes the items of group 1 that it needs and holds what the
 * offer names; then o->need is exact. False: they are not there, and nothing is held. */
bool wk_hold_reserve(struct wk_store *st, struct wk_seq *q, uint32_t page_tokens,
                     const uint32_t *scratch, struct wk_hold_offer *o);
void wk_hold_unreserve(struct wk_store *st, struct wk_seq *q, const uint32_t *scratch,
                       const struct wk_hold_offer *o);
/* Takes everything that was offered; admission has made sure that it is there. What is not in T0
 * begins to move there. */
void wk_hold_attach(struct wk_store *st, struct wk_seq *q, uint32_t page_tokens,
                    const struct wk_hold_offer *o, const uint32_t *scratch);
/* FETCH: READY when every page has come. MOVING, GONE. */
enum wk_store_state wk_hold_fetched(struct wk_store *st, struct wk_seq *q);
PS_MUST int wk_hold_grow(struct wk_store *st, struct wk_seq *q,
                         uint32_t n_pages); /* WK_KV_E_FULL */
/* After n_kv_done rose. last_ticket: the newest enqueued; limbo may get pages. */
void wk_hold_publish(struct wk_store *st, struct wk_seq *q, uint32_t page_tokens,
                     uint64_t last_ticket, struct wk_limbo *limbo);
/* What its first step copies, and where to. False: nothing. */
bool wk_hold_first_copy(const struct wk_store *st, const struct wk_seq *q, struct wk_copy *out);
void wk_hold_end_copy(struct wk_store *st, struct wk_seq *q); /* it is done */
/* An item of T0 to copy a state into, NO_ITEM when there is none: free, or a colder snapshot's, or of
 * rows nobody holds; and never one that the pages of admitted rows may need before it is back. */
uint32_t wk_hold_lend(struct wk_store *st, const struct wk_admit *a);
void wk_hold_return(struct wk_store *st, uint32_t item); /* nobody wants it any more */
/* The item has the state at pos, all of it committed. False: not published, the item is given. */
bool wk_hold_keep(struct wk_store *st, struct wk_seq *q, uint32_t page_tokens, uint32_t pos,
                  uint32_t item);
void wk_hold_release(struct wk_store *st, struct wk_seq *q);
uint32_t wk_hold_unshared(const struct wk_store *st, const struct wk_seq *q);

void wk_limbo_drop(struct wk_limbo *l, struct wk_store *st, uint64_t done_ticket);
void wk_limbo_fini(struct wk_limbo *l);
