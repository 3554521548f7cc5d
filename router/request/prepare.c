#include "router/request/prepare.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "router/api/api.h"
#include "router/conf_def.h"
#include "router/request/messages.h"
#include "router/router.h"
#include "router/stats.h"

void rt_fail_context(struct rt_fail *f, enum rt_fail_row row, const char *param, uint32_t context,
                     uint64_t n_out, uint64_t n_prompt, bool at_least)
{
    rt_fail_set(f, row, param,
                "This model's maximum context length is %u tokens. However, you requested %llu "
                "output tokens and your prompt contains %s%llu input tokens, for a total of %llu "
                "tokens. Please reduce the length of the input prompt or the number of requested "
                "output tokens.",
                context, (unsigned long long)n_out, at_least ? "at least " : "",
                (unsigned long long)n_prompt, (unsigned long long)(n_out + n_prompt));
}

/* ---- chat: messages to text ---- */

static enum rt_fail_row row_of(const char *code)
{
    static const struct {
        const char *code;
        enum rt_fail_row row;
    } rows[] = {
        {"missing_required_parameter", RT_E4_MISSING},
        {"invalid_type", RT_E5_TYPE},
        {"conflicting_parameters", RT_E7_CONFLICT},
        {"unsupported_content", RT_E42_CONTENT},
        {"unsupported_parameter", RT_E8_UNSUPPORTED},
        {"unsupported_value", RT_E8_UNSUPPORTED_VALUE},
    };

    for (size_t i = 0; i < PS_ARRAY_LEN(rows); i++) {
        if (strcmp(code, rows[i].code) == 0)
            return rows[i].row;
    }
    return RT_E6_VALUE;
}

static bool render_failed(int r, const struct ps_buf *out, size_t start, struct rt_fail *f)
{
    const char *text = out->len > start ? out->data + start : "it gave no reason";

    if (r == PS_TMPL_E_LIMIT)
        text = "it takes too long or writes too much";
    if (r < 0) {
        rt_fail_set(f, RT_E38_INTERNAL, NULL, "The chat template could not be run");
        return false;
    }
    if (r == PS_TMPL_E_RAISED)
        rt_fail_set(f, RT_E43_TEMPLATE, "messages", "%.400s", text);
    else
        rt_fail_set(f, RT_E43_TEMPLATE, "messages", "The chat template failed: %.400s", text);
    return false;
}

static bool render(const struct rt_params *p, const struct ps_buf *messages, uint64_t now_s,
                   bool generation_prompt, struct ps_buf *out, struct rt_fail *f)
{
    struct ps_buf kwargs = PS_BUF_INIT, documents = PS_BUF_INIT;
    time_t now = (time_t)now_s;
    size_t start = out->len;
    struct tm tm = {0};
    int r;

    rt_params_kwargs(p, &kwargs);
    if (p->documents != NULL)
        ps_json_write(&documents, p->documents, true);
    (void)localtime_r(&now, &tm);
    r = ps_tmpl_render(p->model->tmpl, messages->data, messages->len, NULL,
                       documents.len > 0 ? documents.data : NULL,
                       kwargs.len > 0 ? kwargs.data : NULL, generation_prompt, &tm, out);
    ps_buf_fini(&kwargs);
    ps_buf_fini(&documents);
    return r == PS_TMPL_OK || render_failed(r, out, start, f);
}

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* The text of the last message: its string, or its last text part. */
static bool last_text(const struct rt_params *p, struct rt_str *out)
{
    const struct ps_json *m = ps_json_at(p->messages, ps_json_n(p->messages) - 1);
    const struct ps_json *v = ps_json_get(m, "content");

    if (v != NULL && ps_json_type(v) == PS_JSON_ARR && ps_json_n(v) > 0)
        v = ps_json_get(ps_json_at(v, ps_json_n(v) - 1), "text");
    if (v == NULL || ps_json_type(v) != PS_JSON_STR)
        return false;
    out->s = ps_json_str(v, &out->len);
    return true;
}

/*
 * Leaves the last message open: cuts the text after the last place where that message stands, with
 * its trailing space when the template kept it.
 */
static bool cut_after_last(const struct rt_params *p, struct ps_buf *out, size_t start,
                           struct rt_fail *f)
{
    const char *bad = "'continue_final_message' needs a last message whose text the chat template "
                      "renders as it is";
    size_t lead = 0, tail, n;
    struct rt_str s = {0};

    if (!last_text(p, &s)) {
        rt_fail_set(f, RT_E6_VALUE, "continue_final_message", "%s", bad);
        return false;
    }
    while (lead < s.len && is_space(s.s[lead]))
        lead++;
    tail = s.len;
    while (tail > lead && is_space(s.s[tail - 1]))
        tail--;
    n = tail - lead; /* the message stripped on both sides */
    for (size_t at = out->len + 1; at-- > start;) {
        if (out->len - at < n || memcmp(out->data + at, s.s + lead, n) != 0)
            continue;
        if (out->len - at >= s.len - lead && memcmp(out->data + at, s.s + lead, s.len - lead) == 0)
            n = s.len - lead;
        ps_buf_truncate(out, at + n);
        return true;
    }
    rt_fail_set(f, RT_E6_VALUE, "continue_final_message", "%s", bad);
    return false;
}

bool rt_prepare_chat_text(const struct rt_params *p, uint64_t now_s, struct ps_buf *out,
                          struct rt_fail *f)
{
    struct ps_buf messages = PS_BUF_INIT;
    bool generation_prompt = p->add_generation_prompt != 0 && p->continue_final != 1;
    size_t start = out->len;
    struct rt_msg_fail mf;
    bool ok;

    if (p->model->tmpl == NULL) {
        rt_fail_set(f, RT_E44_NO_TEMPLATE, "messages",
                    "This model has no chat template; use /v1/completions");
        return false;
    }
    if (rt_msg_prepare(p->messages, ps_tmpl_caps(p->model->tmpl), &messages, &mf) != RT_MSG_OK) {
        rt_fail_set(f, row_of(mf.code), mf.param, "%s", mf.text);
        ps_buf_fini(&messages);
        return false;
    }
    ok = render(p, &messages, now_s, generation_prompt, out, f);
    if (ok && p->continue_final == 1)
        ok = cut_after_last(p, out, start, f);
    ps_buf_fini(&messages);
    return ok;
}

/* ---- tokens ---- */

static const char *input_name(const struct rt_params *p)
{
    return p->dialect == RT_CHAT ? "messages" : "prompt";
}

bool rt_prepare_encode(const struct rt_params *p, struct ps_tok_ctx *tok, const char *s, size_t len,
                       bool special, uint32_t max_ids, struct ps_tok_ids *out, struct rt_fail *f)
{
    int r = ps_tok_encode(tok, s, len, special ? PS_TOK_SPECIAL : 0, max_ids, out);

    if (r == PS_TOK_OK)
        return true;
    if (r == PS_TOK_E_LIMIT && max_ids > 0 && out->n + 1 >= max_ids)
        rt_fail_context(f, RT_E11_PROMPT_TOO_LONG, input_name(p), p->model->context,
                        p->has_max ? p->max_out : 1, max_ids, true);
    else
        rt_fail_set(f, RT_E6_VALUE, input_name(p), "The text could not be tokenized");
    return false;
}

/* Enough to tell the client a number that means something, and bounded. */
static uint32_t encode_limit(const struct rt_params *p)
{
    return p->truncate_prompt != RT_ABSENT ? 0 : 2 * ps_max_u32(p->model->context, 4096);
}

static void truncate(const struct rt_params *p, struct ps_tok_ids *ids)
{
    uint64_t room = p->has_max ? p->max_out : 1;
    uint64_t n = (uint64_t)p->truncate_prompt;

    if (p->truncate_prompt == RT_ABSENT)
        return;
    if (p->truncate_prompt == -1)
        n = p->model->context > room ? p->model->context - room : 1;
    if (ids->n <= n)
        return;
    if (!p->truncate_right) /* "left" is what is cut away */
        memmove(ids->ids, ids->ids + (ids->n - n), n * sizeof(ids->ids[0]));
    ids->n = (uint32_t)n;
}

/* Room for at least one token; max_out is what the client asked for, or what the context leaves. */
static bool fit(struct rt_call *c, struct rt_prompt *pr)
{
    const struct rt_params *p = &c->p;
    uint32_t context = p->model->context, left;

    if (pr->ids.n == 0) {
        rt_fail_set(&c->fail, RT_E6_VALUE, input_name(p), "The prompt is empty");
        return false;
    }
    if (pr->ids.n >= context) {
        rt_fail_context(&c->fail, RT_E11_PROMPT_TOO_LONG, input_name(p), context,
                        p->has_max ? p->max_out : 1, pr->ids.n, false);
        return false;
    }
    left = context - pr->ids.n;
    if (p->has_max && p->max_out > left && p->conf->overflow == RT_OVERFLOW_ERROR) {
        rt_fail_context(&c->fail, RT_E12_TOO_MANY_TOKENS, p->max_param, context, p->max_out,
                        pr->ids.n, false);
        return false;
    }
    pr->max_out = ps_min_u32(p->max_out, left);
    pr->n_tokens = pr->ids.n;
    return true;
}

static bool prepare_chat(struct rt_call *c, struct ps_tok_ctx *tok)
{
    struct ps_buf text = PS_BUF_INIT;
    struct rt_prompt *pr;
    bool ok;

    c->n_prompts = 1;
    c->prompts = ps_arena_calloc(&c->arena, 1, sizeof(c->prompts[0]));
    pr = &c->prompts[0];
    ok = rt_prepare_chat_text(&c->p, c->created_s, &text, &c->fail) &&
         rt_prepare_encode(&c->p, tok, text.data, text.len, c->p.add_special == 1,
                           encode_limit(&c->p), &pr->ids, &c->fail);
    ps_buf_fini(&text);
    if (!ok)
        return false;
    truncate(&c->p, &pr->ids);
    return fit(c, pr);
}

/* ---- completions ---- */

static bool bad_prompt(struct rt_call *c, enum rt_fail_row row, const char *text)
{
    rt_fail_set(&c->fail, row, "prompt", "%s", text);
    return false;
}

static void keep_echo(struct rt_call *c, struct rt_prompt *pr, const struct rt_str *given)
{
    struct ps_buf text = PS_BUF_INIT;

    if (!c->p.echo)
        return;
    if (given != NULL && c->p.truncate_prompt == RT_ABSENT) { /* copied whole: it may hold NULs */
        pr->text = ps_arena_memdup(&c->arena, given->s, given->len);
        pr->text_len = given->len;
        return;
    }
    ps_buf_reserve(&text, 0);
    ps_tok_decode(c->p.model->tok, pr->ids.ids, pr->ids.n, c->p.skip_special, &text);
    pr->text = ps_arena_memdup(&c->arena, text.data, text.len);
    pr->text_len = text.len;
    ps_buf_fini(&text);
}

static bool prompt_from_text(struct rt_call *c, struct ps_tok_ctx *tok, const struct ps_json *v,
                             struct rt_prompt *pr)
{
    struct rt_str s;

    s.s = ps_json_str(v, &s.len);
    if (s.len == 0)
        return bad_prompt(c, RT_E6_VALUE, "'prompt' must not be empty");
    if (!rt_prepare_encode(&c->p, tok, s.s, s.len, c->p.add_special != 0, encode_limit(&c->p),
                           &pr->ids, &c->fail))
        return false;
    truncate(&c->p, &pr->ids);
    keep_echo(c, pr, &s);
    return fit(c, pr);
}

static bool prompt_from_ids(struct rt_call *c, const struct ps_json *v, struct rt_prompt *pr)
{
    struct rt_check check = {.fail = &c->fail, .name = "prompt", .prefix = ""};

    if (ps_json_n(v) == 0)
        return bad_prompt(c, RT_E6_VALUE, "'prompt' must not be empty");
    if (!rt_check_ids(&check, v, rt_model_n_vocab(c->p.model), UINT32_MAX, &pr->ids.ids,
                      &pr->ids.n))
        return false;
    pr->ids.cap = pr->ids.n;
    truncate(&c->p, &pr->ids);
    keep_echo(c, pr, NULL);
    return fit(c, pr);
}

/* Which of the four forms: the first item decides, every other must be like it. */
static bool count_prompts(struct rt_call *c, const struct ps_json *v, enum ps_json_type *out_item)
{
    enum ps_json_type first;

    *out_item = PS_JSON_NULL;
    c->n_prompts = 1;
    if (ps_json_type(v) == PS_JSON_STR)
        return true;
    if (ps_json_type(v) != PS_JSON_ARR)
        return bad_prompt(c, RT_E5_TYPE,
                          "'prompt' must be a string, an array of strings, an array "
                          "of token ids or an array of such arrays");
    if (ps_json_n(v) == 0)
        return bad_prompt(c, RT_E6_VALUE, "'prompt' must not be empty");
    first = ps_json_type(ps_json_at(v, 0));
    if (first == PS_JSON_INT || first == PS_JSON_REAL)
        return true;
    if (first != PS_JSON_STR && first != PS_JSON_ARR)
        return bad_prompt(c, RT_E5_TYPE, "'prompt' holds items of a wrong type");
    for (size_t i = 1; i < ps_json_n(v); i++) {
        if (ps_json_type(ps_json_at(v, i)) != first)
            return bad_prompt(c, RT_E5_TYPE, "'prompt' holds items of different types");
    }
    if (ps_json_n(v) > RT_MAX_PROMPTS)
        return bad_prompt(c, RT_E6_VALUE, "'prompt' holds too many prompts");
    c->n_prompts = (uint32_t)ps_json_n(v);
    *out_item = first;
    return true;
}

static bool prepare_completion(struct rt_call *c, struct ps_tok_ctx *tok)
{
    const struct ps_json *v = c->p.prompt;
    enum ps_json_type item;

    if (!count_prompts(c, v, &item))
        return false;
    if (c->n_prompts * (uint64_t)c->p.n > RT_MAX_PROMPTS) {
        rt_fail_set(&c->fail, RT_E6_VALUE, "n", "'n' times the number of prompts is above %d",
                    RT_MAX_PROMPTS);
        return false;
    }
    c->prompts = ps_arena_calloc(&c->arena, c->n_prompts, sizeof(c->prompts[0]));
    for (uint32_t i = 0; i < c->n_prompts; i++) {
        const struct ps_json *one = item == PS_JSON_NULL ? v : ps_json_at(v, i);
        bool ok = ps_json_type(one) == PS_JSON_STR ? prompt_from_text(c, tok, one, &c->prompts[i])
                                                   : prompt_from_ids(c, one, &c->prompts[i]);

        if (!ok)
            return false;
    }
    return true;
}

void rt_prepare_call(struct rt_call *c, struct ps_tok_ctx *tok)
{
    uint32_t n_ignored = 0;
    bool ok;

    ok = rt_check_body(c->body, c->body_len, &c->doc, &c->fail) &&
         rt_params_read(&c->p, ps_json_root(c->doc), &n_ignored, &c->fail) &&
         rt_params_settle(&c->p, &c->fail);
    if (n_ignored > 0)
        ps_counter_add(c->api->loop->router->metrics->ignored_params, n_ignored);
    if (ok)
        ok = c->p.dialect == RT_CHAT ? prepare_chat(c, tok) : prepare_completion(c, tok);
    c->failed = !ok;
}
