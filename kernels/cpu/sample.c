/*
 * Sampling at speed: the bits of kernels/ref/sample.c without sorting a vocabulary.
 *
 * Rows are shared out over the compute threads. A filter (top_k, top_p, min_p) is reduced to its last
 * survivor: only as many candidates are sorted as it takes to find that one, in slices from the top.
 * Then one pass over the row draws among all that do not rank behind it, and makes noise only where
 * a candidate could still win.
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

struct job { /* one call, shared by the threads */
    const struct kn_samp_isa *isa;
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

struct bench { /* one thread's tools, each with room for a vocabulary */
    const struct kn_samp_isa *isa;
    struct kn_cand *c, *spare;
    float *z;
    uint32_t *count; /* [n_vocab] zeros when counted is set */
    uint32_t n_vocab;
    bool counted;
};

/* The first slice of top_p: candidates within this of the maximum; it doubles until it is enough, up to a
 * distance at which nothing weighs anything. */
#define FIRST_SLICE 2.0f
#define LAST_SLICE  32.0f

/* A slice of more than this is worth a few more looks at the row, each of which halves its width. */
enum { SLICE_MANY = 4096, SLICE_HALVINGS = 4 };

/* From here on sorting by digits is faster than by comparison. */
enum { RADIX_MIN = 256, RADIX_BITS = 8, RADIX = 1 << RADIX_BITS };

static int by_rank(const void *a, const void *b)
{
    const struct kn_cand *x = a, *y = b;

    return kn_before(x->z, x->id, y->z, y->id) ? -1 : 1;
}

static int by_id(const void *a, const void *b)
{
    const struct kn_cand *x = a, *y = b;

    return x->id < y->id ? -1 : 1;
}

/* Ascending where z descends. Zeros of both signs and denormals are equal, as comparisons have it. */
static uint32_t digits_of(float z)
{
    uint32_t u = kn_f32_bits(z + 0.0f);

    return u >> 31 ? u : ~u & 0x7fffffffu;
}

/* Sorts by rank; c comes by ascending id. spare: room for n. */
static void sort(struct kn_cand *c, struct kn_cand *spare, uint32_t n)
{
    if (n < RADIX_MIN) {
        if (n > 1)
            qsort(c, n, sizeof(*c), by_rank);
        return;
    }
    for (uint32_t shift = 0; shift < 32; shift += RADIX_BITS) { /* stable: equal ones stay by id */
        uint32_t at[RADIX] = {0}, i, sum = 0, k;
        struct kn_cand *t = c;

        for (i = 0; i < n; i++)
            at[digits_of(c[i].z) >> shift & (RADIX - 1)]++;
        for (i = 0; i < RADIX; i++) {
            k = at[i];
            at[i] = sum;
            sum += k;
        }
        for (i = 0; i < n; i++)
            spare[at[digits_of(c[i].z) >> shift & (RADIX - 1)]++] = c[i];
        c = spare;
        spare = t;
    } /* an even number of passes: the result is in c again */
}

/* Least of the heap at the root: the worst of the k best so far. */
static void sift(struct kn_cand *h, uint32_t k, uint32_t at)
{
    for (;;) {
        uint32_t c = 2 * at + 1;
        struct kn_cand t;

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

/* The k best of z above -infinity, by ascending id. */
static uint32_t take_best(const struct bench *b, const float *z, uint32_t n, uint32_t k)
{
    uint32_t i = 0, have = 0;

    while ((i = b->isa->next_above(z, i, n, have < k ? -INFINITY : b->c[0].z)) < n) {
        if (have < k) {
            b->c[have++] = (struct kn_cand){z[i], i};
            if (have == k) {
                for (uint32_t at = k / 2; at-- > 0;)
                    sift(b->c, k, at);
            }
        } else { /* an equal one with a higher id ranks behind the root */
            b->c[0] = (struct kn_cand){z[i], i};
            sift(b->c, k, 0);
        }
        i++;
    }
    qsort(b->c, have, sizeof(*b->c), by_id);
    return have;
}

/* Candidates with floor < z <= ceil, sorted, behind the first `have`; returns the new have. */
static uint32_t take_slice(const struct bench *b, const float *z, uint32_t n, float floor,
                           float ceil, uint32_t have)
{
    uint32_t first = have, i = 0;

    while ((i = b->isa->next_above(z, i, n, floor)) < n) {
        if (z[i] <= ceil)
            b->c[have++] = (struct kn_cand){z[i], i};
        i++;
    }
    sort(b->c + first, b->spare, have - first);
    return have;
}

static uint32_t cut_min_p(const struct kn_samp *s, const struct kn_cand *c, uint32_t n, float max)
{
    uint32_t i;

    for (i = 1; i < n && s->min_p > 0.0f; i++) {
        if (kn_exp(c[i].z - max) < s->min_p)
            return i;
    }
    return n;
}

/* Width of a slice from the top that holds the mass, and not much more. */
static float find_width(const struct bench *b, const float *z, uint32_t n, float max, float mass)
{
    float lo = 0.0f, hi = FIRST_SLICE, mid;
    int i;

    mass = mass * 1.0001f; /* sums of another order differ by less */
    while (hi < LAST_SLICE && b->isa->mass_above(z, n, max, max - hi) < mass) {
        lo = hi;
        hi *= 2.0f;
    }
    for (i = 0; i < SLICE_HALVINGS && b->isa->count_above(z, n, max - hi) > SLICE_MANY; i++) {
        mid = 0.5f * (lo + hi);
        if (b->isa->mass_above(z, n, max, max - mid) < mass)
            lo = mid;
        else
            hi = mid;
    }
    return hi;
}

/* top_p over everything: slices from the top, each sorted by itself, until the mass is reached. */
static uint32_t cut_top_p(const struct bench *b, const struct kn_samp *s, const float *z,
                          uint32_t n, float max)
{
    float mass = b->isa->sum_exp(z, n, max) * s->top_p, sum = 0.0f, ceil = max, floor;
    float width = find_width(b, z, n, max, mass);
    uint32_t have = 0, done = 0;

    do {
        floor = max - width;
        if (!(floor > -FLT_MAX) || width > 1e9f)
            floor = -INFINITY;
        have = take_slice(b, z, n, floor, ceil, have);
        done = b->isa->walk(b->c, done, have, max, mass, &sum);
        ceil = floor;
        width *= 2.0f;
    } while (!(sum >= mass) && floor > -INFINITY);
    return done;
}

/* top_k, and of those top_p: the normaliser is an EX5 sum by id. */
static uint32_t cut_top_k(const struct bench *b, const struct kn_samp *s, const float *z,
                          uint32_t n, float max)
{
    uint32_t k = take_best(b, z, n, (uint32_t)s->top_k), i;
    float lane[KN_LANES] = {0}, sum = 0.0f;

    for (i = 0; i < k && s->top_p < 1.0f; i++)
        lane[b->c[i].id % KN_LANES] = lane[b->c[i].id % KN_LANES] + kn_exp(b->c[i].z - max);
    sort(b->c, b->spare, k);
    return s->top_p < 1.0f ? b->isa->walk(b->c, 0, k, max, kn_fold_add(lane) * s->top_p, &sum) : k;
}

/* z: adjusted logits over temperature, with a finite maximum, at best. */
static uint32_t pick(const struct bench *b, const struct kn_samp *s, const float *z, uint32_t n,
                     float max, uint32_t best)
{
    struct kn_draw d = {.z = z,
                        .n = n,
                        .start = best,
                        .pos = s->pos,
                        .seed = s->seed,
                        .last = {-INFINITY, UINT32_MAX}};
    uint32_t k;

    if (s->top_k > 0 && (uint32_t)s->top_k < n)
        k = cut_top_k(b, s, z, n, max);
    else if (s->top_p < 1.0f)
        k = cut_top_p(b, s, z, n, max);
    else if (s->min_p > 0.0f) /* a little below the cut, which cut_min_p makes exactly */
        k = take_slice(b, z, n,
                       max + kn_log(s->min_p < 1.0f ? s->min_p : 1.0f) - 0.01f -
                           fabsf(max) * 0x1p-21f,
                       max, 0);
    else
        return b->isa->draw(&d);
    PS_ASSERT(k > 0);
    d.last = b->c[cut_min_p(s, b->c, k, max) - 1];
    return b->isa->draw(&d);
}

static void describe(const struct kn_samp_isa *isa, const float *row, uint32_t n, float max,
                     int32_t n_top, uint32_t token, struct kn_samp_out *out)
{
    uint32_t top = n_top > 0 ? (uint32_t)n_top : 0, have = 0, i = 0;

    PS_ASSERT(top <= KN_MAX_TOP);
    /* A token outside the sampled vocabulary has no probability. */
    out->logprob = token < n ? row[token] : -INFINITY;
    out->rank = token < n ? 1 + isa->count_above(row, n, row[token]) : n + 1;
    while (top > 0 && i < n) {
        if (have == top && (i = isa->next_above(row, i, n, out->top_logprob[have - 1])) == n)
            break;
        have = kn_samp_top_add(out, have, top, row[i], i);
        i++;
    }
    out->n_top = have;
    kn_samp_finish(out, max + kn_log(isa->sum_exp(row, n, max)));
}

/* The row's maximum; false when it holds NaN or no finite number. */
static bool is_sane(const struct kn_samp_isa *isa, const float *row, uint32_t n, float *out_max)
{
    bool nan;

    *out_max = isa->max(row, n, &nan);
    return !nan && *out_max<INFINITY && * out_max> - INFINITY;
}

static void sample_row(struct bench *b, const float *logits, uint32_t n, const struct kn_samp *s,
                       struct kn_samp_out *out)
{
    bool greedy = s->temperature < KN_GREEDY_BELOW, adjusted = kn_samp_is_adjusted(s), nan;
    const float *z = logits;
    float raw_max, max;
    uint32_t best;

    *out = (struct kn_samp_out){.fault = 1};
    if (!is_sane(b->isa, logits, n, &raw_max))
        return;
    max = raw_max;
    if (adjusted) {
        if (!b->counted && kn_samp_has_penalty(s)) {
            memset(b->count, 0, b->n_vocab * sizeof(*b->count));
            b->counted = true;
        }
        memcpy(b->z, logits, n * sizeof(*z));
        kn_samp_adjust(s, b->z, n, b->count);
        z = b->z;
        max = b->isa->max(z, n, &nan);
    }
    if (!greedy) {
        b->isa->divide(b->z, z, n, s->temperature);
        z = b->z;
        max = max / s->temperature;
    }
    if (!(max < INFINITY && max > -INFINITY))
        return;
    best = b->isa->find(z, n, max);
    out->token = greedy ? best : pick(b, s, z, n, max, best);
    out->fault = 0;
    if (s->n_top >= 0)
        describe(b->isa, logits, n, raw_max, s->n_top, out->token, out);
}

static void score_row(const struct job *j, uint32_t i)
{
    const float *row = j->logits + (size_t)i * j->n_vocab;
    float max;

    j->out[i] = (struct kn_samp_out){.token = j->target[i]};
    if (is_sane(j->isa, row, j->n_valid, &max))
        describe(j->isa, row, j->n_valid, max, j->n_top, j->target[i], &j->out[i]);
    else
        j->out[i].fault = 1;
}

static void run(void *ud, uint32_t tid)
{
    const struct job *j = ud;
    struct kn_cand *c = (struct kn_cand *)(void *)(j->scratch + tid * j->row_bytes);
    float *z = (float *)(void *)(c + 2 * (size_t)j->n_vocab);
    struct bench b = {.isa = j->isa,
                      .c = c,
                      .spare = c + j->n_vocab,
                      .z = z,
                      .n_vocab = j->n_vocab,
                      .count = (uint32_t *)(void *)(z + j->n_vocab)};

    for (uint32_t i = tid; i < j->n; i += j->n_threads) {
        if (j->target != NULL)
            score_row(j, i);
        else
            sample_row(&b, j->logits + (size_t)i * j->n_vocab,
                       kn_samp_n_valid(&j->s[i], j->n_vocab), &j->s[i], &j->out[i]);
    }
}

static int run_job(struct kn_dev *d, struct job *j)
{
    uint32_t old = kn_fp_enter();

    j->isa = d->isa->samp;
    j->n_threads = kn_pool_size(d->pool);
    j->row_bytes = j->n_vocab * (2 * sizeof(struct kn_cand) + sizeof(float) + sizeof(uint32_t));
    j->row_bytes = (j->row_bytes + PS_CACHE_LINE - 1) / PS_CACHE_LINE * PS_CACHE_LINE;
    j->scratch = kn_host_scratch(d, j->row_bytes * j->n_threads);
    if (j->n < 2) {
        j->n_threads = 1;
        run(j, 0);
    } else {
        kn_pool_run(d->pool, run, j);
    }
    kn_fp_leave(old);
    return KN_OK;
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
