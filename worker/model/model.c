#include "worker/model/model.h"

#include <math.h>
#include <string.h>

#include "common/model/vocab.h"
#include "worker/model/weights.h"

struct acts {       /* device activations for n_tok_max tokens; T is the activation type */
    float *x;       /* [n_tok, hidden] residual stream */
    float *delta;   /* [n_tok, hidden] what the last block adds */
    void *act;      /* T [n_tok, max(hidden, n_head * d_head, intermediate)] what feeds a linear */
    float *qkv;     /* [n_tok, (n_head + 2 n_kv_head) * d_head] */
    float *q;       /* [n_tok, n_head, d_head] */
    float *gate_up; /* [n_tok, 2 intermediate] */
    float *out_x, *out_delta; /* [n_tok, hidden] gathered rows */
    void *out_act;            /* T [n_tok, hidden] after the final norm */
};

struct wk_model {
    struct ps_model_config conf;
    struct wk_weights w;
    struct wk_kv_layout layout;
    uint32_t attn_comp;
    uint32_t n_vocab_valid;
    float *inv_freq;
    struct kn_rope rope;
    enum kn_dtype act_type;
    const struct kn_backend *be;
    struct kn_dev *dev;
    uint8_t *arena;
    struct acts a;
    uint32_t n_tok_max, n_out;
};

/* Page size of the CPU backend; the hash block is the same 16 tokens. */
enum { PAGE_TOKENS = 16 };

int wk_model_load(struct wk_model **out, const char *dir, struct ps_buf *err)
{
    struct wk_model *m = ps_calloc(1, sizeof(*m));
    uint32_t n_ids;
    int r;

    m->w.share.fd = -1;
    r = ps_model_config_load(&m->conf, dir, err);
    if (r != PS_MODEL_OK)
        goto fail;
    r = wk_weights_load(&m->w, &m->conf, dir, err);
    if (r != WK_WEIGHTS_OK)
        goto fail;
    r = ps_vocab_n_ids(dir, &n_ids, err);
    if (r != PS_VOCAB_OK)
        goto fail;
    m->n_vocab_valid = ps_min_u32(n_ids, m->conf.n_vocab);
    m->act_type = m->w.dtype == KN_BF16 ? KN_BF16 : KN_F32;
    m->inv_freq = ps_calloc(m->conf.d_head, sizeof(float));
    ps_rope_frequencies(&m->conf, m->inv_freq, &m->rope.d_rot, &m->rope.scale);
    m->rope.inv_freq = m->inv_freq;
    wk_kv_layout_init(&m->layout);
    m->attn_comp =
        wk_kv_layout_add_attn(&m->layout, m->conf.n_layer, m->conf.n_kv_head, m->conf.d_head,
                              m->w.dtype == KN_F32 ? KN_F32 : KN_BF16, PAGE_TOKENS);
    wk_kv_layout_seal(&m->layout);
    *out = m;
    return WK_MODEL_OK;
fail:
    wk_model_destroy(m);
    return r < 0 ? r : WK_MODEL_E_BAD;
}

static size_t act_row_bytes(const struct wk_model *m, uint32_t n)
{
    return n * kn_dtype_bytes(m->act_type);
}

static uint32_t widest(const struct ps_model_config *c)
{
    return ps_max_u32(ps_max_u32(c->hidden, c->n_head * c->d_head), c->intermediate);
}

/* The one list of buffers, so that allocating and freeing agree. fn is called with (slot, bytes). */
static int for_each_buffer(struct wk_model *m, int (*fn)(struct wk_model *, void **, size_t))
{
    const struct ps_model_config *c = &m->conf;
    size_t n = m->n_tok_max, hidden = (size_t)c->hidden * sizeof(float);
    const struct {
        void **slot;
        size_t n_bytes;
    } list[] = {
        {(void **)&m->a.x, n * hidden},
        {(void **)&m->a.delta, n * hidden},
        {&m->a.act, n * act_row_bytes(m, widest(c))},
        {(void **)&m->a.qkv,
         n * (size_t)(c->n_head + 2 * c->n_kv_head) * c->d_head * sizeof(float)},
        {(void **)&m->a.q, n * (size_t)c->n_head * c->d_head * sizeof(float)},
        {(void **)&m->a.gate_up, n * 2 * (size_t)c->intermediate * sizeof(float)},
        {(void **)&m->a.out_x, n * hidden},
        {(void **)&m->a.out_delta, n * hidden},
        {&m->a.out_act, n * act_row_bytes(m, c->hidden)},
    };
    size_t i;

    for (i = 0; i < PS_ARRAY_LEN(list); i++) {
        int r = fn(m, list[i].slot, list[i].n_bytes);

        if (r != 0)
            return r;
    }
    return 0;
}

static int take_buffer(struct wk_model *m, void **slot, size_t n_bytes)
{
    return m->be->mem_alloc(m->dev, n_bytes, slot);
}

static int drop_buffer(struct wk_model *m, void **slot, size_t n_bytes)
{
    if (*slot != NULL)
        m->be->mem_free(m->dev, *slot, n_bytes);
    *slot = NULL;
    return 0;
}

int wk_model_bind(struct wk_model *m, const struct kn_backend *be, struct kn_dev *d,
                  uint8_t *kv_arena, uint32_t n_tok_max)
{
    PS_ASSERT(m->dev == NULL && n_tok_max > 0);
    m->be = be;
    m->dev = d;
    m->arena = kv_arena;
    m->n_tok_max = n_tok_max;
    return for_each_buffer(m, take_buffer);
}

static int attention(struct wk_model *m, const struct wk_forward *f, uint32_t layer)
{
    const struct ps_model_config *c = &m->conf;
    const struct wk_layer_weights *l = &m->w.layers[layer];
    const struct kn_ops *op = m->be->ops;
    struct kn_kv_view kv =
        wk_kv_layout_view(&m->layout, m->attn_comp, layer, m->arena, f->table, f->table_stride);
    const struct kn_qkv_args qkv = {.qkv = m->a.qkv,
                                    .q_norm = l->q_norm,
                                    .k_norm = l->k_norm,
                                    .eps = (float)c->eps,
                                    .n_tok = f->n_tok,
                                    .n_q_head = c->n_head,
                                    .n_kv_head = c->n_kv_head,
                                    .d_head = c->d_head,
                                    .rope = m->rope,
                                    .seqs = f->seqs,
                                    .n_seq = f->n_seq,
                                    .kv = kv,
                                    .q_out = m->a.q};
    const struct kn_attn_args attn = {.q = m->a.q,
                                      .n_q_head = c->n_head,
                                      .n_kv_head = c->n_kv_head,
                                      .d_head = c->d_head,
                                      .scale = 1.0f / sqrtf((float)c->d_head),
                                      .seqs = f->seqs,
                                      .n_seq = f->n_seq,
                                      .kv = kv,
                                      .out = m->a.act,
                                      .out_type = m->act_type};
    int r;

    r = op->linear(m->dev, &l->qkv, l->qkv_bias, m->a.act, c->hidden, f->n_tok, m->a.qkv);
    if (r == 0)
        r = op->qkv_rope_write(m->dev, &qkv);
    if (r == 0)
        r = op->attn(m->dev, &attn);
    if (r == 0)
        r = op->linear(m->dev, &l->o, l->o_bias, m->a.act, c->n_head * c->d_head, f->n_tok,
                       m->a.delta);
    return r;
}

static int mlp(struct wk_model *m, const struct wk_forward *f, uint32_t layer)
{
    const struct ps_model_config *c = &m->conf;
    const struct wk_layer_weights *l = &m->w.layers[layer];
    const struct kn_ops *op = m->be->ops;
    int r;

    r = op->linear(m->dev, &l->gate_up, l->gate_up_bias, m->a.act, c->hidden, f->n_tok,
                   m->a.gate_up);
    if (r == 0)
        r = op->silu_mul(m->dev, m->a.gate_up, f->n_tok, c->intermediate, m->a.act, m->act_type);
    if (r == 0)
        r = op->linear(m->dev, &l->down, l->down_bias, m->a.act, c->intermediate, f->n_tok,
                       m->a.delta);
    return r;
}

/* x += attention(norm(x)); x += mlp(norm(x)): each addition happens in the norm that follows it. */
int wk_model_forward(struct wk_model *m, const struct wk_forward *f)
{
    const struct ps_model_config *c = &m->conf;
    const struct kn_ops *op = m->be->ops;
    float eps = (float)c->eps;
    uint32_t i;
    int r;

    PS_ASSERT(f->n_tok > 0 && f->n_tok <= m->n_tok_max && f->n_out <= m->n_tok_max);
    m->n_out = f->n_out;
    r = op->embed(m->dev, &m->w.embed, f->ids, f->n_tok, m->a.x);
    for (i = 0; i < c->n_layer && r == 0; i++) {
        const struct wk_layer_weights *l = &m->w.layers[i];

        r = op->add_norm(m->dev, m->a.x, i > 0 ? m->a.delta : NULL, l->attn_norm, eps, f->n_tok,
                         c->hidden, m->a.act, m->act_type);
        if (r == 0)
            r = attention(m, f, i);
        if (r == 0)
            r = op->add_norm(m->dev, m->a.x, m->a.delta, l->mlp_norm, eps, f->n_tok, c->hidden,
                             m->a.act, m->act_type);
        if (r == 0)
            r = mlp(m, f, i);
    }
    if (r != 0 || f->n_out == 0)
        return r;
    r = op->gather_rows(m->dev, m->a.x, f->out_rows, f->n_out, c->hidden, m->a.out_x);
    if (r == 0)
        r = op->gather_rows(m->dev, m->a.delta, f->out_rows, f->n_out, c->hidden, m->a.out_delta);
    if (r == 0)
        r = op->add_norm(m->dev, m->a.out_x, m->a.out_delta, m->w.final_norm, eps, f->n_out,
                         c->hidden, m->a.out_act, m->act_type);
    return r;
}

int wk_model_logits(struct wk_model *m, uint32_t first, uint32_t n, float *logits)
{
    const uint8_t *x = m->a.out_act;

    PS_ASSERT(first + n <= m->n_out);
    return m->be->ops->linear(m->dev, &m->w.head, NULL,
                              x + first * act_row_bytes(m, m->conf.hidden), m->conf.hidden, n,
                              logits);
}

void wk_model_unbind(struct wk_model *m)
{
    if (m->dev != NULL)
        (void)for_each_buffer(m, drop_buffer);
    m->dev = NULL;
}

void wk_model_destroy(struct wk_model *m)
{
    if (m == NULL)
        return;
    wk_model_unbind(m);
    wk_weights_fini(&m->w);
    ps_free(m->inv_freq);
    ps_free(m);
}

const struct ps_model_config *wk_model_config(const struct wk_model *m)
{
    return &m->conf;
}

const struct wk_kv_layout *wk_model_layout(const struct wk_model *m)
{
    return &m->layout;
}

uint64_t wk_model_weights_digest(const struct wk_model *m)
{
    return m->w.share.digest;
}

enum kn_dtype wk_model_dtype(const struct wk_model *m)
{
    return m->w.dtype;
}

bool wk_model_is_shared(const struct wk_model *m)
{
    return m->w.share.found;
}

uint32_t wk_model_n_vocab_valid(const struct wk_model *m)
{
    return m->n_vocab_valid;
}
