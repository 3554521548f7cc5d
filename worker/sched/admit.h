#pragma once

/*
 * Admission: who runs, who waits, and who steps aside when memory gets short.
 *
 * Every admitted row is given room for its growth over the next W tokens (plus the steps of prefill
 * that are outstanding), never past its hard end. On shortage the largest row but the head is
 * suspended and comes back before anybody new; each suspension doubles its own reservation. There is
 * no other constant: no watermark, no estimate of lengths, no special case for an empty worker.
 *
 * Pages are what grows. A model with a state beside them holds one item for it from its admission to
 * its end: that resource is not counted here; the caller has taken the item when it asks whether the
 * pages fit (hold.h).
 *
 *   rank    = (priority, ticket), both low first; tickets are kept over suspension
 *   hard    = prompt + min(max_tokens, context - prompt, pool - prompt)
 *   len     = known tokens and every position in flight
 *   grow(n) = pages(min(len + n, hard)) - pages held, at least 0
 *   H       = W + ceil(uncomputed tokens of all admitted rows and the candidate / chunk)
 *   L       = D + 1 tokens, D = steps in flight while a step is planned
 *
 * chunk is what prompts may count on in a step: the smallest room that steps with decode rows had of
 * late (wk_budget_steady). H counts the steps in which others grow before a prompt has become a row
 * that decodes. Rooms that shrink after an admission make it more steps than were counted, so that
 * a row may be suspended earlier: what 5 promises is then less by the steps that came on top. No
 * other invariant speaks of chunk: 1 to 3 because relieve and plan look at what is really there, 4
 * because it needs H >= W only. The next admission counts again with what is left and the new room.
 *
 * Plain arithmetic over rows that the scheduler keeps up to date; it owns no pages. Scheduler thread.
 *
 * Invariants
 *   1 pinned <= total; only an admission and a plan take pages; a plan never needs more than hard.
 *   2 the head (lowest rank admitted) is never suspended, so every ticket finishes.
 *   3 a row alone is always admitted: need + grow <= pages(hard) <= pool.
 *   4 after an admission nobody is suspended before some row has grown by more than W - L tokens.
 *   5 a suspended residency has produced at least W - L - D - 1 tokens.
 *   6 nobody who never ran overtakes a suspended row of the same or a higher priority.
 */

#include "common/base.h"

struct wk_admit_row { /* embedded in a sequence; all but `priority` and `ticket` may change */
    int32_t priority;
    uint64_t ticket;
    uint32_t len, hard; /* tokens */
    uint32_t held;      /* pages */
    uint32_t n_left;    /* prompt tokens not planned yet; 0 when it decodes */
    uint32_t n_stop;    /* of these, those up to where its next step has to end; 0: anywhere */
    uint32_t n_suspends;
    /* Of prefill.h, since it was admitted: younger ones passed it; it is begun. */
    uint32_t n_passed;
    bool begun;
    uint32_t pull; /* the least n_left of rows that wait for this one (follow.h), else UINT32_MAX */
    bool admitted, waiting;
    bool paused; /* admitted, its cached pages are still on their way: it computes nothing yet */
    bool drains; /* waits, but steps in flight still own its pages */
    struct wk_admit_row *prev, *next;
};

struct wk_admit_conf {
    uint32_t reserve; /* W */
    uint32_t chunk;   /* prefill tokens of a step, at first */
    uint32_t page_tokens;
    uint32_t n_fly; /* D */
    uint32_t n_rows_max;
};

struct wk_admit {
    struct wk_admit_conf conf;
    struct wk_admit_row *first, *last; /* waiting: by priority, suspended before new, then ticket */
    struct wk_admit_row **rows;        /* admitted, by rank; [0] is the head */
    uint32_t n_rows, n_waiting;
};

void wk_admit_init(struct wk_admit *a, const struct wk_admit_conf *conf);
void wk_admit_fini(struct wk_admit *a);
void wk_admit_set_chunk(struct wk_admit *a, uint32_t chunk);

void wk_admit_push(struct wk_admit *a, struct wk_admit_row *r);   /* a new row waits */
void wk_admit_remove(struct wk_admit *a, struct wk_admit_row *r); /* wherever it is; it has ended */
/* Whose turn it is; NULL when nobody waits, no row is left, or the next one still drains. */
struct wk_admit_row *wk_admit_next(const struct wk_admit *a);
/* Whose turn it is while r, which never ran, lets others pass: the next of its priority, or NULL. */
struct wk_admit_row *wk_admit_behind(const struct wk_admit *a, const struct wk_admit_row *r);
/* need: pages it takes now and pages that stop being evictable. held is what it holds then. */
bool wk_admit_fits(const struct wk_admit *a, const struct wk_admit_row *r, uint32_t need,
                   uint32_t held, uint64_t avail);
void wk_admit_enter(struct wk_admit *a, struct wk_admit_row *r);

/* True while the growth of the steps in flight does not fit into avail. */
bool wk_admit_is_short(const struct wk_admit *a, uint64_t avail);
/* What is left is enough that nobody is short before everything in flight has come back, also a step
 * that is planned now: more than that may be lent to it. */
bool wk_admit_may_lend(const struct wk_admit *a, uint64_t avail);
/* Who steps aside; NULL when only the head is left. unshared tells the pages that r alone holds. */
struct wk_admit_row *wk_admit_victim(const struct wk_admit *a,
                                     uint32_t (*unshared)(const struct wk_admit_row *r, void *ud),
                                     void *ud);
/* An admitted row that never ran goes back to where it waited: no suspension, the rank stays. */
void wk_admit_return(struct wk_admit *a, struct wk_admit_row *r);
void wk_admit_suspend(struct wk_admit *a, struct wk_admit_row *r, bool drains);

uint32_t wk_admit_grow(const struct wk_admit *a, const struct wk_admit_row *r, uint64_t n_tokens);
uint64_t wk_admit_growth(const struct wk_admit *a); /* sum of grow(H): for beats */
