#include "worker/kv/codec_fp8.h"

#include "kernels/fp.h"
#include "worker/kv/codec_row.h"

enum {
    E4M3_MAX_CODE = 0x7e,
    MAN_SHIFT = 20,              /* an f32 mantissa has 20 bits more */
    BIAS_SHIFT = (127 - 7) << 3, /* difference of the exponents' biases, in units of a code */
    TINY_BITS = (127 - 6) << 23, /* 2^-6 as f32: the smallest normal number of E4M3 */
    MAGIC_BITS =
        (127 + 14) << 23, /* 2^14 as f32: its last place is 2^-9, the step of the denormals */
    STEP =
        16, /* elements the vector code takes at once; it leaves the rest of a row to the scalar */
};
static const float E4M3_MAX = 448.0f;
static const float E4M3_TINY = 0x1p-6f;

/* False: no fp16 number is as large, or it is none at all. The scale is never below largest / 448. */
static bool scale_of(uint32_t amax_bits, uint16_t *out_scale, float *out_inv)
{
    float s = kn_bits_f32(amax_bits) / E4M3_MAX;
    uint16_t h;

    *out_scale = 0;
    *out_inv = 0.0f;
    if (amax_bits == 0)
        return true;
    h = kn_f32_f16(s);
    if (kn_f16_f32(h) < s || h == 0)
        h++;
    if (h >= CODEC_F16_INF)
        return false;
    *out_scale = h;
    *out_inv = 1.0f / kn_f16_f32(h);
    return true;
}

static uint8_t to_e4m3(float f)
{
    uint32_t u = kn_f32_bits(f), a = u & CODEC_F32_ABS, code;

    if (a < TINY_BITS)
        code = kn_f32_bits(kn_bits_f32(a) + kn_bits_f32(MAGIC_BITS)) - MAGIC_BITS;
    else
        code = ((a + 0x7ffffu + (a >> MAN_SHIFT & 1u)) >> MAN_SHIFT) - BIAS_SHIFT;
    return (uint8_t)(ps_min_u32(code, E4M3_MAX_CODE) | (u >> 24 & 0x80u));
}

static float from_e4m3(uint8_t code)
{
    uint32_t w = code & 0x7fu, sign = (uint32_t)(code & 0x80u) << 24;
    float f;

    if (w < 8)
        f = kn_bits_f32((w + 8 + BIAS_SHIFT) << MAN_SHIFT) - E4M3_TINY;
    else
        f = kn_bits_f32((w + BIAS_SHIFT) << MAN_SHIFT);
    return kn_bits_f32(kn_f32_bits(f) | sign);
}

static bool encode_scalar(enum kn_dtype type, const uint8_t *row, uint32_t d, uint8_t *codes,
                          uint16_t *scale)
{
    uint32_t amax = 0;
    float inv;

    for (uint32_t i = 0; i < d; i++)
        amax = ps_max_u32(amax, kn_f32_bits(codec_load(type, row, i)) & CODEC_F32_ABS);
    if (!scale_of(amax, scale, &inv))
        return false;
    for (uint32_t i = 0; i < d; i++)
        codes[i] = to_e4m3(codec_load(type, row, i) * inv);
    return true;
}

static void decode_scalar(enum kn_dtype type, const uint8_t *codes, uint16_t scale, uint32_t d,
                          uint8_t *row)
{
    float s = codec_scale(scale);

    for (uint32_t i = 0; i < d; i++)
        codec_store(type, row, i, from_e4m3(codes[i]) * s);
}

CODEC_AVX2 __m256i to_e4m3_8(__m256 f) /* codes in the low bytes */
{
    __m256i u = _mm256_castps_si256(f);
    __m256i a = _mm256_and_si256(u, _mm256_set1_epi32(CODEC_F32_ABS));
    __m256i sign = _mm256_and_si256(_mm256_srli_epi32(u, 24), _mm256_set1_epi32(0x80));
    __m256i odd = _mm256_and_si256(_mm256_srli_epi32(a, MAN_SHIFT), _mm256_set1_epi32(1));
    __m256i up = _mm256_add_epi32(_mm256_add_epi32(a, _mm256_set1_epi32(0x7ffff)), odd);
    __m256i big = _mm256_sub_epi32(_mm256_srli_epi32(up, MAN_SHIFT), _mm256_set1_epi32(BIAS_SHIFT));
    __m256i magic = _mm256_set1_epi32(MAGIC_BITS);
    __m256 sum = _mm256_add_ps(_mm256_castsi256_ps(a), _mm256_castsi256_ps(magic));
    __m256i small = _mm256_sub_epi32(_mm256_castps_si256(sum), magic);
    __m256i is_small = _mm256_cmpgt_epi32(_mm256_set1_epi32(TINY_BITS), a);
    __m256i code = _mm256_blendv_epi8(big, small, is_small);

    code = _mm256_min_epu32(code, _mm256_set1_epi32(E4M3_MAX_CODE));
    return _mm256_or_si256(code, sign);
}

CODEC_AVX2 __m256 from_e4m3_8(__m128i codes) /* the low eight bytes */
{
    __m256i c = _mm256_cvtepu8_epi32(codes);
    __m256i w = _mm256_and_si256(c, _mm256_set1_epi32(0x7f));
    __m256i sign = _mm256_slli_epi32(_mm256_xor_si256(c, w), 24);
    __m256i is_small = _mm256_cmpgt_epi32(_mm256_set1_epi32(8), w);
    __m256i eight = _mm256_and_si256(is_small, _mm256_set1_epi32(8));
    __m256i bits = _mm256_add_epi32(_mm256_add_epi32(w, eight), _mm256_set1_epi32(BIAS_SHIFT));
    __m256 less = _mm256_and_ps(_mm256_castsi256_ps(is_small), _mm256_set1_ps(E4M3_TINY));
    __m256 f = _mm256_sub_ps(_mm256_castsi256_ps(_mm256_slli_epi32(bits, MAN_SHIFT)), less);

    return _mm256_or_ps(f, _mm256_castsi256_ps(sign));
}

CODEC_AVX2 bool encode_row8(enum kn_dtype type, const uint8_t *row, uint32_t d, uint8_t *codes,
                            uint16_t *scale)
{
    __m256i m = _mm256_setzero_si256(), mask = _mm256_set1_epi32(CODEC_F32_ABS);
    uint32_t n = d / STEP * STEP, amax;
    float inv;

    for (uint32_t i = 0; i < n; i += 8) {
        __m256i u = _mm256_castps_si256(codec_load8(type, row, i));

        m = _mm256_max_epu32(m, _mm256_and_si256(u, mask));
    }
    amax = codec_max8(m);
    for (uint32_t i = n; i < d; i++)
        amax = ps_max_u32(amax, kn_f32_bits(codec_load(type, row, i)) & CODEC_F32_ABS);
    if (!scale_of(amax, scale, &inv))
        return false;
    for (uint32_t i = 0; i < n; i += STEP) {
        __m256 k = _mm256_set1_ps(inv);
        __m256i a = to_e4m3_8(_mm256_mul_ps(codec_load8(type, row, i), k));
        __m256i b = to_e4m3_8(_mm256_mul_ps(codec_load8(type, row, i + 8), k));
        __m256i w = _mm256_permute4x64_epi64(_mm256_packus_epi32(a, b), 0xd8);
        __m128i lo = _mm256_castsi256_si128(w), hi = _mm256_extracti128_si256(w, 1);

        _mm_storeu_si128((void *)(codes + i), _mm_packus_epi16(lo, hi));
    }
    for (uint32_t i = n; i < d; i++)
        codes[i] = to_e4m3(codec_load(type, row, i) * inv);
    return true;
}

CODEC_AVX2 void decode_row8(enum kn_dtype type, const uint8_t *codes, uint16_t scale, uint32_t d,
                            uint8_t *row)
{
    uint32_t n = d / STEP * STEP;
    float s = codec_scale(scale);
    __m256 k = _mm256_set1_ps(s);

    for (uint32_t i = 0; i < n; i += STEP) {
        __m128i c = _mm_loadu_si128((const void *)(codes + i));
        __m256 a = _mm256_mul_ps(from_e4m3_8(c), k);
        __m256 b = _mm256_mul_ps(from_e4m3_8(_mm_unpackhi_epi64(c, c)), k);

        codec_store16(type, row, i, a, b);
    }
    for (uint32_t i = n; i < d; i++)
        codec_store(type, row, i, from_e4m3(codes[i]) * s);
}

/* The type is a constant in each branch, so that a loop over elements does not ask for it. */
__attribute__((target("avx2"))) static bool encode_avx2(enum kn_dtype type, const uint8_t *row,
                                                        uint32_t d, uint8_t *codes, uint16_t *scale)
{
    return type == KN_BF16 ? encode_row8(KN_BF16, row, d, codes, scale)
                           : encode_row8(KN_F32, row, d, codes, scale);
}

__attribute__((target("avx2"))) static void decode_avx2(enum kn_dtype type, const uint8_t *codes,
                                                        uint16_t scale, uint32_t d, uint8_t *row)
{
    if (type == KN_BF16)
        decode_row8(KN_BF16, codes, scale, d, row);
    else
        decode_row8(KN_F32, codes, scale, d, row);
}

bool wk_fp8_encode(enum kn_dtype type, const uint8_t *rows, uint32_t n_row, uint32_t d,
                   uint8_t *codes, uint16_t *scales)
{
    bool ok = true, vec = __builtin_cpu_supports("avx2");
    size_t row_bytes = d * kn_dtype_bytes(type);
    uint32_t fp = kn_fp_enter();

    PS_ASSERT(type == KN_BF16 || type == KN_F32);
    for (uint32_t i = 0; i < n_row && ok; i++)
        ok = (vec ? encode_avx2 : encode_scalar)(type, rows + i * row_bytes, d,
                                                 codes + (size_t)i * d, &scales[i]);
    kn_fp_leave(fp);
    return ok;
}

void wk_fp8_decode(enum kn_dtype type, const uint8_t *codes, const uint16_t *scales, uint32_t n_row,
                   uint32_t d, uint8_t *rows)
{
    bool vec = __builtin_cpu_supports("avx2");
    size_t row_bytes = d * kn_dtype_bytes(type);
    uint32_t fp = kn_fp_enter();

    PS_ASSERT(type == KN_BF16 || type == KN_F32);
    for (uint32_t i = 0; i < n_row; i++)
        (vec ? decode_avx2 : decode_scalar)(type, codes + (size_t)i * d, scales[i], d,
                                            rows + i * row_bytes);
    kn_fp_leave(fp);
}
