#pragma once

/*
 * What both backends share of sampling: noise, adjustments of the logits, lists of the most likely.
 *
 * A sampled token is a pure function of (logits, history, seed, position): no state, no batch. The
 * noise of an id is Philox of (seed, position, id), so that vocabulary shards can be merged exactly.
 *
 * Order of one row: ban and bias -> repetition, frequency, presence penalties -> temperature ->
 * top_k -> top_p -> min_p -> argmax of logit / T + Gumbel noise. Greedy (T < 1e-5) stops before the
 * temperature. Sources: Keskar et al. 2019 (repetition), Holtzman et al. 2019 (top_p); the argmax of
 * logits plus Gumbel noise is a draw from their softmax (Gumbel 1954).
 */

#include <math.h>

#include "common/rng.h"
#include "kernels/ops.h"
#include "kernels/ref/math.h"

#define KN_GREEDY_BELOW 1e-5f
#define KN_LOGPROB_MIN  (-9999.0f) /* how -infinity is written: answers hold finite numbers only */

/* Four ids share one Philox block. */
enum { KN_NOISE_IDS = 4 };

static inline void kn_noise_words(uint64_t seed, uint32_t pos, uint32_t block,
                                  uint32_t out[KN_NOISE_IDS])
{
    const uint32_t counter[4] = {block, pos, 0, 0};

    ps_philox(seed, counter, out);
}

/* Uniform in (0, 1], with the full precision of f32 near 0, where the winners are. */
static inline float kn_noise_unit(uint32_t word)
{
    return ((float)word + 0.5f) * 0x1p-32f;
}

/* E = -log(1 - v), an exponential variable; v <= E. */
static inline float kn_noise_exp(float v)
{
    if (v < 0x1p-8f) /* 1 - v would lose v's digits: v + v^2/2 + v^3/3 is exact to 2^-26 here */
        return fmaf(v * v, fmaf(v, 0.33333334f, 0.5f), v);
    return -kn_log(1.0f - v);
}

/* Gumbel noise of one id. */
static inline float kn_noise_gumbel(uint32_t word)
{
    return -kn_log(kn_noise_exp(kn_noise_unit(word)));
}

/* "a comes before b": larger value, then lower id (EX6). */
static inline bool kn_before(float a, uint32_t id_a, float b, uint32_t id_b)
{
    return a > b || (a == b && id_a < id_b);
}

/* Columns that can be sampled. */
static inline uint32_t kn_samp_n_valid(const struct kn_samp *s, uint32_t n_vocab)
{
    return ps_min_u32(s->n_vocab_valid, n_vocab);
}

static inline bool kn_samp_has_penalty(const struct kn_samp *s)
{
    return s->rep_penalty != 1.0f || s->presence_penalty != 0.0f || s->frequency_penalty != 0.0f;
}

/* Bans, bias and penalties on a copy of a row. count: scratch of n_vocab zeros, zero again after. */
void kn_samp_adjust(const struct kn_samp *s, float *row, uint32_t n, uint32_t *count);
/* The n_top largest raw logits into out->top_*, as logits. n_top <= KN_MAX_TOP. */
void kn_samp_top(const float *row, uint32_t n, uint32_t n_top, struct kn_samp_out *out);
/* Turns logits of out (logprob, top) into log-probabilities with the row's log normaliser. */
void kn_samp_finish(struct kn_samp_out *out, float log_z);
/* Log of the sum of exp over a row: maximum plus log of the EX5 sum. *out_bad: the row holds NaN or no finite value. */
float kn_samp_log_z(const float *row, uint32_t n, bool *out_bad);
/* 1 + number of entries strictly above the given one. */
uint32_t kn_samp_rank(const float *row, uint32_t n, uint32_t id);
