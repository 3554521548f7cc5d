#pragma once

/*
 * The operators of the cpu backend: they cut the work and hand the shares to the compute threads.
 *
 * Called by the executor's thread; each call has finished when it returns. What is cut never changes
 * what is computed (EX3): shares are panels, rows, heads and KV splits.
 */

#include "kernels/ops.h"

int kn_cpu_embed(struct kn_dev *d, const struct kn_mat *table, const uint32_t *ids, uint32_t n,
                 float *out);
int kn_cpu_add_norm(struct kn_dev *d, float *x, const float *delta, const float *w, float eps,
                    uint32_t n, uint32_t dim, void *out, enum kn_dtype out_type);
int kn_cpu_linear(struct kn_dev *d, const struct kn_mat *w, const float *bias, const void *x,
                  uint32_t x_stride, uint32_t n_row, float *out);
int kn_cpu_qkv_rope_write(struct kn_dev *d, const struct kn_qkv_args *a);
int kn_cpu_attn(struct kn_dev *d, const struct kn_attn_args *a);
int kn_cpu_silu_mul(struct kn_dev *d, const float *gu, uint32_t n, uint32_t dim, void *out,
                    enum kn_dtype out_type);
int kn_cpu_sample(struct kn_dev *d, const float *logits, uint32_t n, uint32_t n_vocab,
                  const struct kn_samp *s, struct kn_samp_out *out);
int kn_cpu_score(struct kn_dev *d, const float *logits, uint32_t n, uint32_t n_vocab,
                 uint32_t n_vocab_valid, const uint32_t *target, int32_t n_top,
                 struct kn_samp_out *out);
