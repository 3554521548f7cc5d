#include "router/answer/write.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/text/utf8.h"

void rt_write_ids(struct ps_buf *out, const uint32_t *ids, uint32_t n)
{
    ps_buf_add_byte(out, '[');
    for (uint32_t i = 0; i < n; i++)
        ps_buf_addf(out, "%s%" PRIu32, i > 0 ? "," : "", ids[i]);
    ps_buf_add_byte(out, ']');
}

void rt_write_logprob(struct ps_buf *out, float v)
{
    char text[32];

    if (isnan(v) || v < -9999.0f)
        v = -9999.0f; /* JSON has no infinity; other servers write this number */
    if (v > 0)
        v = 0;
    for (int n = 6; n <= 9; n++) { /* nine digits tell any two floats apart */
        (void)snprintf(text, sizeof(text), "%.*g", n, (double)v);
        if (strtof(text, NULL) == v)
            break;
    }
    ps_buf_add_str(out, text);
    if (strpbrk(text, ".e") == NULL)
        ps_buf_add_str(out, ".0");
}

void rt_write_token(struct ps_buf *out, const struct rt_call *c, uint32_t id)
{
    struct ps_buf clean = PS_BUF_INIT;
    uint32_t len;
    const char *s;

    if (c->p.tokens_as_ids) {
        ps_buf_addf(out, "\"token_id:%" PRIu32 "\"", id);
        return;
    }
    s = ps_tok_bytes(c->stream_conf.tok, id, &len);
    if (ps_utf8_valid(s, len)) {
        ps_json_add_str(out, s, len);
        return;
    }
    (void)ps_utf8_repair(&clean, s, len, true);
    ps_json_add_str(out, clean.data, clean.len);
    ps_buf_fini(&clean);
}

const char *rt_write_chunk_head(struct rt_call *c)
{
    struct ps_buf b = PS_BUF_INIT;
    const char *object = c->p.dialect == RT_CHAT ? "chat.completion.chunk" : "text_completion";
    const char *s;

    ps_buf_addf(&b,
                "data: {\"id\":\"%s\",\"object\":\"%s\",\"created\":%" PRIu64 ",\"model\":", c->id,
                object, c->created_s);
    ps_json_add_str(&b, c->model, strlen(c->model));
    ps_buf_add_str(&b, ",\"choices\":[");
    s = ps_arena_strndup(&c->arena, b.data, b.len);
    ps_buf_fini(&b);
    return s;
}

void rt_write_usage(struct ps_buf *out, const struct rt_call *c, uint64_t n_completion)
{
    struct rt_usage u;

    rt_call_usage(c, &u);
    ps_buf_addf(out,
                "{\"prompt_tokens\":%" PRIu64 ",\"completion_tokens\":%" PRIu64
                ",\"total_tokens\":%" PRIu64
                ",\"prompt_tokens_details\":{\"cached_tokens\":%" PRIu64 "}",
                u.n_prompt, n_completion, u.n_prompt + n_completion, u.n_cached);
    if (c->p.dialect == RT_CHAT)
        ps_buf_add_str(out, ",\"completion_tokens_details\":{\"reasoning_tokens\":0}");
    ps_buf_add_byte(out, '}');
}

void rt_write_event_tail(struct ps_buf *out, struct rt_call *c, bool first)
{
    struct rt_usage u;

    if (c->p.continuous_usage) {
        if (!first) { /* a first chunk carries no token of its own */
            rt_call_usage(c, &u);
            c->n_running_total = (uint32_t)u.n_completion;
        }
        ps_buf_add_str(out, ",\"usage\":");
        rt_write_usage(out, c, c->n_running_total);
    } else if (c->p.include_usage) {
        ps_buf_add_str(out, ",\"usage\":null");
    }
    ps_buf_add_str(out, "}\n\n");
}

void rt_write_usage_event(struct ps_buf *out, struct rt_call *c)
{
    struct rt_usage u;

    if (!c->p.include_usage)
        return;
    rt_call_usage(c, &u);
    ps_buf_add_str(out, c->chunk_head);
    ps_buf_add_str(out, "],\"usage\":");
    rt_write_usage(out, c, u.n_completion);
    ps_buf_add_str(out, "}\n\n");
}

static void add_score(struct ps_buf *out, const struct rt_call *c, uint32_t id, float logprob,
                      uint32_t rank)
{
    ps_buf_addf(out, "\"%" PRIu32 "\":{\"logprob\":", id);
    rt_write_logprob(out, logprob);
    ps_buf_addf(out, ",\"rank\":%" PRIu32 ",\"decoded_token\":", rank);
    rt_write_token(out, c, id);
    ps_buf_add_byte(out, '}');
}

void rt_write_prompt_logprobs(struct ps_buf *out, const struct rt_call *c,
                              const struct rt_prompt *p)
{
    ps_buf_add_byte(out, '[');
    for (uint32_t i = 0; i < p->n_tokens; i++) {
        const struct pb_logprob *lp = i > 0 && i < p->n_scores ? &p->scores[i] : NULL;

        if (i > 0)
            ps_buf_add_byte(out, ',');
        if (lp == NULL) { /* nothing comes before the first token that could predict it */
            ps_buf_add_str(out, "null");
            continue;
        }
        ps_buf_add_byte(out, '{');
        add_score(out, c, p->ids.ids[i], lp->logprob, lp->rank);
        for (uint32_t k = 0; k < lp->n_top && k < (uint32_t)c->p.n_prompt_top; k++) {
            if (lp->top[k].id == p->ids.ids[i])
                continue;
            ps_buf_add_byte(out, ',');
            add_score(out, c, lp->top[k].id, lp->top[k].logprob, k + 1);
        }
        ps_buf_add_byte(out, '}');
    }
    ps_buf_add_byte(out, ']');
}

void rt_write_end_of_choice(struct ps_buf *out, const struct rt_choice *ch)
{
    ps_buf_addf(out, ",\"finish_reason\":\"%s\",\"stop_reason\":", rt_call_finish_reason(ch));
    rt_call_add_stop_reason(out, ch);
}

void rt_write_answer_start(struct ps_buf *out, struct rt_call *c, const char *object,
                           void (*add_choice)(struct ps_buf *out, struct rt_choice *ch))
{
    struct rt_usage u;

    ps_buf_addf(out, "{\"id\":\"%s\",\"object\":\"%s\",\"created\":%" PRIu64 ",\"model\":", c->id,
                object, c->created_s);
    ps_json_add_str(out, c->model, strlen(c->model));
    ps_buf_add_str(out, ",\"choices\":[");
    for (uint32_t i = 0; i < c->n_choices; i++) {
        if (i > 0)
            ps_buf_add_byte(out, ',');
        add_choice(out, &c->choices[i]);
    }
    rt_call_usage(c, &u);
    ps_buf_add_str(out, "],\"usage\":");
    rt_write_usage(out, c, u.n_completion);
}
