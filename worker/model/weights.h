#pragma once

/*
 * The tensors of a dense decoder (llama, qwen2, qwen3), packed for the kernels.
 *
 * One blob holds every matrix in packed panels (q, k, v fused; gate and up fused) and every vector as
 * f32, at offsets that depend on the configuration alone; it is filled once per host and shared
 * (worker/model/share.h). Immutable after load.
 */

#include "common/model/config.h"
#include "common/model/safetensors.h"
#include "kernels/ops.h"
#include "worker/model/share.h"

struct wk_layer_weights {
    struct kn_mat qkv, o, gate_up, down;
    const float *attn_norm, *mlp_norm;                         /* [hidden] */
    const float *q_norm, *k_norm;                              /* [d_head] or NULL */
    const float *qkv_bias, *o_bias, *gate_up_bias, *down_bias; /* or NULL */
};

struct wk_weights {
    struct kn_mat embed, head; /* the same matrix when tied */
    const float *final_norm;
    struct wk_layer_weights *layers;
    enum kn_dtype dtype; /* of all matrices */
    struct wk_share share;
};

enum {
    WK_WEIGHTS_OK,
    WK_WEIGHTS_E_BAD, /* a tensor is missing, or has another shape or type than the config says: err */
};

PS_MUST int wk_weights_load(struct wk_weights *out, const struct ps_model_config *c,
                            const char *dir, struct ps_buf *err);
void wk_weights_fini(struct wk_weights *w);
