#pragma once

/*
 * Attention for one ISA: text over vec_*.h, included by one file per ISA.
 *
 * A tile of 64 tokens is brought from its pages once for all rows of a block: K transposed to
 * [dim][token], V widened to [token][dim]. Scores and values are then two small matrix products of
 * plain fmaf chains: lanes are tokens in the first and dims in the second, so no sum crosses lanes and
 * the order is ref/attn.c's.
 */

#include "kernels/cpu/isa.h"

/* c [mr][nv * 16] (+)= a [mr][n_k] b [n_k][nv * 16], each element one chain, k ascending. */
TILE_INLINE void mm_tile(const float *a, size_t lda, const float *b, size_t ldb, uint32_t n_k,
                         float *c, size_t ldc, bool add, int mr, int nv)
{
    vf s[KN_ATTN_MR][KN_ATTN_NV];

#pragma GCC unroll 8
    for (int r = 0; r < mr; r++)
#pragma GCC unroll 4
        for (int v = 0; v < nv; v++)
            s[r][v] = add ? vf_load(c + (size_t)r * ldc + v * KN_LANES) : vf_zero();
    for (size_t k = 0; k < n_k; k++) {
#pragma GCC unroll 8
        for (int r = 0; r < mr; r++) {
            vf x = vf_set1(a[(size_t)r * lda + k]);

#pragma GCC unroll 4
            for (int v = 0; v < nv; v++)
                s[r][v] = vf_fma(x, vf_load(b + k * ldb + v * KN_LANES), s[r][v]);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < mr; r++)
#pragma GCC unroll 4
        for (int v = 0; v < nv; v++)
            vf_store(c + (size_t)r * ldc + v * KN_LANES, s[r][v]);
}

#define MM_CASE(m, v) \
    case m * 8 + v: \
        mm_tile(a, lda, b, ldb, n_k, c, ldc, add, m, v); \
        break;
#define MM_CASES(v) MM_CASE(1, v) MM_CASE(2, v) MM_CASE(3, v)

static void mm_any(const float *a, size_t lda, const float *b, size_t ldb, uint32_t n_k, float *c,
                   size_t ldc, bool add, uint32_t mr, uint32_t nv)
{
    switch (mr * 8 + nv) {
        MM_CASES(1)
        MM_CASES(2)
#if KN_ATTN_NV > 2
        MM_CASES(3)
        MM_CASES(4)
        MM_CASE(4, 1)
        MM_CASE(4, 2)
        MM_CASE(4, 3)
        MM_CASE(4, 4)
        MM_CASE(5, 1)
        MM_CASE(5, 2)
        MM_CASE(5, 3)
        MM_CASE(5, 4)
        MM_CASE(6, 1)
        MM_CASE(6, 2)
        MM_CASE(6, 3)
        MM_CASE(6, 4)
#endif
    }
}

static void mm(const float *a, size_t lda, const float *b, size_t ldb, uint32_t n_k, float *c,
               size_t ldc, bool add, uint32_t n_row, uint32_t n_vec)
{
    for (uint32_t v = 0; v < n_vec; v += KN_ATTN_NV)
        for (uint32_t r = 0; r < n_row; r += KN_ATTN_MR)
            mm_any(a + r * lda, lda, b + (size_t)v * KN_LANES, ldb, n_k,
                   c + r * ldc + (size_t)v * KN_LANES, ldc, add, ps_min_u32(KN_ATTN_MR, n_row - r),
                   ps_min_u32(KN_ATTN_NV, n_vec - v));
}

static inline void transpose8(__m256 r[8])
{
    __m256 t[8], u[8];

    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
        u[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
        u[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
        u[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
        u[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
    }
    for (int i = 0; i < 4; i++) {
        r[i] = _mm256_permute2f128_ps(u[i], u[i + 4], 0x20);
        r[i + 4] = _mm256_permute2f128_ps(u[i], u[i + 4], 0x31);
    }
}

/* Words [w, w + n) of eight tokens (a word is an f32 or a pair of bf16) to columns [0, 8) of kt. */
static inline void transpose_words(float *kt, const uint8_t *const row[8], uint32_t w, uint32_t n,
                                   bool bf16)
{
    __m256 r[8];

    for (int j = 0; j < 8; j++) {
        float t[8] = {0};

        if (n == 8) {
            r[j] = _mm256_loadu_ps((const float *)(const void *)(row[j] + (size_t)w * 4));
        } else {
            memcpy(t, row[j] + (size_t)w * 4, n * sizeof *t);
            r[j] = _mm256_loadu_ps(t);
        }
    }
    transpose8(r);
    for (uint32_t i = 0; i < n; i++) {
        __m256i v = _mm256_castps_si256(r[i]);
        float *at = kt + (size_t)(w + i) * (bf16 ? 2 * KN_ATTN_TILE : KN_ATTN_TILE);

        if (bf16) {
            _mm256_storeu_ps(at, _mm256_castsi256_ps(_mm256_slli_epi32(v, 16)));
            v = _mm256_and_si256(v, _mm256_set1_epi32((int)0xffff0000u));
            at += KN_ATTN_TILE;
        }
        _mm256_storeu_ps(at, _mm256_castsi256_ps(v));
    }
}

static void widen_row(float *v, const uint8_t *row, uint32_t d, bool bf16)
{
    for (uint32_t i = 0; i < d; i += KN_LANES) {
        uint32_t m = ps_min_u32(KN_LANES, d - i);

        if (bf16)
            vf_store(v + i,
                     m == KN_LANES ? vf_load_bf16(row + i * 2) : vf_load_bf16_n(row + i * 2, m));
        else
            vf_store(v + i, m == KN_LANES ? vf_load(row + i * 4) : vf_load_n(row + i * 4, m));
    }
}

/* Where the rows of tokens [pos, pos + n) lie; a short tile repeats its last row. */
static void find_rows(const uint8_t *row[KN_ATTN_TILE], const struct kn_attn_block *b,
                      uint32_t head, uint32_t pos, uint32_t n)
{
    for (uint32_t j = 0; j < KN_ATTN_TILE; j++)
        row[j] = kn_kv_row(&b->a->kv, b->seq->table_row, head, pos + ps_min_u32(j, n - 1));
}

/*
 * K and V of tokens [pos, pos + n): kt [d][64], v [n][d_pad]. Columns of kt from n on are undefined.
 * Pages lie anywhere, and the hardware does not prefetch across them: the tile after this one is asked
 * for here, a line or two between the loads. len: end of the sequence's tokens.
 */
static void bring_tile(const struct kn_attn_block *b, uint32_t pos, uint32_t n, uint32_t len,
                       float *kt, float *v)
{
    const struct kn_attn_args *a = b->a;
    uint32_t d = a->d_head, d_pad = kn_attn_d_pad(d), v_head = a->n_kv_head + b->kv_head;
    bool bf16 = a->kv.fmt == KN_BF16;
    uint32_t n_word = bf16 ? d / 2 : d, next = pos + n,
             n_next = next < len ? ps_min_u32(KN_ATTN_TILE, len - next) : 0;
    const uint8_t *row[KN_ATTN_TILE], *ahead[KN_ATTN_TILE];

    find_rows(row, b, b->kv_head, pos, n);
    if (n_next)
        find_rows(ahead, b, b->kv_head, next, n_next);
    for (uint32_t w = 0; w < n_word; w += 8)
        for (uint32_t j = 0; j < n; j += 8) {
            transpose_words(kt + j, row + j, w, ps_min_u32(8, n_word - w), bf16);
            for (uint32_t i = 0; i < 8 && n_next && w % 16 == 0; i++)
                _mm_prefetch((const char *)ahead[j + i] + (size_t)w * 4, _MM_HINT_T1);
        }
    find_rows(row, b, v_head, pos, n);
    if (n_next)
        find_rows(ahead, b, v_head, next, n_next);
    for (uint32_t j = 0; j < n; j++) {
        widen_row(v + (size_t)j * d_pad, row[j], d, bf16);
        for (uint32_t w = 0; n_next && w < n_word; w += 16)
            _mm_prefetch((const char *)ahead[j] + (size_t)w * 4, _MM_HINT_T1);
    }
}

/* Scores p[0, n) to weights; the state's maximum, sum and output follow. */
static void soften(float *p, uint32_t n, float scale, float *state, uint32_t d_pad)
{
    vf s[KN_ATTN_TILE / KN_LANES], lane = vf_set1(-INFINITY), sum = vf_zero(), m;
    float *max = state + d_pad, alpha, top;

    for (uint32_t v = 0; v * KN_LANES < n; v++) {
        uint32_t left = n - v * KN_LANES;

        s[v] = vf_mul(vf_load(p + v * KN_LANES), vf_set1(scale));
        m = vf_max(lane, s[v]);
        lane = left >= KN_LANES ? m : vf_first_n(m, lane, left);
    }
    top = kn_max(*max, vf_fold_max(lane));
    alpha = kn_exp(*max - top);
    for (uint32_t v = 0; v * KN_LANES < n; v++) {
        uint32_t left = n - v * KN_LANES;

        m = vf_exp(vf_sub(s[v], vf_set1(top)));
        m = left >= KN_LANES ? m : vf_first_n(m, vf_zero(), left);
        vf_store(p + v * KN_LANES, m);
        sum = vf_add(sum, m);
    }
    max[0] = top;
    max[1] = fmaf(max[1], alpha, vf_fold_add(sum));
    for (uint32_t i = 0; i < d_pad; i += KN_LANES)
        vf_store(state + i, vf_mul(vf_load(state + i), vf_set1(alpha)));
}

static void merge_state(float *all, const float *st, uint32_t d_pad)
{
    float top = kn_max(all[d_pad], st[d_pad]);
    float a = kn_exp(all[d_pad] - top), b = kn_exp(st[d_pad] - top);

    all[d_pad] = top;
    all[d_pad + 1] = fmaf(all[d_pad + 1], a, st[d_pad + 1] * b);
    for (uint32_t i = 0; i < d_pad; i += KN_LANES)
        vf_store(all + i,
                 vf_fma(vf_load(all + i), vf_set1(a), vf_mul(vf_load(st + i), vf_set1(b))));
}

static uint32_t group_heads(const struct kn_attn_args *a)
{
    return a->n_q_head / a->n_kv_head;
}

/* KV length of the block's row r. */
static uint32_t row_len(const struct kn_attn_block *b, uint32_t r)
{
    return b->seq->pos0 + b->i0 + r / group_heads(b->a) + 1;
}

/* One tile for rows [r0, n_row), the ones that reach it. */
static void tile_rows(const struct kn_attn_block *b, uint32_t pos, uint32_t r0, uint32_t n_row,
                      const float *q, const float *kt, const float *v, float *p, float *states)
{
    uint32_t d = b->a->d_head, d_pad = kn_attn_d_pad(d), step = kn_attn_state_floats(d), next;

    mm(q + (size_t)r0 * d_pad, d_pad, kt, KN_ATTN_TILE, d, p + (size_t)r0 * KN_ATTN_TILE,
       KN_ATTN_TILE, false, n_row - r0, KN_ATTN_TILE / KN_LANES);
    for (uint32_t r = r0; r < n_row; r = next) {
        uint32_t n = ps_min_u32(KN_ATTN_TILE, row_len(b, r) - pos);

        /* Rows that end in the same place go together: a weight of zero is not the same as no token. */
        for (next = r; next < n_row && ps_min_u32(KN_ATTN_TILE, row_len(b, next) - pos) == n;
             next++)
            soften(p + (size_t)next * KN_ATTN_TILE, n, b->a->scale, states + (size_t)next * step,
                   d_pad);
        mm(p + (size_t)r * KN_ATTN_TILE, KN_ATTN_TILE, v, d_pad, n, states + (size_t)r * step, step,
           true, next - r, d_pad / KN_LANES);
    }
}

struct attn_room {
    float *q, *p, *all, *one, *kt, *v;
    uint32_t n_row;
};

/* Lays the scratch out and copies the block's queries, dims padded with zeros. */
static struct attn_room room_of(const struct kn_attn_block *b)
{
    uint32_t group = group_heads(b->a), d = b->a->d_head, d_pad = kn_attn_d_pad(d);
    size_t n = (size_t)b->n_q * group, state = n * kn_attn_state_floats(d);
    struct attn_room m = {.n_row = (uint32_t)n};

    m.q = b->scratch;
    m.p = m.q + n * d_pad;
    m.all = m.p + n * KN_ATTN_TILE;
    m.one = m.all + state;
    m.kt = m.one + state;
    m.v = m.kt + (size_t)KN_ATTN_TILE * d_pad;
    for (size_t r = 0; r < n; r++) {
        size_t tok = (size_t)b->seq->tok_off + b->i0 + r / group;

        memset(m.q + r * d_pad, 0, d_pad * sizeof *m.q);
        memcpy(m.q + r * d_pad,
               b->a->q + (tok * b->a->n_q_head + b->kv_head * group + r % group) * d,
               d * sizeof *m.q);
    }
    return m;
}

/* The first row that reaches token pos. */
static uint32_t rows_from(const struct kn_attn_block *b, uint32_t pos)
{
    uint32_t first = b->seq->pos0 + b->i0;

    return pos <= first ? 0 : (pos - first) * group_heads(b->a);
}

static void split_rows(const struct kn_attn_block *b, const struct attn_room *m, uint32_t split,
                       float *states)
{
    uint32_t d = b->a->d_head, step = kn_attn_state_floats(d), len = row_len(b, m->n_row - 1);
    uint32_t start = split * KN_ATTN_SPLIT, end = ps_min_u32(start + KN_ATTN_SPLIT, len);

    for (size_t r = rows_from(b, start); r < m->n_row; r++) {
        memset(states + r * step, 0, step * sizeof *states);
        states[r * step + kn_attn_d_pad(d)] = -INFINITY;
    }
    for (uint32_t pos = start; pos < end; pos += KN_ATTN_TILE) {
        bring_tile(b, pos, ps_min_u32(KN_ATTN_TILE, end - pos), len, m->kt, m->v);
        tile_rows(b, pos, rows_from(b, pos), m->n_row, m->q, m->kt, m->v, m->p, states);
    }
}

static void write_rows(const struct kn_attn_block *b, const float *states)
{
    const struct kn_attn_args *a = b->a;
    uint32_t d = a->d_head, d_pad = kn_attn_d_pad(d), group = group_heads(a);

    for (uint32_t r = 0; r < b->n_q * group; r++, states += kn_attn_state_floats(d)) {
        size_t tok = (size_t)b->seq->tok_off + b->i0 + r / group;
        size_t at = (tok * a->n_q_head + b->kv_head * group + r % group) * d;
        vf inv = vf_set1(1.0f / states[d_pad + 1]);

        for (uint32_t i = 0; i < d; i += KN_LANES)
            store_upto(a->out, at + i, a->out_type, vf_mul(vf_load(states + i), inv), d - i);
    }
}

static void attn(const struct kn_attn_block *b)
{
    struct attn_room m = room_of(b);
    uint32_t d = b->a->d_head, step = kn_attn_state_floats(d);

    split_rows(b, &m, 0, m.all);
    for (uint32_t s = 1; s < b->split1; s++) {
        split_rows(b, &m, s, m.one);
        for (size_t r = rows_from(b, s * KN_ATTN_SPLIT); r < m.n_row; r++)
            merge_state(m.all + r * step, m.one + r * step, kn_attn_d_pad(d));
    }
    write_rows(b, m.all);
}

static void attn_part(const struct kn_attn_block *b, float *states)
{
    struct attn_room m = room_of(b);

    split_rows(b, &m, b->split0, states);
}

static void attn_merge(const struct kn_attn_block *b, float *states)
{
    uint32_t d = b->a->d_head, step = kn_attn_state_floats(d);
    size_t n_row = (size_t)b->n_q * group_heads(b->a);

    for (uint32_t s = 1; s < b->split1; s++)
        for (size_t r = rows_from(b, s * KN_ATTN_SPLIT); r < n_row; r++)
            merge_state(states + r * step, states + (s * n_row + r) * step, kn_attn_d_pad(d));
    write_rows(b, states);
}
