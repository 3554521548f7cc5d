#include "router/answer/write.h"

#include <inttypes.h>
#include <string.h>

#include "common/text/utf8.h"

/* The tokens of one logprobs object: the prompt's (with echo), then the new ones of the stream. */
struct item {
    uint32_t id, offset;
    const struct pb_logprob *lp; /* NULL: nothing comes before it that could predict it */
};

struct items {
    struct item *v;
    uint32_t n;
};

static void collect_prompt(const struct rt_choice *ch, struct items *it)
{
    const struct rt_prompt *p = ch->prompt;
    struct ps_buf piece = PS_BUF_INIT;
    struct ps_detok d;
    uint32_t n_cp = 0;

    ps_detok_init(&d, ch->call->stream_conf.tok, ch->call->stream_conf.skip_special);
    for (uint32_t i = 0; i < p->n_tokens; i++) {
        const struct pb_logprob *lp = i > 0 && i < p->n_scores ? &p->scores[i] : NULL;

        it->v[it->n++] = (struct item){.id = p->ids.ids[i], .offset = n_cp, .lp = lp};
        ps_buf_clear(&piece);
        ps_detok_push(&d, p->ids.ids[i], &piece);
        if (piece.len > 0)
            n_cp += (uint32_t)ps_utf8_n_cp(piece.data, piece.len);
    }
    ps_buf_fini(&piece);
}

static void collect_new(const struct rt_choice *ch, struct items *it)
{
    const struct rt_prompt *p = ch->prompt;
    uint32_t base = 0;

    if (ch->call->p.echo && p->text_len > 0)
        base = (uint32_t)ps_utf8_n_cp(p->text, p->text_len);
    for (uint32_t i = 0; i < ch->st.n_new; i++)
        it->v[it->n++] = (struct item){
            .id = ch->st.ids[i], .offset = base + ch->st.offsets[i], .lp = &ch->st.logprobs[i]};
}

struct alternative {
    size_t key, key_len; /* JSON text in the scratch buffer */
    float logprob;
};

/* Equal strings of different ids would be one key twice: the likelier one stays. */
static uint32_t add_alternative(struct ps_buf *keys, struct alternative *alts, uint32_t n,
                                const struct rt_call *c, uint32_t id, float logprob)
{
    struct alternative a = {.key = keys->len, .logprob = logprob};

    rt_write_token(keys, c, id);
    a.key_len = keys->len - a.key;
    for (uint32_t i = 0; i < n; i++) {
        if (alts[i].key_len == a.key_len &&
            memcmp(keys->data + alts[i].key, keys->data + a.key, a.key_len) == 0) {
            if (a.logprob > alts[i].logprob)
                alts[i].logprob = a.logprob;
            return n;
        }
    }
    alts[n] = a;
    return n + 1;
}

static void add_top(struct ps_buf *out, const struct rt_call *c, const struct item *it)
{
    struct alternative alts[PB_MAX_TOP + 1];
    struct ps_buf keys = PS_BUF_INIT;
    uint32_t n;

    n = add_alternative(&keys, alts, 0, c, it->id, it->lp->logprob);
    for (uint32_t k = 0; k < it->lp->n_top && k < (uint32_t)c->p.n_top; k++) {
        if (it->lp->top[k].id != it->id)
            n = add_alternative(&keys, alts, n, c, it->lp->top[k].id, it->lp->top[k].logprob);
    }
    for (uint32_t i = 0; i < n; i++) {
        ps_buf_add_byte(out, i > 0 ? ',' : '{');
        ps_buf_add(out, keys.data + alts[i].key, alts[i].key_len);
        ps_buf_add_byte(out, ':');
        rt_write_logprob(out, alts[i].logprob);
    }
    ps_buf_add_byte(out, '}');
    ps_buf_fini(&keys);
}

static void add_items(struct ps_buf *out, const struct rt_call *c, const struct items *it)
{
    ps_buf_add_str(out, "{\"tokens\":[");
    for (uint32_t i = 0; i < it->n; i++) {
        if (i > 0)
            ps_buf_add_byte(out, ',');
        rt_write_token(out, c, it->v[i].id);
    }
    ps_buf_add_str(out, "],\"token_logprobs\":[");
    for (uint32_t i = 0; i < it->n; i++) {
        if (i > 0)
            ps_buf_add_byte(out, ',');
        if (it->v[i].lp != NULL)
            rt_write_logprob(out, it->v[i].lp->logprob);
        else
            ps_buf_add_str(out, "null");
    }
    ps_buf_add_str(out, "],\"top_logprobs\":[");
    for (uint32_t i = 0; i < it->n; i++) {
        if (i > 0)
            ps_buf_add_byte(out, ',');
        if (it->v[i].lp != NULL)
            add_top(out, c, &it->v[i]);
        else
            ps_buf_add_str(out, "null");
    }
    ps_buf_add_str(out, "],\"text_offset\":[");
    for (uint32_t i = 0; i < it->n; i++)
        ps_buf_addf(out, "%s%" PRIu32, i > 0 ? "," : "", it->v[i].offset);
    ps_buf_add_str(out, "]}");
}

static void add_logprobs(struct ps_buf *out, const struct rt_choice *ch, bool with_prompt,
                         bool with_new)
{
    const struct rt_call *c = ch->call;
    struct items it = {0};

    if (!c->stream_conf.keep_logprobs) {
        ps_buf_add_str(out, "null");
        return;
    }
    it.v = ps_calloc((size_t)ch->prompt->n_tokens + ch->st.n_new + 1, sizeof(it.v[0]));
    if (with_prompt)
        collect_prompt(ch, &it);
    if (with_new)
        collect_new(ch, &it);
    if (it.n > 0)
        add_items(out, c, &it);
    else
        ps_buf_add_str(out, "null");
    ps_free(it.v);
}

static void begin_event(struct ps_buf *out, const struct rt_choice *ch)
{
    ps_buf_add_str(out, ch->call->chunk_head);
    ps_buf_addf(out, "{\"index\":%" PRIu32 ",\"text\":", ch->index);
}

static void end_event(struct ps_buf *out, struct rt_choice *ch, bool first)
{
    if (ch->call->p.return_token_ids && !ch->opened) {
        ps_buf_add_str(out, ",\"prompt_token_ids\":");
        rt_write_ids(out, ch->prompt->ids.ids, ch->prompt->n_tokens);
    }
    ch->opened = true;
    ps_buf_add_str(out, "}]");
    rt_write_event_tail(out, ch->call, first);
}

static void add_echo(struct ps_buf *out, struct rt_choice *ch)
{
    begin_event(out, ch);
    ps_json_add_str(out, ch->prompt->text, ch->prompt->text_len);
    ps_buf_add_str(out, ",\"logprobs\":");
    add_logprobs(out, ch, true, false);
    ps_buf_add_str(out, ",\"finish_reason\":null");
    end_event(out, ch, true);
}

static void add_text(struct ps_buf *out, struct rt_choice *ch)
{
    struct rt_stream *s = &ch->st;

    begin_event(out, ch);
    ps_json_add_str(out, s->text.data, s->text.len);
    ps_buf_add_str(out, ",\"logprobs\":");
    add_logprobs(out, ch, false, true);
    ps_buf_add_str(out, ",\"finish_reason\":null");
    if (ch->call->p.return_token_ids) {
        ps_buf_add_str(out, ",\"token_ids\":");
        rt_write_ids(out, s->ids, s->n_new);
    }
    end_event(out, ch, false);
    rt_stream_take(s);
}

void rt_completion_add_events(struct ps_buf *out, struct rt_choice *ch)
{
    bool visible = ch->st.text.len > 0 || ch->st.n_new > 0;

    PS_ASSERT(!ch->closed);
    if (ch->call->p.echo && !ch->opened && (visible || ch->why != RT_WHY_NONE))
        add_echo(out, ch);
    if (visible)
        add_text(out, ch);
    if (ch->why == RT_WHY_NONE)
        return;
    begin_event(out, ch);
    ps_buf_add_str(out, "\"\",\"logprobs\":null");
    rt_write_end_of_choice(out, ch);
    end_event(out, ch, false);
    ch->closed = true;
}

static void add_choice(struct ps_buf *out, struct rt_choice *ch)
{
    const struct rt_call *c = ch->call;
    const struct rt_prompt *p = ch->prompt;
    struct ps_buf text = PS_BUF_INIT;

    if (c->p.echo)
        ps_buf_add(&text, p->text, p->text_len);
    ps_buf_add(&text, ch->st.text.data, ch->st.text.len);
    ps_buf_addf(out, "{\"index\":%" PRIu32 ",\"text\":", ch->index);
    ps_json_add_str(out, text.data, text.len);
    ps_buf_add_str(out, ",\"logprobs\":");
    add_logprobs(out, ch, c->p.echo, true);
    rt_write_end_of_choice(out, ch);
    if (c->p.return_token_ids) {
        ps_buf_add_str(out, ",\"token_ids\":");
        rt_write_ids(out, ch->st.ids, ch->st.n_new);
        ps_buf_add_str(out, ",\"prompt_token_ids\":");
        rt_write_ids(out, p->ids.ids, p->n_tokens);
    }
    if (c->p.n_prompt_top >= 0) {
        ps_buf_add_str(out, ",\"prompt_logprobs\":");
        rt_write_prompt_logprobs(out, c, p);
    }
    ps_buf_add_byte(out, '}');
    ps_buf_fini(&text);
    ch->closed = true;
}

void rt_completion_add_answer(struct ps_buf *out, struct rt_call *c)
{
    rt_write_answer_start(out, c, "text_completion", add_choice);
    ps_buf_add_byte(out, '}');
}
