#include "common/text/template.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "common/json/json.h"
#include "common/text/textkit/textkit.h"

/*
 * Invariants:
 * 1. A ps_tmpl is never written after load; textkit's templates are shared by all threads.
 * 2. Token variables and the four of ours come last in the context and kwargs with their names are
 *    left out, so no request replaces them.
 * 3. A template that loaded has rendered a one-line conversation with the text in it.
 */

enum {
    SRC_BYTES_MAX = 1 << 20,     /* released templates have at most some 30 KB */
    CONFIG_BYTES_MAX = 64 << 20, /* tokenizer_config.json lists every added token */
    N_TOKEN_VARS_MAX = 64,
};

/* A conversation of 1,000 turns takes about 100,000 instructions. */
static const struct tk_limits limits = {.fuel = 10 * 1000 * 1000, .out_bytes = 64 << 20};
static const struct ps_json_limits json_limits = {.max_depth = 128, .max_values = 8000000};

static const char *const reserved[] = {
    "messages",  "tools",     "documents", "add_generation_prompt",
    "bos_token", "eos_token", "pad_token", "unk_token"};

struct ps_tmpl {
    char *src;
    struct tk_template *main;
    struct tk_template *tool_use; /* NULL: main serves tools too */
    struct ps_tmpl_caps caps;
    struct ps_buf token_vars; /* `"bos_token": "<s>", ` and so on */
    char *token_names[N_TOKEN_VARS_MAX];
    uint32_t n_token_names;
};

/* Positive: no such file; negative: errno; E_BAD with its sentence in err. */
enum { READ_OK, READ_E_NONE, READ_E_BAD };

static int read_file(const char *dir, const char *name, size_t bytes_max, struct ps_buf *out,
                     struct ps_buf *err)
{
    struct ps_buf path = PS_BUF_INIT;
    char chunk[4096];
    int r = READ_OK;
    size_t n;
    FILE *f;

    ps_buf_addf(&path, "%s/%s", dir, name);
    f = fopen(path.data, "rb");
    ps_buf_fini(&path);
    if (f == NULL) {
        if (errno == ENOENT)
            return READ_E_NONE;
        ps_buf_addf(err, "%s cannot be read: %s", name, strerror(errno));
        return READ_E_BAD;
    }
    while ((n = fread(chunk, 1, sizeof(chunk), f)) > 0) {
        if (n > bytes_max - out->len) {
            ps_buf_addf(err, "%s is larger than %zu bytes", name, bytes_max);
            r = READ_E_BAD;
            break;
        }
        ps_buf_add(out, chunk, n);
    }
    if (r == READ_OK && ferror(f)) {
        ps_buf_addf(err, "%s cannot be read", name);
        r = READ_E_BAD;
    }
    fclose(f);
    return r;
}

static bool is_reserved(const struct ps_tmpl *t, const char *key)
{
    for (size_t i = 0; i < PS_ARRAY_LEN(reserved); i++)
        if (strcmp(key, reserved[i]) == 0)
            return true;
    for (uint32_t i = 0; i < t->n_token_names; i++)
        if (strcmp(key, t->token_names[i]) == 0)
            return true;
    return false;
}

static const struct ps_json *member(const struct ps_json *v, const char *key)
{
    return v != NULL && ps_json_type(v) == PS_JSON_OBJ ? ps_json_get(v, key) : NULL;
}

/* A member's text, NULL when it is no string. */
static const char *member_str(const struct ps_json *v, const char *key, size_t *out_len)
{
    const struct ps_json *m = member(v, key);

    return m != NULL && ps_json_type(m) == PS_JSON_STR ? ps_json_str(m, out_len) : NULL;
}

/* Every *_token of tokenizer_config.json that is a string, or an object with the text in content. */
static void take_tokens(struct ps_tmpl *t, const struct ps_json *config)
{
    const struct ps_json *v;
    const char *key, *text;
    void *it = NULL;
    size_t n, len;

    if (config == NULL || ps_json_type(config) != PS_JSON_OBJ)
        return;
    while ((v = ps_json_next(config, &it, &key)) != NULL && t->n_token_names < N_TOKEN_VARS_MAX) {
        n = strlen(key);
        if (n <= strlen("_token") || strcmp(key + n - strlen("_token"), "_token") != 0)
            continue;
        text =
            ps_json_type(v) == PS_JSON_STR ? ps_json_str(v, &len) : member_str(v, "content", &len);
        if (text == NULL)
            continue;
        t->token_names[t->n_token_names++] = ps_strdup(key);
        ps_json_add_str(&t->token_vars, key, n);
        ps_buf_add_str(&t->token_vars, ": ");
        ps_json_add_str(&t->token_vars, text, len);
        ps_buf_add_str(&t->token_vars, ", ");
    }
}

/* A string, or a list of {name, template}: the text of the wanted name ("default" for a string). */
static const char *config_template(const struct ps_json *config, const char *want, size_t *out_len)
{
    const struct ps_json *v = member(config, "chat_template"), *row;
    const char *name;
    size_t len;

    if (v == NULL)
        return NULL;
    if (ps_json_type(v) == PS_JSON_STR)
        return strcmp(want, "default") == 0 ? ps_json_str(v, out_len) : NULL;
    if (ps_json_type(v) != PS_JSON_ARR)
        return NULL;
    for (size_t i = 0; i < ps_json_n(v); i++) {
        row = ps_json_at(v, i);
        name = member_str(row, "name", &len);
        if (name != NULL && strcmp(name, want) == 0)
            return member_str(row, "template", out_len);
    }
    return NULL;
}

static int compile(struct tk_template **out, const char *src, size_t len, struct ps_buf *err)
{
    struct tk_str text;
    int r;

    if (len > SRC_BYTES_MAX) {
        ps_buf_addf(err, "the chat template is larger than %d bytes", SRC_BYTES_MAX);
        return PS_TMPL_E_BAD;
    }
    r = tk_template_create(out, src, len, &limits, &text);
    if (r != TK_OK) {
        ps_buf_add_str(err, "the chat template does not compile: ");
        ps_buf_add(err, text.ptr, text.len);
    }
    tk_str_free(&text);
    return r == TK_OK ? PS_TMPL_OK : PS_TMPL_E_BAD;
}

static bool add_kwargs(const struct ps_tmpl *t, const char *kwargs_json, struct ps_buf *ctx)
{
    struct ps_json_doc *doc;
    const struct ps_json *v;
    const char *key;
    void *it = NULL;
    size_t off;
    bool ok;

    if (ps_json_parse(&doc, kwargs_json, strlen(kwargs_json), &json_limits, &off) != PS_JSON_OK)
        return false;
    ok = ps_json_type(ps_json_root(doc)) == PS_JSON_OBJ;
    while (ok && (v = ps_json_next(ps_json_root(doc), &it, &key)) != NULL) {
        if (is_reserved(t, key))
            continue;
        ps_json_add_str(ctx, key, strlen(key));
        ps_buf_add_str(ctx, ": ");
        ps_json_write(ctx, v, true);
        ps_buf_add_str(ctx, ", ");
    }
    ps_json_free(doc);
    return ok;
}

static int render_result(int r)
{
    switch (r) {
    case TK_OK:
        return PS_TMPL_OK;
    case TK_E_RAISED:
        return PS_TMPL_E_RAISED;
    case TK_E_LIMIT:
        return PS_TMPL_E_LIMIT;
    default: /* RENDER, INPUT (too deep), PANIC: this context is what it cannot take */
        return PS_TMPL_E_RENDER;
    }
}

int ps_tmpl_render(const struct ps_tmpl *t, const char *messages_json, size_t messages_len,
                   const char *tools_json, const char *documents_json, const char *kwargs_json,
                   bool add_generation_prompt, const struct tm *now, struct ps_buf *out)
{
    const struct tk_template *which = tools_json != NULL && t->tool_use ? t->tool_use : t->main;
    struct ps_buf ctx = PS_BUF_INIT;
    struct tk_str text;
    int r;

    ps_buf_reserve(&ctx, messages_len + 1024);
    ps_buf_add_byte(&ctx, '{');
    if (kwargs_json != NULL && !add_kwargs(t, kwargs_json, &ctx)) {
        ps_buf_fini(&ctx);
        ps_buf_add_str(out, "the template arguments are not a JSON object");
        return PS_TMPL_E_RENDER;
    }
    if (t->token_vars.len > 0)
        ps_buf_add(&ctx, t->token_vars.data, t->token_vars.len);
    ps_buf_add_str(&ctx, "\"tools\": ");
    ps_buf_add_str(&ctx, tools_json != NULL ? tools_json : "null");
    ps_buf_add_str(&ctx, ", \"documents\": ");
    ps_buf_add_str(&ctx, documents_json != NULL ? documents_json : "null");
    ps_buf_addf(&ctx, ", \"add_generation_prompt\": %s, \"messages\": ",
                add_generation_prompt ? "true" : "false");
    ps_buf_add(&ctx, messages_json, messages_len);
    ps_buf_add_byte(&ctx, '}');
    r = tk_template_render(which, ctx.data, ctx.len, now, &text);
    ps_buf_add(out, text.ptr, text.len);
    tk_str_free(&text);
    ps_buf_fini(&ctx);
    return render_result(r);
}

/* Probes render harmless conversations and look for these words in what comes out. */
#define WORD         "PenstockProbe"
#define SAY(content) "{\"role\": \"user\", \"content\": " content "}"
#define CALL(content, args) \
    "[" SAY("\"a\"") ", {\"role\": \"assistant\", \"content\": " content \
                     ", \"tool_calls\": [{\"id\": \"call_00001\", \"type\": \"function\", " \
                     "\"function\": {\"name\": \"f\", \"arguments\": " args "}}]}, " \
                     "{\"role\": \"tool\", \"tool_call_id\": \"call_00001\", \"name\": \"f\", " \
                     "\"content\": \"ok\"}, " SAY("\"b\"") "]"
#define ARGS_OBJECT "{\"" WORD "\": \"x\"}"
#define ARGS_STRING "\"{\\\"" WORD "\\\": \\\"x\\\"}\""

static int probe(const struct ps_tmpl *t, const char *messages, struct ps_buf *out)
{
    /* Any fixed day will do: a probe must not depend on the clock. */
    const struct tm day = {
        .tm_year = 124, .tm_mon = 6, .tm_mday = 26, .tm_wday = 5, .tm_yday = 207};

    ps_buf_clear(out);
    return ps_tmpl_render(t, messages, strlen(messages), NULL, NULL, NULL, true, &day, out);
}

static bool probe_has(const struct ps_tmpl *t, const char *messages, const char *word,
                      struct ps_buf *out)
{
    return probe(t, messages, out) == PS_TMPL_OK && out->len > 0 && strstr(out->data, word) != NULL;
}

static bool probe_text(struct ps_tmpl *t, struct ps_buf *err)
{
    struct ps_buf a = PS_BUF_INIT, b = PS_BUF_INIT;
    bool text, parts;

    text = probe_has(t, "[" SAY("\"" WORD "\"") "]", WORD, &a);
    parts = probe_has(t, "[" SAY("[{\"type\": \"text\", \"text\": \"" WORD "\"}]") "]", WORD, &b) &&
            strstr(b.data, "'type'") == NULL; /* else the list itself was printed, as Python does */
    t->caps.parts_only = parts && !text;
    t->caps.content_parts =
        parts && (!text || (a.len == b.len && memcmp(a.data, b.data, a.len) == 0));
    if (!text && !parts) {
        ps_buf_add_str(err, "the chat template does not render a one-line conversation: ");
        if (probe(t, "[" SAY("\"" WORD "\"") "]", &a) == PS_TMPL_OK)
            ps_buf_add_str(err, "its text is missing");
        else
            ps_buf_add(err, a.data, a.len);
    }
    ps_buf_fini(&a);
    ps_buf_fini(&b);
    return text || parts;
}

/*
 * Templates that concatenate the arguments fail on an object or print it as Python does; those that
 * iterate over them or print JSON need the object. One that takes both gets the object, as callers
 * of transformers pass it.
 */
static void probe_calls(struct ps_tmpl *t)
{
    struct ps_buf text = PS_BUF_INIT;

    t->caps.args_object = probe_has(t, CALL("\"\"", ARGS_OBJECT), WORD, &text) &&
                          strstr(text.data, "'" WORD "'") == NULL;
    t->caps.null_content = t->caps.args_object
                               ? probe_has(t, CALL("null", ARGS_OBJECT), WORD, &text)
                               : probe_has(t, CALL("null", ARGS_STRING), WORD, &text);
    if (t->caps.null_content)
        t->caps.null_content = strstr(text.data, "None") == NULL;
    ps_buf_fini(&text);
}

static int probe_all(struct ps_tmpl *t, struct ps_buf *err)
{
    struct ps_buf text = PS_BUF_INIT;

    if (!probe_text(t, err))
        return PS_TMPL_E_BAD;
    probe_calls(t);
    /* A generic template prints any role; only one that names it was made for it. */
    t->caps.developer_role =
        strstr(t->src, "developer") != NULL &&
        probe_has(t, "[{\"role\": \"developer\", \"content\": \"" WORD "\"}, " SAY("\"a\"") "]",
                  WORD, &text);
    ps_buf_fini(&text);
    return PS_TMPL_OK;
}

int ps_tmpl_create(struct ps_tmpl **out, const char *src, size_t len, const char *config,
                   size_t config_len, struct ps_buf *err)
{
    const struct ps_json *root = NULL;
    struct ps_json_doc *doc = NULL;
    const char *tool_src = NULL;
    struct ps_tmpl *t = NULL;
    size_t off, tool_len = 0;
    int r;

    if (config != NULL && ps_json_parse(&doc, config, config_len, &json_limits, &off) != 0) {
        ps_buf_add_str(err, "tokenizer_config.json is not valid JSON");
        return PS_TMPL_E_BAD;
    }
    if (doc != NULL)
        root = ps_json_root(doc);
    if (src == NULL) {
        src = config_template(root, "default", &len);
        tool_src = config_template(root, "tool_use", &tool_len);
        if (src == NULL)
            src = tool_src, len = tool_len;
    }
    if (src == NULL) {
        ps_json_free(doc);
        return PS_TMPL_E_NONE;
    }
    t = ps_calloc(1, sizeof(*t));
    t->src = ps_strndup(src, len);
    take_tokens(t, root);
    r = compile(&t->main, src, len, err);
    if (r == PS_TMPL_OK && tool_src != NULL && tool_src != src)
        r = compile(&t->tool_use, tool_src, tool_len, err);
    ps_json_free(doc);
    if (r == PS_TMPL_OK)
        r = probe_all(t, err);
    if (r != PS_TMPL_OK) {
        ps_tmpl_destroy(t);
        return r;
    }
    *out = t;
    return PS_TMPL_OK;
}

int ps_tmpl_load(struct ps_tmpl **out, const char *dir, struct ps_buf *err)
{
    struct ps_buf src = PS_BUF_INIT, config = PS_BUF_INIT;
    int have_src, have_config, r = PS_TMPL_E_BAD;

    have_src = read_file(dir, "chat_template.jinja", SRC_BYTES_MAX, &src, err);
    if (have_src == READ_E_BAD)
        goto out;
    have_config = read_file(dir, "tokenizer_config.json", CONFIG_BYTES_MAX, &config, err);
    if (have_config == READ_E_BAD)
        goto out;
    ps_buf_add_byte(&src, '\0'); /* an empty file is a template too: data is never NULL */
    r = ps_tmpl_create(out, have_src == READ_OK ? src.data : NULL, src.len - 1,
                       have_config == READ_OK ? config.data : NULL, config.len, err);
out:
    ps_buf_fini(&src);
    ps_buf_fini(&config);
    return r;
}

void ps_tmpl_destroy(struct ps_tmpl *t)
{
    if (t == NULL)
        return;
    tk_template_destroy(t->main);
    tk_template_destroy(t->tool_use);
    for (uint32_t i = 0; i < t->n_token_names; i++)
        ps_free(t->token_names[i]);
    ps_buf_fini(&t->token_vars);
    ps_free(t->src);
    ps_free(t);
}

const struct ps_tmpl_caps *ps_tmpl_caps(const struct ps_tmpl *t)
{
    return &t->caps;
}

const char *ps_tmpl_source(const struct ps_tmpl *t)
{
    return t->src;
}
