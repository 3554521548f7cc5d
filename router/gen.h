#pragma once

/*
 * A generation: one prompt, one choice, one stream of tokens, whatever happens to workers meanwhile.
 *
 * The API layer starts it with everything decided (ids, sampling, limits) and hears tokens in order
 * and then one end. Behind this header: the queue, placement, dispatch, acceptance, moves after a
 * worker's death with the tokens already emitted, cancellation. Belongs to one loop thread.
 *
 * Invariants
 *   G1 on_tokens is called with `first` equal to the number of tokens heard so far; then exactly one
 *      of on_finished and on_failed; after rt_gen_cancel nothing.
 *   G2 the tokens of a moved generation equal those of an unbroken run.
 *   G3 every generation is queued, sent, or dead; queue length and bytes are bounded.
 *   G4 inside a callback a sink may cancel the generation it hears of (on_tokens), and no other one.
 */

#include "common/base.h"
#include "proto/submit.h"
#include "router/fail.h"

struct rt_loop;
struct rt_gen;

struct rt_gen_spec {
    const uint32_t *ids; /* copied */
    uint32_t n_prompt;
    uint32_t max_tokens, min_tokens; /* PB_NO_LIMIT: up to the context */
    bool ignore_eos;
    const uint32_t *stop_ids, *bias_ids;
    const float *bias;
    uint32_t n_stop_ids, n_bias;
    struct pb_sampling samp;
    uint64_t salt;     /* tenant salt and body salt; 0 when neither */
    uint64_t affinity; /* hash of the session key, 0 none: a hint */
    int32_t priority;
    const uint32_t *cuts;
    uint32_t n_cuts;
};

struct rt_gen_end {
    enum pb_finish finish;
    uint32_t matched_id; /* EOS or stop id */
    uint32_t n_total;    /* tokens of the answer */
    /* prompt tokens found in a cache (first attempt that finished its prefill) */
    uint32_t n_cached;
    uint32_t n_prompt_scores;
    const struct pb_logprob *prompt_scores; /* valid during the call */
    uint64_t queued_us;                     /* from start to the first dispatch */
};

struct rt_gen_sink {
    void (*on_tokens)(struct rt_gen *g, uint32_t first, uint32_t n, const uint32_t *ids,
                      const struct pb_logprob *logprobs, void *ud);
    void (*on_finished)(struct rt_gen *g, const struct rt_gen_end *e, void *ud);
    void (*on_failed)(struct rt_gen *g, const struct rt_fail *f, void *ud);
};

/*
 * Starts (queues) a generation. NULL with *f filled when it is refused at once: queue full (E27), no
 * worker (E31), draining (E37). Callbacks never run inside this call.
 */
struct rt_gen *rt_gen_start(struct rt_loop *l, const struct rt_gen_spec *spec,
                            const struct rt_gen_sink *sink, void *ud, struct rt_fail *f);
/* The client went away, or a stop string matched: the worker is told; g is dead after this. */
void rt_gen_cancel(struct rt_gen *g);
