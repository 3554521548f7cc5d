#pragma once

/*
 * A model directory's configuration: config.json and generation_config.json, checked once.
 *
 * The router reads names, context and defaults from it, the worker also the geometry. A directory
 * that we cannot run is refused with one sentence that names the file and the key. Plain data,
 * immutable after load. Sources of the rules: the published formats of Hugging Face model
 * directories; what a config states wins over any table.
 */

#include "common/base.h"
#include "common/buf.h"

enum ps_family { PS_FAMILY_LLAMA, PS_FAMILY_QWEN2, PS_FAMILY_QWEN3 };
enum ps_rope_type { PS_ROPE_DEFAULT, PS_ROPE_LINEAR, PS_ROPE_LLAMA3, PS_ROPE_YARN };

enum { PS_MAX_EOS = 16 };

struct ps_rope_conf {
    enum ps_rope_type type;
    double theta, factor, partial;
    double low_freq, high_freq;                                            /* llama3 */
    double beta_fast, beta_slow, attention_factor, mscale, mscale_all_dim; /* yarn; 0: absent */
    bool truncate;
    uint32_t original_max_pos;
};

struct ps_gen_defaults { /* generation_config.json; has_x false: absent */
    bool has_temperature, has_top_p, has_top_k, has_min_p, has_rep_penalty;
    double temperature, top_p, min_p, rep_penalty;
    int32_t top_k;
};

struct ps_model_config {
    enum ps_family family;
    uint32_t hidden, n_layer, n_head, n_kv_head, d_head, intermediate, n_vocab, max_pos;
    double eps;
    bool tied, qkv_bias, o_bias, mlp_bias, qk_norm;
    struct ps_rope_conf rope;
    uint32_t eos[PS_MAX_EOS]; /* union of config.json and generation_config.json */
    uint32_t n_eos;
    char dtype[8]; /* "bf16" "f16" "f32": as the config says; the tensors decide */
    struct ps_gen_defaults gen;
};

enum {
    PS_MODEL_OK,
    PS_MODEL_E_BAD, /* one clear sentence in err */
};

PS_MUST int ps_model_config_load(struct ps_model_config *out, const char *dir, struct ps_buf *err);
/* From memory, for tests and fuzzing; gen may be NULL. */
PS_MUST int ps_model_config_parse(struct ps_model_config *out, const char *json, size_t len,
                                  const char *gen, size_t gen_len, struct ps_buf *err);
/* inv_freq[d_rot / 2] with scaling applied, and the factor on cos and sin. Frequencies are computed in f32 as the reference does. */
void ps_rope_frequencies(const struct ps_model_config *c, float *inv_freq, uint32_t *out_d_rot,
                         float *out_scale);
