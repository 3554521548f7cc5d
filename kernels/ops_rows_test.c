#include "kernels/ops_world.h"

#include <math.h>
#include <stdio.h>

#include "common/test.h"
#include "kernels/cpu/isa.h"
#include "kernels/fp.h"

static const uint32_t dims[] = {1, 2, 15, 16, 24, 80, 1000, 2048};
static const uint32_t counts[] = {1, 3, 37};

static void check_norm(struct world *w, uint32_t n, uint32_t dim, enum kn_dtype t, bool delta_given,
                       enum temper temper)
{
    size_t size = (size_t)n * dim;
    float *x = world_values(w, KN_F32, size, temper), *wt = world_values(w, KN_F32, dim, MODERATE);
    float *delta = delta_given ? world_values(w, KN_F32, size, temper) : NULL;
    float *x_ref = guard_new(size * 4), *x_got = guard_new(size * 4);
    void *want = guard_new(size * kn_dtype_bytes(t)), *got = guard_new(size * kn_dtype_bytes(t));

    memcpy(x_ref, x, size * 4);
    assert_int_equal(w->ref->ops->add_norm(w->ref_dev, x_ref, delta, wt, 1e-6f, n, dim, want, t),
                     0);
    for (size_t r = 0; r < n && temper == MODERATE && t == KN_F32; r++) {
        double sum = 0;

        for (size_t i = 0; i < dim; i++) {
            double v = (double)x[r * dim + i] + (delta ? (double)delta[r * dim + i] : 0);

            near_to("add", v, (double)x_ref[r * dim + i], 1e-6);
            sum += v * v;
        }
        for (size_t i = 0; i < dim; i++) {
            double y = (double)x_ref[r * dim + i] / sqrt(sum / dim + 1e-6) * (double)wt[i];

            near_to("norm against f64", y, (double)((float *)want)[r * dim + i],
                    1e-5 * fabs(y) + 1e-6);
        }
    }
    for (uint32_t i = 0; i < w->n_dev; i++) {
        memcpy(x_got, x, size * 4);
        assert_int_equal(w->cpu->ops->add_norm(w->dev[i], x_got, delta, wt, 1e-6f, n, dim, got, t),
                         0);
        same_bits("add_norm", w->cpu->describe(w->dev[i]), want, got, t, size);
        same_bits("add_norm x", w->cpu->describe(w->dev[i]), x_ref, x_got, KN_F32, size);
    }
    guard_free_all();
}

void add_norm_equals_reference_and_truth(void **state PS_UNUSED)
{
    for (size_t d = 0; d < PS_ARRAY_LEN(dims); d++)
        for (size_t c = 0; c < PS_ARRAY_LEN(counts); c++)
            for (int kind = 0; kind < 4; kind++)
                for (int temper = 0; temper < N_TEMPER; temper++)
                    check_norm(the_world, counts[c], dims[d], kind & 1 ? KN_BF16 : KN_F32, kind & 2,
                               (enum temper)temper);
}

void silu_mul_equals_reference_and_truth(void **state PS_UNUSED)
{
    struct world *w = the_world;

    for (size_t d = 0; d < PS_ARRAY_LEN(dims); d++)
        for (size_t c = 0; c < PS_ARRAY_LEN(counts); c++)
            for (int kind = 0; kind < 2 * N_TEMPER; kind++) {
                enum kn_dtype t = kind & 1 ? KN_BF16 : KN_F32;
                size_t dim = dims[d], size = counts[c] * dim;
                float *gu = world_values(w, KN_F32, 2 * size, (enum temper)(kind / 2));
                void *want = guard_new(size * kn_dtype_bytes(t)),
                     *got = guard_new(size * kn_dtype_bytes(t));

                assert_int_equal(w->ref->ops->silu_mul(w->ref_dev, gu, counts[c], dims[d], want, t),
                                 0);
                for (size_t i = 0; i < size && kind == 0; i++) {
                    double g = (double)gu[i / dim * 2 * dim + i % dim];
                    double y = g / (1 + exp(-g)) * (double)gu[i / dim * 2 * dim + dim + i % dim];

                    near_to("silu against f64", y, (double)((float *)want)[i],
                            1e-6 * fabs(y) + 1e-9);
                }
                for (uint32_t i = 0; i < w->n_dev; i++) {
                    assert_int_equal(
                        w->cpu->ops->silu_mul(w->dev[i], gu, counts[c], dims[d], got, t), 0);
                    same_bits("silu_mul", w->cpu->describe(w->dev[i]), want, got, t, size);
                }
                guard_free_all();
            }
}

void embed_and_gather_copy_rows(void **state PS_UNUSED)
{
    enum { N = 50, K = 70, ROWS = 600 };
    struct world *w = the_world;
    uint32_t ids[ROWS];

    for (uint32_t i = 0; i < ROWS; i++)
        ids[i] = i * 17 % N;
    for (int k = KN_F32; k <= KN_F16; k++) {
        enum kn_dtype t = (enum kn_dtype)k;
        void *plain = world_values(w, t, (size_t)N * K, WIDE),
             *packed = guard_new(kn_mat_bytes(t, N, K));
        struct kn_mat m = {packed, t, N, K};
        float *out = guard_new((size_t)ROWS * K * 4), *again = guard_new((size_t)ROWS * K * 4);

        kn_mat_pack(packed, t, N, K, plain, 0, N);
        for (uint32_t i = 0; i < w->n_dev; i++) {
            assert_int_equal(w->cpu->ops->embed(w->dev[i], &m, ids, ROWS, out), 0);
            for (size_t j = 0; j < (size_t)ROWS * K; j++)
                assert_int_equal(kn_f32_bits(out[j]),
                                 kn_f32_bits(value_at(plain, t, ids[j / K] * (size_t)K + j % K)));
            assert_int_equal(w->cpu->ops->gather_rows(w->dev[i], out, ids, N, K, again), 0);
            for (size_t r = 0; r < N; r++)
                assert_memory_equal(again + r * K, out + ids[r] * (size_t)K, K * 4);
        }
        guard_free_all();
    }
}

struct qkv_shape {
    uint32_t d_head, d_rot, n_q_head, n_kv_head, page_shift;
    enum kn_dtype fmt;
    bool norm;
};

static const struct qkv_shape qkv_shapes[] = {
    {2, 2, 1, 1, 4, KN_F32, true},    {24, 24, 6, 2, 4, KN_BF16, true},
    {48, 24, 4, 4, 5, KN_F32, false}, {64, 64, 8, 2, 6, KN_BF16, false},
    {80, 80, 5, 1, 4, KN_BF16, true}, {128, 128, 4, 2, 8, KN_BF16, true},
    {256, 64, 2, 1, 7, KN_F32, true}, {100, 50, 2, 2, 4, KN_BF16, true},
};

/* y of one rotated element in f64, from the f32 angle. */
static double rotated(const float *v, double norm, const float *wt, const struct kn_qkv_args *a,
                      uint32_t pos, uint32_t i)
{
    uint32_t half = a->rope.d_rot / 2, j = i < half ? i : i - half;
    double x = (double)v[i] * norm * (wt ? (double)wt[i] : 1), y;
    double angle = (double)((float)pos * a->rope.inv_freq[j < half ? j : 0]),
           m = (double)a->rope.scale;

    if (i >= a->rope.d_rot)
        return x;
    j = i < half ? i + half : i - half;
    y = (double)v[j] * norm * (wt ? (double)wt[j] : 1);
    return m * (x * cos(angle) + (i < half ? -y : y) * sin(angle));
}

static void check_q_truth(const struct kn_qkv_args *a)
{
    uint32_t d = a->d_head, width = (a->n_q_head + 2 * a->n_kv_head) * d;

    for (uint32_t s = 0; s < a->n_seq; s++)
        for (uint32_t q = 0; q < a->seqs[s].n_q; q++)
            for (uint32_t h = 0; h < a->n_q_head; h++) {
                size_t tok = a->seqs[s].tok_off + q;
                const float *v = a->qkv + tok * width + (size_t)h * d;
                double sum = 0;

                for (uint32_t i = 0; i < d; i++)
                    sum += (double)v[i] * (double)v[i];
                for (uint32_t i = 0; i < d; i++)
                    near_to("rope against f64",
                            rotated(v, a->q_norm ? 1 / sqrt(sum / d + (double)a->eps) : 1,
                                    a->q_norm, a, a->seqs[s].pos0 + q, i),
                            (double)a->q_out[(tok * a->n_q_head + h) * d + i], 5e-6);
            }
}

static void check_qkv(struct world *w, const struct qkv_shape *s)
{
    static const uint32_t len[] = {40, 300, 1000};
    /* Tokens of the first sequence come last in the buffers. */
    const struct kn_seq seqs[] = {{71, 40, 0, 0, 0}, {0, 1, 299, 1, 0}, {1, 70, 930, 2, 0}};
    uint32_t n_tok = 111, width = (s->n_q_head + 2 * s->n_kv_head) * s->d_head,
             n_out = n_tok * s->n_q_head * s->d_head;
    struct world_kv kv = world_kv(w, s->fmt, s->page_shift, s->n_kv_head, s->d_head, len, 3, false);
    uint8_t *want = guard_new(kv.arena_bytes);
    float *inv_freq = guard_new(s->d_rot / 2 * sizeof *inv_freq),
          *q_want = guard_new(n_out * sizeof *q_want);
    struct kn_qkv_args a = {.eps = 1e-6f,
                            .n_tok = n_tok,
                            .n_q_head = s->n_q_head,
                            .n_kv_head = s->n_kv_head,
                            .d_head = s->d_head,
                            .rope = {inv_freq, 1.25f, s->d_rot},
                            .seqs = seqs,
                            .n_seq = 3,
                            .kv = kv.view};

    for (uint32_t i = 0; i < s->d_rot / 2; i++)
        inv_freq[i] = (float)pow(10000, -2.0 * i / s->d_rot);
    a.qkv = world_values(w, KN_F32, (size_t)n_tok * width, MODERATE);
    a.q_norm = s->norm ? world_values(w, KN_F32, s->d_head, MODERATE) : NULL;
    a.k_norm = s->norm ? world_values(w, KN_F32, s->d_head, MODERATE) : NULL;
    a.q_out = q_want;
    assert_int_equal(w->ref->ops->qkv_rope_write(w->ref_dev, &a), 0);
    check_q_truth(&a);
    memcpy(want, kv.view.arena, kv.arena_bytes);
    a.q_out = guard_new(n_out * sizeof *a.q_out);
    for (uint32_t i = 0; i < w->n_dev; i++) {
        memset(kv.view.arena, 0, kv.arena_bytes);
        memset(a.q_out, 0xff, n_out * sizeof *a.q_out);
        assert_int_equal(w->cpu->ops->qkv_rope_write(w->dev[i], &a), 0);
        same_bits("q", w->cpu->describe(w->dev[i]), q_want, a.q_out, KN_F32, n_out);
        assert_memory_equal(want, kv.view.arena, kv.arena_bytes);
    }
    guard_free_all();
}

void qkv_rope_write_equals_reference_and_truth(void **state PS_UNUSED)
{
    for (size_t i = 0; i < PS_ARRAY_LEN(qkv_shapes); i++)
        check_qkv(the_world, &qkv_shapes[i]);
}

void no_kv_write_leaves_pages_alone(void **state PS_UNUSED)
{
    enum { D = 32 };
    static const uint32_t len[] = {20};
    const struct kn_seq seq = {0, 20, 0, 0, KN_SEQ_NO_KV_WRITE};
    struct world *w = the_world;
    struct world_kv kv = world_kv(w, KN_BF16, 4, 1, D, len, 1, true);
    uint8_t *before = guard_new(kv.arena_bytes);
    struct kn_qkv_args a = {.n_tok = 20,
                            .n_q_head = 1,
                            .n_kv_head = 1,
                            .d_head = D,
                            .seqs = &seq,
                            .n_seq = 1,
                            .kv = kv.view};

    a.qkv = world_values(w, KN_F32, 20 * 3 * D, MODERATE);
    a.q_out = guard_new(20 * D * sizeof(float));
    a.rope = (struct kn_rope){world_values(w, KN_F32, D / 2, MODERATE), 1, D};
    memcpy(before, kv.view.arena, kv.arena_bytes);
    assert_int_equal(w->ref->ops->qkv_rope_write(w->ref_dev, &a), 0);
    for (uint32_t i = 0; i < w->n_dev; i++)
        assert_int_equal(w->cpu->ops->qkv_rope_write(w->dev[i], &a), 0);
    assert_memory_equal(before, kv.view.arena, kv.arena_bytes);
    guard_free_all();
}

static double truth(char fn, double x)
{
    return fn == 'e' ? exp(x) : fn == 'l' ? log(x) : fn == 's' ? sin(x) : cos(x);
}

/* exp and log to 2e-7 relative, sine and cosine to 2e-7 absolute up to angles of 1e6. */
static void check_math_truth(char fn, const float *x, const float *y, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        double want = truth(fn, (double)x[i]), v = (double)x[i];

        if (fn == 'e' && v > -87.3 && v < 88.3)
            near_to("exp", want, (double)y[i], 2e-7 * want);
        if (fn == 'l' && x[i] >= 0x1p-126f && isfinite(v))
            near_to("log", want, (double)y[i], 2e-7 * fabs(want) + 1e-12);
        if ((fn == 's' || fn == 'c') && fabs(v) <= 1e6)
            near_to("sine", want, (double)y[i], 2e-7);
    }
}

void elementary_functions_equal_reference_and_truth(void **state PS_UNUSED)
{
    enum { N = 200003 };
    static const float special[] = {0,     -0.0f,    INFINITY, -INFINITY,  NAN,  1,    1e-40f,
                                    88.4f, 88.3762f, -87.4f,   -87.33654f, 1e6f, 3e38f};
    static const char fn[] = {'e', 'l', 's', 'c'};
    const struct kn_isa *const isa[] = {&kn_isa_avx2, &kn_isa_avx512};
    struct world *w = the_world;
    float *x = guard_new(N * sizeof *x), *want = guard_new(N * sizeof *want),
          *got = guard_new(N * sizeof *got);
    const char *note;

    for (uint32_t i = 0; i < N; i++) {
        uint64_t kind = ps_rng_below(&w->rng, 3);

        x[i] = i < PS_ARRAY_LEN(special) ? special[i]
               : kind == 0               ? world_value(w, WIDE)
               : kind == 1               ? (float)((ps_rng_unit(&w->rng) - 0.5) * 200)
                                         : (float)(ps_rng_unit(&w->rng) * 1e6);
    }
    for (size_t f = 0; f < sizeof fn; f++) {
        uint32_t fp = kn_fp_enter();

        kn_isa_scalar.math(fn[f], x, want, N);
        kn_fp_leave(fp);
        check_math_truth(fn[f], x, want, N);
        for (size_t i = 0; i < PS_ARRAY_LEN(isa); i++) {
            if (kn_isa_pick(isa[i]->name, &note) == NULL)
                continue;
            fp = kn_fp_enter();
            isa[i]->math(fn[f], x, got, N);
            kn_fp_leave(fp);
            same_bits("elementary function", isa[i]->name, want, got, KN_F32, N);
        }
    }
    guard_free_all();
}
