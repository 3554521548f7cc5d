/*
 * Sampling at speed: the bits of kernels/ref/sample.c without sorting a vocabulary.
 *
 * Rows are shared out over the compute threads. Only candidates that can matter are looked at: top_p
 * walks sorted slices from the top until the mass is reached; noise is skipped where even the largest
 * possible noise of its random word could not win.
 */

#include <float.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/threads.h"
#include "kernels/fp.h"
#include "kernels/host.h"
#include "kernels/sample.h"

struct cand {
    float z;
    uint32_t id;
};

struct job { /* one call, shared by the threads */
    const float *logits;
    const struct kn_samp *s;
    struct kn_samp_out *out;
    const uint32_t *target; /* score: the given tokens; NULL: sample */
    int32_t n_top;
    uint32_t n, n_vocab, n_valid;
    uint8_t *scratch; /* per thread: row_bytes */
    size_t row_bytes;
    uint32_t n_threads;
};

/* The first slice of top_p: candidates within this of the maximum; it doubles until it is enough. */
#define FIRST_SLICE 6.0f

static int by_rank(const void *a, const void *b)
{
    const struct cand *x = a, *y = b;

    return kn_before(x->z, x->id, y->z, y->id) ? -1 : 1;
}

static uint32_t argmax(const float *v, uint32_t n)
{
    uint32_t i, best = 0;

    for (i = 1; i < n; i++) {
        if (v[i] > v[best])
            best = i;
    }
    return best;
}

/* Least of the heap at the root: the worst of the k best so far. */
static void sift(struct cand *h, uint32_t k, uint32_t at)
{
    for (;;) {
        uint32_t c = 2 * at + 1;
        struct cand t;

        if (c >= k)
            return;
        if (c + 1 < k && kn_before(h[c].z, h[c].id, h[c + 1].z, h[c + 1].id))
            c++;
        if (!kn_before(h[at].z, h[at].id, h[c].z, h[c].id))
            return;
        t = h[at];
        h[at] = h[c];
        h[c] = t;
        at = c;
    }
}

/* The k best of z, sorted; z is finite or -inf, and -inf is never taken. */
static uint32_t take_best(const float *z, uint32_t n, uint32_t k, struct cand *out)
{
    uint32_t i, have = 0;

    for (i = 0; i < n; i++) {
        if (!(z[i] > -INFINITY))
            continue;
        if (have < k) {
            out[have++] = (struct cand){z[i], i};
            if (have == k) {
                for (uint32_t at = k / 2; at-- > 0;)
                    sift(out, k, at);
            }
        } else if (kn_before(z[i], i, out[0].z, out[0].id)) {
            out[0] = (struct cand){z[i], i};
            sift(out, k, 0);
        }
    }
    qsort(out, have, sizeof(*out), by_rank);
    return have;
}

/* Candidates with z > floor (and at or below ceil), sorted. */
static uint32_t take_slice(const float *z, uint32_t n, float floor, float ceil, struct cand *out)
{
    uint32_t i, have = 0;

    for (i = 0; i < n; i++) {
        if (z[i] > floor && z[i] <= ceil)
            out[have++] = (struct cand){z[i], i};
    }
    if (have > 1)
        qsort(out, have, sizeof(*out), by_rank);
    return have;
}

static uint32_t cut_min_p(const struct kn_samp *s, const struct cand *c, uint32_t n, float max)
{
    uint32_t i;

    for (i = 1; i < n && s->min_p > 0.0f; i++) {
        if (kn_exp(c[i].z - max) < s->min_p)
            return i;
    }
    return n;
}

/* Walks sorted candidates from `from` until the mass is reached; returns the new count, *sum goes on. */
static uint32_t walk(const struct cand *c, uint32_t from, uint32_t n, float max, float mass,
                     float *sum, bool *out_done)
{
    uint32_t i;

    for (i = from; i < n; i++) {
        *sum = *sum + kn_exp(c[i].z - max);
        if (*sum >= mass) {
            *out_done = true;
            return i + 1;
        }
    }
    return n;
}

static float mass_of(const float *z, uint32_t n, float max, float top_p)
{
    float lane[KN_LANES] = {0};
    uint32_t i;

    for (i = 0; i < n; i++)
        lane[i % KN_LANES] =
            lane[i % KN_LANES] + kn_exp(z[i] - max); /* exp(-inf) adds 0, as in ref */
    return kn_fold_add(lane) * top_p;
}

/* top_p over everything: slices from the top, each sorted by itself, until the mass is reached. */
static uint32_t nucleus(const struct kn_samp *s, const float *z, uint32_t n, float max,
                        struct cand *c)
{
    float mass = mass_of(z, n, max, s->top_p), sum = 0.0f, ceil = max, width = FIRST_SLICE, floor;
    uint32_t have = 0, k;
    bool done = false;

    while (!done) {
        floor = max - width;
        if (!(floor > -FLT_MAX) || width > 1e9f)
            floor = -INFINITY;
        k = take_slice(z, n, floor, ceil, c + have);
        have = walk(c, have, have + k, max, mass, &sum, &done);
        done = done || !(floor > -INFINITY);
        ceil = floor;
        width *= 2.0f;
    }
    return have;
}

static uint32_t draw_list(const struct kn_samp *s, const struct cand *c, uint32_t n)
{
    uint32_t i, best = UINT32_MAX, word[KN_NOISE_IDS];
    float best_v = -INFINITY, v;

    for (i = 0; i < n; i++) {
        kn_noise_words(s->seed, s->pos, c[i].id / KN_NOISE_IDS, word);
        v = c[i].z + kn_noise_gumbel(word[c[i].id % KN_NOISE_IDS]);
        if (best == UINT32_MAX || kn_before(v, c[i].id, best_v, best)) {
            best = c[i].id;
            best_v = v;
        }
    }
    return best;
}

/*
 * No filter: everybody draws. With need = best - z, an id wins only if its noise exceeds need, that is if
 * E < exp(-need); since v <= E, a random word with v above that (and some slack for rounding) cannot win.
 * No noise exceeds 22.9 = -log of the smallest E.
 */
static uint32_t draw_all(const struct kn_samp *s, const float *z, uint32_t n, uint32_t start)
{
    uint32_t i, best = start, word[KN_NOISE_IDS], block = UINT32_MAX;
    float best_v, v;

    kn_noise_words(s->seed, s->pos, start / KN_NOISE_IDS, word);
    best_v = z[start] + kn_noise_gumbel(word[start % KN_NOISE_IDS]);
    for (i = 0; i < n; i++) {
        float need = best_v - z[i];

        if (!(need < 23.0f)) /* also z = -inf */
            continue;
        if (i / KN_NOISE_IDS != block) {
            block = i / KN_NOISE_IDS;
            kn_noise_words(s->seed, s->pos, block, word);
        }
        if (need > 0.0f && kn_noise_unit(word[i % KN_NOISE_IDS]) > kn_exp(-need) * 1.001f)
            continue;
        v = z[i] + kn_noise_gumbel(word[i % KN_NOISE_IDS]);
        if (kn_before(v, i, best_v, best)) {
            best = i;
            best_v = v;
        }
    }
    return best;
}

/* z: adjusted logits over temperature, -inf for what cannot be taken; best: its argmax. */
static uint32_t pick(const struct kn_samp *s, const float *z, uint32_t n, uint32_t best,
                     struct cand *c)
{
    float max = z[best], sum = 0.0f, floor;
    bool done = false;
    uint32_t k;

    if (s->top_k > 0 && (uint32_t)s->top_k < n) {
        k = take_best(z, n, (uint32_t)s->top_k, c);
        if (s->top_p < 1.0f) {
            float lane[KN_LANES] = {0};
            uint32_t i, j;

            /* The EX5 sum goes by id; a lane's members are few, so each lane picks its own in order. */
            struct cand *ids = c + k;

            memcpy(ids, c, k * sizeof(*c));
            for (i = 1; i < k; i++) { /* insertion by id: k is small, or this is not the hot path */
                struct cand t = ids[i];

                for (j = i; j > 0 && ids[j - 1].id > t.id; j--)
                    ids[j] = ids[j - 1];
                ids[j] = t;
            }
            for (i = 0; i < k; i++)
                lane[ids[i].id % KN_LANES] = lane[ids[i].id % KN_LANES] + kn_exp(ids[i].z - max);
            k = walk(c, 0, k, max, kn_fold_add(lane) * s->top_p, &sum, &done);
        }
        return draw_list(s, c, cut_min_p(s, c, k, max));
    }
    if (s->top_p < 1.0f) {
        k = nucleus(s, z, n, max, c);
        return draw_list(s, c, cut_min_p(s, c, k, max));
    }
    if (s->min_p > 0.0f) {
        floor = max + kn_log(s->min_p) -
                0.01f; /* a little below the cut, which cut_min_p makes exactly */
        k = take_slice(z, n, floor, INFINITY, c);
        return draw_list(s, c, cut_min_p(s, c, k, max));
    }
    return draw_all(s, z, n, best);
}

static void describe(const float *logits, uint32_t n, int32_t n_top, uint32_t token, float log_z,
                     struct kn_samp_out *out)
{
    /* A token outside the sampled vocabulary has no probability. */
    out->logprob = token < n ? logits[token] : -INFINITY;
    out->rank = token < n ? kn_samp_rank(logits, n, token) : n + 1;
    kn_samp_top(logits, n, n_top > 0 ? (uint32_t)n_top : 0, out);
    kn_samp_finish(out, log_z);
}

static bool all_numbers(const float *v, uint32_t n)
{
    float max = -INFINITY;
    bool bad = false;
    uint32_t i;

    for (i = 0; i < n; i++) {
        bad |= v[i] != v[i];
        max = kn_max(v[i], max);
    }
    return !bad && max < INFINITY && max > -INFINITY;
}

static void sample_row(const float *logits, uint32_t n, const struct kn_samp *s,
                       struct kn_samp_out *out, float *z, uint32_t *count, struct cand *c)
{
    bool greedy = s->temperature < KN_GREEDY_BELOW, bad = false;
    float log_z = 0.0f;
    uint32_t i, best;

    *out = (struct kn_samp_out){.fault = 1};
    if (s->n_top >= 0)
        log_z = kn_samp_log_z(logits, n, &bad);
    else
        bad = !all_numbers(logits, n);
    if (bad)
        return;
    memcpy(z, logits, n * sizeof(*z));
    kn_samp_adjust(s, z, n, count);
    if (!greedy) {
        for (i = 0; i < n; i++)
            z[i] = z[i] / s->temperature;
    }
    best = argmax(z, n);
    if (!(z[best] > -INFINITY))
        return;
    out->token = greedy ? best : pick(s, z, n, best, c);
    out->fault = 0;
    if (s->n_top >= 0)
        describe(logits, n, s->n_top, out->token, log_z, out);
}

static void score_row(const struct job *j, uint32_t i)
{
    const float *row = j->logits + (size_t)i * j->n_vocab;
    bool bad;
    float log_z = kn_samp_log_z(row, j->n_valid, &bad);

    j->out[i] = (struct kn_samp_out){.token = j->target[i], .fault = bad};
    if (!bad)
        describe(row, j->n_valid, j->n_top, j->target[i], log_z, &j->out[i]);
}

static void run(void *ud, uint32_t tid)
{
    const struct job *j = ud;
    /* Candidates twice: the second half is scratch of top_k with top_p. */
    struct cand *c = (struct cand *)(void *)(j->scratch + tid * j->row_bytes);
    float *z = (float *)(void *)(c + 2 * (size_t)j->n_vocab);
    uint32_t *count = (uint32_t *)(void *)(z + j->n_vocab), i;

    if (j->target == NULL)
        memset(count, 0, j->n_vocab * sizeof(*count));
    for (i = tid; i < j->n; i += j->n_threads) {
        if (j->target != NULL)
            score_row(j, i);
        else
            sample_row(j->logits + (size_t)i * j->n_vocab, kn_samp_n_valid(&j->s[i], j->n_vocab),
                       &j->s[i], &j->out[i], z, count, c);
    }
}

static int run_job(struct kn_dev *d, struct job *j)
{
    uint32_t old = kn_fp_enter();

    j->n_threads = kn_pool_size(d->pool);
    j->row_bytes = j->n_vocab * (2 * sizeof(struct cand) + sizeof(float) + sizeof(uint32_t));
    j->row_bytes = (j->row_bytes + PS_CACHE_LINE - 1) / PS_CACHE_LINE * PS_CACHE_LINE;
    j->scratch = kn_host_scratch(d, j->row_bytes * j->n_threads);
    if (j->n < 2) {
        j->n_threads = 1;
        run(j, 0);
    } else {
        kn_pool_run(d->pool, run, j);
    }
    kn_fp_leave(old);
    return 0;
}

int kn_cpu_sample(struct kn_dev *d, const float *logits, uint32_t n, uint32_t n_vocab,
                  const struct kn_samp *s, struct kn_samp_out *out)
{
    struct job j = {.logits = logits, .s = s, .out = out, .n = n, .n_vocab = n_vocab};

    return run_job(d, &j);
}

int kn_cpu_score(struct kn_dev *d, const float *logits, uint32_t n, uint32_t n_vocab,
                 uint32_t n_vocab_valid, const uint32_t *target, int32_t n_top,
                 struct kn_samp_out *out)
{
    struct job j = {.logits = logits,
                    .target = target,
                    .n_top = n_top,
                    .out = out,
                    .n = n,
                    .n_vocab = n_vocab,
                    .n_valid = ps_min_u32(n_vocab, n_vocab_valid)};

    return run_job(d, &j);
}
