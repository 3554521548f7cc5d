#include "router/answer/write.h"

#include <inttypes.h>
#include <string.h>

static void add_token(struct ps_buf *out, const struct rt_call *c, uint32_t id, float logprob)
{
    uint32_t len;
    const char *s = ps_tok_bytes(c->stream_conf.tok, id, &len);

    ps_buf_add_str(out, "{\"token\":");
    rt_write_token(out, c, id);
    ps_buf_add_str(out, ",\"logprob\":");
    rt_write_logprob(out, logprob);
    ps_buf_add_str(out, ",\"bytes\":[");
    for (uint32_t i = 0; i < len; i++)
        ps_buf_addf(out, "%s%u", i > 0 ? "," : "", (unsigned)(uint8_t)s[i]);
    ps_buf_add_byte(out, ']');
}

/* Of the tokens that were not taken yet. */
static void add_logprobs(struct ps_buf *out, const struct rt_choice *ch)
{
    const struct rt_call *c = ch->call;
    const struct rt_stream *s = &ch->st;

    if (!c->stream_conf.keep_logprobs || s->n_new == 0) {
        ps_buf_add_str(out, "null");
        return;
    }
    ps_buf_add_str(out, "{\"content\":[");
    for (uint32_t i = 0; i < s->n_new; i++) {
        const struct pb_logprob *lp = &s->logprobs[i];

        if (i > 0)
            ps_buf_add_byte(out, ',');
        add_token(out, c, s->ids[i], lp->logprob);
        ps_buf_add_str(out, ",\"top_logprobs\":[");
        for (uint32_t k = 0; k < lp->n_top && k < (uint32_t)c->p.n_top; k++) {
            if (k > 0)
                ps_buf_add_byte(out, ',');
            add_token(out, c, lp->top[k].id, lp->top[k].logprob);
            ps_buf_add_byte(out, '}');
        }
        ps_buf_add_str(out, "]}");
    }
    ps_buf_add_str(out, "],\"refusal\":null}");
}

static void begin_event(struct ps_buf *out, const struct rt_choice *ch)
{
    ps_buf_add_str(out, ch->call->chunk_head);
    ps_buf_addf(out, "{\"index\":%" PRIu32 ",\"delta\":", ch->index);
}

static void add_first(struct ps_buf *out, struct rt_choice *ch)
{
    struct rt_call *c = ch->call;

    begin_event(out, ch);
    ps_buf_add_str(out, "{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,"
                        "\"finish_reason\":null}]");
    if (c->p.return_token_ids && !c->ids_shown) {
        ps_buf_add_str(out, ",\"prompt_token_ids\":");
        rt_write_ids(out, ch->prompt->ids.ids, ch->prompt->n_tokens);
        c->ids_shown = true;
    }
    rt_write_event_tail(out, c, true);
    ch->opened = true;
}

static void add_text(struct ps_buf *out, struct rt_choice *ch)
{
    struct rt_stream *s = &ch->st;

    begin_event(out, ch);
    ps_buf_add_byte(out, '{');
    if (s->text.len > 0) {
        ps_buf_add_str(out, "\"content\":");
        ps_json_add_str(out, s->text.data, s->text.len);
    }
    ps_buf_add_str(out, "},\"logprobs\":");
    add_logprobs(out, ch);
    ps_buf_add_str(out, ",\"finish_reason\":null");
    if (ch->call->p.return_token_ids) {
        ps_buf_add_str(out, ",\"token_ids\":");
        rt_write_ids(out, s->ids, s->n_new);
    }
    ps_buf_add_str(out, "}]");
    rt_write_event_tail(out, ch->call, false);
    rt_stream_take(s);
}

void rt_chat_add_events(struct ps_buf *out, struct rt_choice *ch)
{
    bool visible = ch->st.text.len > 0 || ch->st.n_new > 0;

    PS_ASSERT(!ch->closed);
    if (!ch->opened && (visible || ch->why != RT_WHY_NONE))
        add_first(out, ch);
    if (visible)
        add_text(out, ch);
    if (ch->why == RT_WHY_NONE)
        return;
    begin_event(out, ch);
    ps_buf_add_str(out, "{},\"logprobs\":null");
    rt_write_end_of_choice(out, ch);
    ps_buf_add_str(out, "}]");
    rt_write_event_tail(out, ch->call, false);
    ch->closed = true;
}

static void add_choice(struct ps_buf *out, struct rt_choice *ch)
{
    ps_buf_addf(
        out, "{\"index\":%" PRIu32 ",\"message\":{\"role\":\"assistant\",\"content\":", ch->index);
    ps_json_add_str(out, ch->st.text.data, ch->st.text.len);
    ps_buf_add_str(out, ",\"refusal\":null},\"logprobs\":");
    add_logprobs(out, ch);
    rt_write_end_of_choice(out, ch);
    if (ch->call->p.return_token_ids) {
        ps_buf_add_str(out, ",\"token_ids\":");
        rt_write_ids(out, ch->st.ids, ch->st.n_new);
    }
    ps_buf_add_byte(out, '}');
    ch->closed = true;
}

void rt_chat_add_answer(struct ps_buf *out, struct rt_call *c)
{
    rt_write_answer_start(out, c, "chat.completion", add_choice);
    if (c->p.n_prompt_top >= 0) {
        ps_buf_add_str(out, ",\"prompt_logprobs\":");
        rt_write_prompt_logprobs(out, c, &c->prompts[0]);
    }
    if (c->p.return_token_ids) {
        ps_buf_add_str(out, ",\"prompt_token_ids\":");
        rt_write_ids(out, c->prompts[0].ids.ids, c->prompts[0].n_tokens);
    }
    ps_buf_add_byte(out, '}');
}
