#pragma once

/*
 * Builds one step: which rows run, which tokens and pages they get, what they sample.
 *
 * Decode rows (one token to compute) come first and cost no chunk; prompts share `chunk` tokens by
 * rank. Rows take the pages of their positions by rank; one that gets none sits out. What is known
 * of a row's outcome is advanced here (n_kv, tokens in flight); everything else waits for the commit.
 * Scheduler thread.
 */

#include "worker/sample/sampler.h"
#include "worker/sched/hold.h"

struct wk_flight { /* a step in flight, in plan order */
    uint64_t ticket;
    uint32_t n, n_prefill; /* rows; prompt tokens in them */
    struct {
        struct wk_seq *q;
        uint32_t pos_lo, pos_hi, flags;
        bool copied;
    } * rows; /* [n_slots] */
};

struct wk_batch {
    struct wk_plan_builder *builder;
    struct wk_kv_tree *tree;
    struct wk_eos eos;
    uint32_t page_tokens, chunk;
};

/* NULL when no row can run. The plan is valid until the next call. */
const struct wk_plan *wk_batch_build(struct wk_batch *b, const struct wk_admit *a, uint64_t ticket,
                                     struct wk_flight *out);
