#pragma once

/*
 * Operators in defined order: the scalar C that says, once, what every backend computes (EX2).
 *
 * Two layers. The `_rows`, `_row` and `_panels` functions are the arithmetic, pure but for their
 * outputs, callable from any thread whose floating-point state is kn_fp_enter's; the cpu backend's
 * "scalar" ISA calls them on shares of the work. The `kn_ref_*` operators are the ref backend's table.
 * Nothing here reads past a row's own elements.
 */

#include "kernels/ops.h"

struct kn_add_norm {
    float *x;
    const float *delta, *w;
    float eps;
    uint32_t dim;
    void *out;
    enum kn_dtype out_type;
};

/* Values [0, n) of one row, rounded to out_type, to element `at` of out. */
void kn_ref_round(void *out, size_t at, enum kn_dtype out_type, const float *v, uint32_t n);
/* 1 / sqrt(mean of squares + eps) of one row. */
float kn_ref_inv_rms(const float *v, uint32_t n, float eps);
void kn_ref_norm_rows(const struct kn_add_norm *a, uint32_t row0, uint32_t row1);
void kn_ref_linear_panels(const struct kn_mat *w, const float *bias, const void *x,
                          uint32_t x_stride, uint32_t n_row, float *out, uint32_t panel0,
                          uint32_t panel1);
void kn_ref_qkv_row(const struct kn_qkv_args *a, const struct kn_seq *s, uint32_t i);
void kn_ref_attn_row(const struct kn_attn_args *a, const struct kn_seq *s, uint32_t i,
                     uint32_t head);
void kn_ref_silu_rows(const float *gu, uint32_t dim, void *out, enum kn_dtype out_type,
                      uint32_t row0, uint32_t row1);
void kn_ref_embed_row(const struct kn_mat *table, uint32_t id, float *out);

/* Where row `pos` of head h of sequence s lies; h counts K heads, then V heads. */
static inline uint8_t *kn_kv_row(const struct kn_kv_view *kv, uint32_t table_row, uint32_t h,
                                 uint32_t pos)
{
    uint32_t page = kv->table[(size_t)table_row * kv->table_stride + (pos >> kv->page_shift)];
    uint32_t t = pos & ((1u << kv->page_shift) - 1);

    return kv->arena + page * kv->item_stride + kv->layer_off + (size_t)h * kv->head_stride +
           (size_t)t * kv->row_stride;
}

enum { KN_ATTN_TILE = 64, KN_ATTN_SPLIT = 1024, KN_HEAD_MAX = 256 };

int kn_ref_embed(struct kn_dev *d, const struct kn_mat *table, const uint32_t *ids, uint32_t n,
                 float *out);
int kn_ref_add_norm(struct kn_dev *d, float *x, const float *delta, const float *w, float eps,
                    uint32_t n, uint32_t dim, void *out, enum kn_dtype out_type);
int kn_ref_linear(struct kn_dev *d, const struct kn_mat *w, const float *bias, const void *x,
                  uint32_t x_stride, uint32_t n_row, float *out);
int kn_ref_qkv_rope_write(struct kn_dev *d, const struct kn_qkv_args *a);
int kn_ref_attn(struct kn_dev *d, const struct kn_attn_args *a);
int kn_ref_silu_mul(struct kn_dev *d, const float *gu, uint32_t n, uint32_t dim, void *out,
                    enum kn_dtype out_type);
int kn_ref_gather_rows(struct kn_dev *d, const float *x, const uint32_t *rows, uint32_t n,
                       uint32_t dim, float *out);
int kn_ref_sample(struct kn_dev *d, const float *logits, uint32_t n, uint32_t n_vocab,
                  const struct kn_samp *s, struct kn_samp_out *out);
int kn_ref_score(struct kn_dev *d, const float *logits, uint32_t n, uint32_t n_vocab,
                 uint32_t n_vocab_valid, const uint32_t *target, int32_t n_top,
                 struct kn_samp_out *out);
