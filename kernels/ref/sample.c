/*
 * Sampling in defined order, the plain way: everything is sorted, everybody gets noise.
 */

#include <stdlib.h>
#include <string.h>

#include "kernels/fp.h"
#include "kernels/host.h"
#include "kernels/ref/ref.h"
#include "kernels/sample.h"

static int by_rank(const void *a, const void *b)
{
    const struct kn_cand *x = a, *y = b;

    return kn_before(x->z, x->id, y->z, y->id) ? -1 : 1;
}

/* How many of the sorted candidates survive top_k, top_p and min_p. by_id: scratch of n_vocab floats. */
static uint32_t filter(const struct kn_samp *s, struct kn_cand *c, uint32_t n, float *by_id,
                       uint32_t n_vocab)
{
    float lane[KN_LANES] = {0}, total, sum = 0.0f, max = c[0].z;
    uint32_t i;

    if (s->top_k > 0 && (uint32_t)s->top_k < n)
        n = (uint32_t)s->top_k;
    if (s->top_p < 1.0f) {
        /* The normaliser is an EX5 sum by id, so that a vocabulary shard can make its own part. Candidates
         * of one lane come in id order only when sorted so: hence the copy of the values by id. */
        for (i = 0; i < n_vocab; i++)
            by_id[i] = 0.0f;
        for (i = 0; i < n; i++)
            by_id[c[i].id] = kn_exp(c[i].z - max);
        for (i = 0; i < n_vocab; i++)
            lane[i % KN_LANES] = lane[i % KN_LANES] + by_id[i];
        total = kn_fold_add(lane) * s->top_p;
        for (i = 0; i < n; i++) {
            sum = sum + kn_exp(c[i].z - max);
            if (sum >= total) {
                n = i + 1;
                break;
            }
        }
    }
    for (i = 1; i < n && s->min_p > 0.0f; i++) {
        if (kn_exp(c[i].z - max) < s->min_p)
            n = i;
    }
    return n;
}

static uint32_t draw(const struct kn_samp *s, const struct kn_cand *c, uint32_t n)
{
    uint32_t i, best = UINT32_MAX;
    float best_v = -INFINITY, v;

    for (i = 0; i < n; i++) {
        v = c[i].z + kn_noise_gumbel(kn_noise_word(s->seed, s->pos, c[i].id));
        if (best == UINT32_MAX || kn_before(v, c[i].id, best_v, best)) {
            best = c[i].id;
            best_v = v;
        }
    }
    return best;
}

static void sample_row(const float *logits, uint32_t n, const struct kn_samp *s,
                       struct kn_samp_out *out, float *row, uint32_t *count, struct kn_cand *c)
{
    uint32_t i, n_cand = 0;
    bool bad;
    float log_z = kn_samp_log_z(logits, n, &bad);

    *out = (struct kn_samp_out){.fault = 1};
    if (bad)
        return;
    memcpy(row, logits, n * sizeof(*row));
    kn_samp_adjust(s, row, n, count);
    for (i = 0; i < n; i++) {
        float z = s->temperature < KN_GREEDY_BELOW ? row[i] : row[i] / s->temperature;

        if (z > -INFINITY)
            c[n_cand++] = (struct kn_cand){z, i};
    }
    if (n_cand == 0)
        return;
    qsort(c, n_cand, sizeof(*c), by_rank);
    if (!(c[0].z < INFINITY)) /* a penalty or a tiny temperature left the numbers */
        return;
    out->token =
        s->temperature < KN_GREEDY_BELOW ? c[0].id : draw(s, c, filter(s, c, n_cand, row, n));
    out->fault = 0;
    if (s->n_top >= 0) {
        out->logprob = logits[out->token];
        out->rank = kn_samp_rank(logits, n, out->token);
        kn_samp_top(logits, n, (uint32_t)s->n_top, out);
        kn_samp_finish(out, log_z);
    }
}

int kn_ref_sample(struct kn_dev *d, const float *logits, uint32_t n, uint32_t n_vocab,
                  const struct kn_samp *s, struct kn_samp_out *out)
{
    uint8_t *mem =
        kn_host_scratch(d, n_vocab * (sizeof(float) + sizeof(uint32_t) + sizeof(struct kn_cand)));
    struct kn_cand *c = (struct kn_cand *)(void *)mem;
    float *row = (float *)(void *)(c + n_vocab);
    uint32_t *count = (uint32_t *)(void *)(row + n_vocab), old = kn_fp_enter(), i;

    memset(count, 0, n_vocab * sizeof(*count));
    for (i = 0; i < n; i++)
        sample_row(logits + (size_t)i * n_vocab, kn_samp_n_valid(&s[i], n_vocab), &s[i], &out[i],
                   row, count, c);
    kn_fp_leave(old);
    return 0;
}

int kn_ref_score(struct kn_dev *d, const float *logits, uint32_t n, uint32_t n_vocab,
                 uint32_t n_vocab_valid, const uint32_t *target, int32_t n_top,
                 struct kn_samp_out *out)
{
    uint32_t old = kn_fp_enter(), i, n_valid = ps_min_u32(n_vocab, n_vocab_valid);

    (void)d;
    for (i = 0; i < n; i++) {
        const float *row = logits + (size_t)i * n_vocab;
        bool bad;
        float log_z = kn_samp_log_z(row, n_valid, &bad);

        out[i] = (struct kn_samp_out){.token = target[i], .fault = bad};
        if (bad)
            continue;
        /* A token outside the sampled vocabulary has no probability. */
        out[i].logprob = target[i] < n_valid ? row[target[i]] : -INFINITY;
        out[i].rank = target[i] < n_valid ? kn_samp_rank(row, n_valid, target[i]) : n_valid + 1;
        kn_samp_top(row, n_valid, n_top > 0 ? (uint32_t)n_top : 0, &out[i]);
        kn_samp_finish(&out[i], log_z);
    }
    kn_fp_leave(old);
    return 0;
}
