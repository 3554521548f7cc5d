#include "worker/model/weights.h"

#include <stdio.h>
#include <string.h>

#include "common/hash.h"
#include "kernels/half.h"

/*
 * One walk over the model's tensors, used twice: first with no memory, to check every tensor and to
 * find the offsets and the size; then with memory, to pack (when this process fills the blob) and to
 * set the pointers. So what is checked, packed and used cannot disagree.
 */
struct walk {
    const struct ps_model_config *conf;
    const struct ps_st *st;
    struct ps_buf *err;
    enum kn_dtype dtype; /* all matrices share it */
    uint8_t *base;       /* NULL: measuring */
    bool fill;
    size_t off;
    bool bad;
};

enum { ALIGN = 64 };

struct source { /* rows of a fused matrix come from several tensors */
    const char *suffix;
    uint32_t n_row;
};

static void refuse(struct walk *w, const char *name, const char *why)
{
    if (!w->bad)
        ps_buf_addf(w->err, "model.safetensors: tensor %s %s", name, why);
    w->bad = true;
}

static uint8_t *carve(struct walk *w, size_t n_bytes)
{
    uint8_t *p = w->base != NULL ? w->base + w->off : NULL;

    w->off += (n_bytes + ALIGN - 1) / ALIGN * ALIGN;
    return p;
}

static bool kn_type_of(enum ps_st_dtype t, enum kn_dtype *out)
{
    if (t != PS_ST_F32 && t != PS_ST_BF16 && t != PS_ST_F16)
        return false;
    *out = t == PS_ST_F32 ? KN_F32 : t == PS_ST_BF16 ? KN_BF16 : KN_F16;
    return true;
}

static const struct ps_tensor *matrix_source(struct walk *w, const char *name, uint32_t n,
                                             uint32_t k)
{
    const struct ps_tensor *t = ps_st_find(w->st, name);
    enum kn_dtype type;

    if (t == NULL)
        refuse(w, name, "is missing");
    else if (t->rank != 2 || t->shape[0] != n || t->shape[1] != k)
        refuse(w, name, "has another shape than config.json says");
    else if (!kn_type_of(t->dtype, &type))
        refuse(w, name, "has a type that is not bf16, f16 or f32");
    else if (type != w->dtype)
        refuse(w, name, "has another type than the embedding: mixed types are not supported");
    return w->bad ? NULL : t;
}

/* A matrix of one or more tensors stacked by rows. prefix + suffix is a tensor's name. */
static struct kn_mat walk_matrix(struct walk *w, const char *prefix, const struct source *src,
                                 uint32_t n_src, uint32_t k)
{
    struct kn_mat m = {.dtype = w->dtype, .k = k};
    char name[192];
    uint32_t i, row = 0;
    uint8_t *p;

    for (i = 0; i < n_src; i++)
        m.n += src[i].n_row;
    p = carve(w, kn_mat_bytes(w->dtype, m.n, k));
    m.data = p;
    for (i = 0; i < n_src && !w->bad; i++) {
        const struct ps_tensor *t;

        (void)snprintf(name, sizeof(name), "%s%s", prefix, src[i].suffix);
        t = matrix_source(w, name, src[i].n_row, k);
        if (t != NULL && w->fill)
            kn_mat_pack(p, w->dtype, m.n, k, t->data, row, src[i].n_row);
        row += src[i].n_row;
    }
    return m;
}

static void to_f32(float *dst, const struct ps_tensor *t, uint64_t n)
{
    uint64_t i;
    uint16_t half;

    if (t->dtype == PS_ST_F32) {
        memcpy(dst, t->data, n * 4);
        return;
    }
    for (i = 0; i < n; i++) {
        memcpy(&half, t->data + 2 * i, 2); /* data need not be aligned */
        dst[i] = t->dtype == PS_ST_BF16 ? kn_bf16_f32(half) : kn_f16_f32(half);
    }
}

static const float *walk_vector(struct walk *w, const char *prefix, const struct source *src,
                                uint32_t n_src)
{
    uint32_t i, n = 0, at = 0;
    enum kn_dtype type;
    char name[192];
    float *p;

    for (i = 0; i < n_src; i++)
        n += src[i].n_row;
    p = (float *)(void *)carve(w, n * sizeof(float));
    for (i = 0; i < n_src && !w->bad; i++) {
        const struct ps_tensor *t;

        (void)snprintf(name, sizeof(name), "%s%s", prefix, src[i].suffix);
        t = ps_st_find(w->st, name);
        if (t == NULL)
            refuse(w, name, "is missing");
        else if (t->rank != 1 || t->shape[0] != src[i].n_row || !kn_type_of(t->dtype, &type))
            refuse(w, name, "has another shape or type than expected");
        else if (w->fill)
            to_f32(p + at, t, src[i].n_row);
        at += src[i].n_row;
    }
    return p;
}

static const float *walk_vector1(struct walk *w, const char *prefix, const char *suffix, uint32_t n)
{
    const struct source s = {suffix, n};

    return walk_vector(w, prefix, &s, 1);
}

static void walk_layer(struct walk *w, uint32_t index, struct wk_layer_weights *l)
{
    const struct ps_model_config *c = w->conf;
    uint32_t q = c->n_head * c->d_head, kv = c->n_kv_head * c->d_head;
    const struct source qkv[] = {{"self_attn.q_proj.weight", q},
                                 {"self_attn.k_proj.weight", kv},
                                 {"self_attn.v_proj.weight", kv}};
    const struct source qkv_bias[] = {
        {"self_attn.q_proj.bias", q}, {"self_attn.k_proj.bias", kv}, {"self_attn.v_proj.bias", kv}};
    const struct source o = {"self_attn.o_proj.weight", c->hidden},
                        down = {"mlp.down_proj.weight", c->hidden};
    const struct source gu[] = {{"mlp.gate_proj.weight", c->intermediate},
                                {"mlp.up_proj.weight", c->intermediate}};
    const struct source gu_bias[] = {{"mlp.gate_proj.bias", c->intermediate},
                                     {"mlp.up_proj.bias", c->intermediate}};
    char prefix[64];

    (void)snprintf(prefix, sizeof(prefix), "model.layers.%u.", index);
    *l = (struct wk_layer_weights){0};
    l->attn_norm = walk_vector1(w, prefix, "input_layernorm.weight", c->hidden);
    l->mlp_norm = walk_vector1(w, prefix, "post_attention_layernorm.weight", c->hidden);
    if (c->qk_norm) {
        l->q_norm = walk_vector1(w, prefix, "self_attn.q_norm.weight", c->d_head);
        l->k_norm = walk_vector1(w, prefix, "self_attn.k_norm.weight", c->d_head);
    }
    l->qkv = walk_matrix(w, prefix, qkv, 3, c->hidden);
    l->o = walk_matrix(w, prefix, &o, 1, q);
    l->gate_up = walk_matrix(w, prefix, gu, 2, c->hidden);
    l->down = walk_matrix(w, prefix, &down, 1, c->intermediate);
    if (c->qkv_bias)
        l->qkv_bias = walk_vector(w, prefix, qkv_bias, 3);
    if (c->o_bias)
        l->o_bias = walk_vector1(w, prefix, "self_attn.o_proj.bias", c->hidden);
    if (c->mlp_bias) {
        l->gate_up_bias = walk_vector(w, prefix, gu_bias, 2);
        l->down_bias = walk_vector1(w, prefix, "mlp.down_proj.bias", c->hidden);
    }
}

static void walk_model(struct walk *w, struct wk_weights *out)
{
    const struct ps_model_config *c = w->conf;
    const struct source embed = {"model.embed_tokens.weight", c->n_vocab},
                        head = {"lm_head.weight", c->n_vocab};
    uint32_t i;

    w->off = 0;
    out->embed = walk_matrix(w, "", &embed, 1, c->hidden);
    out->head = c->tied ? out->embed : walk_matrix(w, "", &head, 1, c->hidden);
    out->final_norm = walk_vector1(w, "", "model.norm.weight", c->hidden);
    for (i = 0; i < c->n_layer && !w->bad; i++)
        walk_layer(w, i, &out->layers[i]);
}

struct fill_args {
    struct walk *walk;
    struct wk_weights *out;
};

static uint64_t fill(uint8_t *dst, size_t n_bytes, void *ud)
{
    struct fill_args *a = ud;

    a->walk->base = dst;
    a->walk->fill = true;
    walk_model(a->walk, a->out);
    PS_ASSERT(a->walk->off == n_bytes);
    a->walk->fill = false;
    return ps_st_digest(a->walk->st);
}

int wk_weights_load(struct wk_weights *out, const struct ps_model_config *c, const char *dir,
                    struct ps_buf *err)
{
    struct walk w = {.conf = c, .err = err};
    struct fill_args args = {&w, out};
    const struct ps_tensor *embed;
    struct ps_st *st = NULL;
    uint64_t key;
    int r;

    *out = (struct wk_weights){.share = {.fd = -1}};
    r = ps_st_open(&st, dir, err);
    if (r != PS_ST_OK)
        return r < 0 ? r : WK_WEIGHTS_E_BAD;
    w.st = st;
    embed = ps_st_find(st, "model.embed_tokens.weight");
    if (embed == NULL || !kn_type_of(embed->dtype, &w.dtype))
        refuse(&w, "model.embed_tokens.weight", "is missing or is not bf16, f16 or f32");
    out->dtype = w.dtype;
    out->layers = ps_calloc(c->n_layer, sizeof(out->layers[0]));
    if (!w.bad)
        walk_model(&w, out);
    r = WK_WEIGHTS_E_BAD;
    if (w.bad)
        goto out;
    key =
        ps_hash64((const uint64_t[]){ps_st_identity(st), w.off, c->tied}, 3 * sizeof(uint64_t), 0);
    r = wk_share_open(&out->share, key, w.off, fill, &args);
    if (r < 0)
        goto out;
    w.base = (uint8_t *)(uintptr_t)out->share.data; /* read-only from here on: fill is off */
    walk_model(&w, out);
    r = w.bad ? WK_WEIGHTS_E_BAD : WK_WEIGHTS_OK;
out:
    ps_st_close(st);
    if (r != WK_WEIGHTS_OK)
        wk_weights_fini(out);
    return r;
}

void wk_weights_fini(struct wk_weights *w)
{
    wk_share_close(&w->share);
    ps_free(w->layers);
    *w = (struct wk_weights){.share = {.fd = -1}};
}
