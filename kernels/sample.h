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

/*
 * A Philox block has four words. Ids go to blocks in groups of 64: id 64 g + 16 w + l has word w of block
 * 16 g + l, so that sixteen lanes make the noise of 64 ids in order.
 */
enum { KN_NOISE_WORDS = 4, KN_NOISE_GROUP = KN_NOISE_WORDS * KN_LANES };

static inline uint32_t kn_noise_block(uint32_t id)
{
    return id / KN_NOISE_GROUP * KN_LANES + id % KN_LANES;
}

static inline uint32_t kn_noise_word(uint64_t seed, uint32_t pos, uint32_t id)
{
    const uint32_t counter[4] = {kn_noise_block(id), pos, 0, 0};
    uint32_t out[KN_NOISE_WORDS];

    ps_philox(seed, counter, out);
    return out[id / KN_LANES % KN_NOISE_WORDS];
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

struct kn_cand {
    float z;
    uint32_t id;
};

/* One draw: the best of z plus noise among those that do not rank behind `last`. z has a finite maximum,
 * at `start`. */
struct kn_draw {
    const float *z;
    uint32_t n, start, pos;
    uint64_t seed;
    struct kn_cand last;
};

/* No noise exceeds 22.87: minus the log of the smallest E, 2^-33. */
#define KN_NOISE_MAX 23.0f

/* An id wins only if its noise exceeds need = best - z, that is if E < exp(-need). This much is granted to
 * roundings: of the noise itself, and of sums as large as the best value. */
static inline float kn_draw_slack(float best_v)
{
    return 0.001f + fabsf(best_v) * 0x1p-21f;
}

/* What is not above this cannot win. */
static inline float kn_draw_floor(float best_v)
{
    return best_v - KN_NOISE_MAX - kn_draw_slack(best_v);
}

static inline float kn_draw_value(const struct kn_draw *d, uint32_t id)
{
    return d->z[id] + kn_noise_gumbel(kn_noise_word(d->seed, d->pos, id));
}

static inline void kn_draw_one(const struct kn_draw *d, uint32_t id, uint32_t *best, float *best_v)
{
    float v;

    if (kn_before(d->last.z, d->last.id, d->z[id], id))
        return;
    v = kn_draw_value(d, id);
    if (kn_before(v, id, *best_v, *best)) {
        *best = id;
        *best_v = v;
    }
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
static inline bool kn_samp_is_adjusted(const struct kn_samp *s)
{
    return s->n_ban > 0 || s->n_bias > 0 || kn_samp_has_penalty(s);
}

/* Puts an entry into the list of the `have` largest so far (room for n_top); ids come ascending, and the
 * entry is above the least when the list is full. Returns the new have. */
static inline uint32_t kn_samp_top_add(struct kn_samp_out *out, uint32_t have, uint32_t n_top,
                                       float v, uint32_t id)
{
    uint32_t k = have < n_top ? have++ : have - 1;

    for (; k > 0 && v > out->top_logprob[k - 1]; k--) {
        out->top_id[k] = out->top_id[k - 1];
        out->top_logprob[k] = out->top_logprob[k - 1];
    }
    out->top_id[k] = id;
    out->top_logprob[k] = v;
    return have;
}

/* The n_top largest raw logits into out->top_*, as logits. n_top <= KN_MAX_TOP. */
void kn_samp_top(const float *row, uint32_t n, uint32_t n_top, struct kn_samp_out *out);
/* Turns logits of out (logprob, top) into log-probabilities with the row's log normaliser. */
void kn_samp_finish(struct kn_samp_out *out, float log_z);
/* Log of the sum of exp over a row: maximum plus log of the EX5 sum. *out_bad: the row holds NaN or no finite value. */
float kn_samp_log_z(const float *row, uint32_t n, bool *out_bad);
/* 1 + number of entries strictly above the given one. */
uint32_t kn_samp_rank(const float *row, uint32_t n, uint32_t id);
