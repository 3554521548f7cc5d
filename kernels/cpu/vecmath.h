#pragma once

/*
 * ref/math.h with vectors: the same operations in the same order, so the same bits. Included by one
 * file per ISA, after its vec_*.h.
 */

#include "kernels/ref/math.h"

static inline vf vf_exp(vf x)
{
    vf c = vf_min(vf_max(x, vf_set1(KN_EXP_LO)), vf_set1(KN_EXP_HI));
    vf t = vf_fma(c, vf_set1(KN_LOG2E), vf_set1(KN_ROUND_MAGIC));
    vf n = vf_sub(t, vf_set1(KN_ROUND_MAGIC));
    vf r = vf_fma(n, vf_set1(-KN_LN2_HI), c), p;

    r = vf_fma(n, vf_set1(-KN_LN2_LO), r);
    p = vf_fma(vf_set1(KN_EXP_E4), r, vf_set1(KN_EXP_E3));
    p = vf_fma(p, r, vf_set1(KN_EXP_E2));
    p = vf_fma(p, r, vf_set1(KN_EXP_E1));
    p = vf_fma(p, r, vf_set1(KN_EXP_E0));
    p = vf_fma(p, vf_mul(r, r), r);
    p = vf_add(p, vf_set1(1.0f));
    p = vf_mul(p, vi_float(vi_add(vi_shl(vf_bits(t), 23), vi_set1(0x3f800000u))));
    p = vf_sel(vf_lt(x, vf_set1(KN_EXP_LO)), vf_zero(), p);
    p = vf_sel(vf_lt(vf_set1(KN_EXP_HI), x), vf_set1(INFINITY), p);
    return vf_sel(vf_nan(x), x, p);
}

static inline vf vf_log(vf x)
{
    vi u = vi_add(vf_bits(x), vi_set1(0x3f800000u - KN_SQRT_HALF_BITS));
    vf e = vi_convert(vi_add(vi_shr(u, 23), vi_set1((uint32_t)-127)));
    vi m = vi_add(vi_and(u, vi_set1(0x7fffffu)), vi_set1(KN_SQRT_HALF_BITS));
    vf f = vf_sub(vi_float(m), vf_set1(1.0f)), z = vf_mul(f, f), p;

    p = vf_fma(vf_set1(KN_LOG_L8), f, vf_set1(KN_LOG_L7));
    p = vf_fma(p, f, vf_set1(KN_LOG_L6));
    p = vf_fma(p, f, vf_set1(KN_LOG_L5));
    p = vf_fma(p, f, vf_set1(KN_LOG_L4));
    p = vf_fma(p, f, vf_set1(KN_LOG_L3));
    p = vf_fma(p, f, vf_set1(KN_LOG_L2));
    p = vf_fma(p, f, vf_set1(KN_LOG_L1));
    p = vf_fma(p, f, vf_set1(KN_LOG_L0));
    p = vf_mul(p, vf_mul(z, f));
    p = vf_fma(e, vf_set1(KN_LN2_LO), p);
    p = vf_fma(z, vf_set1(-0.5f), p);
    p = vf_fma(e, vf_set1(KN_LN2_HI), vf_add(f, p));
    p = vf_sel(vf_eq(x, vf_set1(INFINITY)), vf_set1(INFINITY), p);
    p = vf_sel(vf_eq(x, vf_zero()), vf_set1(-INFINITY), p);
    p = vf_sel(vf_lt(x, vf_zero()), vf_set1(NAN), p);
    return vf_sel(vf_nan(x), x, p);
}

static inline void vf_sincos(vf a, vf *out_sin, vf *out_cos)
{
    vf t = vf_fma(a, vf_set1(KN_TWO_OVER_PI), vf_set1(KN_ROUND_MAGIC));
    vf n = vf_sub(t, vf_set1(KN_ROUND_MAGIC));
    vi q = vf_bits(t), q_sin, q_cos;
    vf r = vf_fma(n, vf_set1(-KN_PIO2_P0), a), z, s, c;
    vm swap = vi_test(q, vi_set1(1));

    r = vf_fma(n, vf_set1(-KN_PIO2_P1), r);
    r = vf_fma(n, vf_set1(-KN_PIO2_P2), r);
    z = vf_mul(r, r);
    s = vf_fma(vf_set1(KN_SIN_S3), z, vf_set1(KN_SIN_S2));
    s = vf_fma(s, z, vf_set1(KN_SIN_S1));
    s = vf_fma(s, z, vf_set1(KN_SIN_S0));
    s = vf_fma(s, vf_mul(z, r), r);
    c = vf_fma(vf_set1(KN_COS_C3), z, vf_set1(KN_COS_C2));
    c = vf_fma(c, z, vf_set1(KN_COS_C1));
    c = vf_fma(c, z, vf_set1(KN_COS_C0));
    c = vf_fma(c, vf_mul(z, z), vf_fma(z, vf_set1(-0.5f), vf_set1(1.0f)));
    q_sin = vi_shl(vi_and(q, vi_set1(2)), 30);
    q_cos = vi_shl(vi_and(vi_add(q, vi_set1(1)), vi_set1(2)), 30);
    *out_sin = vi_float(vi_xor(vf_bits(vf_sel(swap, c, s)), q_sin));
    *out_cos = vi_float(vi_xor(vf_bits(vf_sel(swap, s, c)), q_cos));
}

/* EX5: lanes folded 8, 4, 2, 1. */
static inline float vf_fold_add(vf v)
{
    __m256 lo, hi;
    __m128 h;

    vf_halves(v, &lo, &hi);
    lo = _mm256_add_ps(lo, hi);
    h = _mm_add_ps(_mm256_castps256_ps128(lo), _mm256_extractf128_ps(lo, 1));
    h = _mm_add_ps(h, _mm_movehl_ps(h, h));
    h = _mm_add_ss(h, _mm_movehdup_ps(h));
    return _mm_cvtss_f32(h);
}

static inline float vf_fold_max(vf v)
{
    __m256 lo, hi;
    __m128 h;

    vf_halves(v, &lo, &hi);
    lo = _mm256_max_ps(lo, hi);
    h = _mm_max_ps(_mm256_castps256_ps128(lo), _mm256_extractf128_ps(lo, 1));
    h = _mm_max_ps(h, _mm_movehl_ps(h, h));
    h = _mm_max_ss(h, _mm_movehdup_ps(h));
    return _mm_cvtss_f32(h);
}
