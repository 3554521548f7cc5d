#include "kernels/ref/ref.h"

#include "kernels/fp.h"
#include "kernels/ref/math.h"

/* One split's (or the whole row's) softmax state: o is unnormalised. */
struct state {
    float max, sum, o[KN_HEAD_MAX];
};

static float kv_at(const uint8_t *row, uint8_t fmt, uint32_t i)
{
    uint16_t h;
    float f;

    if (fmt == KN_BF16) {
        memcpy(&h, row + i * sizeof h, sizeof h);
        return kn_bf16_f32(h);
    }
    memcpy(&f, row + i * sizeof f, sizeof f);
    return f;
}

/*
 * Tokens [pos, pos + n) of one tile. A score is one fmaf chain over the head's dims, ascending, times
 * scale. Maximum and sum use EX5 lanes (token j of the tile -> lane j mod 16; a lane without a token
 * holds -infinity and 0). Values are added token by token.
 */
static void tile(struct state *st, const struct kn_attn_args *a, const struct kn_seq *s,
                 const float *q, uint32_t kv_head, uint32_t pos, uint32_t n)
{
    float p[KN_ATTN_TILE], lane[KN_LANES], max, alpha;

    for (uint32_t i = 0; i < KN_LANES; i++)
        lane[i] = -INFINITY;
    for (uint32_t j = 0; j < n; j++) {
        const uint8_t *k = kn_kv_row(&a->kv, s->table_row, kv_head, pos + j);
        float dot = 0;

        for (uint32_t i = 0; i < a->d_head; i++)
            dot = fmaf(q[i], kv_at(k, a->kv.fmt, i), dot);
        p[j] = dot * a->scale;
        lane[j % KN_LANES] = kn_max(lane[j % KN_LANES], p[j]);
    }
    max = kn_max(st->max, kn_fold_max(lane));
    alpha = kn_exp(st->max - max);
    memset(lane, 0, sizeof lane);
    for (uint32_t j = 0; j < n; j++) {
        p[j] = kn_exp(p[j] - max);
        lane[j % KN_LANES] = lane[j % KN_LANES] + p[j];
    }
    st->max = max;
    st->sum = fmaf(st->sum, alpha, kn_fold_add(lane));
    for (uint32_t i = 0; i < a->d_head; i++)
        st->o[i] = st->o[i] * alpha;
    for (uint32_t j = 0; j < n; j++) {
        const uint8_t *v = kn_kv_row(&a->kv, s->table_row, a->n_kv_head + kv_head, pos + j);

        for (uint32_t i = 0; i < a->d_head; i++)
            st->o[i] = fmaf(p[j], kv_at(v, a->kv.fmt, i), st->o[i]);
    }
}

static void merge(struct state *all, const struct state *st, uint32_t d)
{
    float max = kn_max(all->max, st->max);
    float a = kn_exp(all->max - max), b = kn_exp(st->max - max);

    all->max = max;
    all->sum = fmaf(all->sum, a, st->sum * b);
    for (uint32_t i = 0; i < d; i++)
        all->o[i] = fmaf(all->o[i], a, st->o[i] * b);
}

void kn_ref_attn_row(const struct kn_attn_args *a, const struct kn_seq *s, uint32_t i,
                     uint32_t head)
{
    uint32_t len = s->pos0 + i + 1, kv_head = head / (a->n_q_head / a->n_kv_head), d = a->d_head;
    size_t row = ((size_t)s->tok_off + i) * a->n_q_head + head;
    struct state all, st;
    float inv;

    PS_ASSERT(d <= KN_HEAD_MAX);
    for (uint32_t split = 0; split < len; split += KN_ATTN_SPLIT) {
        uint32_t end = ps_min_u32(split + KN_ATTN_SPLIT, len);

        memset(&st, 0, sizeof st);
        st.max = -INFINITY;
        for (uint32_t pos = split; pos < end; pos += KN_ATTN_TILE)
            tile(&st, a, s, a->q + row * d, kv_head, pos, ps_min_u32(KN_ATTN_TILE, end - pos));
        if (split == 0)
            all = st;
        else
            merge(&all, &st, d);
    }
    inv = 1.0f / all.sum;
    for (uint32_t j = 0; j < d; j++)
        all.o[j] = all.o[j] * inv;
    kn_ref_round(a->out, row * d, a->out_type, all.o, d);
}

int kn_ref_attn(struct kn_dev *d PS_UNUSED, const struct kn_attn_args *a)
{
    uint32_t fp = kn_fp_enter();

    PS_ASSERT(a->n_q_head % a->n_kv_head == 0);
    for (uint32_t s = 0; s < a->n_seq; s++)
        for (uint32_t i = 0; i < a->seqs[s].n_q; i++)
            for (uint32_t h = 0; h < a->n_q_head; h++)
                kn_ref_attn_row(a, &a->seqs[s], i, h);
    kn_fp_leave(fp);
    return KN_OK;
}
