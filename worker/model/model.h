#pragma once

/*
 * A loaded model: checked configuration, packed weights, and the forward pass written once against
 * kernels/ops.h.
 *
 * Weights are packed once per host into one sealed memfd that all CPU workers of the host share
 * (worker/model/share.h). A family (llama, qwen2, qwen3) is a table of three functions: declare its
 * caches, bind its tensors, run its layers. Owned by the executor's thread after load.
 */

#include "common/model/config.h"
#include "kernels/ops.h"
#include "worker/kv/layout.h"

struct wk_model;

enum {
    WK_MODEL_OK,
    WK_MODEL_E_BAD, /* the directory is refused: one clear sentence in err */
};

struct wk_forward { /* one step's work; buffers are sized by wk_model_bind for n_tok_max tokens */
    const uint32_t *ids; /* host [n_tok], each < n_vocab */
    uint32_t n_tok;
    const struct kn_seq *seqs; /* host */
    uint32_t n_seq;
    const uint32_t *table; /* device page table [n_seq, table_stride] */
    uint32_t table_stride;
    const uint32_t *out_rows; /* host: token rows whose logits will be wanted, n_out <= n_tok_max */
    uint32_t n_out;
};

PS_MUST int wk_model_load(struct wk_model **out, const char *dir, struct ps_buf *err);
void wk_model_destroy(struct wk_model *m); /* NULL is fine */
const struct ps_model_config *wk_model_config(const struct wk_model *m);
const struct wk_kv_layout *wk_model_layout(const struct wk_model *m);
uint64_t wk_model_weights_digest(const struct wk_model *m); /* of names, shapes, types and bytes */
enum kn_dtype wk_model_dtype(const struct wk_model *m);     /* of the weights */
bool wk_model_is_shared(
    const struct wk_model *m); /* the packed weights came from another process */
/* Ids at or above are never sampled: the model's vocabulary is padded beyond the tokenizer's. */
uint32_t wk_model_n_vocab_valid(const struct wk_model *m);
/* Allocates activation buffers on the device for steps of n_tok_max tokens. */
PS_MUST int wk_model_bind(struct wk_model *m, const struct kn_backend *be, struct kn_dev *d,
                          uint8_t *kv_arena, uint32_t n_tok_max);
/* Frees them again: before the device is closed, when the model outlives it. Destroy does it too. */
void wk_model_unbind(struct wk_model *m);
/* Runs all layers; the final norm of out_rows is kept for wk_model_logits. */
PS_MUST int wk_model_forward(struct wk_model *m, const struct wk_forward *f);
/* Logits of out_rows [first, first + n) of the last forward, device [n, n_vocab] f32. */
PS_MUST int wk_model_logits(struct wk_model *m, uint32_t first, uint32_t n, float *logits);
