#pragma once

/*
 * What the scheduler's files share: intake.c (requests come and go), step.c (commit, relieve, admit,
 * plan), sched.c (the tick). One thread owns all of it; nobody outside worker/sched includes this.
 */

#include "worker/sched/batch.h"
#include "worker/sched/deadline.h"
#include "worker/sched/outq.h"
#include "worker/sched/sched.h"
#include "worker/stats.h"
#include "worker/trace.h"

enum { WK_SCHED_DEPTH_MAX = 2 };

struct wk_sched {
    struct wk_sched_conf conf;
    uint32_t page_tokens, pool_tokens;
    uint64_t next_request, next_step; /* tickets of requests; of steps */

    struct wk_store *store; /* the caller's */
    struct wk_admit admit;
    struct wk_budget budget;
    struct wk_batch batch;
    struct wk_limbo limbo;
    struct wk_flight flights[WK_SCHED_DEPTH_MAX]; /* ring */
    uint32_t first_flight, n_flights;
    uint32_t *scratch; /* [pages of the pool] */

    struct wk_seq **by_handle; /* [n_handles]; NULL: answered, or never opened */
    uint32_t n_handles;
    struct wk_seq *
        *retiring; /* [n_slots] DRAIN and ZOMBIE: steps in flight still name their pages */
    uint32_t n_retiring;
    uint32_t *free_slots;
    uint32_t n_free_slots;
    uint32_t n_fetching;     /* admitted rows in FETCH */
    struct wk_seq **probing; /* [n_probing] WAIT, not queued yet: T3 and peers are being asked */
    uint32_t n_probing, cap_probing;
    uint32_t n_live; /* sequences in any state but DONE */
    struct wk_deadlines deadlines;

    struct wk_outq outq;
    uint64_t n_emitted; /* outq.n_pushed at the last STEP_END */
    bool draining, drained_told;
    uint64_t tick;
    uint64_t kv_told_us;        /* when the tiers were last told of */
    uint32_t tick_us, store_us; /* for the trace: longest turns since its last step */
    struct wk_stats stats;
    struct pb_load load; /* as told last */
};

static inline void wk_sched_phase(const struct wk_sched *s, struct wk_seq *q, enum wk_phase to)
{
    if (s->conf.trace != NULL)
        wk_trace_phase(s->conf.trace, q->adm.ticket, &q->phase, to);
}

/* intake.c */
void wk_intake_drain(struct wk_sched *s); /* the inbox */
void wk_intake_deadlines(struct wk_sched *s);
void wk_intake_probed(struct wk_sched *s); /* whose question is answered joins the queue */
/* The sequence has its answer. It lives on as a zombie while steps in flight name it. */
void wk_intake_finish(struct wk_sched *s, struct wk_seq *q, enum pb_finish why,
                      uint32_t matched_id);

void wk_intake_forget(struct wk_sched *s, struct wk_seq *q); /* it is done: frees it */

/* tell.c */
void wk_tell_kv(struct wk_sched *s); /* what the tiers did; not at every tick */

/* step.c */
PS_MUST int wk_step_commit_all(struct wk_sched *s);
void wk_step_fetched(struct wk_sched *s); /* rows whose pages have come run; those in vain return */
uint32_t wk_sched_n_avail(const struct wk_sched *s); /* items of T0, free or idle */
PS_MUST int wk_step_fill(struct wk_sched *s); /* relieve, admit, plan, enqueue, up to the depth */
/* Gives back pages and slot; the sequence is in no step in flight. */
void wk_step_release(struct wk_sched *s, struct wk_seq *q);
void wk_step_end_retiring(struct wk_sched *s,
                          struct wk_seq *q); /* the same, for DRAIN and ZOMBIE */
