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
 *              +------------------------------------------------+
 *              v                                                |
 *   WAIT --> FETCH --> RUN --> DRAIN --> PARKED ----------------+   FETCH: admitted, pages are brought up
 *     ^        |        |\        |        |                         DRAIN: suspended, steps in flight
 *     +--------+        | +-------|------->|  (no step in flight)    PARKED: suspended, without pages
 *     |        |        v         v        v
 *     |        |      ZOMBIE <----+        |                         ZOMBIE: answered, steps in flight
 *     |        |        |                  |
 *     +--------+--------+------------------+----> DONE
 *
 * A fetch that ends badly sends the row back to where it came from, WAIT or PARKED, with its rank. The
 * only writer of state is wk_seq_goto(). A cancel may come in any state.
 */

#include "worker/exec/exec.h"
#include "worker/kv/store.h"
#include "worker/sched/admit.h"

enum wk_seq_state {
    WK_SEQ_WAIT,
    WK_SEQ_FETCH,
    WK_SEQ_RUN,
    WK_SEQ_DRAIN,
    WK_SEQ_PARKED,
    WK_SEQ_ZOMBIE,
    WK_SEQ_DONE,
    WK_SEQ_N_STATES,
};

#define WK_SEQ_NO_SLOT UINT32_MAX

struct wk_follow {   /* of a waiting sequence; follow.h is the only writer */
    bool on, ever;   /* it waits for its leader; it did since it was opened or last admitted */
    uint32_t handle; /* of the leader */
    uint64_t ticket;
    uint32_t page;    /* what it waits for: the leader's page with this index */
    uint32_t n_kv;    /* tokens the cache had when it began to wait for this page */
    uint32_t n_alone; /* and when it began to wait at all */
};

struct wk_seq {
    struct wk_admit_row adm; /* kept true by wk_seq_sync */
    enum wk_seq_state state;
    uint8_t phase;   /* enum wk_phase, while a trace is written */
    uint32_t handle; /* the link's name for it */
    uint32_t slot;
    bool is_new_in_slot; /* no step since it got the slot */
    struct pb_submit *submit;
    uint64_t deadline_us; /* until the first token; 0: none */
    uint32_t deadline_at; /* place in the heap of deadlines */
    struct wk_follow follow;

    uint32_t *ids; /* [cap_ids] */
    uint32_t n_ids, cap_ids;
    uint32_t n_kv, n_kv_done, n_fly_tok, n_fly_steps;
    uint32_t n_kv_most; /* n_kv_done when it last gave its pages back, or more */

    uint32_t *pages; /* [cap_pages] items of T0; those of a fetch are filled in when it has ended */
    uint32_t *nodes; /* [cap_pages] of the tree, n_attached are pinned */
    uint64_t *hashes; /* [cap_pages] chained block hashes at page ends; n_hashes are computed */
    uint32_t n_pages, n_hashes, cap_pages;
    uint32_t n_attached; /* leading pages that are shared through the tree: never written */
    uint32_t n_ready;    /* FETCH: leading ones of these whose bytes are there */
    uint64_t fetch_begin_us, fetch_until_us;
    uint32_t n_fetch_failed;
    struct wk_probe *probe; /* T3 and peers are asked before it joins the queue; else NULL */
    uint32_t epoch;         /* of the tree when it attached */
    uint32_t tail_node,
        n_tail; /* node to copy n_tail tokens from, pinned until that step is committed */
    bool copy_planned;

    /* Models with a state beside rows (hold.h). */
    uint32_t state_item; /* of T0: its own, from admission to release */
    uint32_t snap_node;  /* whose snapshot its state begins as, until that copy is committed */
    bool snap_held;      /* that snapshot is READY and stays */
    uint32_t
        snap_item; /* of T0, taken for that snapshot to come up into; only while it is admitted */
    uint32_t n_known; /* tokens whose rows the cache had when it was admitted */

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
