#include "kernels/ops_world.h"

#include <math.h>
#include <stdio.h>

#include "common/test.h"

struct shape {
    uint32_t d_head, n_q_head, n_kv_head, page_shift;
    enum kn_dtype fmt, out_type;
    bool full; /* only with --full */
};

static const struct shape shapes[] = {
    {2, 1, 1, 4, KN_F32, KN_F32, false},     {24, 6, 2, 4, KN_BF16, KN_F32, false},
    {48, 4, 4, 5, KN_F32, KN_BF16, false},   {80, 5, 1, 6, KN_BF16, KN_BF16, false},
    {128, 4, 1, 4, KN_BF16, KN_F32, false},  {50, 2, 2, 8, KN_BF16, KN_F32, false},
    {256, 2, 1, 7, KN_F32, KN_F32, false},   {64, 16, 2, 4, KN_BF16, KN_BF16, true},
    {16, 140, 2, 4, KN_BF16, KN_F32, false}, {128, 32, 8, 6, KN_BF16, KN_BF16, true},
};

enum { N_SEQ = 5, N_TOK = 1 + 70 + 3 + 40 + 1 };

/* Lengths around tiles (64), splits (1,024) and pages; a decode row, prompts, a tail. The longest ends its
 * table, in the middle of a tile. */
static const uint32_t len[N_SEQ] = {1, 70, 1026, 600, 2090};
static const struct kn_seq seqs[N_SEQ] = {
    {0, 1, 2089, 4, 0},  {1, 70, 0, 1, 0},  {71, 3, 1023, 2, 0},
    {74, 40, 560, 3, 0}, {114, 1, 0, 0, 0},
};

/* Plain softmax in f64; f32 rounding of scores of size s moves a weight by 2^-24 s. */
static void check_truth(const struct kn_attn_args *a, const struct kn_seq *s, uint32_t i,
                        uint32_t h, const float *out)
{
    uint32_t n = s->pos0 + i + 1, d = a->d_head, kv_head = h / (a->n_q_head / a->n_kv_head);
    const float *q = a->q + ((size_t)(s->tok_off + i) * a->n_q_head + h) * d;
    double *p = ps_calloc(n, sizeof *p), top = -INFINITY, sum = 0;

    for (int pass = 0; pass < 2; pass++)
        for (uint32_t j = 0; j < n; j++) {
            uint32_t page =
                a->kv.table[s->table_row * a->kv.table_stride + (j >> a->kv.page_shift)];
            const uint8_t *row = a->kv.arena + page * a->kv.item_stride +
                                 kv_head * a->kv.head_stride +
                                 (j & ((1u << a->kv.page_shift) - 1)) * (size_t)a->kv.row_stride;

            for (uint32_t e = 0; e < d && pass == 0; e++)
                p[j] += (double)q[e] * (double)value_at(row, (enum kn_dtype)a->kv.fmt, e) *
                        (double)a->scale;
            top = fmax(top, p[j]);
            sum += pass == 1 ? exp(p[j] - top) : 0;
        }
    for (uint32_t e = 0; e < d; e++) {
        double y = 0;

        for (uint32_t j = 0; j < n; j++) {
            uint32_t page =
                a->kv.table[s->table_row * a->kv.table_stride + (j >> a->kv.page_shift)];
            const uint8_t *row = a->kv.arena + page * a->kv.item_stride +
                                 (kv_head + a->n_kv_head) * (size_t)a->kv.head_stride +
                                 (j & ((1u << a->kv.page_shift) - 1)) * (size_t)a->kv.row_stride;

            y += exp(p[j] - top) / sum * (double)value_at(row, (enum kn_dtype)a->kv.fmt, e);
        }
        near_to("attention against f64", y, (double)out[e], 1e-5);
    }
    ps_free(p);
}

static struct kn_attn_args args_new(struct world *w, const struct shape *s)
{
    struct kn_attn_args a = {.n_q_head = s->n_q_head,
                             .n_kv_head = s->n_kv_head,
                             .d_head = s->d_head,
                             .seqs = seqs,
                             .n_seq = N_SEQ,
                             .out_type = s->out_type};

    a.scale = (float)(1 / sqrt(s->d_head));
    a.kv = world_kv(w, s->fmt, s->page_shift, s->n_kv_head, s->d_head, len, N_SEQ, true).view;
    a.q = world_values(w, KN_F32, (size_t)N_TOK * s->n_q_head * s->d_head, MODERATE);
    return a;
}

static void *out_new(const struct shape *s)
{
    return guard_new((size_t)N_TOK * s->n_q_head * s->d_head * kn_dtype_bytes(s->out_type));
}

static void check_shape(struct world *w, const struct shape *s)
{
    struct kn_attn_args a = args_new(w, s);
    void *want = out_new(s), *got = out_new(s);
    size_t n = (size_t)N_TOK * s->n_q_head * s->d_head;
    char what[80];

    (void)snprintf(what, sizeof what, "attn d %u heads %u/%u page %u kv %s", s->d_head, s->n_q_head,
                   s->n_kv_head, 1u << s->page_shift, dtype_name(s->fmt));
    a.out = want;
    assert_int_equal(w->ref->ops->attn(w->ref_dev, &a), 0);
    for (uint32_t q = 0; q < N_SEQ && s->out_type == KN_F32; q++) {
        uint32_t i = seqs[q].n_q - 1, h = s->n_q_head - 1;

        check_truth(&a, &seqs[q], i, h,
                    (const float *)want +
                        ((size_t)(seqs[q].tok_off + i) * s->n_q_head + h) * s->d_head);
    }
    a.out = got;
    for (uint32_t i = 0; i < w->n_dev; i++) {
        memset(got, 0xff, n * kn_dtype_bytes(s->out_type));
        assert_int_equal(w->cpu->ops->attn(w->dev[i], &a), 0);
        same_bits(what, w->cpu->describe(w->dev[i]), want, got, s->out_type, n);
    }
    guard_free_all();
}

void attn_equals_reference_and_truth(void **state PS_UNUSED)
{
    for (size_t i = 0; i < PS_ARRAY_LEN(shapes); i++)
        if (the_world->full || !shapes[i].full)
            check_shape(the_world, &shapes[i]);
}

/* Each sequence alone and in pieces: also the way splits become units of their own. */
void attn_rows_do_not_depend_on_chunk_or_batch(void **state PS_UNUSED)
{
    static const uint32_t piece[] = {1, 7, 1000};
    static const struct shape s = {72, 6, 2, 4, KN_BF16, KN_F32, false};
    struct world *w = the_world;
    struct kn_attn_args a = args_new(w, &s);
    void *want = out_new(&s), *got = out_new(&s);
    size_t n = (size_t)N_TOK * s.n_q_head * s.d_head;

    a.out = want;
    assert_int_equal(w->ref->ops->attn(w->ref_dev, &a), 0);
    a.out = got;
    for (uint32_t i = 0; i < w->n_dev; i++) {
        memset(got, 0xff, n * sizeof(float));
        for (uint32_t q = 0; q < N_SEQ; q++) {
            struct kn_seq part = seqs[q];

            a.seqs = &part;
            a.n_seq = 1;
            for (size_t p = 0; part.tok_off < seqs[q].tok_off + seqs[q].n_q; p++) {
                part.n_q = ps_min_u32(piece[p], seqs[q].tok_off + seqs[q].n_q - part.tok_off);
                assert_int_equal(w->cpu->ops->attn(w->dev[i], &a), 0);
                part.tok_off += part.n_q;
                part.pos0 += part.n_q;
            }
        }
        same_bits("attn in pieces", w->cpu->describe(w->dev[i]), want, got, KN_F32, n);
    }
    guard_free_all();
}
