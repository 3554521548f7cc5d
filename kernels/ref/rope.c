#include "kernels/ref/ref.h"

#include "kernels/fp.h"
#include "kernels/ref/math.h"

/* y[i] = x[i] c - x[j] s, y[j] = x[j] c + x[i] s, with j = i + half: each one product rounded, then
 * one fmaf. */
static void rotate(float *v, uint32_t half, const float *cosine, const float *sine)
{
    for (uint32_t i = 0; i < half; i++) {
        float a = v[i], b = v[i + half];

        v[i] = fmaf(a, cosine[i], -(b * sine[i]));
        v[i + half] = fmaf(b, cosine[i], a * sine[i]);
    }
}

static void norm_rotate(float *v, const float *src, const float *w, const struct kn_qkv_args *a,
                        const float *cosine, const float *sine)
{
    memcpy(v, src, a->d_head * sizeof *v);
    if (w) {
        float s = kn_ref_inv_rms(v, a->d_head, a->eps);

        for (uint32_t i = 0; i < a->d_head; i++)
            v[i] = v[i] * s * w[i];
    }
    rotate(v, a->rope.d_rot / 2, cosine, sine);
}

void kn_ref_qkv_row(const struct kn_qkv_args *a, const struct kn_seq *s, uint32_t i)
{
    uint32_t pos = s->pos0 + i, d = a->d_head, half = a->rope.d_rot / 2;
    size_t tok = (size_t)s->tok_off + i;
    const float *q = a->qkv + tok * (a->n_q_head + 2 * a->n_kv_head) * d;
    const float *k = q + (size_t)a->n_q_head * d, *v = k + (size_t)a->n_kv_head * d;
    float cosine[KN_HEAD_MAX / 2], sine[KN_HEAD_MAX / 2], row[KN_HEAD_MAX];

    PS_ASSERT(d <= KN_HEAD_MAX && a->rope.d_rot <= d);
    for (uint32_t j = 0; j < half; j++) {
        kn_sincos((float)pos * a->rope.inv_freq[j], &sine[j], &cosine[j]);
        sine[j] = sine[j] * a->rope.scale;
        cosine[j] = cosine[j] * a->rope.scale;
    }
    for (size_t h = 0; h < a->n_q_head; h++) {
        norm_rotate(row, q + h * d, a->q_norm, a, cosine, sine);
        memcpy(a->q_out + (tok * a->n_q_head + h) * d, row, d * sizeof *row);
    }
    if (s->flags & KN_SEQ_NO_KV_WRITE)
        return;
    for (uint32_t h = 0; h < a->n_kv_head; h++) {
        norm_rotate(row, k + (size_t)h * d, a->k_norm, a, cosine, sine);
        kn_ref_round(kn_kv_row(&a->kv, s->table_row, h, pos), 0, (enum kn_dtype)a->kv.fmt, row, d);
        kn_ref_round(kn_kv_row(&a->kv, s->table_row, a->n_kv_head + h, pos), 0,
                     (enum kn_dtype)a->kv.fmt, v + (size_t)h * d, d);
    }
}

int kn_ref_qkv_rope_write(struct kn_dev *d PS_UNUSED, const struct kn_qkv_args *a)
{
    uint32_t fp = kn_fp_enter();

    for (uint32_t s = 0; s < a->n_seq; s++)
        for (uint32_t i = 0; i < a->seqs[s].n_q; i++)
            kn_ref_qkv_row(a, &a->seqs[s], i);
    kn_fp_leave(fp);
    return KN_OK;
}
