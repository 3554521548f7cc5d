#pragma once

/*
 * Rows of K and V as codecs read and write them: bf16 or f32 in memory, f32 in the arithmetic.
 *
 * Scalar forms and AVX2 forms of the same loads and stores, equal in every bit; for codec_*.c only.
 * Codecs enter kernels/fp.h's state first, so that denormals mean the same on every thread. AVX2
 * functions carry their target themselves: what may run is asked at run time. Numbers that are
 * stored are finite.
 */

#include <immintrin.h>
#include <string.h>

#include "kernels/half.h"
#include "kernels/ops.h"

#define CODEC_AVX2 __attribute__((target("avx2"), always_inline)) static inline

enum { CODEC_F32_ABS = 0x7fffffff, CODEC_F16_INF = 0x7c00 };

static inline float codec_load(enum kn_dtype type, const uint8_t *row, uint32_t i)
{
    uint16_t h;
    float f;

    if (type == KN_BF16) {
        memcpy(&h, row + (size_t)i * 2, 2);
        return kn_bf16_f32(h);
    }
    memcpy(&f, row + (size_t)i * 4, 4);
    return f;
}

static inline void codec_store(enum kn_dtype type, uint8_t *row, uint32_t i, float f)
{
    uint16_t h = kn_f32_bf16(f);

    if (type == KN_BF16)
        memcpy(row + (size_t)i * 2, &h, 2);
    else
        memcpy(row + (size_t)i * 4, &f, 4);
}

/* A scale that is no number is never written: any bytes at all decode to numbers. */
static inline float codec_scale(uint16_t h)
{
    return (h & CODEC_F16_INF) == CODEC_F16_INF ? 0.0f : kn_f16_f32(h);
}

CODEC_AVX2 __m256 codec_load8(enum kn_dtype type, const uint8_t *row, uint32_t i)
{
    __m128i h;

    if (type != KN_BF16)
        return _mm256_loadu_ps((const float *)(const void *)row + i);
    h = _mm_loadu_si128((const void *)(row + (size_t)i * 2));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}

CODEC_AVX2 __m256i codec_even8(__m256 v) /* bits rounded to bf16, in the low halves */
{
    __m256i u = _mm256_castps_si256(v), up = _mm256_srli_epi32(u, 16);
    __m256i odd = _mm256_and_si256(up, _mm256_set1_epi32(1));

    u = _mm256_add_epi32(_mm256_add_epi32(u, _mm256_set1_epi32(0x7fff)), odd);
    return _mm256_srli_epi32(u, 16);
}

CODEC_AVX2 void codec_store16(enum kn_dtype type, uint8_t *row, uint32_t i, __m256 a, __m256 b)
{
    if (type != KN_BF16) {
        _mm256_storeu_ps((float *)(void *)row + i, a);
        _mm256_storeu_ps((float *)(void *)row + i + 8, b);
        return;
    }
    /* packus works within 128-bit halves: quarters come out as 0 2 1 3 */
    _mm256_storeu_si256(
        (void *)(row + (size_t)i * 2),
        _mm256_permute4x64_epi64(_mm256_packus_epi32(codec_even8(a), codec_even8(b)), 0xd8));
}

CODEC_AVX2 uint32_t codec_max8(__m256i v) /* largest of eight unsigned words */
{
    __m128i m = _mm_max_epu32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));

    m = _mm_max_epu32(m, _mm_shuffle_epi32(m, 0x4e));
    m = _mm_max_epu32(m, _mm_shuffle_epi32(m, 0xb1));
    return (uint32_t)_mm_cvtsi128_si32(m);
}
