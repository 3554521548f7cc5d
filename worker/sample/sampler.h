#pragma once

/*
 * What one row's sampling needs, and when an answer ends.
 *
 * A token is a pure function of (logits, history, seed, position). This file turns a request and the
 * tokens known so far into the plain data of a plan (wk_samp), and decides after each token whether
 * the answer is over. Nothing here knows of batches, chunks, caches or attempts: a stream that moved
 * here with tokens already emitted is filled exactly as if they had been sampled here.
 * Scheduler thread; nothing blocks.
 */

#include "worker/exec/exec.h"

struct wk_eos { /* ids that end an answer unless the request says ignore_eos */
    const uint32_t *ids;
    uint32_t n;
};

/* True when the tokens so far change the next one: the row cannot be planned before they are known. */
bool wk_sample_needs_history(const struct pb_sampling *p);
/*
 * ids [n_known]: prompt, then answer. pos: of the token to sample; a row in the middle of a prompt
 * gives its end (< n_known), one whose last token is in flight a greater one than n_known, which
 * excludes penalties. next: PROMPT_SCORES, the n_next ids that follow the row's positions (UINT32_MAX
 * is added behind them), else NULL. Returns the index for wk_row.samp.
 */
uint32_t wk_sample_add(struct wk_plan_builder *b, const struct pb_submit *s,
                       const struct wk_eos *eos, const uint32_t *ids, uint32_t n_known,
                       uint32_t pos, const uint32_t *next, uint32_t n_next);
/* Why the answer ends with its n_out-th token (>= 1), or 0. len_max: prompt + answer can be no longer. */
int wk_sample_stop(const struct pb_submit *s, const struct wk_eos *eos, uint32_t token,
                   uint32_t n_out, uint32_t len_max);
