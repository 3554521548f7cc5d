#pragma once

/*
 * One sequence: a request on this worker, its tokens, its pages, and where it is in life.
 *
 * Scheduler thread. All counts are in tokens unless named otherwise; positions count from the first
 * prompt token. Answer tokens of earlier attempts (a moved stream) are part of ids like any other,
 * so nothing below knows whether a stream began here.
 *
 *   n_kv_done <= n_kv <= n_ids + n_fly_tok,  n_kv_done: keys and values that are committed,
 *                                            n_kv: those and the ones in flight
 *   len = n_ids + n_fly_tok <= hard          n_fly_tok: sampled tokens in flight, not known yet
 *
 *              +--------------------------------------------+
 *              v                                            |
 *   WAIT --> RUN --> DRAIN --> PARKED ----------------------+   DRAIN: suspended, steps in flight
 *     |       |\        |        |                              PARKED: suspended, waits without pages
 *     |       | +-------|------->|   (no step in flight)
 *     |       v         v        v
 *     |     ZOMBIE <----+        |                              ZOMBIE: answered, steps in flight
 *     |       |                  |
 *     +-------+------------------+----> DONE
 *
 * The only writer of state is wk_seq_goto(). A cancel may come in any state.
 */

#include "worker/exec/exec.h"
#include "worker/kv/tree.h"
#include "worker/sched/admit.h"

enum wk_seq_state {
    WK_SEQ_WAIT,
    WK_SEQ_RUN,
    WK_SEQ_DRAIN,
    WK_SEQ_PARKED,
    WK_SEQ_ZOMBIE,
    WK_SEQ_DONE,
    WK_SEQ_N_STATES,
};

#define WK_SEQ_NO_SLOT UINT32_MAX

struct wk_seq {
    struct wk_admit_row adm; /* kept true by wk_seq_sync */
    enum wk_seq_state state;
    uint32_t handle; /* the link's name for it */
    uint32_t slot;
    struct pb_submit *submit;
    uint64_t deadline_us; /* until the first token; 0: none */

    uint32_t *ids; /* [cap_ids] */
    uint32_t n_ids, cap_ids;
    uint32_t n_kv, n_kv_done, n_fly_tok, n_fly_steps;

    uint32_t *pages;  /* [cap_pages] */
    uint64_t *hashes; /* [cap_pages] chained block hashes at page ends; n_hashes are computed */
    uint32_t n_pages, n_hashes, cap_pages;
    uint32_t n_attached; /* leading pages that are shared through the tree: never written */
    uint32_t epoch;      /* of the tree when it attached */
    uint32_t tail_src,
        n_tail; /* page to copy n_tail tokens from, held until that step is committed */
    bool copy_planned;

    bool prefill_only;  /* the answer is over before it begins: only the prompt is computed */
    enum pb_finish end; /* prefill_only: how it ends */
    uint32_t end_id;
    uint32_t n_cached; /* prompt tokens found at the first admission */
    bool was_admitted;
    struct pb_logprob *scores; /* [n_prompt] prompt log-probabilities, NULL when not wanted */
    uint32_t n_scored;         /* entries 1..n_scored are filled */
};

/* move_s is consumed. */
struct wk_seq *wk_seq_create(struct pb_submit *move_s, uint32_t handle, uint64_t ticket);
void wk_seq_destroy(struct wk_seq *q); /* in WAIT, PARKED or DONE without pages; NULL is fine */
void wk_seq_goto(struct wk_seq *q, enum wk_seq_state to);

void wk_seq_push(struct wk_seq *q, uint32_t token); /* a committed answer token */
void wk_seq_sync(struct wk_seq *q);                 /* adm.len, held, n_left from the rest */
uint32_t wk_seq_n_out(const struct wk_seq *q);      /* answer tokens, earlier attempts included */
bool wk_seq_needs_scores(const struct wk_seq *q);   /* prompt scores are wanted and not complete */

static inline struct wk_seq *wk_seq_of(struct wk_admit_row *r)
{
    return PS_CONTAINER(r, struct wk_seq, adm);
}
