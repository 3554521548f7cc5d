#include "common/model/config.h"

#include <math.h>
#include <string.h>

#include "common/json/json.h"
#include "common/model/file.h"

/* A config.json is a few KiB; the limit only keeps a wrong file from being read whole. */
enum { MAX_CONFIG_BYTES = 4 << 20 };

/* Geometry limits: far above every released model, low enough that products of two fit 64 bits. */
enum {
    MAX_HIDDEN = 1 << 17,
    MAX_LAYERS = 160,
    MAX_HEADS = 1024,
    MAX_D_HEAD = 256,
    MAX_INTER = 1 << 20
};
enum { MAX_VOCAB = 1 << 20, MAX_POS = 1 << 24 };

static const struct ps_json_limits json_limits = {.max_depth = 64, .max_values = 200000};

struct reader {
    const struct ps_json *outer; /* the whole document */
    const struct ps_json *text;  /* text_config when there is one, else the document */
    struct ps_buf *err;
    bool bad;
};

static void refuse(struct reader *r, const char *key, const char *why)
{
    if (!r->bad)
        ps_buf_addf(r->err, "config.json: %s %s", key, why);
    r->bad = true;
}

static const struct ps_json *find(const struct ps_json *obj, const char *key)
{
    const struct ps_json *v;

    if (obj == NULL || ps_json_type(obj) != PS_JSON_OBJ)
        return NULL;
    v = ps_json_get(obj, key);
    return v != NULL && ps_json_type(v) != PS_JSON_NULL ? v : NULL;
}

static bool is_num(const struct ps_json *v)
{
    return ps_json_type(v) == PS_JSON_INT || ps_json_type(v) == PS_JSON_REAL;
}

/* def 0 with required set: the key must be there. */
static uint32_t read_u32(struct reader *r, const char *key, uint32_t min, uint32_t max,
                         bool required, uint32_t def)
{
    const struct ps_json *v = find(r->text, key);

    if (v == NULL) {
        if (required)
            refuse(r, key, "is missing");
        return def;
    }
    if (ps_json_type(v) != PS_JSON_INT || ps_json_int(v) < (int64_t)min ||
        ps_json_int(v) > (int64_t)max) {
        refuse(r, key, "is not an integer in the supported range");
        return def;
    }
    return (uint32_t)ps_json_int(v);
}

static double read_double(struct reader *r, const struct ps_json *obj, const char *key, double def)
{
    const struct ps_json *v = find(obj, key);

    if (v == NULL)
        return def;
    if (!is_num(v) || !isfinite(ps_json_num(v))) {
        refuse(r, key, "is not a finite number");
        return def;
    }
    return ps_json_num(v);
}

static bool read_bool(struct reader *r, const struct ps_json *obj, const char *key, bool def)
{
    const struct ps_json *v = find(obj, key);

    if (v == NULL)
        return def;
    if (ps_json_type(v) != PS_JSON_BOOL) {
        refuse(r, key, "is neither true nor false");
        return def;
    }
    return ps_json_bool(v);
}

/* NULL when absent or not a string. */
static const char *read_str(const struct ps_json *obj, const char *key)
{
    const struct ps_json *v = find(obj, key);
    size_t len;

    return v != NULL && ps_json_type(v) == PS_JSON_STR ? ps_json_str(v, &len) : NULL;
}

static void add_eos(struct ps_model_config *c, const struct ps_json *v)
{
    uint32_t id, i;

    if (v == NULL || ps_json_type(v) != PS_JSON_INT || ps_json_int(v) < 0 ||
        ps_json_int(v) >= (int64_t)c->n_vocab)
        return;
    id = (uint32_t)ps_json_int(v);
    for (i = 0; i < c->n_eos; i++) {
        if (c->eos[i] == id)
            return;
    }
    if (c->n_eos < PS_MAX_EOS)
        c->eos[c->n_eos++] = id;
}

/* eos_token_id may be an int or a list; both files count. */
static void read_eos(struct ps_model_config *c, const struct ps_json *obj)
{
    const struct ps_json *v = find(obj, "eos_token_id");
    size_t i;

    if (v == NULL)
        return;
    if (ps_json_type(v) == PS_JSON_ARR) {
        for (i = 0; i < ps_json_n(v); i++)
            add_eos(c, ps_json_at(v, i));
    } else {
        add_eos(c, v);
    }
}

static void read_family(struct reader *r, struct ps_model_config *c)
{
    static const struct {
        const char *arch, *type;
        enum ps_family family;
    } known[] = {
        {"LlamaForCausalLM", "llama", PS_FAMILY_LLAMA},
        {"Qwen2ForCausalLM", "qwen2", PS_FAMILY_QWEN2},
        {"Qwen3ForCausalLM", "qwen3", PS_FAMILY_QWEN3},
    };
    const struct ps_json *list = find(r->outer, "architectures");
    const char *type = read_str(r->text, "model_type"), *arch = NULL;
    size_t i, len;

    if (list != NULL && ps_json_type(list) == PS_JSON_ARR && ps_json_n(list) > 0 &&
        ps_json_type(ps_json_at(list, 0)) == PS_JSON_STR)
        arch = ps_json_str(ps_json_at(list, 0), &len);
    for (i = 0; i < PS_ARRAY_LEN(known); i++) {
        if ((arch != NULL && strcmp(arch, known[i].arch) == 0) ||
            (arch == NULL && type != NULL && strcmp(type, known[i].type) == 0)) {
            c->family = known[i].family;
            return;
        }
    }
    refuse(r, "architectures",
           "names no supported family (LlamaForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM)");
}

static void read_rope_type(struct reader *r, const struct ps_json *o, struct ps_rope_conf *rope)
{
    static const char *const names[] = {"default", "linear", "llama3", "yarn"};
    const struct ps_json *v = find(o, "rope_type");
    const char *type;
    size_t i, len;

    if (v == NULL)
        v = find(o, "type");
    rope->type = PS_ROPE_DEFAULT;
    if (v == NULL)
        return;
    type = ps_json_type(v) == PS_JSON_STR ? ps_json_str(v, &len) : "";
    if (strcmp(type, "mrope") == 0) /* three equal position streams for text: plain rotation */
        return;
    for (i = 0; i < PS_ARRAY_LEN(names); i++) {
        if (strcmp(type, names[i]) == 0) {
            rope->type = (enum ps_rope_type)i;
            return;
        }
    }
    refuse(r, "rope_type", "is not one of default, linear, llama3, yarn");
}

static void check_rope(struct reader *r, const struct ps_model_config *c)
{
    const struct ps_rope_conf *rope = &c->rope;

    if (!(rope->theta > 1.0 && rope->theta <= 1e12))
        refuse(r, "rope_theta", "is out of range");
    if (!(rope->partial > 0.0 && rope->partial <= 1.0) || c->d_head * rope->partial < 2.0)
        refuse(r, "partial_rotary_factor", "is out of range");
    if (rope->type == PS_ROPE_LLAMA3 &&
        (rope->original_max_pos == 0 || rope->factor < 1.0 || rope->high_freq <= rope->low_freq ||
         rope->low_freq <= 0.0))
        refuse(r, "rope_scaling",
               "of type llama3 lacks its factors or original_max_position_embeddings");
    if (rope->type == PS_ROPE_LINEAR && rope->factor < 1.0)
        refuse(r, "rope_scaling", "of type linear has no factor >= 1");
    if (rope->type == PS_ROPE_YARN &&
        ((rope->factor != 0.0 && rope->factor < 1.0) || rope->beta_slow <= 0.0 ||
         rope->beta_fast < rope->beta_slow || rope->attention_factor < 0.0))
        refuse(r, "rope_scaling", "of type yarn has a factor or a beta out of range");
}

static void read_rope(struct reader *r, struct ps_model_config *c)
{
    const struct ps_json *p = find(r->text, "rope_parameters"), *s = find(r->text, "rope_scaling");
    const struct ps_json *o = p != NULL ? p : s, *v;
    struct ps_rope_conf *rope = &c->rope;
    const char *key;
    void *it = NULL;
    double old;

    if (o != NULL && ps_json_type(o) != PS_JSON_OBJ) {
        refuse(r, p != NULL ? "rope_parameters" : "rope_scaling", "is not an object");
        return;
    }
    while (o != NULL && (v = ps_json_next(o, &it, &key)) != NULL) {
        if (ps_json_type(v) == PS_JSON_OBJ)
            refuse(r, "rope_parameters", "differ between kinds of layers, which is not supported");
    }
    rope->theta = read_double(r, o, "rope_theta", read_double(r, r->text, "rope_theta", 10000.0));
    rope->partial = read_double(r, o, "partial_rotary_factor",
                                read_double(r, r->text, "partial_rotary_factor", 1.0));
    rope->factor = read_double(r, o, "factor", 0.0);
    rope->low_freq = read_double(r, o, "low_freq_factor", 1.0);
    rope->high_freq = read_double(r, o, "high_freq_factor", 4.0);
    rope->beta_fast = read_double(r, o, "beta_fast", 32.0);
    rope->beta_slow = read_double(r, o, "beta_slow", 1.0);
    rope->attention_factor = read_double(r, o, "attention_factor", 0.0);
    rope->mscale = read_double(r, o, "mscale", 0.0);
    rope->mscale_all_dim = read_double(r, o, "mscale_all_dim", 0.0);
    rope->truncate = read_bool(r, o, "truncate", true);
    old = read_double(r, o, "original_max_position_embeddings",
                      read_double(r, r->text, "original_max_position_embeddings", 0.0));
    if (old < 0.0 || old > MAX_POS)
        refuse(r, "original_max_position_embeddings", "is out of range");
    else
        rope->original_max_pos = (uint32_t)old;
    read_rope_type(r, o, rope);
    if (!r->bad)
        check_rope(r, c);
}

static void read_geometry(struct reader *r, struct ps_model_config *c)
{
    c->hidden = read_u32(r, "hidden_size", 2, MAX_HIDDEN, true, 2);
    c->n_layer = read_u32(r, "num_hidden_layers", 1, MAX_LAYERS, true, 1);
    c->n_head = read_u32(r, "num_attention_heads", 1, MAX_HEADS, true, 1);
    c->n_kv_head = read_u32(r, "num_key_value_heads", 1, MAX_HEADS, false, c->n_head);
    c->intermediate = read_u32(r, "intermediate_size", 1, MAX_INTER, true, 1);
    c->n_vocab = read_u32(r, "vocab_size", 1, MAX_VOCAB, true, 1);
    c->max_pos = read_u32(r, "max_position_embeddings", 1, MAX_POS, false, 2048);
    if (r->bad)
        return;
    /* Qwen3 states head_dim and must not have it derived: several sizes have n_head * 128 != hidden. */
    c->d_head =
        read_u32(r, "head_dim", 2, MAX_D_HEAD, c->family == PS_FAMILY_QWEN3, c->hidden / c->n_head);
    if (!r->bad && (c->d_head < 2 || c->d_head > MAX_D_HEAD || c->d_head % 2 != 0))
        refuse(r, "head_dim", "is odd or out of range (2 to 256)");
    if (!r->bad && c->n_head % c->n_kv_head != 0)
        refuse(r, "num_attention_heads", "is not a multiple of num_key_value_heads");
    c->eps = read_double(r, r->text, "rms_norm_eps", 1e-6);
    if (!(c->eps > 0.0 && c->eps < 1.0))
        refuse(r, "rms_norm_eps", "is out of range");
}

/* Layers other than plain causal attention are another forward pass. */
static void read_layer_types(struct reader *r)
{
    const struct ps_json *list = find(r->text, "layer_types"), *v;
    size_t i, len;

    if (list == NULL)
        return;
    if (ps_json_type(list) != PS_JSON_ARR) {
        refuse(r, "layer_types", "is not a list");
        return;
    }
    for (i = 0; i < ps_json_n(list); i++) {
        v = ps_json_at(list, i);
        if (ps_json_type(v) != PS_JSON_STR || strcmp(ps_json_str(v, &len), "full_attention") != 0) {
            refuse(r, "layer_types", "holds something other than full_attention");
            return;
        }
    }
}

static void read_dtype(struct reader *r, struct ps_model_config *c)
{
    const char *dtype = read_str(r->text, "dtype");

    if (dtype == NULL)
        dtype = read_str(r->text, "torch_dtype");
    if (dtype != NULL && strcmp(dtype, "float32") == 0)
        memcpy(c->dtype, "f32", 4);
    else if (dtype != NULL && strcmp(dtype, "float16") == 0)
        memcpy(c->dtype, "f16", 4);
    else
        memcpy(c->dtype, "bf16", 5);
}

static void read_flags(struct reader *r, struct ps_model_config *c)
{
    const struct ps_json *act = find(r->text, "hidden_act");
    bool bias;
    size_t len;

    if (act != NULL &&
        (ps_json_type(act) != PS_JSON_STR || strcmp(ps_json_str(act, &len), "silu") != 0))
        refuse(r, "hidden_act", "is not silu");
    c->tied = read_bool(r, r->outer, "tie_word_embeddings",
                        read_bool(r, r->text, "tie_word_embeddings", false));
    bias = read_bool(r, r->text, "attention_bias", false);
    c->qkv_bias = bias || c->family == PS_FAMILY_QWEN2; /* always there, and never on o */
    c->o_bias = bias && c->family != PS_FAMILY_QWEN2;
    c->mlp_bias = read_bool(r, r->text, "mlp_bias", false) && c->family == PS_FAMILY_LLAMA;
    c->qk_norm = c->family == PS_FAMILY_QWEN3;
    if (read_bool(r, r->text, "use_sliding_window", false))
        refuse(r, "use_sliding_window", "is not supported");
    read_layer_types(r);
    if (find(r->outer, "quantization_config") != NULL ||
        find(r->text, "quantization_config") != NULL)
        refuse(r, "quantization_config",
               "is not supported by penstock (bf16, f16 and f32 weights are)");
    read_dtype(r, c);
}

static void read_gen(struct ps_model_config *c, const struct ps_json *g)
{
    struct ps_gen_defaults *d = &c->gen;
    const struct ps_json *v;

    read_eos(c, g);
    /* A value outside the API's own range is no usable default: it is left out, not refused. */
    if ((v = find(g, "temperature")) != NULL && is_num(v) && ps_json_num(v) >= 0.0 &&
        ps_json_num(v) <= 2.0) {
        d->has_temperature = true;
        d->temperature = ps_json_num(v);
    }
    if ((v = find(g, "top_p")) != NULL && is_num(v) && ps_json_num(v) > 0.0 &&
        ps_json_num(v) <= 1.0) {
        d->has_top_p = true;
        d->top_p = ps_json_num(v);
    }
    if ((v = find(g, "min_p")) != NULL && is_num(v) && ps_json_num(v) >= 0.0 &&
        ps_json_num(v) <= 1.0) {
        d->has_min_p = true;
        d->min_p = ps_json_num(v);
    }
    if ((v = find(g, "top_k")) != NULL && ps_json_type(v) == PS_JSON_INT && ps_json_int(v) >= -1 &&
        ps_json_int(v) <= INT32_MAX) {
        d->has_top_k = true;
        d->top_k = (int32_t)ps_json_int(v);
    }
    if ((v = find(g, "repetition_penalty")) != NULL && is_num(v) && ps_json_num(v) > 0.0 &&
        ps_json_num(v) <= 100.0) {
        d->has_rep_penalty = true;
        d->rep_penalty = ps_json_num(v);
    }
    v = find(g, "do_sample");
    if (v != NULL && ps_json_type(v) == PS_JSON_BOOL && !ps_json_bool(v)) {
        d->has_temperature = true;
        d->temperature = 0.0;
    }
}

int ps_model_config_parse(struct ps_model_config *out, const char *json, size_t len,
                          const char *gen, size_t gen_len, struct ps_buf *err)
{
    struct ps_model_config c = {0};
    struct ps_json_doc *doc = NULL, *gdoc = NULL;
    struct reader r = {.err = err};
    size_t off = 0;

    PS_ASSERT(out != NULL && json != NULL && err != NULL);
    if (ps_json_parse(&doc, json, len, &json_limits, &off) != PS_JSON_OK) {
        ps_buf_addf(err, "config.json: not valid JSON (byte %zu)", off);
        return PS_MODEL_E_BAD;
    }
    r.outer = ps_json_root(doc);
    r.text = r.outer;
    if (ps_json_type(r.outer) != PS_JSON_OBJ) {
        refuse(&r, "the document", "is not an object");
    } else {
        if (find(r.outer, "text_config") != NULL)
            r.text = find(r.outer, "text_config");
        read_family(&r, &c);
        read_geometry(&r, &c);
        read_rope(&r, &c);
        read_flags(&r, &c);
        read_eos(&c, r.outer);
        read_eos(&c, r.text);
    }
    if (!r.bad && gen != NULL && gen_len > 0) {
        if (ps_json_parse(&gdoc, gen, gen_len, &json_limits, &off) != PS_JSON_OK ||
            ps_json_type(ps_json_root(gdoc)) != PS_JSON_OBJ) {
            ps_buf_addf(err, "generation_config.json: not a valid JSON object (byte %zu)", off);
            r.bad = true;
        } else {
            read_gen(&c, ps_json_root(gdoc));
        }
    }
    ps_json_free(doc);
    ps_json_free(gdoc);
    if (r.bad)
        return PS_MODEL_E_BAD;
    *out = c;
    return PS_MODEL_OK;
}

int ps_model_config_load(struct ps_model_config *out, const char *dir, struct ps_buf *err)
{
    struct ps_buf json = PS_BUF_INIT, gen = PS_BUF_INIT;
    int r;

    r = ps_file_read(dir, "config.json", MAX_CONFIG_BYTES, &json);
    if (r != PS_FILE_OK) {
        ps_buf_addf(err, "%s: config.json %s", dir,
                    r == PS_FILE_E_NONE ? "is missing" : "cannot be read");
        r = PS_MODEL_E_BAD;
        goto out;
    }
    r = ps_file_read(dir, "generation_config.json", MAX_CONFIG_BYTES, &gen);
    if (r != PS_FILE_OK && r != PS_FILE_E_NONE) {
        ps_buf_addf(err, "%s: generation_config.json cannot be read", dir);
        r = PS_MODEL_E_BAD;
        goto out;
    }
    r = ps_model_config_parse(out, json.data != NULL ? json.data : "", json.len, gen.data, gen.len,
                              err);
out:
    ps_buf_fini(&json);
    ps_buf_fini(&gen);
    return r;
}
