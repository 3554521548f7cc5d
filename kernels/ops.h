#pragma once

/*
 * The operators: one table per backend, fused where it pays.
 *
 * Invariants (EX1-EX6)
 *   EX1 An output row is a function of its own input row, the weights and the KV pages: never of
 *       batch, chunk, prefix length, cache hit, threads or load.
 *   EX2 kernels/ref states the order of every float operation in scalar C; every variant of kernels/cpu
 *       equals it bit for bit.
 *   EX3 Work is split only over output panels, rows, heads and KV ranges fixed by absolute position.
 *   EX4 Round to nearest, flush to zero, denormals are zero; FMA only where ref says fmaf.
 *   EX5 A reduction along a row uses 16 virtual lanes (element i -> lane i mod 16), folded 8, 4, 2, 1.
 *   EX6 Ties go to the lowest index.
 *
 * Activations: the residual stream and all outputs of `linear` are f32. What feeds `linear` has the
 * activation type: bf16 (round to nearest even) for bf16 weights, f32 for f32 and f16 weights. KV rows
 * are bf16 for bf16 and f16 weights' models and f32 for f32 models.
 * Shapes are written [rows, columns], row-major and dense unless a stride is named.
 * All pointers are device memory of the same device, except where "host" is said.
 */

#include "kernels/dev.h"

enum kn_dtype { KN_F32, KN_BF16, KN_F16 };

static inline size_t kn_dtype_bytes(enum kn_dtype t)
{
    return t == KN_F32 ? 4 : 2;
}

/*
 * A weight matrix W [n, k] in packed panels: n is padded to 16 and k to 32 with zeros.
 *   bf16: [n/16][k/2][16][2]   (the AMX B tile; lanes are output rows on AVX)
 *   f32, f16: [n/16][k][16]
 * Order of an output: bf16 "tdp32": per 32 k two chains of fmaf from 0 (even k, odd k), ascending;
 * even + odd; added to the accumulator. f32, f16: one fmaf chain, k ascending. The bias is added last.
 */
struct kn_mat {
    const void *data; /* 64-byte aligned */
    enum kn_dtype dtype;
    uint32_t n, k;
};

enum { KN_PANEL = 16, KN_K_GROUP = 32 };

static inline size_t kn_mat_k_pad(uint32_t k)
{
    return ((size_t)k + KN_K_GROUP - 1) / KN_K_GROUP * KN_K_GROUP;
}

size_t kn_mat_bytes(enum kn_dtype t, uint32_t n, uint32_t k); /* of the packed form */
/* Packs rows [row0, row0 + n_rows) of a matrix with n rows in total into dst (whole packed matrix, zeroed
 * before the first call). src is [n_rows, k] of type t, any alignment. Host memory. */
void kn_mat_pack(void *dst, enum kn_dtype t, uint32_t n, uint32_t k, const void *src, uint32_t row0,
                 uint32_t n_rows);

/*
 * Paged rows of one cache component as kernels see it. Head h of layer L, token t of the page with
 * number p lies at arena + p * item_stride + layer_off + h * head_stride + t * row_stride. For
 * attention, heads [0, n_kv) are K and [n_kv, 2 n_kv) are V.
 */
struct kn_kv_view {
    uint8_t *arena;
    uint64_t item_stride;
    /* [row][table_stride] page numbers; page i holds tokens [i << page_shift, ...) */
    const uint32_t *table;
    uint32_t table_stride;
    uint32_t layer_off, head_stride, row_stride, scale_off;
    uint8_t page_shift, fmt; /* fmt: enum kn_dtype for raw rows */
    uint16_t ratio;          /* tokens per row, 1 for attention */
};

/* One sequence's share of a step: queries at absolute positions [pos0, pos0 + n_q). */
struct kn_seq {
    uint32_t tok_off; /* first row of this sequence in the step's token-major buffers */
    uint32_t n_q;
    uint32_t pos0;
    uint32_t table_row; /* row of kn_kv_view.table */
    /* KN_SEQ_NO_KV_WRITE: the rows are in the cache already and must not be written */
    uint32_t flags;
};
enum { KN_SEQ_NO_KV_WRITE = 1 };

struct kn_rope {
    const float *inv_freq; /* [d_rot / 2], scaling already applied */
    float scale;           /* multiplies cos and sin; 1 but for YaRN */
    uint32_t d_rot;        /* rotated dims, pairs (i, i + d_rot / 2) */
};

struct kn_qkv_args {
    const float *qkv;             /* [n_tok, (n_q_head + 2 n_kv_head) * d_head]: q | k | v */
    const float *q_norm, *k_norm; /* [d_head] or NULL */
    float eps;
    uint32_t n_tok, n_q_head, n_kv_head, d_head;
    struct kn_rope rope;
    const struct kn_seq *seqs; /* host */
    uint32_t n_seq;
    struct kn_kv_view kv;
    float *q_out; /* [n_tok, n_q_head, d_head], normed and rotated */
};

struct kn_attn_args {
    const float *q; /* [n_tok, n_q_head, d_head] */
    uint32_t n_q_head, n_kv_head, d_head;
    float scale;               /* d_head^-0.5 */
    const struct kn_seq *seqs; /* host */
    uint32_t n_seq;
    struct kn_kv_view kv;
    void *out; /* [n_tok, n_q_head * d_head] of type out_type */
    enum kn_dtype out_type;
};

/* What one sampled row wants. Filled by worker/sample from the request; plain data. */
struct kn_samp {
    float temperature; /* < 1e-5: greedy; top_k, top_p, min_p are ignored then */
    float top_p, min_p;
    float rep_penalty, presence_penalty, frequency_penalty; /* 1, 0, 0: off */
    int32_t top_k;                                          /* <= 0: off */
    uint32_t pos; /* absolute position of the token being sampled */
    uint64_t seed;
    uint32_t n_bias, n_ban, n_hist,
        n_prompt;             /* hist = prompt ids then output ids; n_prompt of them are prompt */
    const uint32_t *bias_ids; /* host, as are the next three */
    const float *bias;
    const uint32_t *ban_ids; /* masked to -inf: EOS and stop ids before min_tokens */
    const uint32_t *hist;    /* needed when a penalty is on */
    uint32_t n_vocab_valid;  /* ids at or above are masked: padded vocabulary */
    int32_t n_top; /* log-probabilities wanted: -1 none, else the token's own plus top n (<= 20) */
};

enum { KN_MAX_TOP = 20 };

struct kn_samp_out { /* host memory, valid after sync */
    uint32_t token;
    uint32_t fault; /* 1: the logits hold NaN, or nothing is left to sample from */
    /* of the raw distribution (before penalties, temperature, truncation); -9999 for -inf */
    float logprob;
    uint32_t rank; /* 1 = most likely, by raw logits */
    uint32_t n_top;
    uint32_t top_id[KN_MAX_TOP];
    float top_logprob[KN_MAX_TOP];
};

enum { KN_OPS_VERSION = 1 };

struct kn_ops {
    uint32_t size, version;

    /* out[i] = row ids[i] of table, as f32. ids: host, all < table->n. out [n, k]. */
    int (*embed)(struct kn_dev *d, const struct kn_mat *table, const uint32_t *ids, uint32_t n,
                 float *out);

    /* x [n, dim] += delta [n, dim] (delta NULL: x is left alone); out = x * rsqrt(mean(x^2) + eps) * w,
     * one rounding to out_type at the end. The mean is an EX5 sum divided by dim. */
    int (*add_norm)(struct kn_dev *d, float *x, const float *delta, const float *w, float eps,
                    uint32_t n, uint32_t dim, void *out, enum kn_dtype out_type);

    /* out [n_row, w->n] = x [n_row, w->k] * W^T (+ bias [w->n] or NULL). x: bf16 for bf16 weights, else f32;
     * x rows are x_stride elements apart (>= w->k; the k padding is not read). */
    int (*linear)(struct kn_dev *d, const struct kn_mat *w, const float *bias, const void *x,
                  uint32_t x_stride, uint32_t n_row, float *out);

    /* Head norms, rotation and the write of K and V rows into their pages (rounded to kv.fmt). */
    int (*qkv_rope_write)(struct kn_dev *d, const struct kn_qkv_args *a);

    /* Causal paged attention. KV is read only from pages: tiles of 64 tokens, splits of 1,024 tokens, both at
     * absolute positions; online softmax per tile ascending, splits merged ascending. */
    int (*attn)(struct kn_dev *d, const struct kn_attn_args *a);

    /* out [n, dim] = silu(g) * u, with gu [n, 2 dim] = g | u. */
    int (*silu_mul)(struct kn_dev *d, const float *gu, uint32_t n, uint32_t dim, void *out,
                    enum kn_dtype out_type);

    /* out[i] = x[rows[i]]; rows: host. dim f32 columns. */
    int (*gather_rows)(struct kn_dev *d, const float *x, const uint32_t *rows, uint32_t n,
                       uint32_t dim, float *out);

    /* Samples one token per row. logits [n, n_vocab] f32, left unchanged. s, out: host arrays of n. Order: ban and
     * bias -> repetition, presence, frequency penalties -> temperature -> top_k -> top_p -> min_p ->
     * argmax of logit / T + Gumbel(philox(seed, pos, id)). */
    int (*sample)(struct kn_dev *d, const float *logits, uint32_t n, uint32_t n_vocab,
                  const struct kn_samp *s, struct kn_samp_out *out);

    /* Scores given tokens (prompt log-probabilities): token target[i] in row i: logprob, rank, top n_top. host out. */
    int (*score)(struct kn_dev *d, const float *logits, uint32_t n, uint32_t n_vocab,
                 uint32_t n_vocab_valid, const uint32_t *target, int32_t n_top,
                 struct kn_samp_out *out);
};
