#pragma once

/*
 * What beats tell of a worker's past: totals since start, and speeds as moving averages.
 * Scheduler thread; plain counters, nothing blocks but one small read of /proc a second.
 */

#include "common/base.h"

struct wk_stats {
    uint64_t prompt_tokens, generated_tokens, cached_tokens, n_preempted, n_finished;
    uint64_t resume_tokens;   /* computed again, after a suspension */
    uint64_t followed_tokens; /* of the cached: waited for while another row computed them */
    /* Models with a state: snapshots of it that were published. */
    uint64_t n_snapshots;
    double step_us, prefill_tok_per_s; /* means; 0: nothing seen yet */
    double left_gap_us;                /* between two requests that left while others waited */
    uint64_t left_us;                  /* the last of them; 0: nobody waited since */
    uint64_t rss_bytes, rss_read_us;
};

/* A step took step_us and held n_prefill prompt tokens. */
void wk_stats_step(struct wk_stats *s, uint32_t step_us, uint32_t n_prefill);
/* A request left; others wait for its room. */
void wk_stats_left(struct wk_stats *s, uint64_t now_us, bool others_wait);
/* Until one behind n_waiting requests with n_prefill prompt tokens has its first token; 0: unknown. */
uint32_t wk_stats_wait_ms(const struct wk_stats *s, uint64_t n_waiting, uint64_t n_prefill);
uint64_t wk_stats_rss(struct wk_stats *s, uint64_t now_us);
