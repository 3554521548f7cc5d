#pragma once

/*
 * Builds one step: which rows run, which tokens and pages they get, what they sample.
 *
 * Decode rows (one token to compute) come first and cost no chunk; what they leave of the step goes
 * to prompts (budget.h: how much, prefill.h: to whom). Rows take the pages of their positions by
 * rank; one that gets none sits out. What is known of a row's outcome is advanced here (n_kv, tokens
 * in flight); everything else waits for the commit.
 * Scheduler thread.
 */

#include "worker/sample/sampler.h"
#include "worker/sched/hold.h"
#include "worker/sched/prefill.h"

struct wk_flight { /* a step in flight, in plan order */
    uint64_t ticket;
    uint32_t n; /* rows */
    struct wk_step_load load;
    struct {
        struct wk_seq *q;
        uint32_t pos_lo, pos_hi, flags;
        bool copied;
        uint32_t kept; /* item of T0 that gets the state at pos_hi, or NO_ITEM */
    } * rows;          /* [n_slots] */
};

struct wk_batch {
    struct wk_plan_builder *builder;
    struct wk_store *store;
    struct wk_eos eos;
    struct wk_budget *budget;
    uint32_t *grants; /* [n_slots] scratch: prompt tokens of each admitted row */
    uint32_t page_tokens;
    uint64_t n_missed; /* states that were to be kept, and there was no item */
};

/* NULL when no row can run. The plan is valid until the next call. */
const struct wk_plan *wk_batch_build(struct wk_batch *b, const struct wk_admit *a, uint64_t ticket,
                                     struct wk_flight *out);
