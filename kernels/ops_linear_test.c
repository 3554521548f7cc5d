#include "kernels/ops_world.h"

#include <math.h>
#include <stdio.h>

#include "common/test.h"

struct shape {
    uint32_t n, k, m;
    bool full; /* only with --full */
};

static const struct shape shapes[] = {
    {1, 1, 1, false},      {16, 32, 1, false},   {17, 33, 5, false},     {40, 200, 37, false},
    {48, 64, 16, false},   {33, 96, 15, false},  {100, 130, 29, false},  {64, 1024, 13, false},
    {256, 512, 3, false},  {80, 544, 64, false}, {272, 1056, 2, false},  {96, 1030, 25, false},
    {1000, 1536, 4, true}, {768, 768, 65, true}, {2048, 2080, 12, true}, {130, 4100, 130, true},
};

struct problem {
    struct kn_mat w;
    enum kn_dtype x_type;
    void *plain, *x;
    float *bias;
    uint32_t stride, m;
};

static struct problem problem_new(struct world *w, const struct shape *s, enum kn_dtype t,
                                  enum temper temper)
{
    struct problem p = {
        .w = {NULL, t, s->n, s->k}, .x_type = t == KN_BF16 ? KN_BF16 : KN_F32, .m = s->m};
    void *packed = guard_new(kn_mat_bytes(t, s->n, s->k));

    p.stride = s->k + s->m % 3;
    p.plain = world_values(w, t, (size_t)s->n * s->k, temper);
    /* The last row ends with its own k elements: a guard page follows. */
    p.x = world_values(w, p.x_type, (size_t)(s->m - 1) * p.stride + s->k, temper);
    p.bias = s->n % 2 ? NULL : world_values(w, KN_F32, s->n, MODERATE);
    kn_mat_pack(packed, t, s->n, s->k, p.plain, 0, s->n);
    p.w.data = packed;
    return p;
}

/* A chain of k roundings errs by at most (k + 2) 2^-24 of the sum of magnitudes. */
static void check_truth(const struct problem *p, const float *out)
{
    for (size_t r = 0; r < p->m; r++)
        for (size_t n = 0; n < p->w.n; n++) {
            double sum = p->bias ? (double)p->bias[n] : 0, size = fabs(sum);

            for (size_t k = 0; k < p->w.k; k++) {
                double v = (double)value_at(p->x, p->x_type, r * p->stride + k) *
                           (double)value_at(p->plain, p->w.dtype, n * p->w.k + k);

                sum += v;
                size += fabs(v);
            }
            near_to("linear against f64", sum, (double)out[r * p->w.n + n],
                    (p->w.k + 2) * 0x1p-24 * size);
        }
}

static void check_shape(struct world *w, const struct shape *s, enum kn_dtype t, enum temper temper)
{
    struct problem p = problem_new(w, s, t, temper);
    float *want = guard_new((size_t)s->m * s->n * sizeof *want),
          *got = guard_new((size_t)s->m * s->n * sizeof *got);
    char what[96];

    (void)snprintf(what, sizeof what, "linear %s n %u k %u m %u temper %d", dtype_name(t), s->n,
                   s->k, s->m, (int)temper);
    assert_int_equal(w->ref->ops->linear(w->ref_dev, &p.w, p.bias, p.x, p.stride, s->m, want), 0);
    if (temper == MODERATE || temper == CANCEL)
        check_truth(&p, want);
    for (uint32_t i = 0; i < w->n_dev; i++) {
        memset(got, 0xff, (size_t)s->m * s->n * sizeof *got);
        assert_int_equal(w->cpu->ops->linear(w->dev[i], &p.w, p.bias, p.x, p.stride, s->m, got), 0);
        same_bits(what, w->cpu->describe(w->dev[i]), want, got, KN_F32, (size_t)s->m * s->n);
    }
    guard_free_all();
}

void linear_equals_reference_and_truth(void **state PS_UNUSED)
{
    struct world *w = the_world;

    for (size_t i = 0; i < PS_ARRAY_LEN(shapes); i++)
        for (int t = KN_F32; t <= KN_F16 && (w->full || !shapes[i].full); t++)
            for (int temper = 0; temper < N_TEMPER; temper++)
                check_shape(w, &shapes[i], (enum kn_dtype)t, (enum temper)temper);
}

void linear_rows_do_not_depend_on_batch(void **state PS_UNUSED)
{
    static const uint32_t cut[] = {1, 2, 3, 7, 12, 16, 19};
    static const struct shape s = {104, 330, 60, false};
    struct world *w = the_world;

    for (int t = KN_F32; t <= KN_F16; t++) {
        struct problem p = problem_new(w, &s, (enum kn_dtype)t, MODERATE);
        float *want = guard_new((size_t)s.m * s.n * sizeof *want),
              *got = guard_new((size_t)s.m * s.n * sizeof *got);

        assert_int_equal(w->ref->ops->linear(w->ref_dev, &p.w, p.bias, p.x, p.stride, s.m, want),
                         0);
        for (uint32_t i = 0; i < w->n_dev; i++) {
            uint32_t row = 0;

            for (size_t c = 0; c < PS_ARRAY_LEN(cut); row += cut[c++]) {
                const uint8_t *x =
                    (const uint8_t *)p.x + (size_t)row * p.stride * kn_dtype_bytes(p.x_type);

                assert_int_equal(w->cpu->ops->linear(w->dev[i], &p.w, p.bias, x, p.stride, cut[c],
                                                     got + (size_t)row * s.n),
                                 0);
            }
            assert_int_equal(row, s.m);
            same_bits("linear in cuts", w->cpu->describe(w->dev[i]), want, got, KN_F32,
                      (size_t)s.m * s.n);
        }
        guard_free_all();
    }
}

/* EX4, absolutely: products below 2^-126 and denormal inputs count as zero, on ref too. */
void denormals_are_zero_and_the_callers_state_stays(void **state PS_UNUSED)
{
    enum { K = 64 };
    static const uint16_t inputs[][2] = {{0x1f80, 0x1f80},
                                         {0x0040, 0x7f00}}; /* 2^-64 twice; 2^-127 by 2^127 */
    struct world *w = the_world;
    uint16_t *x = guard_new(K * sizeof *x), *plain = guard_new(K * sizeof *plain);
    void *packed = guard_new(kn_mat_bytes(KN_BF16, 1, K));
    struct kn_mat m = {packed, KN_BF16, 1, K};

    for (size_t c = 0; c < PS_ARRAY_LEN(inputs); c++) {
        for (uint32_t i = 0; i < K; i++) {
            x[i] = inputs[c][0];
            plain[i] = inputs[c][1];
        }
        kn_mat_pack(packed, KN_BF16, 1, K, plain, 0, 1);
        for (uint32_t i = 0; i <= w->n_dev; i++) {
            const struct kn_backend *b = i < w->n_dev ? w->cpu : w->ref;
            volatile float tiny = 0x1p-126f;
            float out = 1;

            assert_int_equal(
                b->ops->linear(i < w->n_dev ? w->dev[i] : w->ref_dev, &m, NULL, x, K, 1, &out), 0);
            assert_int_equal(kn_f32_bits(out), 0);
            assert_int_equal(kn_f32_bits(tiny * 0.5f), 0x00400000u);
        }
    }
    guard_free_all();
}

void packing_in_parts_is_packing_at_once(void **state PS_UNUSED)
{
    enum { N = 77, K = 301, CUT = 23 };
    struct world *w = the_world;

    for (int i = KN_F32; i <= KN_F16; i++) {
        enum kn_dtype t = (enum kn_dtype)i;
        size_t n_bytes = kn_mat_bytes(t, N, K), size = kn_dtype_bytes(t);
        uint8_t *plain = world_values(w, t, (size_t)N * K, MODERATE), *a = guard_new(n_bytes),
                *b = guard_new(n_bytes);

        assert_int_equal(n_bytes, 80 * 320 * size);
        kn_mat_pack(a, t, N, K, plain, 0, N);
        kn_mat_pack(b, t, N, K, plain + (size_t)CUT * K * size, CUT, N - CUT);
        kn_mat_pack(b, t, N, K, plain, 0, CUT);
        assert_memory_equal(a, b, n_bytes);
        /* Row 18, column 35 where ops.h says. */
        assert_memory_equal(a + (t == KN_BF16 ? (((size_t)1 * 160 + 17) * 16 + 2) * 2 + 1
                                              : ((size_t)1 * 320 + 35) * 16 + 2) *
                                    size,
                            plain + ((size_t)18 * K + 35) * size, size);
        guard_free_all();
    }
}
