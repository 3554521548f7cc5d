#include "worker/kv/codec_tq4.c"

#include "common/rng.h"
#include "common/test.h"

enum { N_ROW = 4096, N_KEY = 1024 };
static const uint32_t widths[] = {64, 128, 256};
static const double mse_of[] = {0.009132, 0.009315, 0.009407}; /* of the table, raw norm */

static double gauss(struct ps_rng *r)
{
    double u = 1.0 - ps_rng_unit(r), v = ps_rng_unit(r);

    return sqrt(-2.0 * log(u)) * cos(2.0 * M_PI * v);
}

static double dot(const float *a, const float *b, uint32_t n)
{
    double sum = 0;

    for (uint32_t i = 0; i < n; i++)
        sum += (double)a[i] * (double)b[i];
    return sum;
}

/* ---- the codebook, derived ---- */

static double density(double x, uint32_t d) /* not normalised */
{
    return pow(1 - x * x, ((double)d - 3) / 2);
}

/* Integrals of f and of x f over [a, b]: Simpson, which is exact enough at this step, and closed form. */
static double mass(double a, double b, uint32_t d)
{
    enum { N = 128 };
    double h = (b - a) / N, sum = density(a, d) + density(b, d);

    for (int i = 1; i < N; i++)
        sum += (i % 2 ? 4 : 2) * density(a + i * h, d);
    return sum * h / 3;
}

static double moment(double a, double b, uint32_t d)
{
    double e = ((double)d - 1) / 2;

    return (pow(1 - a * a, e) - pow(1 - b * b, e)) / (2 * e);
}

struct lloyd {
    double c[LEVELS], t[LEVELS + 1], p[LEVELS], mse; /* p: probability of each, one side */
};

static void derive(struct lloyd *l, uint32_t d)
{
    double change = 1, end = fmin(1, 8 / sqrt(d)) /* 8 deviations */, all = 2 * mass(0, end, d);

    for (int i = 0; i < LEVELS; i++)
        l->c[i] = 3 * (i + 0.5) / (LEVELS * sqrt(d));
    for (int n = 0; n < 2000 && change > 1e-12; n++) {
        change = 0;
        for (int i = 0; i <= LEVELS; i++)
            l->t[i] = i == 0 ? 0 : i == LEVELS ? end : (l->c[i - 1] + l->c[i]) / 2;
        for (int i = 0; i < LEVELS; i++) {
            double m = mass(l->t[i], l->t[i + 1], d), c = moment(l->t[i], l->t[i + 1], d) / m;

            change = fmax(change, fabs(c - l->c[i]));
            l->c[i] = c;
            l->p[i] = m / all;
        }
    }
    l->mse = 1;
    for (int i = 0; i < LEVELS; i++)
        l->mse -= 2 * l->p[i] * l->c[i] * l->c[i] * d;
}

static void codebooks_are_the_ones_that_lloyd_and_max_give(void **state)
{
    struct lloyd l;

    (void)state;
    for (size_t w = 0; w < PS_ARRAY_LEN(widths); w++) {
        const struct book *b = find_book(widths[w]);

        derive(&l, widths[w]);
        for (int i = 0; i < LEVELS; i++)
            assert_true(fabs(l.c[i] - (double)b->c[i]) < 1e-6);
        for (int i = 0; i < LEVELS - 1; i++)
            assert_true(fabs(l.t[i + 1] - (double)b->t[i]) < 1e-6);
        assert_true(fabs(l.mse - mse_of[w]) < 2e-6);
        assert_true(fabs((double)b->root * sqrt(widths[w]) - 1) < 1e-7);
    }
    assert_false(wk_tq4_has(32) || wk_tq4_has(80) || wk_tq4_has(96) || wk_tq4_has(512));
}

/* ---- golden vectors ---- */

static uint32_t crc32_of(const uint8_t *p, size_t n)
{
    uint32_t crc = UINT32_MAX;

    for (size_t i = 0; i < n * 8; i++) {
        uint32_t bit = (crc ^ (uint32_t)p[i / 8] >> i % 8) & 1;

        crc = crc >> 1 ^ (bit ? 0xedb88320u : 0);
    }
    return ~crc;
}

/* xorshift64 from seed 42: a coordinate is negated when the low bit of the new state is set. */
static void golden_signs(uint32_t d, uint64_t signs[WK_TQ4_SIGN_WORDS])
{
    uint64_t s = 42 ^ d * 0x9e3779b97f4a7c15u;

    memset(signs, 0, WK_TQ4_SIGN_WORDS * sizeof(*signs));
    for (uint32_t i = 0; i < d; i++) {
        s ^= s << 13;
        s ^= s >> 7;
        s ^= s << 17;
        signs[i / 64] |= (s & 1) << i % 64;
    }
}

static void golden_vectors_have_their_checksums(void **state)
{
    static const uint32_t crc[] = {0xa827f06f, 0x6e18ed0d, 0xa539224c};
    static const double norm[] = {9.464882, 13.157725, 18.871436},
                        rc[] = {0.982596, 0.977973, 0.966239};
    uint64_t signs[WK_TQ4_SIGN_WORDS];
    uint8_t codes[D_MAX / 2];
    uint16_t scale;
    float x[D_MAX];

    (void)state;
    golden_signs(64, signs);
    assert_true(signs[0] == 0x0a87b9360a3a23ca);
    for (size_t w = 0; w < PS_ARRAY_LEN(widths); w++) {
        uint32_t d = widths[w];
        const uint8_t *row = (const void *)x;

        for (uint32_t i = 0; i < d; i++)
            x[i] = ((float)((19 * i * i + 2 * i + 9) % 251) - 125.0f) / 64.0f;
        golden_signs(d, signs);
        assert_true(encode_scalar(KN_F32, find_book(d), signs, row, codes, &scale));
        assert_int_equal(crc32_of(codes, d / 2), crc[w]);
        assert_true(fabs((double)kn_f16_f32(scale) * rc[w] / norm[w] - 1) < 0x1p-11);
        memset(codes, 0, sizeof(codes));
        assert_true(wk_tq4_encode(KN_F32, signs, row, 1, d, codes, &scale));
        assert_int_equal(crc32_of(codes, d / 2), crc[w]);
    }
}

static void signs_differ_by_layer_head_and_kind(void **state)
{
    uint64_t a[WK_TQ4_SIGN_WORDS], b[WK_TQ4_SIGN_WORDS];
    uint32_t n = 0;

    (void)state;
    wk_tq4_signs(3, 5, false, a);
    wk_tq4_signs(3, 5, false, b);
    assert_memory_equal(a, b, sizeof(a));
    wk_tq4_signs(3, 5, true, b);
    assert_memory_not_equal(a, b, sizeof(a));
    wk_tq4_signs(3, 6, false, b);
    assert_memory_not_equal(a, b, sizeof(a));
    wk_tq4_signs(4, 5, false, b);
    assert_memory_not_equal(a, b, sizeof(a));
    for (uint32_t i = 0; i < WK_TQ4_SIGN_WORDS; i++)
        n += (uint32_t)__builtin_popcountll(a[i]);
    assert_in_range(n, 100, 156); /* 256 fair coins: 128 +- 8 */
}

/* ---- the two paths ---- */

__attribute__((target("avx2"))) static float fold_of(const float *lanes)
{
    return fold2(_mm256_loadu_ps(lanes), _mm256_loadu_ps(lanes + 8));
}

/* Scales have 11 bits and would hide it. */
static void sums_are_taken_in_one_order(void **state)
{
    struct ps_rng rng;

    (void)state;
    if (!__builtin_cpu_supports("avx2"))
        skip();
    ps_rng_seed(&rng, 9);
    for (uint32_t n = 0; n < 1000; n++) {
        float lanes[LANES], want;

        for (uint32_t i = 0; i < LANES; i++)
            lanes[i] = (float)gauss(&rng);
        want = fold_of(lanes);
        assert_true(fold(lanes) == want);
    }
}

static void vector_code_gives_the_bits_of_the_scalar(void **state)
{
    static const enum kn_dtype types[] = {KN_BF16, KN_F32};
    uint8_t row[D_MAX * 4], back[2][D_MAX * 4], codes[2][D_MAX / 2];
    uint64_t signs[WK_TQ4_SIGN_WORDS];
    struct ps_rng rng;
    uint16_t scale[2];

    (void)state;
    if (!__builtin_cpu_supports("avx2"))
        skip();
    ps_rng_seed(&rng, 1);
    for (uint32_t n = 0; n < 12000; n++) {
        const struct book *b = &books[n % 3];
        enum kn_dtype type = types[n / 3 % 2];
        double range = ps_rng_unit(&rng) * (n % 5 == 0 ? 60 : 3);

        for (uint32_t i = 0; i < b->d; i++)
            codec_store(type, row, i, (float)(gauss(&rng) * exp2(-range * ps_rng_unit(&rng))));
        wk_tq4_signs(n, n % 7, n & 1, signs);
        assert_true(encode_scalar(type, b, signs, row, codes[0], &scale[0]));
        assert_true(encode_avx2(type, b, signs, row, codes[1], &scale[1]));
        assert_int_equal(scale[0], scale[1]);
        assert_memory_equal(codes[0], codes[1], b->d / 2);
        for (uint32_t i = 0; n % 2 == 0 && i < b->d / 2; i++)
            codes[0][i] = (uint8_t)ps_rng_u64(&rng);
        scale[0] = n % 4 == 0 ? (uint16_t)ps_rng_u64(&rng) : scale[0];
        decode_scalar(type, b, signs, codes[0], scale[0], back[0]);
        decode_avx2(type, b, signs, codes[0], scale[0], back[1]);
        assert_memory_equal(back[0], back[1], b->d * kn_dtype_bytes(type));
        for (uint32_t i = 0; i < b->d; i++)
            assert_true(isfinite(codec_load(type, back[0], i)));
    }
}

/* A decoded row is in the rotated domain what its codes say, and encodes to the same codes again. */
static void every_code_at_every_place_round_trips(void **state)
{
    uint64_t signs[WK_TQ4_SIGN_WORDS];
    uint8_t codes[D_MAX / 2];
    uint16_t one = 0x3c00;
    float x[D_MAX];

    (void)state;
    wk_tq4_signs(0, 0, false, signs);
    for (size_t w = 0; w < PS_ARRAY_LEN(widths) * 16; w++) {
        const struct book *b = &books[w / 16];
        uint32_t code = w % 16;

        for (uint32_t at = 0; at < b->d; at++) {
            memset(codes, 0x88, sizeof(codes)); /* the smallest positive one */
            codes[at / 2] = (uint8_t)(at % 2 ? 0x08 | code << 4 : 0x80 | code);
            wk_tq4_decode(KN_F32, signs, codes, &one, 1, b->d, (void *)x);
            for (uint32_t i = 0; i < b->d; i++)
                x[i] = flip(x[i], signs, i);
            hadamard(x, b->d);
            for (uint32_t i = 0; i < b->d; i++) {
                uint32_t m = i == at ? code : 8;
                float want = m >= 8 ? b->c[m - 8] : -b->c[7 - m];

                assert_true(fabsf(x[i] * b->root - want) < 1e-6f);
            }
        }
    }
}

/* ---- distortion ---- */

struct set { /* N_ROW rows and what became of them */
    float x[N_ROW * D_MAX], y[N_ROW * D_MAX];
    uint8_t codes[N_ROW * D_MAX / 2];
    uint16_t scales[N_ROW];
};

static void fill(struct set *s, uint32_t d, uint64_t seed)
{
    uint64_t signs[WK_TQ4_SIGN_WORDS];
    struct ps_rng rng;

    ps_rng_seed(&rng, seed);
    wk_tq4_signs(1, 2, false, signs);
    for (uint32_t i = 0; i < N_ROW * d; i++)
        s->x[i] = (float)gauss(&rng);
    assert_true(wk_tq4_encode(KN_F32, signs, (void *)s->x, N_ROW, d, s->codes, s->scales));
    wk_tq4_decode(KN_F32, signs, s->codes, s->scales, N_ROW, d, (void *)s->y);
}

/* Error of the reconstruction times k: n / s turns it into that of the raw norm. */
static double nmse_of(const float *x, const float *y, uint32_t d, double k)
{
    double err = 0;

    for (uint32_t i = 0; i < d; i++)
        err += pow((double)x[i] - k * (double)y[i], 2);
    return err / dot(x, x, d);
}

static void distortion_is_that_of_the_table_and_the_slope_is_one(void **state)
{
    static struct set s;

    (void)state;
    for (size_t w = 0; w < PS_ARRAY_LEN(widths); w++) {
        uint32_t d = widths[w];
        double raw = 0, corrected = 0, self = 0, qx = 0, qy = 0;

        fill(&s, d, 11 + w);
        for (uint32_t i = 0; i < N_ROW; i++) {
            const float *x = &s.x[i * d], *y = &s.y[i * d];

            raw += nmse_of(x, y, d, sqrt(dot(x, x, d)) / (double)kn_f16_f32(s.scales[i]));
            corrected += nmse_of(x, y, d, 1);
            self += dot(x, y, d) / dot(x, x, d);
            for (uint32_t j = 1; j <= 16; j++) { /* other rows as queries */
                const float *q = &s.x[(i + j * 97) % N_ROW * d];
                double a = dot(q, x, d);

                qx += a * a;
                qy += a * dot(q, y, d);
            }
        }
        print_message("# d %u: NMSE raw %.6f corrected %.6f, <x,x'>/<x,x> %.5f, slope %.5f\n", d,
                      raw / N_ROW, corrected / N_ROW, self / N_ROW, qy / qx);
        assert_true(fabs(raw / N_ROW / mse_of[w] - 1) < 0.01);
        assert_true(corrected < raw * 1.01);
        assert_true(fabs(self / N_ROW - 1) < 0.0005);
        assert_true(fabs(qy / qx - 1) < 0.002);
    }
}

static void codes_have_the_probabilities_of_the_table(void **state)
{
    static struct set s;
    struct lloyd l;

    (void)state;
    for (size_t w = 0; w < PS_ARRAY_LEN(widths); w++) {
        uint32_t d = widths[w], n[16] = {0};
        double all = (double)N_ROW * d;

        fill(&s, d, 5);
        derive(&l, d);
        for (uint32_t i = 0; i < N_ROW * d / 2; i++) {
            n[s.codes[i] & 15]++;
            n[s.codes[i] >> 4]++;
        }
        for (int i = 0; i < LEVELS; i++) {
            assert_true(fabs(n[LEVELS + i] / all - l.p[i]) < 0.002);
            assert_true(fabs(n[LEVELS - 1 - i] / all - l.p[i]) < 0.002);
        }
    }
}

/* With a second flip after the Hadamard step the codes of negated coordinates are mirrored: no gain. */
static void one_flip_distorts_as_much_as_two(void **state)
{
    static struct set s;
    uint64_t signs[WK_TQ4_SIGN_WORDS];
    const struct book *b = &books[1];
    double sum[2] = {0};

    (void)state;
    fill(&s, b->d, 8);
    wk_tq4_signs(1, 2, false, signs);
    for (uint32_t i = 0; i < N_ROW; i++) {
        float r[D_MAX], n = (float)sqrt(dot(&s.x[i * b->d], &s.x[i * b->d], b->d));

        for (uint32_t j = 0; j < b->d; j++)
            r[j] = flip(s.x[i * b->d + j], signs, j);
        hadamard(r, b->d);
        for (uint32_t two = 0; two < 2; two++) {
            for (uint32_t j = 0; j < b->d; j++) {
                float v = r[j] * b->root / n, a = two ? flip(v, signs, j) : v;
                uint32_t m = 0;

                for (uint32_t k = 0; k < LEVELS - 1; k++)
                    m += fabsf(a) >= b->t[k];
                sum[two] += pow((double)a - (double)copysignf(b->c[m], a), 2);
            }
        }
    }
    assert_true(fabs(sum[0] / sum[1] - 1) < 1e-9);
    assert_true(fabs(sum[0] / N_ROW / mse_of[1] - 1) < 0.01);
}

static void rotation_keeps_inner_products(void **state)
{
    uint64_t signs[WK_TQ4_SIGN_WORDS];
    struct ps_rng rng;

    (void)state;
    ps_rng_seed(&rng, 6);
    wk_tq4_signs(9, 1, true, signs);
    for (uint32_t n = 0; n < 3000; n++) {
        uint32_t d = widths[n % 3];
        float q[D_MAX], k[D_MAX];
        double before, size;

        for (uint32_t i = 0; i < d; i++) {
            q[i] = (float)gauss(&rng);
            k[i] = (float)gauss(&rng);
        }
        before = dot(q, k, d);
        size = sqrt(dot(q, q, d) * dot(k, k, d));
        for (uint32_t i = 0; i < d; i++) {
            q[i] = flip(q[i], signs, i);
            k[i] = flip(k[i], signs, i);
        }
        hadamard(q, d);
        hadamard(k, d);
        assert_true(fabs(dot(q, k, d) / d - before) < 1e-5 * size);
    }
}

/* Keys m + N(0, I): the error is relative to the whole key, the softmax only sees what varies. */
static double offset_kl(double offset, uint64_t seed)
{
    static float k[N_KEY * 128], y[N_KEY * 128];
    static uint8_t codes[N_KEY * 64];
    static uint16_t scales[N_KEY];
    enum { D = 128, N_QUERY = 48 };
    double sum = 0, size = 0, m[D];
    uint64_t signs[WK_TQ4_SIGN_WORDS];
    struct ps_rng rng;

    ps_rng_seed(&rng, seed);
    wk_tq4_signs((uint32_t)seed, 0, false, signs);
    for (uint32_t i = 0; i < D; i++) {
        m[i] = gauss(&rng);
        size += m[i] * m[i];
    }
    for (uint32_t i = 0; i < N_KEY * D; i++)
        k[i] = (float)(gauss(&rng) + m[i % D] * offset / sqrt(size));
    assert_true(wk_tq4_encode(KN_F32, signs, (void *)k, N_KEY, D, codes, scales));
    wk_tq4_decode(KN_F32, signs, codes, scales, N_KEY, D, (void *)y);
    for (uint32_t n = 0; n < N_QUERY; n++) {
        double a[N_KEY], b[N_KEY], za = 0, zb = 0, first_a, first_b, q2;
        float q[D];

        for (uint32_t i = 0; i < D; i++)
            q[i] = (float)gauss(&rng);
        q2 = sqrt(dot(q, q, D)) / 2; /* deviation of the logits: 2 */
        first_a = dot(q, k, D) / q2;
        first_b = dot(q, y, D) / q2;
        for (uint32_t t = 0; t < N_KEY; t++) {
            a[t] = dot(q, &k[t * D], D) / q2 - first_a;
            b[t] = dot(q, &y[t * D], D) / q2 - first_b;
            za += exp(a[t]);
            zb += exp(b[t]);
        }
        for (uint32_t t = 0; t < N_KEY; t++)
            sum += exp(a[t]) / za * (a[t] - b[t] + log(zb / za));
    }
    return sum / N_QUERY;
}

static void keys_with_a_common_part_lose_as_the_table_says(void **state)
{
    static const double offset[] = {0, 10, 30}, want[] = {0.019, 0.035, 0.131};

    (void)state;
    for (size_t i = 0; i < PS_ARRAY_LEN(offset); i++) {
        double kl = 0;

        for (uint64_t seed = 1; seed <= 4; seed++)
            kl += offset_kl(offset[i], seed) / 4;
        print_message("# keys offset by %.0f: KL %.4f (table %.3f)\n", offset[i], kl, want[i]);
        assert_true(fabs(kl / want[i] - 1) < 0.2);
    }
}

/* ---- odd rows ---- */

static void odd_rows_come_back_or_are_refused(void **state)
{
    static const float size[] = {1e-40f, 1e-30f, 1e-6f, 1.0f, 5e3f};
    uint8_t codes[D_MAX / 2];
    uint64_t signs[WK_TQ4_SIGN_WORDS];
    float x[D_MAX], y[D_MAX];
    uint16_t scale = 1;

    (void)state;
    wk_tq4_signs(0, 0, true, signs);
    for (size_t w = 0; w < PS_ARRAY_LEN(widths); w++) {
        uint32_t d = widths[w];

        memset(x, 0, sizeof(x));
        assert_true(wk_tq4_encode(KN_F32, signs, (void *)x, 1, d, codes, &scale));
        assert_int_equal(scale, 0);
        wk_tq4_decode(KN_F32, signs, codes, &scale, 1, d, (void *)y);
        for (uint32_t i = 0; i < d; i++)
            assert_true(y[i] == 0.0f);
        x[d / 3] =
            6e4f; /* one-hot: every rotated coordinate has one size, and the scale repairs it */
        assert_true(wk_tq4_encode(KN_F32, signs, (void *)x, 1, d, codes, &scale));
        wk_tq4_decode(KN_F32, signs, codes, &scale, 1, d, (void *)y);
        assert_true(nmse_of(x, y, d, 1) < 1e-6);
        for (size_t n = 0; n < PS_ARRAY_LEN(size); n++) { /* norms from nothing to 8e4 */
            bool fits = n + 1 < PS_ARRAY_LEN(size) || d < 256;

            for (uint32_t i = 0; i < d; i++)
                x[i] = i * 37 % d < d / 2 ? size[n] : -size[n];
            assert_true(wk_tq4_encode(KN_F32, signs, (void *)x, 1, d, codes, &scale) == fits);
            wk_tq4_decode(KN_F32, signs, codes, &scale, 1, d, (void *)y);
            for (uint32_t i = 0; fits && i < d; i++)
                assert_true(fabsf(x[i] - y[i]) <= fabsf(x[i]) + 1e-7f);
        }
    }
}

static void no_row_with_nan_or_infinity_is_stored(void **state)
{
    static const float bad[] = {NAN, INFINITY, -INFINITY, 1e30f, 7e4f};
    uint8_t row[D_MAX * 4], codes[D_MAX / 2];
    uint64_t signs[WK_TQ4_SIGN_WORDS];
    uint16_t scale;

    (void)state;
    wk_tq4_signs(0, 0, false, signs);
    for (uint32_t n = 0; n < D_MAX * PS_ARRAY_LEN(bad); n++) {
        uint32_t d = widths[n % 3], at = n / PS_ARRAY_LEN(bad) % d;

        for (uint32_t i = 0; i < d; i++)
            codec_store(KN_BF16, row, i, i == at ? bad[n % PS_ARRAY_LEN(bad)] : 1.0f);
        assert_false(wk_tq4_encode(KN_BF16, signs, row, 1, d, codes, &scale));
        assert_false(encode_scalar(KN_BF16, find_book(d), signs, row, codes, &scale));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(codebooks_are_the_ones_that_lloyd_and_max_give),
        cmocka_unit_test(golden_vectors_have_their_checksums),
        cmocka_unit_test(signs_differ_by_layer_head_and_kind),
        cmocka_unit_test(sums_are_taken_in_one_order),
        cmocka_unit_test(vector_code_gives_the_bits_of_the_scalar),
        cmocka_unit_test(every_code_at_every_place_round_trips),
        cmocka_unit_test(distortion_is_that_of_the_table_and_the_slope_is_one),
        cmocka_unit_test(codes_have_the_probabilities_of_the_table),
        cmocka_unit_test(one_flip_distorts_as_much_as_two),
        cmocka_unit_test(rotation_keeps_inner_products),
        cmocka_unit_test(keys_with_a_common_part_lose_as_the_table_says),
        cmocka_unit_test(odd_rows_come_back_or_are_refused),
        cmocka_unit_test(no_row_with_nan_or_infinity_is_stored),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
