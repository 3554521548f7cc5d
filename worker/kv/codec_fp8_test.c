#include "worker/kv/codec_fp8.c"

#include <math.h>

#include "common/rng.h"
#include "common/test.h"

enum { D = 128, N_ROW = 4096 };

/* From the definition: sign, exponent e of 4 bits with bias 7, mantissa m of 3 bits. */
static double value_of(uint32_t code)
{
    double e = code >> 3 & 15, m = code & 7;
    double v = e > 0 ? ldexp(1.0 + m / 8.0, (int)e - 7) : ldexp(m / 8.0, -6);

    return code & 0x80 ? -v : v;
}

static double gauss(struct ps_rng *r)
{
    double u = 1.0 - ps_rng_unit(r), v = ps_rng_unit(r);

    return sqrt(-2.0 * log(u)) * cos(2.0 * M_PI * v);
}

static void every_code_is_what_the_definition_says(void **state)
{
    (void)state;
    for (uint32_t code = 0; code < 256; code++) {
        double want = value_of(code); /* of 0x7f and 0xff, which stand for NaN: 480 */
        float got = from_e4m3((uint8_t)code);

        assert_true((double)got == want);
        assert_int_equal(signbit(got) != 0, code >> 7);
        if ((code & 0x7f) != 0x7f)
            assert_int_equal(to_e4m3(got), code);
    }
    assert_true((double)from_e4m3(E4M3_MAX_CODE) == (double)E4M3_MAX);
}

/* Between each two neighbours: below, above and exactly at the middle, where the even code wins. */
static void codes_are_the_nearest_and_ties_go_to_even(void **state)
{
    (void)state;
    for (uint32_t code = 0; code < E4M3_MAX_CODE; code++) {
        float mid = (float)((value_of(code) + value_of(code + 1)) / 2);

        assert_int_equal(to_e4m3(nextafterf(mid, 0.0f)), code);
        assert_int_equal(to_e4m3(nextafterf(mid, 1e9f)), code + 1);
        assert_int_equal(to_e4m3(mid), code + (code & 1));
        assert_int_equal(to_e4m3(-mid), (code + (code & 1)) | 0x80);
    }
    assert_int_equal(to_e4m3(1e30f), E4M3_MAX_CODE);
    assert_int_equal(to_e4m3(-479.0f), E4M3_MAX_CODE | 0x80);
}

/* Every half is its own image; between neighbours the nearer one, at the middle the even one. */
static void halves_round_to_nearest_even(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < CODEC_F16_INF; h++) {
        float a = kn_f16_f32((uint16_t)h),
              b = h + 1 < CODEC_F16_INF ? kn_f16_f32((uint16_t)(h + 1)) : 65536.0f;
        float mid = (a + b) / 2;

        assert_int_equal(kn_f32_f16(a), h);
        assert_int_equal(kn_f32_f16(-a), h | 0x8000);
        assert_int_equal(kn_f32_f16(nextafterf(mid, 0.0f)), h);
        assert_int_equal(kn_f32_f16(nextafterf(mid, 1e9f)), h + 1);
        assert_int_equal(kn_f32_f16(mid), h + (h & 1));
    }
    assert_int_equal(kn_f32_f16(INFINITY), CODEC_F16_INF);
    assert_true((kn_f32_f16(NAN) & 0x7fff) > CODEC_F16_INF);
}

static void a_scale_is_never_too_small_for_its_row(void **state)
{
    struct ps_rng rng;

    (void)state;
    ps_rng_seed(&rng, 3);
    for (uint32_t i = 0; i < 20000; i++) {
        uint32_t bits = (uint32_t)ps_rng_below(&rng, kn_f32_bits(448.0f * 65504.0f) + 1);
        float amax = kn_bits_f32(bits), inv;
        uint16_t h;

        assert_true(scale_of(bits, &h, &inv));
        assert_true((double)kn_f16_f32(h) * 448.0 >= (double)amax);
        assert_true(bits == 0 || h > 0);
        if (amax > 0.03f) /* above the denormal halves: at most one step too large */
            assert_true((double)kn_f16_f32(h) * 448.0 <= (double)amax * (1 + 0x1p-9));
    }
}

/* Rows of any length and type, with large and tiny numbers among them. */
static void vector_code_gives_the_bits_of_the_scalar(void **state)
{
    static const enum kn_dtype types[] = {KN_BF16, KN_F32};
    static uint8_t row[D * 4], back[2][D * 4], codes[2][D];
    struct ps_rng rng;
    uint16_t scale[2];

    (void)state;
    if (!__builtin_cpu_supports("avx2"))
        skip();
    ps_rng_seed(&rng, 1);
    for (uint32_t n = 0; n < 20000; n++) {
        enum kn_dtype type = types[n & 1];
        uint32_t d = 1 + (uint32_t)ps_rng_below(&rng, D);
        double range = ps_rng_unit(&rng) * 40.0;

        for (uint32_t i = 0; i < d; i++)
            codec_store(type, row, i, (float)(gauss(&rng) * exp2(-range * ps_rng_unit(&rng))));
        assert_true(encode_scalar(type, row, d, codes[0], &scale[0]));
        assert_true(encode_avx2(type, row, d, codes[1], &scale[1]));
        assert_int_equal(scale[0], scale[1]);
        assert_memory_equal(codes[0], codes[1], d);
        for (uint32_t i = 0; n % 2 == 0 && i < d; i++) /* what nobody wrote decodes alike as well */
            codes[0][i] = (uint8_t)ps_rng_u64(&rng);
        scale[0] = n % 4 == 0 ? (uint16_t)ps_rng_u64(&rng) : scale[0];
        decode_scalar(type, codes[0], scale[0], d, back[0]);
        decode_avx2(type, codes[0], scale[0], d, back[1]);
        assert_memory_equal(back[0], back[1], d * kn_dtype_bytes(type));
        for (uint32_t i = 0; i < d; i++)
            assert_true(isfinite(codec_load(type, back[0], i)));
    }
}

/* Error energy over energy, of rows filled by `next`. */
static double nmse(double (*next)(struct ps_rng *r), enum kn_dtype type)
{
    static uint8_t rows[N_ROW * D * 4], back[N_ROW * D * 4], codes[N_ROW * D];
    static uint16_t scales[N_ROW];
    double err = 0, sum = 0;
    struct ps_rng rng;

    ps_rng_seed(&rng, 2);
    for (uint32_t i = 0; i < N_ROW * D; i++)
        codec_store(type, rows, i, (float)next(&rng));
    assert_true(wk_fp8_encode(type, rows, N_ROW, D, codes, scales));
    wk_fp8_decode(type, codes, scales, N_ROW, D, back);
    for (uint32_t i = 0; i < N_ROW * D; i++) {
        double x = (double)codec_load(type, rows, i), y = (double)codec_load(type, back, i);
        double step = (double)kn_f16_f32(scales[i / D]) * 0x1p-9; /* of the denormals */

        /* half a step of 3 bits of mantissa, and half a step of bf16's 7 */
        assert_true(fabs(x - y) <= fabs(x) * (0x1p-4 + 0x1p-8) + step / 2);
        err += (x - y) * (x - y);
        sum += x * x;
    }
    return err / sum;
}

static double student3(struct ps_rng *r)
{
    double a = gauss(r), b = gauss(r), c = gauss(r);

    return gauss(r) / sqrt((a * a + b * b + c * c) / 3.0);
}

static void round_trip_loses_what_the_format_must(void **state)
{
    double g = nmse(gauss, KN_F32), b = nmse(gauss, KN_BF16), t = nmse(student3, KN_F32);

    (void)state;
    print_message("# NMSE: Gaussian %.6f (bf16 rows %.6f), Student-t3 %.6f\n", g, b, t);
    assert_true(fabs(g / 0.00066 - 1) < 0.05 && fabs(b / 0.00066 - 1) < 0.05);
    assert_true(t < 0.00066); /* heavy tails lose less: most of the energy is in few codes */
}

static void no_row_with_nan_or_infinity_is_stored(void **state)
{
    static const float bad[] = {NAN, INFINITY, -INFINITY, 3e7f};
    uint8_t row[D * 4], codes[D];
    uint16_t scale;

    (void)state;
    for (uint32_t i = 0; i < D * PS_ARRAY_LEN(bad); i++) {
        for (uint32_t j = 0; j < D; j++)
            codec_store(KN_F32, row, j, j == i % D ? bad[i / D] : 1.0f);
        assert_false(wk_fp8_encode(KN_F32, row, 1, D, codes, &scale));
        for (uint32_t j = 0; j < D; j++)
            codec_store(KN_BF16, row, j, j == i % D ? bad[i / D] : 1.0f);
        assert_false(wk_fp8_encode(KN_BF16, row, 1, D, codes, &scale));
        assert_false(encode_scalar(KN_BF16, row, D, codes, &scale));
    }
}

static void zero_and_tiny_and_large_rows_come_back(void **state)
{
    static const float size[] = {0.0f, 1e-40f, 1e-30f, 1e-8f, 1e-4f, 6e4f, 2.9e7f};
    uint8_t row[D * 4], back[D * 4], codes[D];
    uint16_t scale;

    (void)state;
    for (uint32_t n = 0; n < PS_ARRAY_LEN(size); n++) {
        for (uint32_t i = 0; i < D; i++)
            codec_store(KN_F32, row, i, i % 3 ? size[n] : -size[n]);
        assert_true(wk_fp8_encode(KN_F32, row, 1, D, codes, &scale));
        assert_int_equal(scale == 0, n == 0);
        wk_fp8_decode(KN_F32, codes, &scale, 1, D, back);
        for (uint32_t i = 0; i < D; i++) {
            double x = (double)codec_load(KN_F32, row, i), y = (double)codec_load(KN_F32, back, i);

            assert_true(fabs(x - y) <= fabs(x) / 16 + 0x1p-34);
        }
    }
}

static void the_state_of_the_caller_does_not_matter(void **state)
{
    uint8_t row[D * 4], codes[2][D];
    uint32_t old = _mm_getcsr();
    struct ps_rng rng;
    uint16_t scale[2];

    (void)state;
    ps_rng_seed(&rng, 7);
    for (uint32_t i = 0; i < D; i++)
        codec_store(KN_F32, row, i, (float)(gauss(&rng) * exp2(-(double)i / 6)));
    for (uint32_t n = 0; n < 2; n++) {
        _mm_setcsr(n == 0 ? old : old | 3 << 13); /* rounds towards zero */
        assert_true(wk_fp8_encode(KN_F32, row, 1, D, codes[n], &scale[n]));
        assert_int_equal(_mm_getcsr() & 0xffc0, (n == 0 ? old : old | 3 << 13) & 0xffc0);
        _mm_setcsr(old);
    }
    assert_memory_equal(codes[0], codes[1], D);
    assert_int_equal(scale[0], scale[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_code_is_what_the_definition_says),
        cmocka_unit_test(codes_are_the_nearest_and_ties_go_to_even),
        cmocka_unit_test(halves_round_to_nearest_even),
        cmocka_unit_test(a_scale_is_never_too_small_for_its_row),
        cmocka_unit_test(vector_code_gives_the_bits_of_the_scalar),
        cmocka_unit_test(round_trip_loses_what_the_format_must),
        cmocka_unit_test(no_row_with_nan_or_infinity_is_stored),
        cmocka_unit_test(zero_and_tiny_and_large_rows_come_back),
        cmocka_unit_test(the_state_of_the_caller_does_not_matter),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
