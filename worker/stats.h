#pragma once

/*
 * What beats tell of a worker's past: totals since start, and speeds as moving averages.
 * Scheduler thread; plain counters, nothing blocks but one small read of /proc a second.
 */

#include "common/base.h"

struct wk_stats {
    uint64_t prompt_tokens, generated_tokens, cached_tokens, n_preempted, n_finished;
    double step_us, prefill_tok_per_s; /* means; 0: nothing seen yet */
    uint64_t rss_bytes, rss_read_us;
};

/* A step took step_us and held n_prefill prompt tokens. */
void wk_stats_step(struct wk_stats *s, uint32_t step_us, uint32_t n_prefill);
uint64_t wk_stats_rss(struct wk_stats *s, uint64_t now_us);
