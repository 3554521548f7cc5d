#pragma once

/*
 * For tests and benchmarks only: writes a model directory with random weights, without Python.
 *
 * config.json and model.safetensors of a qwen3 or llama geometry; the weights follow from the seed. The
 * directory is created by the caller.
 */

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/rng.h"
#include "kernels/half.h"
#include "kernels/ops.h"

struct tiny {
    bool qwen3, tied;
    enum kn_dtype dtype; /* KN_F32 or KN_BF16 */
    uint32_t hidden, n_layer, n_head, n_kv_head, d_head, inter, n_vocab;
    uint64_t seed;
    bool nan;         /* the final norm holds one */
    const char *skip; /* names that hold this are left out; NULL: none */
};

/* Two layers, head_dim * heads != hidden, nothing a multiple of 16 that need not be. */
#define TINY_QWEN3 \
    { \
        .qwen3 = true, .tied = true, .dtype = KN_F32, .hidden = 72, .n_layer = 2, .n_head = 4, \
        .n_kv_head = 2, .d_head = 24, .inter = 104, .n_vocab = 150, .seed = 1 \
    }

/* Where tensors are described or written. A first walk makes the header, a second one the data. */
struct tiny_out {
    const struct tiny *t;
    struct ps_buf header, data;
    uint64_t at;
    struct ps_rng rng;
    int fd; /* -1: the header is being made */
};

static inline void tiny_flush(struct tiny_out *o)
{
    size_t done = 0;

    while (done < o->data.len) {
        ssize_t n = write(o->fd, o->data.data + done, o->data.len - done);

        PS_ASSERT(n > 0);
        done += (size_t)n;
    }
    ps_buf_clear(&o->data);
}

/* n values around `mean`; uniform, because a large model is written as well. */
static inline void tiny_values(struct tiny_out *o, uint64_t n, float mean, float deviation,
                               bool nan)
{
    enum { FLUSH_BYTES = 1 << 20 };
    uint64_t u = 0;

    for (uint64_t i = 0; i < n; i++, u >>= 16) {
        float v;
        uint16_t h;

        if (i % 4 == 0)
            u = ps_rng_u64(&o->rng);
        v = mean + deviation * 1.7320508f * ((float)(u & 0xffff) - 32767.5f) / 32768.0f;
        if (nan && i == 0)
            v = NAN;
        h = kn_f32_bf16(v);
        if (o->t->dtype == KN_BF16)
            ps_buf_add(&o->data, &h, 2);
        else
            ps_buf_add(&o->data, &v, 4);
        if (o->data.len >= FLUSH_BYTES)
            tiny_flush(o);
    }
    tiny_flush(o);
}

/* A matrix [n, k], or a vector [n] when k is 0. */
static inline void tiny_tensor(struct tiny_out *o, const char *prefix, const char *name, uint64_t n,
                               uint64_t k)
{
    uint64_t count = k > 0 ? n * k : n, n_bytes = count * kn_dtype_bytes(o->t->dtype);
    char full[160];

    (void)snprintf(full, sizeof(full), "%s%s", prefix, name);
    if (o->t->skip != NULL && strstr(full, o->t->skip) != NULL)
        return;
    if (o->fd >= 0) {
        tiny_values(o, count, k > 0 ? 0.0f : 1.0f, k > 0 ? 1.0f / sqrtf((float)k) : 0.1f,
                    o->t->nan && strcmp(full, "model.norm.weight") == 0);
        return;
    }
    ps_buf_addf(&o->header, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[%lu", o->at > 0 ? "," : "", full,
                o->t->dtype == KN_BF16 ? "BF16" : "F32", (unsigned long)n);
    if (k > 0)
        ps_buf_addf(&o->header, ",%lu", (unsigned long)k);
    ps_buf_addf(&o->header, "],\"data_offsets\":[%lu,%lu]}", (unsigned long)o->at,
                (unsigned long)(o->at + n_bytes));
    o->at += n_bytes;
}

static inline void tiny_walk(struct tiny_out *o)
{
    const struct tiny *t = o->t;
    uint32_t q = t->n_head * t->d_head, kv = t->n_kv_head * t->d_head, i;
    char prefix[64];

    tiny_tensor(o, "", "model.embed_tokens.weight", t->n_vocab, t->hidden);
    for (i = 0; i < t->n_layer; i++) {
        (void)snprintf(prefix, sizeof(prefix), "model.layers.%u.", i);
        tiny_tensor(o, prefix, "input_layernorm.weight", t->hidden, 0);
        tiny_tensor(o, prefix, "post_attention_layernorm.weight", t->hidden, 0);
        tiny_tensor(o, prefix, "self_attn.q_proj.weight", q, t->hidden);
        tiny_tensor(o, prefix, "self_attn.k_proj.weight", kv, t->hidden);
        tiny_tensor(o, prefix, "self_attn.v_proj.weight", kv, t->hidden);
        tiny_tensor(o, prefix, "self_attn.o_proj.weight", t->hidden, q);
        if (t->qwen3) {
            tiny_tensor(o, prefix, "self_attn.q_norm.weight", t->d_head, 0);
            tiny_tensor(o, prefix, "self_attn.k_norm.weight", t->d_head, 0);
        }
        tiny_tensor(o, prefix, "mlp.gate_proj.weight", t->inter, t->hidden);
        tiny_tensor(o, prefix, "mlp.up_proj.weight", t->inter, t->hidden);
        tiny_tensor(o, prefix, "mlp.down_proj.weight", t->hidden, t->inter);
    }
    tiny_tensor(o, "", "model.norm.weight", t->hidden, 0);
    if (!t->tied)
        tiny_tensor(o, "", "lm_head.weight", t->n_vocab, t->hidden);
}

static inline int tiny_create(const char *dir, const char *name)
{
    char path[256];
    int fd;

    (void)snprintf(path, sizeof(path), "%s/%s", dir, name);
    (void)unlink(path);
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    PS_ASSERT(fd >= 0);
    return fd;
}

static inline void tiny_write_config(const char *dir, const struct tiny *t)
{
    struct tiny_out o = {.t = t, .fd = tiny_create(dir, "config.json")};

    ps_buf_addf(
        &o.data,
        "{\"architectures\":[\"%sForCausalLM\"],\"hidden_size\":%u,\"num_hidden_layers\":%u,"
        "\"num_attention_heads\":%u,\"num_key_value_heads\":%u,\"head_dim\":%u,"
        "\"intermediate_size\":%u,\"vocab_size\":%u,\"tie_word_embeddings\":%s,"
        "\"max_position_embeddings\":4096,\"rms_norm_eps\":1e-6,\"rope_theta\":1000000.0,"
        "\"eos_token_id\":2,\"dtype\":\"%s\"}\n",
        t->qwen3 ? "Qwen3" : "Llama", t->hidden, t->n_layer, t->n_head, t->n_kv_head, t->d_head,
        t->inter, t->n_vocab, t->tied ? "true" : "false",
        t->dtype == KN_BF16 ? "bfloat16" : "float32");
    tiny_flush(&o);
    (void)close(o.fd);
    ps_buf_fini(&o.data);
}

static inline void tiny_write(const char *dir, const struct tiny *t)
{
    struct tiny_out o = {.t = t, .fd = -1};

    tiny_write_config(dir, t);
    ps_rng_seed(&o.rng, t->seed);
    ps_buf_add_byte(&o.header, '{');
    tiny_walk(&o);
    ps_buf_add_byte(&o.header, '}');
    o.fd = tiny_create(dir, "model.safetensors");
    ps_buf_add_u64(&o.data, o.header.len);
    ps_buf_add(&o.data, o.header.data, o.header.len);
    tiny_walk(&o);
    (void)close(o.fd);
    ps_buf_fini(&o.header);
    ps_buf_fini(&o.data);
}

static inline void tiny_remove(const char *dir)
{
    static const char *const names[] = {"config.json", "model.safetensors", "tokenizer.json"};
    char path[256];

    for (size_t i = 0; i < PS_ARRAY_LEN(names); i++) {
        (void)snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
        (void)unlink(path);
    }
    (void)rmdir(dir);
}
