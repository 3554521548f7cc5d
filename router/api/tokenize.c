/*
 * /tokenize, /detokenize, /tokenizer_info: the model's own tokenizer for clients that count.
 */

#include <inttypes.h>
#include <string.h>

#include "common/json/json.h"
#include "common/model/file.h"
#include "common/text/utf8.h"
#include "router/api/api.h"
#include "router/conf_def.h"
#include "router/request/prepare.h"

enum { MAX_CONFIG_BYTES = 4 << 20, MAX_BATCH = 2048 };

/* Text work for one request; runs where the text pool says. */
struct rt_job {
    struct rt_text_job base;
    struct rt_ask *ask; /* NULL: the client is gone */
    const struct rt_router *router;
    const char *body;
    size_t len;
    char *own_body;
    bool detok, ok;
    struct ps_buf out;
    struct rt_fail fail;
};

struct tok_params {        /* both directions */
    struct rt_params chat; /* the template's fields, and the model */
    const struct ps_json *prompt, *content, *tokens;
    int8_t add_special_tokens, add_special, parse_special, with_pieces, strs, skip_special;
};

static bool keep_prompt(struct rt_check *c, const struct ps_json *v)
{
    ((struct tok_params *)c->dst)->prompt = v;
    return true;
}

static bool keep_content(struct rt_check *c, const struct ps_json *v)
{
    if (ps_json_type(v) != PS_JSON_STR)
        return rt_check_bad_type(c, "a string");
    ((struct tok_params *)c->dst)->content = v;
    return true;
}

static bool keep_messages(struct rt_check *c, const struct ps_json *v)
{
    if (ps_json_type(v) != PS_JSON_ARR)
        return rt_check_bad_type(c, "an array");
    ((struct tok_params *)c->dst)->chat.messages = v;
    return true;
}

static bool keep_tokens(struct rt_check *c, const struct ps_json *v)
{
    if (ps_json_type(v) != PS_JSON_ARR)
        return rt_check_bad_type(c, "an array of token ids");
    ((struct tok_params *)c->dst)->tokens = v;
    return true;
}

#define ROW(n, k, m) \
    { \
        .name = (n), .kind = (k), .offset = offsetof(struct tok_params, m) \
    }
#define KEEP(n, f) \
    { \
        .name = (n), .kind = RT_F_CUSTOM, .fn = (f) \
    }

static const struct rt_field tokenize_rows[] = {
    ROW("model", RT_F_STR, chat.model_name),
    KEEP("prompt", keep_prompt),
    KEEP("content", keep_content),
    KEEP("messages", keep_messages),
    ROW("add_special_tokens", RT_F_BOOL, add_special_tokens),
    ROW("add_special", RT_F_BOOL, add_special),
    ROW("parse_special", RT_F_BOOL, parse_special),
    ROW("with_pieces", RT_F_BOOL, with_pieces),
    ROW("return_token_strs", RT_F_BOOL, strs),
    ROW("add_generation_prompt", RT_F_BOOL, chat.add_generation_prompt),
    ROW("continue_final_message", RT_F_BOOL, chat.continue_final),
    ROW("chat_template_kwargs", RT_F_OBJ, chat.template_kwargs),
    {.name = "tools", .kind = RT_F_REFUSE_FILLED},
    {.name = "chat_template", .kind = RT_F_REFUSE},
};

static const struct rt_field detokenize_rows[] = {
    ROW("model", RT_F_STR, chat.model_name),
    KEEP("tokens", keep_tokens),
    ROW("skip_special_tokens", RT_F_BOOL, skip_special),
};

/* ---- tokenize ---- */

static bool fail(struct rt_job *j, enum rt_fail_row row, const char *param, const char *text)
{
    rt_fail_set(&j->fail, row, param, "%s", text);
    return false;
}

static bool encode(struct rt_job *j, struct ps_tok_ctx *tok, const char *s, size_t len,
                   uint32_t flags, struct ps_tok_ids *ids)
{
    if (ps_tok_encode(tok, s, len, flags, 0, ids) == PS_TOK_OK)
        return true;
    return fail(j, RT_E6_VALUE, "prompt", "The text could not be tokenized");
}

static void add_piece(struct ps_buf *out, const struct ps_tok *tok, uint32_t id)
{
    struct ps_buf clean = PS_BUF_INIT;
    uint32_t len;
    const char *s = ps_tok_bytes(tok, id, &len);

    ps_buf_reserve(&clean, len);
    (void)ps_utf8_repair(&clean, s, len, true);
    ps_json_add_str(out, clean.data, clean.len);
    ps_buf_fini(&clean);
}

static void add_ids(struct ps_buf *out, const struct ps_tok_ids *ids)
{
    ps_buf_add_byte(out, '[');
    for (uint32_t i = 0; i < ids->n; i++)
        ps_buf_addf(out, "%s%" PRIu32, i > 0 ? "," : "", ids->ids[i]);
    ps_buf_add_byte(out, ']');
}

static void add_pieces(struct ps_buf *out, const struct ps_tok *tok, const struct ps_tok_ids *ids,
                       bool with_ids)
{
    ps_buf_add_byte(out, '[');
    for (uint32_t i = 0; i < ids->n; i++) {
        if (i > 0)
            ps_buf_add_byte(out, ',');
        if (with_ids)
            ps_buf_addf(out, "{\"id\":%" PRIu32 ",\"piece\":", ids->ids[i]);
        add_piece(out, tok, ids->ids[i]);
        if (with_ids)
            ps_buf_add_byte(out, '}');
    }
    ps_buf_add_byte(out, ']');
}

/* {"content":...}: the form of one other server, with its own names and answer. */
static bool tokenize_content(struct rt_job *j, struct ps_tok_ctx *tok, const struct tok_params *p)
{
    const struct ps_tok *t = j->router->model.tok;
    uint32_t flags = (p->add_special == 1 ? PS_TOK_SPECIAL : 0u) |
                     (p->parse_special == 0 ? PS_TOK_NO_CONTROL : 0u);
    struct ps_tok_ids ids = {0};
    struct rt_str s;
    bool ok;

    s.s = ps_json_str(p->content, &s.len);
    ok = encode(j, tok, s.s, s.len, flags, &ids);
    if (ok) {
        ps_buf_add_str(&j->out, "{\"tokens\":");
        if (p->with_pieces == 1)
            add_pieces(&j->out, t, &ids, true);
        else
            add_ids(&j->out, &ids);
        ps_buf_add_byte(&j->out, '}');
    }
    ps_tok_ids_fini(&ids);
    return ok;
}

static void add_result(struct rt_job *j, const struct tok_params *p, const struct ps_tok_ids *ids,
                       uint32_t n, bool batch)
{
    struct ps_buf *o = &j->out;

    ps_buf_addf(o, "{\"count\":%s", batch ? "[" : "");
    for (uint32_t i = 0; i < n; i++)
        ps_buf_addf(o, "%s%" PRIu32, i > 0 ? "," : "", ids[i].n);
    ps_buf_addf(o, "%s,\"max_model_len\":%" PRIu32 ",\"tokens\":%s", batch ? "]" : "",
                j->router->model.context, batch ? "[" : "");
    for (uint32_t i = 0; i < n; i++) {
        if (i > 0)
            ps_buf_add_byte(o, ',');
        add_ids(o, &ids[i]);
    }
    ps_buf_addf(o, "%s,\"token_strs\":", batch ? "]" : "");
    if (p->strs != 1) {
        ps_buf_add_str(o, "null}");
        return;
    }
    if (batch)
        ps_buf_add_byte(o, '[');
    for (uint32_t i = 0; i < n; i++) {
        if (i > 0)
            ps_buf_add_byte(o, ',');
        add_pieces(o, j->router->model.tok, &ids[i], false);
    }
    ps_buf_add_str(o, batch ? "]}" : "}");
}

static bool tokenize_chat(struct rt_job *j, struct ps_tok_ctx *tok, struct tok_params *p)
{
    uint64_t now_s = ps_wall_us(j->router->clock) / 1000000;
    struct ps_buf text = PS_BUF_INIT;
    struct ps_tok_ids ids = {0};
    bool ok;

    if (ps_json_n(p->chat.messages) == 0)
        return fail(j, RT_E6_VALUE, "messages", "'messages' must not be empty");
    ok = rt_prepare_chat_text(&p->chat, now_s, &text, &j->fail) &&
         encode(j, tok, text.data, text.len, p->add_special_tokens == 1 ? PS_TOK_SPECIAL : 0, &ids);
    if (ok)
        add_result(j, p, &ids, 1, false);
    ps_buf_fini(&text);
    ps_tok_ids_fini(&ids);
    return ok;
}

static bool tokenize_prompt(struct rt_job *j, struct ps_tok_ctx *tok, const struct tok_params *p)
{
    bool batch = ps_json_type(p->prompt) == PS_JSON_ARR, ok = true;
    uint32_t n = 1, flags = p->add_special_tokens != 0 ? PS_TOK_SPECIAL : 0;
    struct ps_tok_ids *ids;
    struct rt_str s;

    if (!batch && ps_json_type(p->prompt) != PS_JSON_STR)
        return fail(j, RT_E5_TYPE, "prompt", "'prompt' must be a string or an array of strings");
    if (batch && (ps_json_n(p->prompt) == 0 || ps_json_n(p->prompt) > MAX_BATCH))
        return fail(j, RT_E6_VALUE, "prompt", "'prompt' must hold 1 to 2048 strings");
    if (batch)
        n = (uint32_t)ps_json_n(p->prompt);
    ids = ps_calloc(n, sizeof(ids[0]));
    for (uint32_t i = 0; i < n && ok; i++) {
        const struct ps_json *v = batch ? ps_json_at(p->prompt, i) : p->prompt;

        if (ps_json_type(v) != PS_JSON_STR) {
            ok = fail(j, RT_E5_TYPE, "prompt", "'prompt' must hold strings only");
        } else {
            s.s = ps_json_str(v, &s.len);
            ok = encode(j, tok, s.s, s.len, flags, &ids[i]);
        }
    }
    if (ok)
        add_result(j, p, ids, n, batch);
    for (uint32_t i = 0; i < n; i++)
        ps_tok_ids_fini(&ids[i]);
    ps_free(ids);
    return ok;
}

/* ---- detokenize ---- */

static bool decode_one(struct rt_job *j, const struct ps_json *v, const struct tok_params *p,
                       struct ps_buf *json)
{
    const struct ps_tok *tok = j->router->model.tok;
    struct rt_check c = {.fail = &j->fail, .name = "tokens", .prefix = ""};
    struct ps_buf text = PS_BUF_INIT;
    uint32_t *ids = NULL, n = 0;

    if (!rt_check_ids(&c, v, rt_model_n_vocab(&j->router->model), UINT32_MAX, &ids, &n))
        return false;
    ps_buf_reserve(&text, 0);
    ps_tok_decode(tok, ids, n, p->skip_special == 1, &text);
    ps_json_add_str(json, text.data, text.len);
    ps_buf_fini(&text);
    ps_free(ids);
    return true;
}

static bool detokenize(struct rt_job *j, const struct tok_params *p)
{
    struct ps_buf json = PS_BUF_INIT;
    bool batch, ok = true;

    if (p->tokens == NULL)
        return fail(j, RT_E4_MISSING, "tokens", "Missing required parameter: 'tokens'");
    batch = ps_json_n(p->tokens) > 0 && ps_json_type(ps_json_at(p->tokens, 0)) == PS_JSON_ARR;
    if (!batch) {
        ok = decode_one(j, p->tokens, p, &json);
    } else {
        for (size_t i = 0; i < ps_json_n(p->tokens) && ok; i++) {
            ps_buf_add_byte(&json, i > 0 ? ',' : '[');
            ok = decode_one(j, ps_json_at(p->tokens, i), p, &json);
        }
        ps_buf_add_byte(&json, ']');
    }
    if (ok)
        ps_buf_addf(&j->out, "{\"prompt\":%s,\"text\":%s,\"content\":%s}", json.data, json.data,
                    json.data);
    ps_buf_fini(&json);
    return ok;
}

/* ---- the job ---- */

static bool work(struct rt_job *j, struct ps_tok_ctx *tok, const struct ps_json *root)
{
    const struct rt_fields table = {j->detok ? detokenize_rows : tokenize_rows,
                                    j->detok ? PS_ARRAY_LEN(detokenize_rows)
                                             : PS_ARRAY_LEN(tokenize_rows)};
    struct tok_params p = {.add_special_tokens = -1,
                           .add_special = -1,
                           .parse_special = -1,
                           .with_pieces = -1,
                           .strs = -1,
                           .skip_special = -1};
    struct rt_check c = {
        .dst = &p, .fail = &j->fail, .prefix = "", .strict = j->router->conf->strict_params};
    const char *shown;

    rt_params_init(&p.chat, RT_CHAT, &j->router->model, j->router->conf);
    if (!rt_check_object(&c, root, &table, 1))
        return false;
    if (!rt_model_resolve(&j->router->model, p.chat.model_name, &shown)) {
        rt_fail_set(&j->fail, RT_E10_MODEL, "model", "The model `%.200s` does not exist.",
                    p.chat.model_name.s);
        return false;
    }
    if (j->detok)
        return detokenize(j, &p);
    if (p.chat.continue_final == 1 && p.chat.add_generation_prompt == 1)
        return fail(j, RT_E7_CONFLICT, "continue_final_message",
                    "'continue_final_message' and 'add_generation_prompt' exclude each other");
    if (p.chat.messages != NULL)
        return tokenize_chat(j, tok, &p);
    if (p.prompt != NULL)
        return tokenize_prompt(j, tok, &p);
    if (p.content != NULL)
        return tokenize_content(j, tok, &p);
    return fail(j, RT_E4_MISSING, "prompt", "Missing required parameter: 'prompt' or 'messages'");
}

static void run(struct rt_text_job *base, struct ps_tok_ctx *tok)
{
    struct rt_job *j = PS_CONTAINER(base, struct rt_job, base);
    struct ps_json_doc *doc = NULL;

    j->ok = rt_check_body(j->body, j->len, &doc, &j->fail) && work(j, tok, ps_json_root(doc));
    ps_json_free(doc);
}

static void job_free(struct rt_job *j)
{
    if (j->ask != NULL)
        j->ask->job = NULL;
    ps_buf_fini(&j->out);
    ps_free(j->own_body);
    ps_free(j);
}

static void done(struct rt_text_job *base, bool ran)
{
    struct rt_job *j = PS_CONTAINER(base, struct rt_job, base);
    struct rt_ask *a = j->ask;

    if (a != NULL && ran) {
        a->job = NULL;
        j->ask = NULL;
        if (j->ok)
            rt_ask_json(a, 200, &j->out);
        else
            rt_ask_fail(a, &j->fail);
    }
    job_free(j);
}

void rt_job_gone(struct rt_job *j)
{
    j->ask = NULL; /* the pool still works on it: done frees it */
}

static void start(struct rt_ask *a, const char *body, size_t len, bool detok)
{
    struct rt_job *j = ps_calloc(1, sizeof(*j));
    struct rt_fail f;

    j->base = (struct rt_text_job){.run = run, .done = done};
    j->ask = a;
    a->job = j;
    j->router = a->api->loop->router;
    j->detok = detok;
    j->body = body;
    j->len = len;
    if (len > RT_TEXT_INLINE_BYTES) {
        j->own_body = ps_alloc(len);
        memcpy(j->own_body, body, len);
        j->body = j->own_body;
    }
    if (rt_text_submit(a->api->loop, &j->base, len) == RT_TEXT_OK)
        return;
    job_free(j);
    rt_fail_set(&f, RT_E27_QUEUE_FULL, NULL, "Too many long texts wait to be tokenized");
    rt_ask_fail(a, &f);
}

void rt_api_tokenize(struct rt_ask *a, const char *body, size_t len)
{
    start(a, body, len, false);
}

void rt_api_detokenize(struct rt_ask *a, const char *body, size_t len)
{
    start(a, body, len, true);
}

/* ---- tokenizer_info ---- */

static void add_member(struct ps_buf *out, const char *key, const char *value)
{
    if (out->data[out->len - 1] != '{')
        ps_buf_add_byte(out, ',');
    ps_json_add_str(out, key, strlen(key));
    ps_buf_add_byte(out, ':');
    if (value[0] != '\0')
        ps_json_add_str(out, value, strlen(value));
    else
        ps_buf_add_str(out, "null");
}

/* Strings where the file may have objects: clients take these as text. */
static bool is_ours(const char *key)
{
    static const char *const keys[] = {"bos_token", "eos_token", "pad_token", "unk_token",
                                       "chat_template"};

    for (size_t i = 0; i < PS_ARRAY_LEN(keys); i++) {
        if (strcmp(key, keys[i]) == 0)
            return true;
    }
    return false;
}

void rt_tokenizer_info_make(const struct rt_model *m, struct ps_buf *out)
{
    static const struct ps_json_limits limits = {.max_depth = 64, .max_values = 1000000};
    struct ps_json_doc *doc = NULL;
    struct ps_buf file = PS_BUF_INIT;
    const struct ps_json *v;
    const char *key;
    void *it = NULL;
    size_t off;

    ps_buf_add_byte(out, '{');
    if (ps_file_read(m->dir, "tokenizer_config.json", MAX_CONFIG_BYTES, &file) == PS_FILE_OK &&
        ps_json_parse(&doc, file.data, file.len, &limits, &off) == PS_JSON_OK &&
        ps_json_type(ps_json_root(doc)) == PS_JSON_OBJ) {
        while ((v = ps_json_next(ps_json_root(doc), &it, &key)) != NULL) {
            if (is_ours(key))
                continue;
            if (out->len > 1)
                ps_buf_add_byte(out, ',');
            ps_json_add_str(out, key, strlen(key));
            ps_buf_add_byte(out, ':');
            ps_json_write(out, v, false);
        }
    }
    ps_json_free(doc);
    ps_buf_fini(&file);
    add_member(out, "bos_token", ps_tok_bos(m->tok));
    add_member(out, "eos_token", ps_tok_eos(m->tok));
    add_member(out, "pad_token", ps_tok_pad(m->tok));
    add_member(out, "unk_token", ps_tok_unk(m->tok));
    add_member(out, "chat_template", m->tmpl != NULL ? ps_tmpl_source(m->tmpl) : "");
    ps_buf_add_byte(out, '}');
}

void rt_api_tokenizer_info(struct rt_ask *a, const char *body, size_t len)
{
    (void)body;
    (void)len;
    rt_ask_json(a, 200, &a->api->tokenizer_info);
}
