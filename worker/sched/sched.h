#pragma once

/*
 * The scheduler: continuous batching over one executor, fed and read through the link.
 *
 * A tick is: drain the inbox -> poll and commit every finished step -> let the KV store move pages ->
 * relieve -> admit -> plan -> enqueue -> emit. It never blocks; between ticks its thread sleeps on the inbox wake, the executor's
 * descriptor and a timer.
 *
 * Invariants
 *   1 commit, in ticket order, is the only place that advances length, publishes pages, emits tokens
 *     and lets go of what steps named (P1, P2 of exec.h).
 *   2 every opened handle is answered exactly once: FINISHED or REJECTED.
 *   3 what a request gets never depends on who else runs, on chunks, or on what is cached.
 *   4 while the link's ring is full no new step begins, so what waits for it is bounded by one step.
 *   5 an idle worker holds no page but evictable ones.
 */

#include "worker/kv/store.h"
#include "worker/link.h"
#include "worker/sample/sampler.h"

struct wk_sched;

struct wk_sched_conf {
    const struct ps_clock *clock;
    struct wk_port port;    /* to the link, or what stands in for it */
    struct wk_exec *exec;   /* stays the caller's; not destroyed here */
    struct wk_store *store; /* the same */
    const struct wk_kv_layout *layout;
    struct wk_trace *trace; /* NULL: none */
    struct wk_eos eos;
    uint32_t context;     /* tokens of prompt and answer together */
    uint32_t chunk;       /* prompt tokens of a step, at most */
    uint64_t itl_us;      /* inter-token objective of budget.h; 0: every step may take the chunk */
    uint32_t reserve;     /* W of admit.h */
    uint32_t max_waiting; /* requests beyond free rows; more are rejected PB_REJ_FULL */
};

struct wk_sched *wk_sched_create(const struct wk_sched_conf *conf);
/* Also in mid-work: nothing is answered then, and nobody may take items of T0 until the executor has
 * ended what it was given. */
void wk_sched_destroy(struct wk_sched *s); /* NULL is fine */
/* Negative: the executor is finished (P6), and so is the worker; no verb but destroy may follow.
 * out_wait_ms: how long nothing but a wake needs another tick. */
PS_MUST int wk_sched_tick(struct wk_sched *s, uint32_t *out_wait_ms);
void wk_sched_drain(struct wk_sched *s, bool on); /* takes nothing new; what is here finishes */
bool wk_sched_is_idle(const struct wk_sched *s);  /* nothing runs, waits, or is left to emit */
void wk_sched_load(struct wk_sched *s, struct pb_load *out);
