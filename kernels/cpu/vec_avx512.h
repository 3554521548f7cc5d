#pragma once

/*
 * Sixteen lanes in one AVX-512 register. Same verbs as vec_avx2.h; included by one file per ISA.
 *
 * Invariant: each verb is exactly one IEEE operation per lane (or a move), so a text written with
 * them gives the same bits on every ISA. `_n` forms touch only the first n elements in memory and
 * read zeros above.
 */

#include <immintrin.h>

#include "common/base.h"

typedef __m512 vf;
typedef __m512i vi;
typedef __mmask16 vm;

static inline vf vf_zero(void)
{
    return _mm512_setzero_ps();
}
static inline vf vf_set1(float f)
{
    return _mm512_set1_ps(f);
}
static inline vf vf_load(const void *p)
{
    return _mm512_loadu_ps(p);
}
static inline void vf_store(void *p, vf v)
{
    _mm512_storeu_ps(p, v);
}
static inline vf vf_load_n(const void *p, uint32_t n)
{
    return _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
}
static inline void vf_store_n(void *p, vf v, uint32_t n)
{
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), v);
}
static inline vf vf_add(vf a, vf b)
{
    return _mm512_add_ps(a, b);
}
static inline vf vf_sub(vf a, vf b)
{
    return _mm512_sub_ps(a, b);
}
static inline vf vf_mul(vf a, vf b)
{
    return _mm512_mul_ps(a, b);
}
static inline vf vf_div(vf a, vf b)
{
    return _mm512_div_ps(a, b);
}
static inline vf vf_fma(vf a, vf b, vf c) /* a b + c */
{
    return _mm512_fmadd_ps(a, b, c);
}
static inline vf vf_fms(vf a, vf b, vf c) /* a b - c */
{
    return _mm512_fmsub_ps(a, b, c);
}
static inline vf vf_max(vf a, vf b) /* a > b ? a : b */
{
    return _mm512_max_ps(a, b);
}
static inline vf vf_min(vf a, vf b) /* a < b ? a : b */
{
    return _mm512_min_ps(a, b);
}
static inline vm vf_lt(vf a, vf b)
{
    return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ);
}
static inline vm vf_eq(vf a, vf b)
{
    return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ);
}
static inline vm vf_nan(vf a)
{
    return _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q);
}
static inline vf vf_sel(vm m, vf a, vf b) /* m ? a : b */
{
    return _mm512_mask_blend_ps(m, b, a);
}
static inline vf vf_first_n(vf v, vf rest, uint32_t n) /* lane < n ? v : rest */
{
    return _mm512_mask_blend_ps((__mmask16)((1u << n) - 1), rest, v);
}
static inline vi vf_bits(vf v)
{
    return _mm512_castps_si512(v);
}
static inline vf vi_float(vi v) /* the bits as floats */
{
    return _mm512_castsi512_ps(v);
}
static inline vi vi_set1(uint32_t u)
{
    return _mm512_set1_epi32((int)u);
}
static inline vi vi_add(vi a, vi b)
{
    return _mm512_add_epi32(a, b);
}
static inline vi vi_and(vi a, vi b)
{
    return _mm512_and_si512(a, b);
}
static inline vi vi_xor(vi a, vi b)
{
    return _mm512_xor_si512(a, b);
}
#define vi_shl(v, n) _mm512_slli_epi32((v), (n))
#define vi_shr(v, n) _mm512_srli_epi32((v), (n))
static inline vf vi_convert(vi v) /* signed integers to floats */
{
    return _mm512_cvtepi32_ps(v);
}
static inline vm vi_test(vi a, vi b) /* any bit of a & b */
{
    return _mm512_test_epi32_mask(a, b);
}
static inline uint32_t vm_bits(vm m) /* bit i: lane i */
{
    return m;
}
static inline vi vi_mul_wide(vi a, uint32_t c,
                             vi *hi) /* unsigned: the low word, and *hi the high one */
{
    vi m = vi_set1(c), even = _mm512_mul_epu32(a, m),
       odd = _mm512_mul_epu32(_mm512_srli_epi64(a, 32), m);

    *hi = _mm512_mask_blend_epi32(0xaaaa, _mm512_srli_epi64(even, 32), odd);
    return _mm512_mask_blend_epi32(0xaaaa, even, _mm512_slli_epi64(odd, 32));
}
static inline vi vi_count(void) /* 0, 1, 2, ... */
{
    return _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
}
/* Sixteen bf16, or the low or high halves of sixteen bf16 pairs, as f32. */
static inline vf vf_bf16(__m256i h)
{
    return vi_float(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}
static inline vf vf_load_bf16(const void *p)
{
    return vf_bf16(_mm256_loadu_si256(p));
}
static inline vf vf_load_bf16_n(const void *p, uint32_t n)
{
    return vf_bf16(_mm256_maskz_loadu_epi16((__mmask16)((1u << n) - 1), p));
}
static inline vf vf_load_f16(const void *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256(p));
}
static inline vf vf_load_even(const void *p)
{
    return vi_float(_mm512_slli_epi32(_mm512_loadu_si512(p), 16));
}
static inline vf vf_load_odd(const void *p)
{
    return vi_float(_mm512_and_si512(_mm512_loadu_si512(p), vi_set1(0xffff0000u)));
}
static inline __m256i vf_to_bf16(vf v) /* kn_f32_bf16 per lane */
{
    vi u = vf_bits(v), up = vi_shr(u, 16);
    vi even = vi_add(vi_add(u, vi_set1(0x7fffu)), vi_and(up, vi_set1(1)));
    vi r = _mm512_mask_blend_epi32(vf_nan(v), vi_shr(even, 16), _mm512_or_si512(up, vi_set1(0x40)));

    return _mm512_cvtepi32_epi16(r);
}
static inline void vf_store_bf16(void *p, vf v)
{
    _mm256_storeu_si256(p, vf_to_bf16(v));
}
static inline void vf_store_bf16_n(void *p, vf v, uint32_t n)
{
    _mm256_mask_storeu_epi16(p, (__mmask16)((1u << n) - 1), vf_to_bf16(v));
}
static inline void vf_halves(vf v, __m256 *lo, __m256 *hi)
{
    *lo = _mm512_castps512_ps256(v);
    *hi = _mm512_extractf32x8_ps(v, 1);
}
