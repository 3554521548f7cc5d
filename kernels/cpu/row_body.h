#pragma once

/*
 * Operators on single rows for one ISA: norm, gate, head norms and rotation. ref/norm.c, ref/act.c and
 * ref/rope.c with vectors; included by one file per ISA.
 */

#include "kernels/cpu/isa.h"

/* The last vector of a row is shorter: nothing past it is read or written. */
static inline vf load_upto(const float *p, uint32_t i, uint32_t n)
{
    return n - i >= KN_LANES ? vf_load(p + i) : vf_load_n(p + i, n - i);
}

static inline void store_upto(void *out, size_t at, enum kn_dtype t, vf v, uint32_t n)
{
    if (t == KN_F32) {
        if (n >= KN_LANES)
            vf_store((float *)out + at, v);
        else
            vf_store_n((float *)out + at, v, n);
    } else {
        PS_DASSERT(t == KN_BF16);
        if (n >= KN_LANES)
            vf_store_bf16((uint16_t *)out + at, v);
        else
            vf_store_bf16_n((uint16_t *)out + at, v, n);
    }
}

static inline float inv_rms(vf squares, uint32_t n, float eps)
{
    return 1.0f / sqrtf(vf_fold_add(squares) / (float)n + eps);
}

static void norm_rows(const struct kn_add_norm *a, uint32_t row0, uint32_t row1)
{
    uint32_t dim = a->dim;

    for (size_t r = row0; r < row1; r++) {
        float *x = a->x + r * dim;
        vf sum = vf_zero(), s;

        for (uint32_t i = 0; i < dim; i += KN_LANES) {
            vf v = load_upto(x, i, dim);

            if (a->delta) {
                v = vf_add(v, load_upto(a->delta + r * dim, i, dim));
                store_upto(x, i, KN_F32, v, dim - i);
            }
            sum = vf_fma(v, v, sum);
        }
        s = vf_set1(inv_rms(sum, dim, a->eps));
        for (uint32_t i = 0; i < dim; i += KN_LANES)
            store_upto(a->out, r * dim + i, a->out_type,
                       vf_mul(vf_mul(load_upto(x, i, dim), s), load_upto(a->w, i, dim)), dim - i);
    }
}

static void silu_rows(const float *gu, uint32_t dim, void *out, enum kn_dtype out_type,
                      uint32_t row0, uint32_t row1)
{
    for (size_t r = row0; r < row1; r++) {
        const float *row = gu + r * 2 * dim;

        for (uint32_t i = 0; i < dim; i += KN_LANES) {
            vf g = load_upto(row, i, dim), u = load_upto(row + dim, i, dim);
            vf e = vf_exp(vi_float(vi_xor(vf_bits(g), vi_set1(0x80000000u))));

            store_upto(out, r * dim + i, out_type, vf_mul(vf_div(g, vf_add(vf_set1(1.0f), e)), u),
                       dim - i);
        }
    }
}

/* Head norm and rotation of src into v; both have room for whole vectors. */
static void head_row(float *v, const float *src, const float *w, const struct kn_qkv_args *a,
                     const float *cosine, const float *sine)
{
    uint32_t d = a->d_head, half = a->rope.d_rot / 2;
    vf sum = vf_zero(), s;

    for (uint32_t i = 0; i < d; i += KN_LANES) {
        vf x = load_upto(src, i, d);

        sum = vf_fma(x, x, sum);
        vf_store(v + i, x);
    }
    if (w) {
        s = vf_set1(inv_rms(sum, d, a->eps));
        for (uint32_t i = 0; i < d; i += KN_LANES)
            vf_store(v + i, vf_mul(vf_mul(vf_load(v + i), s), load_upto(w, i, d)));
    }
    for (uint32_t i = 0; i < half; i += KN_LANES) {
        uint32_t n = ps_min_u32(half - i, KN_LANES);
        vf x = vf_load_n(v + i, n), y = vf_load_n(v + half + i, n);
        vf c = vf_load(cosine + i), si = vf_load(sine + i);

        vf_store_n(v + i, vf_fms(x, c, vf_mul(y, si)), n);
        vf_store_n(v + half + i, vf_fma(y, c, vf_mul(x, si)), n);
    }
}

static void write_row(uint8_t *dst, enum kn_dtype t, const float *v, uint32_t d)
{
    for (uint32_t i = 0; i < d; i += KN_LANES)
        store_upto(dst, i, t, load_upto(v, i, d), d - i);
}

static void qkv_row(const struct kn_qkv_args *a, const struct kn_seq *s, uint32_t i)
{
    uint32_t pos = s->pos0 + i, d = a->d_head, half = a->rope.d_rot / 2;
    enum kn_dtype fmt = (enum kn_dtype)a->kv.fmt;
    size_t tok = (size_t)s->tok_off + i;
    const float *q = a->qkv + tok * (a->n_q_head + 2 * a->n_kv_head) * d;
    const float *k = q + (size_t)a->n_q_head * d, *v = k + (size_t)a->n_kv_head * d;
    float cosine[KN_HEAD_MAX / 2], sine[KN_HEAD_MAX / 2], row[KN_HEAD_MAX];

    PS_ASSERT(d <= KN_HEAD_MAX && a->rope.d_rot <= d);
    for (uint32_t j = 0; j < half; j += KN_LANES) {
        vf si, co;

        vf_sincos(vf_mul(vf_set1((float)pos), load_upto(a->rope.inv_freq, j, half)), &si, &co);
        vf_store(sine + j, vf_mul(si, vf_set1(a->rope.scale)));
        vf_store(cosine + j, vf_mul(co, vf_set1(a->rope.scale)));
    }
    for (size_t h = 0; h < a->n_q_head; h++) {
        head_row(row, q + h * d, a->q_norm, a, cosine, sine);
        memcpy(a->q_out + (tok * a->n_q_head + h) * d, row, d * sizeof *row);
    }
    if (s->flags & KN_SEQ_NO_KV_WRITE)
        return;
    for (uint32_t h = 0; h < a->n_kv_head; h++) {
        head_row(row, k + (size_t)h * d, a->k_norm, a, cosine, sine);
        write_row(kn_kv_row(&a->kv, s->table_row, h, pos), fmt, row, d);
        write_row(kn_kv_row(&a->kv, s->table_row, a->n_kv_head + h, pos), fmt, v + (size_t)h * d,
                  d);
    }
}

static void math_rows(char fn, const float *x, float *y, uint32_t n)
{
    for (uint32_t i = 0; i < n; i += KN_LANES) {
        vf v = load_upto(x, i, n), s, c;

        vf_sincos(v, &s, &c);
        v = fn == 'e' ? vf_exp(v) : fn == 'l' ? vf_log(v) : fn == 's' ? s : c;
        store_upto(y, i, KN_F32, v, n - i);
    }
}
