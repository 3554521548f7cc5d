#pragma once

/*
 * Scans of a row of logits for one ISA: what sampling does once or twice per vocabulary. Included by one
 * file per ISA, after row_body.h; kernels/cpu/sample_scalar.c says the same without vectors.
 */

#include "common/rng.h"
#include "kernels/sample.h"

/* Sixteen from i on; `rest` beyond n. */
static inline vf load_or(const float *p, uint32_t i, uint32_t n, vf rest)
{
    return n - i >= KN_LANES ? vf_load(p + i) : vf_first_n(vf_load_n(p + i, n - i), rest, n - i);
}

static float samp_max(const float *v, uint32_t n, bool *out_nan)
{
    vf rest = vf_set1(-INFINITY), max = rest;
    uint32_t nan = 0;

    for (uint32_t i = 0; i < n; i += KN_LANES) {
        vf x = load_or(v, i, n, rest);

        nan |= vm_bits(vf_nan(x));
        max = vf_max(x, max);
    }
    *out_nan = nan != 0;
    return vf_fold_max(max);
}

static uint32_t samp_find(const float *v, uint32_t n, float x)
{
    vf want = vf_set1(x);

    for (uint32_t i = 0; i < n; i += KN_LANES) {
        uint32_t bits = vm_bits(vf_eq(load_or(v, i, n, vf_set1(NAN)), want));

        if (bits != 0)
            return i + (uint32_t)__builtin_ctz(bits);
    }
    return n;
}

static uint32_t samp_next_above(const float *v, uint32_t from, uint32_t n, float x)
{
    vf floor = vf_set1(x), rest = vf_set1(-INFINITY);

    for (uint32_t i = from; i < n; i += KN_LANES) {
        uint32_t bits = vm_bits(vf_lt(floor, load_or(v, i, n, rest)));

        if (bits != 0)
            return i + (uint32_t)__builtin_ctz(bits);
    }
    return n;
}

static uint32_t samp_count_above(const float *v, uint32_t n, float x)
{
    vf floor = vf_set1(x), rest = vf_set1(-INFINITY);
    uint32_t count = 0;

    for (uint32_t i = 0; i < n; i += KN_LANES)
        count += (uint32_t)__builtin_popcount(vm_bits(vf_lt(floor, load_or(v, i, n, rest))));
    return count;
}

static float samp_sum_exp(const float *v, uint32_t n, float max)
{
    vf sum = vf_zero(), m = vf_set1(max), rest = vf_set1(-INFINITY);

    for (uint32_t i = 0; i < n; i += KN_LANES) /* exp of -infinity adds 0 */
        sum = vf_add(sum, vf_exp(vf_sub(load_or(v, i, n, rest), m)));
    return vf_fold_add(sum);
}

static float samp_mass_above(const float *v, uint32_t n, float max, float floor)
{
    vf sum = vf_zero(), m = vf_set1(max), f = vf_set1(floor), rest = vf_set1(-INFINITY);

    for (uint32_t i = 0; i < n; i += KN_LANES) {
        vf x = load_or(v, i, n, rest);

        sum = vf_add(sum, vf_sel(vf_lt(f, x), vf_exp(vf_sub(x, m)), vf_zero()));
    }
    return vf_fold_add(sum);
}

static void samp_divide(float *out, const float *v, uint32_t n, float by)
{
    vf d = vf_set1(by);

    for (uint32_t i = 0; i < n; i += KN_LANES)
        store_upto(out, i, KN_F32, vf_div(load_upto(v, i, n), d), n - i);
}

static uint32_t samp_walk(const struct kn_cand *c, uint32_t from, uint32_t n, float max, float mass,
                          float *sum)
{
    float s = *sum;
    uint32_t i = from;

    while (i < n) {
        s = s + kn_exp(c[i++].z - max);
        if (s >= mass)
            break;
    }
    *sum = s;
    return i;
}

/* ps_philox for blocks first .. first + 15, a word of each per vector. */
static inline void noise_words(const struct kn_draw *d, uint32_t first, vi out[KN_NOISE_WORDS])
{
    uint32_t k0 = (uint32_t)d->seed, k1 = (uint32_t)(d->seed >> 32);
    vi c0 = vi_add(vi_set1(first), vi_count()), c1 = vi_set1(d->pos), c2 = vi_set1(0), c3 = c2,
       a_hi, b_hi, a, b;

    for (int round = 0; round < 10; round++) {
        a = vi_mul_wide(c0, 0xD2511F53u, &a_hi);
        b = vi_mul_wide(c2, 0xCD9E8D57u, &b_hi);
        c0 = vi_xor(vi_xor(b_hi, c1), vi_set1(k0));
        c1 = b;
        c2 = vi_xor(vi_xor(a_hi, c3), vi_set1(k1));
        c3 = a;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

/* Sixteen ids from i on, those in `bits`, against the best so far. */
static inline void draw_lanes(const struct kn_draw *d, uint32_t i, uint32_t bits, vi word,
                              uint32_t *best, float *best_v)
{
    float slack = kn_draw_slack(*best_v);
    /* Half of the word, rounded down: never above what the noise is made of. */
    vf unit = vf_mul(vi_convert(vi_shr(word, 1)), vf_set1(0x1p-31f));
    vf need = vf_sub(vf_set1(*best_v), load_or(d->z, i, d->n, vf_set1(-INFINITY)));

    bits &= ~vm_bits(vf_lt(vf_exp(vf_sub(vf_set1(slack), need)), unit));
    for (; bits != 0; bits &= bits - 1)
        kn_draw_one(d, i + (uint32_t)__builtin_ctz(bits), best, best_v);
}

static uint32_t samp_draw(const struct kn_draw *d)
{
    vf last = vf_set1(d->last.z), rest = vf_set1(-INFINITY);
    uint32_t best = d->start;
    float best_v = kn_draw_value(d, best);

    for (uint32_t i = 0; i < d->n; i += KN_NOISE_GROUP) {
        vf floor = vf_set1(kn_draw_floor(best_v));
        uint32_t bits[KN_NOISE_WORDS], any = 0, w;
        vi word[KN_NOISE_WORDS];

        for (w = 0; w < KN_NOISE_WORDS; w++) {
            uint32_t at = i + w * KN_LANES;
            vf z = at < d->n ? load_or(d->z, at, d->n, rest) : rest;

            bits[w] = vm_bits(vf_lt(floor, z)) & ~vm_bits(vf_lt(z, last));
            any |= bits[w];
        }
        if (any == 0)
            continue;
        noise_words(d, i / KN_NOISE_WORDS, word);
        for (w = 0; w < KN_NOISE_WORDS; w++) {
            if (bits[w] != 0)
                draw_lanes(d, i + w * KN_LANES, bits[w], word[w], &best, &best_v);
        }
    }
    return best;
}

static const struct kn_samp_isa samp_table = {.max = samp_max,
                                              .find = samp_find,
                                              .next_above = samp_next_above,
                                              .count_above = samp_count_above,
                                              .sum_exp = samp_sum_exp,
                                              .mass_above = samp_mass_above,
                                              .divide = samp_divide,
                                              .walk = samp_walk,
                                              .draw = samp_draw};
