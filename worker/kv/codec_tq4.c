#include "worker/kv/codec_tq4.h"

#include <math.h>

#include "common/hash.h"
#include "kernels/fp.h"
#include "worker/kv/codec_row.h"

enum { D_MAX = 64 * WK_TQ4_SIGN_WORDS, LEVELS = 8, LANES = 16 };

/*
 * Lloyd-Max for a coordinate of a random point of the unit sphere in d dimensions, density proportional
 * to (1 - x^2)^((d-3)/2); positive half. The test derives them again. Thresholds are midpoints.
 */
struct book {
    uint32_t d;
    float root; /* 1 / sqrt(d) */
    float c[LEVELS], t[LEVELS - 1];
};

#define MID(a, b) (((a) + (b)) * 0.5f)
#define BOOK(d, root, a, b, c, e, f, g, h, i) \
    { \
        d, root, {a, b, c, e, f, g, h, i}, \
        { \
            MID(a, b), MID(b, c), MID(c, e), MID(e, f), MID(f, g), MID(g, h), MID(h, i) \
        } \
    }

static const struct book books[] = {
    BOOK(64, 0.125f, 0.015919023f, 0.048089783f, 0.081311769f, 0.116486752f, 0.154925528f,
         0.198856141f, 0.252913728f, 0.330796311f),
    BOOK(128, 0.08838834764831845f, 0.011302497f, 0.034151571f, 0.057772299f, 0.082828457f,
         0.110288369f, 0.141805197f, 0.180835964f, 0.237663827f),
    BOOK(256, 0.0625f, 0.008008374f, 0.024200878f, 0.040949197f, 0.058732108f, 0.078249314f,
         0.100698008f, 0.128588201f, 0.169410437f),
};

static const struct book *find_book(uint32_t d)
{
    for (size_t i = 0; i < PS_ARRAY_LEN(books); i++) {
        if (books[i].d == d)
            return &books[i];
    }
    return NULL;
}

bool wk_tq4_has(uint32_t d)
{
    return find_book(d) != NULL;
}

void wk_tq4_signs(uint32_t layer, uint32_t kv_head, bool is_v, uint64_t out[WK_TQ4_SIGN_WORDS])
{
    for (uint64_t i = 0; i < WK_TQ4_SIGN_WORDS; i++) {
        uint64_t key[5] = {WK_TQ4_SIGN_VERSION, layer, kv_head, is_v, i};

        out[i] = ps_hash64(key, sizeof(key), 0);
    }
}

/* ---- scalar: these loops define the bits, down to the order of every sum ---- */

static float flip(float f, const uint64_t *signs, uint32_t i)
{
    return kn_bits_f32(kn_f32_bits(f) ^ (uint32_t)(signs[i / 64] >> i % 64 & 1) << 31);
}

/* H times sqrt(d); steps from 1 up. */
static void hadamard(float *y, uint32_t d)
{
    for (uint32_t h = 1; h < d; h *= 2) {
        for (uint32_t i = 0; i < d; i += 2 * h) {
            for (uint32_t j = i; j < i + h; j++) {
                float a = y[j], b = y[j + h];

                y[j] = a + b;
                y[j + h] = a - b;
            }
        }
    }
}

/* Sixteen sums, element i in sum i mod 16, folded in halves. */
static float fold(float *lanes)
{
    for (uint32_t n = LANES / 2; n > 0; n /= 2) {
        for (uint32_t i = 0; i < n; i++)
            lanes[i] += lanes[i + n];
    }
    return lanes[0];
}

/* False: not a number fp16 can hold. A NaN or an infinity in the row ends here as well, because the
 * norm and the sum it is divided by both carry it. */
static bool put_scale(float s, uint16_t *out)
{
    *out = kn_f32_f16(s);
    return *out < CODEC_F16_INF;
}

static bool encode_scalar(enum kn_dtype type, const struct book *b, const uint64_t *signs,
                          const uint8_t *row, uint8_t *codes, uint16_t *scale)
{
    float y[D_MAX], lanes[LANES] = {0}, dots[LANES] = {0}, n, k;

    for (uint32_t i = 0; i < b->d; i++) {
        float x = codec_load(type, row, i);

        lanes[i % LANES] += x * x;
        y[i] = flip(x, signs, i);
    }
    n = fold(lanes);
    *scale = 0;
    memset(codes, 0, b->d / 2);
    if (n == 0.0f)
        return true;
    n = sqrtf(n);
    k = b->root / n;
    hadamard(y, b->d);
    for (uint32_t i = 0; i < b->d; i++) {
        float r = y[i] * k, a = fabsf(r);
        uint32_t m = 0;

        for (uint32_t j = 0; j < LEVELS - 1; j++)
            m += a >= b->t[j];
        dots[i % LANES] += a * b->c[m];
        m ^= kn_f32_bits(r) >> 31 ? LEVELS - 1 : LEVELS; /* 7 - m below zero, 8 + m above */
        codes[i / 2] |= (uint8_t)(m << i % 2 * 4);
    }
    return put_scale(n / fold(dots), scale);
}

static void decode_scalar(enum kn_dtype type, const struct book *b, const uint64_t *signs,
                          const uint8_t *codes, uint16_t scale, uint8_t *row)
{
    float y[D_MAX], k = codec_scale(scale) * b->root;

    for (uint32_t i = 0; i < b->d; i++) {
        uint32_t m = (uint32_t)codes[i / 2] >> i % 2 * 4 & 15;

        y[i] = m >= LEVELS ? b->c[m - LEVELS] : -b->c[LEVELS - 1 - m];
    }
    hadamard(y, b->d);
    for (uint32_t i = 0; i < b->d; i++)
        codec_store(type, row, i, flip(y[i] * k, signs, i));
}

/* ---- AVX2 ---- */

CODEC_AVX2 __m256 flip8(__m256 v, const uint64_t *signs, uint32_t i)
{
    __m256i bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    __m256i all = _mm256_set1_epi32((int)(signs[i / 64] >> i % 64 & 0xff));
    __m256i is = _mm256_cmpeq_epi32(_mm256_and_si256(all, bit), bit);

    return _mm256_xor_ps(v, _mm256_castsi256_ps(_mm256_slli_epi32(is, 31)));
}

/* Steps 1, 2 and 4 of hadamard(): a + b below, a - b above, as (swapped) + (+-own). */
CODEC_AVX2 __m256 hadamard8(__m256 v)
{
    const __m256 s1 = _mm256_setr_ps(0.0f, -0.0f, 0.0f, -0.0f, 0.0f, -0.0f, 0.0f, -0.0f);
    const __m256 s2 = _mm256_setr_ps(0.0f, 0.0f, -0.0f, -0.0f, 0.0f, 0.0f, -0.0f, -0.0f);
    const __m256 s4 = _mm256_setr_ps(0.0f, 0.0f, 0.0f, 0.0f, -0.0f, -0.0f, -0.0f, -0.0f);

    v = _mm256_add_ps(_mm256_permute_ps(v, 0xb1), _mm256_xor_ps(v, s1));
    v = _mm256_add_ps(_mm256_permute_ps(v, 0x4e), _mm256_xor_ps(v, s2));
    return _mm256_add_ps(_mm256_permute2f128_ps(v, v, 1), _mm256_xor_ps(v, s4));
}

/* The other steps; y [d] is 32-byte aligned. */
CODEC_AVX2 void hadamard_rest(float *y, uint32_t d)
{
    for (uint32_t h = 8; h < d; h *= 2) {
        for (uint32_t i = 0; i < d; i += 2 * h) {
            for (uint32_t j = i; j < i + h; j += 8) {
                __m256 a = _mm256_load_ps(y + j), b = _mm256_load_ps(y + j + h);

                _mm256_store_ps(y + j, _mm256_add_ps(a, b));
                _mm256_store_ps(y + j + h, _mm256_sub_ps(a, b));
            }
        }
    }
}

CODEC_AVX2 float fold2(__m256 a, __m256 b)
{
    _Alignas(32) float lanes[8];
    __m128 v;

    a = _mm256_add_ps(a, b);
    v = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    _mm_store_ps(lanes, v);
    return (lanes[0] + lanes[2]) + (lanes[1] + lanes[3]);
}

/* Index of each of eight rotated coordinates; adds |r| c to dot. */
CODEC_AVX2 __m256i nearest8(const struct book *b, __m256 r, __m256 *dot)
{
    const __m256 c = _mm256_loadu_ps(b->c);
    __m256 a = _mm256_andnot_ps(_mm256_set1_ps(-0.0f), r);
    __m256i m = _mm256_setzero_si256(), side;

    for (uint32_t j = 0; j < LEVELS - 1; j++) {
        __m256 ge = _mm256_cmp_ps(a, _mm256_set1_ps(b->t[j]), _CMP_GE_OQ);

        m = _mm256_sub_epi32(m, _mm256_castps_si256(ge));
    }
    *dot = _mm256_add_ps(*dot, _mm256_mul_ps(a, _mm256_permutevar8x32_ps(c, m)));
    side = _mm256_and_si256(_mm256_srai_epi32(_mm256_castps_si256(r), 31), _mm256_set1_epi32(15));
    return _mm256_xor_si256(m, _mm256_xor_si256(side, _mm256_set1_epi32(LEVELS)));
}

CODEC_AVX2 __m128i pack32(const __m256i idx[4]) /* 32 indices to 16 bytes */
{
    __m256i lo = _mm256_packs_epi32(idx[0], idx[1]), hi = _mm256_packs_epi32(idx[2], idx[3]);
    /* packing works within 128-bit halves: words of four indices come out interleaved */
    __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    __m256i bytes = _mm256_permutevar8x32_epi32(_mm256_packus_epi16(lo, hi), order);
    __m256i pairs = _mm256_maddubs_epi16(bytes, _mm256_set1_epi16(0x1001)); /* even + 16 odd */
    __m256i both = _mm256_packus_epi16(pairs, pairs);

    return _mm256_castsi256_si128(_mm256_permute4x64_epi64(both, 0x08));
}

CODEC_AVX2 bool encode_row8(enum kn_dtype type, const struct book *b, uint32_t d,
                            const uint64_t *signs, const uint8_t *row, uint8_t *codes,
                            uint16_t *scale)
{
    _Alignas(32) float y[D_MAX];
    __m256 sum[2], dot[2], k;
    __m256i idx[4];
    float n;

    sum[0] = sum[1] = dot[0] = dot[1] = _mm256_setzero_ps();
    for (uint32_t i = 0; i < d; i += 8) {
        __m256 x = codec_load8(type, row, i);

        sum[i / 8 % 2] = _mm256_add_ps(sum[i / 8 % 2], _mm256_mul_ps(x, x));
        _mm256_store_ps(y + i, hadamard8(flip8(x, signs, i)));
    }
    n = fold2(sum[0], sum[1]);
    *scale = 0;
    if (n == 0.0f) {
        memset(codes, 0, d / 2);
        return true;
    }
    n = sqrtf(n);
    k = _mm256_set1_ps(b->root / n);
    hadamard_rest(y, d);
    for (uint32_t i = 0; i < d; i += 32) {
        for (uint32_t j = 0; j < 4; j++)
            idx[j] = nearest8(b, _mm256_mul_ps(_mm256_load_ps(y + i + j * 8), k), &dot[j % 2]);
        _mm_storeu_si128((void *)(codes + i / 2), pack32(idx));
    }
    return put_scale(n / fold2(dot[0], dot[1]), scale);
}

CODEC_AVX2 __m256 value8(__m256 c, __m256 c_neg, __m128i bytes) /* of the low eight bytes */
{
    __m256i idx = _mm256_cvtepu8_epi32(bytes);
    __m256 above = _mm256_castsi256_ps(_mm256_slli_epi32(idx, 28)); /* bit 3 as the sign */

    return _mm256_blendv_ps(_mm256_permutevar8x32_ps(c_neg, idx), _mm256_permutevar8x32_ps(c, idx),
                            above);
}

CODEC_AVX2 void decode_row8(enum kn_dtype type, const struct book *b, uint32_t d,
                            const uint64_t *signs, const uint8_t *codes, uint16_t scale,
                            uint8_t *row)
{
    const __m128i low = _mm_set1_epi8(15);
    const __m256 c = _mm256_loadu_ps(b->c), minus = _mm256_set1_ps(-0.0f);
    __m256 k = _mm256_set1_ps(codec_scale(scale) * b->root), c_neg;
    _Alignas(32) float y[D_MAX];

    c_neg = _mm256_permutevar8x32_ps(c, _mm256_setr_epi32(7, 6, 5, 4, 3, 2, 1, 0));
    c_neg = _mm256_xor_ps(c_neg, minus);
    for (uint32_t i = 0; i < d; i += 32) {
        __m128i v = _mm_loadu_si128((const void *)(codes + i / 2));
        __m128i even = _mm_and_si128(v, low), odd = _mm_and_si128(_mm_srli_epi16(v, 4), low);
        __m128i a = _mm_unpacklo_epi8(even, odd), e = _mm_unpackhi_epi8(even, odd);

        _mm256_store_ps(y + i, hadamard8(value8(c, c_neg, a)));
        _mm256_store_ps(y + i + 8, hadamard8(value8(c, c_neg, _mm_unpackhi_epi64(a, a))));
        _mm256_store_ps(y + i + 16, hadamard8(value8(c, c_neg, e)));
        _mm256_store_ps(y + i + 24, hadamard8(value8(c, c_neg, _mm_unpackhi_epi64(e, e))));
    }
    hadamard_rest(y, d);
    for (uint32_t i = 0; i < d; i += 16) {
        __m256 lo = flip8(_mm256_mul_ps(_mm256_load_ps(y + i), k), signs, i);
        __m256 hi = flip8(_mm256_mul_ps(_mm256_load_ps(y + i + 8), k), signs, i + 8);

        codec_store16(type, row, i, lo, hi);
    }
}

/* Type and width are constants in each branch, so that the loops unroll. */
#define EACH_WIDTH(fn, type, b, ...) \
    ((b)->d == 64    ? fn(type, b, 64, __VA_ARGS__) \
     : (b)->d == 128 ? fn(type, b, 128, __VA_ARGS__) \
                     : fn(type, b, 256, __VA_ARGS__))

__attribute__((target("avx2"))) static bool encode_avx2(enum kn_dtype type, const struct book *b,
                                                        const uint64_t *signs, const uint8_t *row,
                                                        uint8_t *codes, uint16_t *scale)
{
    return type == KN_BF16 ? EACH_WIDTH(encode_row8, KN_BF16, b, signs, row, codes, scale)
                           : EACH_WIDTH(encode_row8, KN_F32, b, signs, row, codes, scale);
}

__attribute__((target("avx2"))) static void decode_avx2(enum kn_dtype type, const struct book *b,
                                                        const uint64_t *signs, const uint8_t *codes,
                                                        uint16_t scale, uint8_t *row)
{
    if (type == KN_BF16)
        EACH_WIDTH(decode_row8, KN_BF16, b, signs, codes, scale, row);
    else
        EACH_WIDTH(decode_row8, KN_F32, b, signs, codes, scale, row);
}

bool wk_tq4_encode(enum kn_dtype type, const uint64_t *signs, const uint8_t *rows, uint32_t n_row,
                   uint32_t d, uint8_t *codes, uint16_t *scales)
{
    bool ok = true, vec = __builtin_cpu_supports("avx2");
    size_t row_bytes = d * kn_dtype_bytes(type);
    const struct book *b = find_book(d);
    uint32_t fp = kn_fp_enter();

    PS_ASSERT(b != NULL && (type == KN_BF16 || type == KN_F32));
    for (uint32_t i = 0; i < n_row && ok; i++)
        ok = (vec ? encode_avx2 : encode_scalar)(type, b, signs, rows + i * row_bytes,
                                                 codes + (size_t)i * d / 2, &scales[i]);
    kn_fp_leave(fp);
    return ok;
}

void wk_tq4_decode(enum kn_dtype type, const uint64_t *signs, const uint8_t *codes,
                   const uint16_t *scales, uint32_t n_row, uint32_t d, uint8_t *rows)
{
    bool vec = __builtin_cpu_supports("avx2");
    size_t row_bytes = d * kn_dtype_bytes(type);
    const struct book *b = find_book(d);
    uint32_t fp = kn_fp_enter();

    PS_ASSERT(b != NULL && (type == KN_BF16 || type == KN_F32));
    for (uint32_t i = 0; i < n_row; i++)
        (vec ? decode_avx2 : decode_scalar)(type, b, signs, codes + (size_t)i * d / 2, scales[i],
                                            rows + i * row_bytes);
    kn_fp_leave(fp);
}
