#pragma once

/*
 * Sixteen lanes in two AVX2 registers. Same verbs as vec_avx512.h; the rules are written there.
 */

#include <immintrin.h>
#include <string.h>

#include "common/base.h"

typedef struct {
    __m256 a, b;
} vf;
typedef struct {
    __m256i a, b;
} vi;
typedef vf vm; /* all ones or all zeros per lane */

#define VEC_MAP1(T, op, x)    ((T){op((x).a), op((x).b)})
#define VEC_MAP2(T, op, x, y) ((T){op((x).a, (y).a), op((x).b, (y).b)})

static inline vf vf_zero(void)
{
    return (vf){_mm256_setzero_ps(), _mm256_setzero_ps()};
}
static inline vf vf_set1(float f)
{
    return (vf){_mm256_set1_ps(f), _mm256_set1_ps(f)};
}
static inline vf vf_load(const void *p)
{
    return (vf){_mm256_loadu_ps(p), _mm256_loadu_ps((const float *)p + 8)};
}
static inline void vf_store(void *p, vf v)
{
    _mm256_storeu_ps(p, v.a);
    _mm256_storeu_ps((float *)p + 8, v.b);
}
static inline vf vf_load_n(const void *p, uint32_t n)
{
    float t[16] = {0};

    memcpy(t, p, n * sizeof *t);
    return vf_load(t);
}
static inline void vf_store_n(void *p, vf v, uint32_t n)
{
    float t[16];

    vf_store(t, v);
    memcpy(p, t, n * sizeof *t);
}
static inline vf vf_add(vf a, vf b)
{
    return VEC_MAP2(vf, _mm256_add_ps, a, b);
}
static inline vf vf_sub(vf a, vf b)
{
    return VEC_MAP2(vf, _mm256_sub_ps, a, b);
}
static inline vf vf_mul(vf a, vf b)
{
    return VEC_MAP2(vf, _mm256_mul_ps, a, b);
}
static inline vf vf_div(vf a, vf b)
{
    return VEC_MAP2(vf, _mm256_div_ps, a, b);
}
static inline vf vf_fma(vf a, vf b, vf c)
{
    return (vf){_mm256_fmadd_ps(a.a, b.a, c.a), _mm256_fmadd_ps(a.b, b.b, c.b)};
}
static inline vf vf_fms(vf a, vf b, vf c)
{
    return (vf){_mm256_fmsub_ps(a.a, b.a, c.a), _mm256_fmsub_ps(a.b, b.b, c.b)};
}
static inline vf vf_max(vf a, vf b)
{
    return VEC_MAP2(vf, _mm256_max_ps, a, b);
}
static inline vf vf_min(vf a, vf b)
{
    return VEC_MAP2(vf, _mm256_min_ps, a, b);
}
static inline vm vf_lt(vf a, vf b)
{
    return (vf){_mm256_cmp_ps(a.a, b.a, _CMP_LT_OQ), _mm256_cmp_ps(a.b, b.b, _CMP_LT_OQ)};
}
static inline vm vf_eq(vf a, vf b)
{
    return (vf){_mm256_cmp_ps(a.a, b.a, _CMP_EQ_OQ), _mm256_cmp_ps(a.b, b.b, _CMP_EQ_OQ)};
}
static inline vm vf_nan(vf a)
{
    return (vf){_mm256_cmp_ps(a.a, a.a, _CMP_UNORD_Q), _mm256_cmp_ps(a.b, a.b, _CMP_UNORD_Q)};
}
static inline vf vf_sel(vm m, vf a, vf b)
{
    return (vf){_mm256_blendv_ps(b.a, a.a, m.a), _mm256_blendv_ps(b.b, a.b, m.b)};
}
static inline vi vf_bits(vf v)
{
    return VEC_MAP1(vi, _mm256_castps_si256, v);
}
static inline vf vi_float(vi v)
{
    return VEC_MAP1(vf, _mm256_castsi256_ps, v);
}
static inline vi vi_set1(uint32_t u)
{
    return (vi){_mm256_set1_epi32((int)u), _mm256_set1_epi32((int)u)};
}
static inline vi vi_add(vi a, vi b)
{
    return VEC_MAP2(vi, _mm256_add_epi32, a, b);
}
static inline vi vi_and(vi a, vi b)
{
    return VEC_MAP2(vi, _mm256_and_si256, a, b);
}
static inline vi vi_xor(vi a, vi b)
{
    return VEC_MAP2(vi, _mm256_xor_si256, a, b);
}
#define vi_shl(v, n) ((vi){_mm256_slli_epi32((v).a, (n)), _mm256_slli_epi32((v).b, (n))})
#define vi_shr(v, n) ((vi){_mm256_srli_epi32((v).a, (n)), _mm256_srli_epi32((v).b, (n))})
static inline vf vi_convert(vi v)
{
    return VEC_MAP1(vf, _mm256_cvtepi32_ps, v);
}
static inline vm vi_test(vi a, vi b) /* b holds one bit */
{
    return vi_float(VEC_MAP2(vi, _mm256_cmpeq_epi32, vi_and(a, b), b));
}
static inline uint32_t vm_bits(vm m)
{
    return (uint32_t)_mm256_movemask_ps(m.a) | (uint32_t)_mm256_movemask_ps(m.b) << 8;
}
static inline __m256i vec_mul_wide(__m256i a, __m256i c, __m256i *hi)
{
    __m256i even = _mm256_mul_epu32(a, c), odd = _mm256_mul_epu32(_mm256_srli_epi64(a, 32), c);

    *hi = _mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xaa);
    return _mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xaa);
}
static inline vi vi_mul_wide(vi a, uint32_t c, vi *hi)
{
    vi m = vi_set1(c);

    return (vi){vec_mul_wide(a.a, m.a, &hi->a), vec_mul_wide(a.b, m.b, &hi->b)};
}
static inline vi vi_count(void)
{
    return (vi){_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7),
                _mm256_setr_epi32(8, 9, 10, 11, 12, 13, 14, 15)};
}
static inline vf vf_first_n(vf v, vf rest, uint32_t n)
{
    vi lane = {_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7),
               _mm256_setr_epi32(8, 9, 10, 11, 12, 13, 14, 15)};

    return vf_sel(vi_float(VEC_MAP2(vi, _mm256_cmpgt_epi32, vi_set1(n), lane)), v, rest);
}
static inline vf vf_load_bf16(const void *p)
{
    vi w = {_mm256_cvtepu16_epi32(_mm_loadu_si128(p)),
            _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p + 1))};

    return vi_float(vi_shl(w, 16));
}
static inline vf vf_load_bf16_n(const void *p, uint32_t n)
{
    uint16_t t[16] = {0};

    memcpy(t, p, n * sizeof *t);
    return vf_load_bf16(t);
}
static inline vf vf_load_f16(const void *p)
{
    return (vf){_mm256_cvtph_ps(_mm_loadu_si128(p)),
                _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p + 1))};
}
static inline vf vf_load_even(const void *p)
{
    return vi_float(vi_shl(vf_bits(vf_load(p)), 16));
}
static inline vf vf_load_odd(const void *p)
{
    return vi_float(vi_and(vf_bits(vf_load(p)), vi_set1(0xffff0000u)));
}
static inline void vf_store_bf16(void *p, vf v)
{
    vi u = vf_bits(v), up = vi_shr(u, 16);
    vi even = vi_shr(vi_add(vi_add(u, vi_set1(0x7fffu)), vi_and(up, vi_set1(1))), 16);
    vi quiet = VEC_MAP2(vi, _mm256_or_si256, up, vi_set1(0x40));
    vi r = vf_bits(vf_sel(vf_nan(v), vi_float(quiet), vi_float(even)));

    /* packus works within 128-bit halves: quarters come out as 0 2 1 3 */
    _mm256_storeu_si256(p, _mm256_permute4x64_epi64(_mm256_packus_epi32(r.a, r.b), 0xd8));
}
static inline void vf_store_bf16_n(void *p, vf v, uint32_t n)
{
    uint16_t t[16];

    vf_store_bf16(t, v);
    memcpy(p, t, n * sizeof *t);
}
static inline void vf_halves(vf v, __m256 *lo, __m256 *hi)
{
    *lo = v.a;
    *hi = v.b;
}
