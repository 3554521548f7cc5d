#pragma once

/*
 * The project's own exp, log, sine and cosine: the scalar text that defines their bits.
 *
 * Pure functions of one f32 under round to nearest, FTZ and DAZ. kernels/cpu/vecmath.h says the same
 * with vectors and must equal it bit for bit. Every fmaf below is one rounding; nothing else may be
 * contracted. Polynomials were fitted for this file (weighted minimax, coefficients rounded to f32
 * one after the other, low order first); the bounds beside them are of the polynomial alone.
 */

#include <math.h>

#include "kernels/half.h"

/* 1.5 * 2^23: adding it leaves the integer nearest to x in the low mantissa bits, for |x| < 2^22. */
#define KN_ROUND_MAGIC 12582912.0f

#define KN_LN2_HI \
    0x1.62e430p-1f /* ln 2 = HI + LO; n * HI is exact enough for |n| < 2^7: see kn_exp */
#define KN_LN2_LO (-0x1.05c610p-29f)

/* Below: 0. 2^-126 is the smallest power that is not flushed. */
#define KN_EXP_LO (-87.33654f)
/* Above: infinity. Half a binade below FLT_MAX, where the rounded exponent would become 128. */
#define KN_EXP_HI 88.37625f
#define KN_LOG2E  1.44269504f

/* exp(r) = 1 + r + r^2 (E0 + E1 r + ...), |r| <= ln 2 / 2: 3.5e-9 */
#define KN_EXP_E0 0.5f
#define KN_EXP_E1 0.16666515171527863f
#define KN_EXP_E2 0.04166637361049652f
#define KN_EXP_E3 0.008369393646717072f
#define KN_EXP_E4 0.0013943254016339779f

static inline float kn_exp(float x)
{
    float c = x > KN_EXP_LO ? x : KN_EXP_LO;
    float t, n, r, p;

    c = c < KN_EXP_HI ? c : KN_EXP_HI;
    t = fmaf(c, KN_LOG2E, KN_ROUND_MAGIC);
    n = t - KN_ROUND_MAGIC;
    r = fmaf(n, -KN_LN2_HI,
             c); /* exact: both are multiples of 2^-24 and the difference is below 1/2 */
    r = fmaf(n, -KN_LN2_LO, r);
    p = fmaf(KN_EXP_E4, r, KN_EXP_E3);
    p = fmaf(p, r, KN_EXP_E2);
    p = fmaf(p, r, KN_EXP_E1);
    p = fmaf(p, r, KN_EXP_E0);
    p = fmaf(p, r * r, r);
    p = p + 1.0f;
    p = p * kn_bits_f32((kn_f32_bits(t) << 23) + 0x3f800000u); /* 2^n, n in [-126, 127] */
    p = x < KN_EXP_LO ? 0.0f : p;
    p = x > KN_EXP_HI ? INFINITY : p;
    return x != x ? x : p;
}

/* log(1 + f) = f - f^2 / 2 + f^3 (L0 + L1 f + ...), 1 + f in [sqrt(1/2), sqrt(2)]: 7.4e-10 */
#define KN_LOG_L0         0.3333331048488617f
#define KN_LOG_L1         (-0.24999986588954926f)
#define KN_LOG_L2         0.20002225041389465f
#define KN_LOG_L3         (-0.16669252514839172f)
#define KN_LOG_L4         0.14218668639659882f
#define KN_LOG_L5         (-0.12384286522865295f)
#define KN_LOG_L6         0.11872949451208115f
#define KN_LOG_L7         (-0.117903932929039f)
#define KN_LOG_L8         0.06916089355945587f
#define KN_SQRT_HALF_BITS 0x3f3504f3u

/* 0 and denormals give -infinity, negative numbers NaN. */
static inline float kn_log(float x)
{
    uint32_t u = kn_f32_bits(x) + (0x3f800000u - KN_SQRT_HALF_BITS);
    float e = (float)((int32_t)(u >> 23) - 127);
    float f = kn_bits_f32((u & 0x7fffffu) + KN_SQRT_HALF_BITS) - 1.0f;
    float z = f * f, p;

    p = fmaf(KN_LOG_L8, f, KN_LOG_L7);
    p = fmaf(p, f, KN_LOG_L6);
    p = fmaf(p, f, KN_LOG_L5);
    p = fmaf(p, f, KN_LOG_L4);
    p = fmaf(p, f, KN_LOG_L3);
    p = fmaf(p, f, KN_LOG_L2);
    p = fmaf(p, f, KN_LOG_L1);
    p = fmaf(p, f, KN_LOG_L0);
    p = p * (z * f);
    p = fmaf(e, KN_LN2_LO, p);
    p = fmaf(z, -0.5f, p);
    p = fmaf(e, KN_LN2_HI, f + p);
    p = x == INFINITY ? INFINITY : p;
    p = x == 0.0f ? -INFINITY : p;
    p = x < 0.0f ? NAN : p;
    return x != x ? x : p;
}

#define KN_TWO_OVER_PI 0.636619772f
/* pi / 2 = P0 + P1 + P2. For n < 2^20, a - n * P0 is exact (a multiple of 2^-23 below 1). */
#define KN_PIO2_P0 0x1.921fb6p+0f
#define KN_PIO2_P1 (-0x1.777a5cp-25f)
#define KN_PIO2_P2 (-0x1.ee59dap-50f)
/* sin r = r + r^3 (S0 + S1 r^2 + ...), |r| <= 1.03 pi / 4: 1.8e-10 relative to r */
#define KN_SIN_S0 (-0.1666666716337204f)
#define KN_SIN_S1 0.008333377540111542f
#define KN_SIN_S2 (-0.00019851959950756282f)
#define KN_SIN_S3 2.8182039386592805e-06f
/* cos r = 1 - r^2 / 2 + r^4 (C0 + C1 r^2 + ...): 7.2e-12 */
#define KN_COS_C0 0.0416666679084301f
#define KN_COS_C1 (-0.0013888976536691189f)
#define KN_COS_C2 2.482029412931297e-05f
#define KN_COS_C3 (-2.8682123343060084e-07f)

/* Good to an absolute 1e-7 for |a| <= 1e6 (the angle as it stands in f32), defined for every a. */
static inline void kn_sincos(float a, float *out_sin, float *out_cos)
{
    float t = fmaf(a, KN_TWO_OVER_PI, KN_ROUND_MAGIC);
    float n = t - KN_ROUND_MAGIC;
    uint32_t q = kn_f32_bits(t); /* low two bits: the quadrant */
    float r = fmaf(n, -KN_PIO2_P0, a), z, s, c, a_sin, a_cos;

    r = fmaf(n, -KN_PIO2_P1, r);
    r = fmaf(n, -KN_PIO2_P2, r);
    z = r * r;
    s = fmaf(KN_SIN_S3, z, KN_SIN_S2);
    s = fmaf(s, z, KN_SIN_S1);
    s = fmaf(s, z, KN_SIN_S0);
    s = fmaf(s, z * r, r);
    c = fmaf(KN_COS_C3, z, KN_COS_C2);
    c = fmaf(c, z, KN_COS_C1);
    c = fmaf(c, z, KN_COS_C0);
    c = fmaf(c, z * z, fmaf(z, -0.5f, 1.0f));
    a_sin = q & 1u ? c : s;
    a_cos = q & 1u ? s : c;
    *out_sin = kn_bits_f32(kn_f32_bits(a_sin) ^ (q & 2u) << 30);
    *out_cos = kn_bits_f32(kn_f32_bits(a_cos) ^ ((q + 1u) & 2u) << 30);
}

enum { KN_LANES = 16 }; /* EX5 */

/* EX5: the fold 8, 4, 2, 1 of sixteen lanes. */
static inline float kn_fold_add(float lane[KN_LANES])
{
    for (int w = KN_LANES / 2; w > 0; w /= 2)
        for (int i = 0; i < w; i++)
            lane[i] = lane[i] + lane[i + w];
    return lane[0];
}

static inline float kn_max(float a, float b) /* b when one is NaN, as maxps */
{
    return a > b ? a : b;
}

static inline float kn_fold_max(float lane[KN_LANES])
{
    for (int w = KN_LANES / 2; w > 0; w /= 2)
        for (int i = 0; i < w; i++)
            lane[i] = kn_max(lane[i], lane[i + w]);
    return lane[0];
}
