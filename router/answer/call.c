#include "router/answer/call.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/hash.h"
#include "router/answer/write.h"
#include "router/api/api.h"
#include "router/conf_def.h"
#include "router/request/prepare.h"
#include "router/stats.h"

enum {
    CARE_MS = 250,
    AFFINITY_BYTES = 1024, /* of a session key: what is longer is cut */
};

static void call_goto(struct rt_call *c, enum rt_call_state to)
{
    static const uint8_t allowed[] = {
        [RT_CALL_TEXT] = 1 << RT_CALL_RUN | 1 << RT_CALL_DONE,
        [RT_CALL_RUN] = 1 << RT_CALL_DONE,
        [RT_CALL_DONE] = 0,
    };

    PS_ASSERT((allowed[c->state] >> to & 1) != 0);
    c->state = to;
}

static uint64_t now_us(const struct rt_call *c)
{
    return ps_now_us(c->api->loop->router->clock);
}

static struct rt_metrics *metrics(const struct rt_call *c)
{
    return c->api->loop->router->metrics;
}

/* ---- life ---- */

static void call_unlink(struct rt_call *c)
{
    struct rt_call **p;

    if (c->prev != NULL)
        c->prev->next = c->next;
    else
        c->api->calls = c->next;
    if (c->next != NULL)
        c->next->prev = c->prev;
    if (!c->dirty)
        return;
    for (p = &c->api->dirty; *p != c; p = &(*p)->next_dirty)
        PS_ASSERT(*p != NULL);
    *p = c->next_dirty;
    if (*p == NULL)
        c->api->dirty_tail = p;
    c->dirty = false;
}

static void free_prompts(struct rt_call *c)
{
    for (uint32_t i = 0; i < c->n_prompts && c->prompts != NULL; i++) {
        ps_tok_ids_fini(&c->prompts[i].ids);
        ps_free(c->prompts[i].scores);
    }
}

static void call_destroy(struct rt_call *c)
{
    struct ps_arena arena;

    if (c->state != RT_CALL_DONE)
        call_goto(c, RT_CALL_DONE);
    PS_ASSERT(c->ask == NULL);
    call_unlink(c);
    for (uint32_t i = 0; i < c->n_choices; i++) {
        PS_ASSERT(c->choices[i].gen == NULL);
        rt_stream_fini(&c->choices[i].st);
    }
    free_prompts(c);
    rt_params_fini(&c->p);
    ps_json_free(c->doc);
    ps_free(c->own_body);
    arena = c->arena;
    ps_free(c);
    ps_arena_fini(&arena);
}

static void answer_fail(struct rt_call *c, const struct rt_fail *f)
{
    struct rt_ask *a = c->ask;

    c->ask = NULL;
    a->call = NULL;
    rt_ask_fail(a, f);
}

static void cancel_all(struct rt_call *c)
{
    for (uint32_t i = 0; i < c->n_choices; i++) {
        struct rt_gen *g = c->choices[i].gen;

        c->choices[i].gen = NULL;
        if (g != NULL)
            rt_gen_cancel(g);
    }
}

static void mark_call(struct rt_call *c)
{
    if (!c->dirty) {
        c->dirty = true;
        c->next_dirty = NULL;
        *c->api->dirty_tail = c;
        c->api->dirty_tail = &c->next_dirty;
    }
}

static void mark(struct rt_choice *ch)
{
    struct rt_call *c = ch->call;

    if (!ch->dirty) {
        ch->dirty = true;
        ch->next_dirty = NULL;
        *c->dirty_tail = ch;
        c->dirty_tail = &ch->next_dirty;
    }
    mark_call(c);
}

/* ---- usage and metrics ---- */

void rt_call_usage(const struct rt_call *c, struct rt_usage *out)
{
    *out = (struct rt_usage){0};
    for (uint32_t i = 0; i < c->n_prompts; i++) {
        out->n_prompt += c->prompts[i].n_tokens;
        out->n_cached += c->prompts[i].n_cached;
    }
    for (uint32_t i = 0; i < c->n_choices; i++)
        out->n_completion += c->choices[i].n_shown;
}

const char *rt_call_finish_reason(const struct rt_choice *ch)
{
    PS_ASSERT(ch->why != RT_WHY_NONE);
    return ch->why == RT_WHY_LENGTH ? "length" : "stop";
}

void rt_call_add_stop_reason(struct ps_buf *out, const struct rt_choice *ch)
{
    const struct rt_stop *stop;

    if (ch->why == RT_WHY_STOP_ID) {
        ps_buf_addf(out, "%" PRIu32, ch->matched_id);
    } else if (ch->why == RT_WHY_STOP_STRING) {
        stop = &ch->call->stream_conf.stops[ch->st.matched];
        ps_json_add_str(out, stop->s, stop->len);
    } else {
        ps_buf_add_str(out, "null");
    }
}

static double seconds(uint64_t us)
{
    return (double)us / 1e6;
}

static void count_choice(const struct rt_call *c, const struct rt_choice *ch, uint64_t end_us)
{
    struct rt_metrics *m = metrics(c);
    uint64_t first_us = ch->first_us != 0 ? ch->first_us : end_us;

    ps_counter_add(m->success[ch->why == RT_WHY_LENGTH ? RT_OUT_LENGTH : RT_OUT_STOP], 1);
    ps_counter_add(m->generation_tokens, ch->n_shown);
    ps_hist_observe(m->request_generation_tokens, ch->n_shown);
    ps_hist_observe(m->ttft, seconds(first_us - c->start_us));
    ps_hist_observe(m->e2e, seconds(end_us - c->start_us));
    ps_hist_observe(m->decode_time, seconds(end_us - first_us));
    ps_hist_observe(m->queue_time, seconds(ch->queued_us));
    if (first_us - c->start_us >= ch->queued_us)
        ps_hist_observe(m->prefill_time, seconds(first_us - c->start_us - ch->queued_us));
    if (ch->n_shown > 1)
        ps_hist_observe(m->tpot, seconds(ch->last_us - first_us) / (ch->n_shown - 1));
}

/* The numbers of the usage object and of the metrics are the same: counted here, once. */
static void count_answered(const struct rt_call *c)
{
    struct rt_metrics *m = metrics(c);
    uint64_t end_us = now_us(c);

    for (uint32_t i = 0; i < c->n_prompts; i++) {
        const struct rt_prompt *p = &c->prompts[i];

        ps_counter_add(m->prompt_tokens, p->n_tokens);
        ps_counter_add(m->cached_tokens, p->n_cached);
        ps_counter_add(m->prefix_queries, p->n_tokens);
        ps_counter_add(m->prefix_hits, p->n_cached);
        ps_hist_observe(m->request_prompt_tokens, p->n_tokens);
    }
    ps_hist_observe(m->request_n, (double)c->p.n);
    for (uint32_t i = 0; i < c->n_choices; i++) {
        count_choice(c, &c->choices[i], end_us);
        ps_hist_observe(m->request_max_tokens, c->choices[i].prompt->max_out);
    }
}

static void count_lost(const struct rt_call *c, enum rt_outcome why)
{
    ps_counter_add(metrics(c)->success[why], c->n_choices);
}

/* ---- what generations say ---- */

static void choice_over(struct rt_choice *ch, enum rt_why why)
{
    struct rt_call *c = ch->call;

    if (ch->why == RT_WHY_NONE) {
        ch->why = why;
        rt_stream_end(&ch->st);
    }
    PS_ASSERT(ch->gen == NULL && c->n_open > 0);
    c->n_open--;
    mark(ch);
}

static void count_tokens(struct rt_choice *ch, uint32_t n)
{
    struct rt_metrics *m = metrics(ch->call);
    uint64_t now = now_us(ch->call);

    if (ch->first_us == 0) {
        ch->first_us = now;
    } else {
        for (uint32_t i = 0; i < n; i++)
            ps_hist_observe(m->itl, seconds(now - ch->last_us) / n);
    }
    ch->last_us = now;
}

/* The prompt's scores come with the end of its first choice, which is then waited for. */
static bool brings_scores(const struct rt_choice *ch)
{
    return ch->call->p.samp.n_prompt_top >= 0 && ch->index % (uint32_t)ch->call->p.n == 0;
}

static void on_tokens(struct rt_gen *g, uint32_t first, uint32_t n, const uint32_t *ids,
                      const struct pb_logprob *logprobs, void *ud)
{
    struct rt_choice *ch = ud;
    struct rt_call *c = ch->call;

    PS_ASSERT(ch->gen == g && n > 0);
    if (ch->why != RT_WHY_NONE || c->failed)
        return; /* over, but its prompt's scores come with the end */
    count_tokens(ch, n);
    if (c->p.score_only)
        return;
    PS_ASSERT(first == ch->st.n_tokens);
    for (uint32_t i = 0; i < n && ch->why == RT_WHY_NONE; i++) {
        if (rt_stream_push(&ch->st, ids[i], logprobs != NULL ? &logprobs[i] : NULL))
            ch->why = RT_WHY_STOP_STRING;
    }
    ch->n_shown = ch->st.n_tokens;
    mark(ch);
    if (ch->why == RT_WHY_STOP_STRING && !brings_scores(ch)) {
        ch->gen = NULL;
        rt_gen_cancel(g);
        choice_over(ch, RT_WHY_STOP_STRING);
    }
}

static void on_finished(struct rt_gen *g, const struct rt_gen_end *e, void *ud)
{
    struct rt_choice *ch = ud;
    struct rt_prompt *p = ch->prompt;

    PS_ASSERT(ch->gen == g);
    ch->gen = NULL;
    ch->queued_us = e->queued_us;
    ch->matched_id = e->matched_id;
    if (ch->index % (uint32_t)ch->call->p.n == 0)
        p->n_cached = ps_min_u32(e->n_cached, p->n_tokens);
    if (e->prompt_scores != NULL && p->scores == NULL) {
        p->n_scores = ps_min_u32(e->n_prompt_scores, p->n_tokens);
        p->scores = ps_calloc((size_t)p->n_scores + 1, sizeof(p->scores[0]));
        memcpy(p->scores, e->prompt_scores, p->n_scores * sizeof(p->scores[0]));
    }
    if (ch->call->p.score_only)
        choice_over(ch, RT_WHY_LENGTH);
    else
        choice_over(ch, e->finish == PB_FIN_STOP_EOS  ? RT_WHY_EOS
                        : e->finish == PB_FIN_STOP_ID ? RT_WHY_STOP_ID
                                                      : RT_WHY_LENGTH);
}

static void on_failed(struct rt_gen *g, const struct rt_fail *f, void *ud)
{
    struct rt_choice *ch = ud;
    struct rt_call *c = ch->call;

    PS_ASSERT(ch->gen == g);
    ch->gen = NULL;
    if (!c->failed) {
        c->failed = true;
        c->fail = *f;
        if (f->row == RT_E35_TOO_LONG_FOR_KV)
            rt_fail_context(&c->fail, f->row, c->p.dialect == RT_CHAT ? "messages" : "prompt",
                            c->p.model->context, ch->prompt->max_out, ch->prompt->n_tokens, false);
    }
    mark(ch); /* the others are cancelled when the call is flushed, not inside this callback */
}

/* ---- the start ---- */

static uint64_t body_salt(const struct rt_call *c)
{
    const struct rt_str *strs[] = {&c->p.cache_salt, &c->p.extra_key};
    uint64_t h = c->ask->key.tenant_salt;

    for (size_t i = 0; i < PS_ARRAY_LEN(strs); i++) {
        if (strs[i]->s != NULL)
            h = ps_hash64(strs[i]->s, strs[i]->len, h); /* on top of the tenant's: only narrower */
    }
    return h;
}

static uint64_t affinity_of(const char *s, size_t len)
{
    return ps_hash64(s, ps_min_size(len, AFFINITY_BYTES), 0) | 1; /* 0 means none */
}

static uint64_t header_affinity(const struct rt_ask *a)
{
    static const char *const names[] = {"x-session-id", "x-smg-routing-key", "x-session-token",
                                        "session_id",   "session-id",        "conversation_id"};

    for (size_t i = 0; i < PS_ARRAY_LEN(names); i++) {
        const char *v = ps_http_header(a->req, names[i]);

        if (v != NULL && v[0] != '\0')
            return affinity_of(v, strlen(v));
    }
    return 0;
}

static uint64_t body_affinity(const struct rt_params *p)
{
    const struct rt_str *strs[] = {&p->session_id, &p->prompt_cache_key, &p->meta_user, &p->user};

    for (size_t i = 0; i < PS_ARRAY_LEN(strs); i++) {
        if (strs[i]->s != NULL && strs[i]->len > 0)
            return affinity_of(strs[i]->s, strs[i]->len);
    }
    return 0;
}

static int32_t header_priority(const struct rt_ask *a)
{
    const char *v = ps_http_header(a->req, "x-smg-priority");
    int n = 0;

    return v != NULL && sscanf(v, "%9d", &n) == 1 ? n : 0;
}

/* Everything that views the document is copied or used up here, so that it can go. */
static void make_answer(struct rt_call *c)
{
    const struct rt_str *rid = c->p.request_id.s != NULL ? &c->p.request_id : &c->p.rid;
    const struct rt_model *m = c->p.model;
    struct rt_stream_conf *sc = &c->stream_conf;
    struct ps_buf id = PS_BUF_INIT;
    uint32_t *ends;

    if (!c->ask->own_id && rid->s != NULL)
        rt_ask_take_id(c->ask, rid->s, rid->len);
    ps_buf_addf(&id, "%s%s", c->p.dialect == RT_CHAT ? "chatcmpl-" : "cmpl-", c->ask->request_id);
    c->id = ps_arena_strndup(&c->arena, id.data, id.len);
    ps_buf_fini(&id);
    c->model = ps_arena_strndup(&c->arena, c->p.shown_model, strlen(c->p.shown_model));
    if (c->affinity == 0)
        c->affinity = body_affinity(&c->p);
    if (c->priority == 0)
        c->priority = (int32_t)c->p.priority;

    ends = ps_arena_calloc(&c->arena, m->n_eos + c->p.n_stop_ids + 1, sizeof(ends[0]));
    for (uint32_t i = 0; i < m->n_eos && !c->p.ignore_eos; i++)
        ends[sc->n_ends++] = m->eos[i];
    for (uint32_t i = 0; i < c->p.n_stop_ids; i++)
        ends[sc->n_ends++] = c->p.stop_ids[i];
    sc->ends = ends;
    sc->tok = m->tok;
    sc->stops = rt_stops_compile(&c->arena, c->p.stops, c->p.n_stops);
    sc->n_stops = c->p.n_stops;
    sc->min_tokens = (uint32_t)c->p.min_tokens;
    sc->include_stop = c->p.include_stop;
    sc->skip_special = c->p.skip_special;
    sc->keep_ids = c->p.return_token_ids;
    sc->keep_logprobs = c->p.n_top >= 0;
    c->hold = c->p.echo && c->p.n_top >= 0;
    c->chunk_head = rt_write_chunk_head(c);
}

static struct rt_gen *start_one(struct rt_call *c, struct rt_choice *ch, uint64_t salt)
{
    static const struct rt_gen_sink sink = {
        .on_tokens = on_tokens, .on_finished = on_finished, .on_failed = on_failed};
    const struct rt_params *p = &c->p;
    uint32_t sample = ch->index % (uint32_t)p->n;
    struct rt_gen_spec spec = {.ids = ch->prompt->ids.ids,
                               .n_prompt = ch->prompt->n_tokens,
                               .max_tokens = ch->prompt->max_out,
                               .ignore_eos = p->ignore_eos,
                               .stop_ids = p->stop_ids,
                               .n_stop_ids = p->n_stop_ids,
                               .bias_ids = p->bias_ids,
                               .bias = p->bias,
                               .n_bias = p->n_bias,
                               .samp = p->samp,
                               .salt = salt,
                               .affinity = c->affinity,
                               .priority = c->priority};

    spec.min_tokens = ps_min_u32((uint32_t)p->min_tokens, ch->prompt->max_out);
    spec.samp.seed = rt_params_seed(p, sample);
    if (!brings_scores(ch))
        spec.samp.n_prompt_top = -1;
    return rt_gen_start(c->api->loop, &spec, &sink, ch, &c->fail);
}

static bool start_all(struct rt_call *c)
{
    uint64_t salt = body_salt(c);

    c->n_choices = c->n_prompts * (uint32_t)c->p.n;
    c->choices = ps_arena_calloc(&c->arena, c->n_choices, sizeof(c->choices[0]));
    for (uint32_t i = 0; i < c->n_choices; i++) {
        struct rt_choice *ch = &c->choices[i];

        ch->call = c;
        ch->index = i;
        ch->prompt = &c->prompts[i / (uint32_t)c->p.n];
        rt_stream_init(&ch->st, &c->stream_conf, &c->arena);
    }
    for (uint32_t i = 0; i < c->n_choices; i++) {
        struct rt_choice *ch = &c->choices[i];

        ch->gen = start_one(c, ch, salt);
        if (ch->gen == NULL) {
            cancel_all(c);
            return false;
        }
        c->n_open++;
    }
    return true;
}

static void forget_preparation(struct rt_call *c)
{
    bool need_ids =
        c->p.return_token_ids || c->p.n_prompt_top >= 0 || (c->p.echo && c->p.n_top >= 0);

    ps_json_free(c->doc);
    c->doc = NULL;
    ps_free(c->own_body);
    c->own_body = NULL;
    c->body = NULL;
    for (uint32_t i = 0; i < c->n_prompts && !need_ids; i++)
        ps_tok_ids_fini(&c->prompts[i].ids);
}

static void set_keepalive(struct rt_call *c)
{
    const struct rt_conf *conf = c->api->loop->router->conf;
    int64_t s = c->p.sse_ping_s != RT_ABSENT ? c->p.sse_ping_s : conf->sse_keepalive_s;

    if (c->p.stream && conf->sse_keepalive != RT_KEEPALIVE_OFF && s > 0)
        c->keepalive_us = (uint64_t)s * 1000000;
}

static void on_prepared(struct rt_text_job *j, bool ran)
{
    struct rt_call *c = PS_CONTAINER(j, struct rt_call, job);

    if (c->ask == NULL || !ran) { /* gone meanwhile, or everything ends: on_gone answers nobody */
        if (c->ask != NULL)
            c->ask->call = NULL;
        c->ask = NULL;
        call_destroy(c);
        return;
    }
    if (!c->failed) {
        make_answer(c);
        c->failed = !start_all(c);
    }
    if (c->failed) {
        answer_fail(c, &c->fail);
        call_destroy(c);
        return;
    }
    forget_preparation(c);
    set_keepalive(c);
    call_goto(c, RT_CALL_RUN);
    c->last_write_us = now_us(c);
    if (!c->api->timer_on) {
        c->api->timer_on = true;
        ps_timer_start(c->api->timer, CARE_MS, CARE_MS);
    }
}

static void run_prepare(struct rt_text_job *j, struct ps_tok_ctx *tok)
{
    rt_prepare_call(PS_CONTAINER(j, struct rt_call, job), tok);
}

void rt_call_start(struct rt_ask *a, enum rt_dialect d, const char *body, size_t len)
{
    struct rt_router *r = a->api->loop->router;
    struct rt_call *c = ps_calloc(1, sizeof(*c));

    c->api = a->api;
    c->ask = a;
    a->call = c;
    c->next = c->api->calls;
    if (c->next != NULL)
        c->next->prev = c;
    c->api->calls = c;
    c->dirty_tail = &c->dirty_choices;
    ps_arena_init(&c->arena, 0);
    rt_params_init(&c->p, d, &r->model, r->conf);
    c->start_us = a->start_us;
    c->created_s = ps_wall_us(r->clock) / 1000000;
    c->affinity = header_affinity(a);
    c->priority = header_priority(a);
    c->job = (struct rt_text_job){.run = run_prepare, .done = on_prepared};
    c->body = body;
    c->body_len = len;
    if (len > RT_TEXT_INLINE_BYTES) { /* the request may go while the pool reads it */
        c->own_body = ps_alloc(len);
        memcpy(c->own_body, body, len);
        c->body = c->own_body;
    }
    if (rt_text_submit(a->api->loop, &c->job, len) == RT_TEXT_OK)
        return;
    rt_fail_set(&c->fail, RT_E27_QUEUE_FULL, NULL, "Too many long prompts wait to be tokenized");
    answer_fail(c, &c->fail);
    call_destroy(c);
}

void rt_call_gone(struct rt_call *c)
{
    c->ask = NULL;
    if (c->state == RT_CALL_TEXT)
        return; /* the pool still works on it */
    count_lost(c, c->failed ? RT_OUT_ERROR : RT_OUT_ABORT);
    cancel_all(c);
    call_destroy(c);
}

/* ---- the answer ---- */

static void begin(struct rt_call *c)
{
    rt_ask_begin(c->ask, "text/event-stream; charset=utf-8");
    c->began = true;
    c->last_write_us = now_us(c);
}

static void end_stream(struct rt_call *c, const struct ps_buf *b)
{
    struct rt_ask *a = c->ask;

    c->ask = NULL;
    a->call = NULL;
    rt_ask_end(a, b->data, b->len);
}

static void flush_failed(struct rt_call *c, struct ps_buf *b)
{
    cancel_all(c);
    count_lost(c, RT_OUT_ERROR);
    if (!c->began) {
        answer_fail(c, &c->fail);
    } else {
        ps_buf_add_str(b, "data: ");
        rt_fail_write(b, &c->fail);
        ps_buf_add_str(b, "\n\ndata: [DONE]\n\n");
        end_stream(c, b);
    }
    call_destroy(c);
}

/* The events of all marked choices, or of the first ones when those are many: the rest stays marked. */
static void add_dirty_events(struct rt_call *c, struct ps_buf *b)
{
    struct rt_choice *ch;

    while ((ch = c->dirty_choices) != NULL && b->len <= c->api->out_soft_bytes) {
        c->dirty_choices = ch->next_dirty;
        ch->dirty = false;
        if (c->p.dialect == RT_CHAT)
            rt_chat_add_events(b, ch);
        else
            rt_completion_add_events(b, ch);
    }
    if (c->dirty_choices == NULL)
        c->dirty_tail = &c->dirty_choices;
}

/*
 * A client that reads slowly costs its text, not its events: while much is unsent, tokens stay with
 * their choices, and leave as fewer, larger events once everything was taken (rt_call_drained). Only
 * the write-stall timer gives up on it.
 */
static bool must_wait(struct rt_call *c)
{
    if (c->began && ps_http_pending(c->ask->req) > c->api->out_soft_bytes)
        c->waits = true;
    return c->waits;
}

static void flush_stream(struct rt_call *c, struct ps_buf *b)
{
    if (must_wait(c))
        return;
    if (!c->began)
        begin(c);
    if (!c->hold || c->n_open == 0)
        add_dirty_events(c, b);
    if (c->n_open > 0 || c->dirty_choices != NULL) {
        if (b->len > 0) {
            c->last_write_us = now_us(c);
            ps_http_write(c->ask->req, b->data, b->len);
            (void)must_wait(c); /* what was left out is written when this much was taken */
        }
        return;
    }
    rt_write_usage_event(b, c);
    ps_buf_add_str(b, "data: [DONE]\n\n");
    count_answered(c);
    end_stream(c, b);
    call_destroy(c);
}

static void flush_whole(struct rt_call *c, struct ps_buf *b)
{
    struct rt_ask *a = c->ask;
    char extra[64];

    if (c->n_open > 0)
        return;
    if (c->p.dialect == RT_CHAT)
        rt_chat_add_answer(b, c);
    else
        rt_completion_add_answer(b, c);
    count_answered(c);
    (void)snprintf(extra, sizeof(extra), "openai-processing-ms: %" PRIu64 "\r\n",
                   (now_us(c) - c->start_us) / 1000);
    c->ask = NULL;
    a->call = NULL;
    rt_ask_reply(a, 200, "application/json", extra, b->data, b->len);
    call_destroy(c);
}

void rt_call_drained(struct rt_call *c)
{
    c->waits = false;
    if (c->state == RT_CALL_RUN && c->p.stream)
        mark_call(c);
}

void rt_calls_flush(struct rt_api *api)
{
    enum { KEEP_BYTES = 1 << 20 }; /* a rare large answer does not stay in memory */
    struct rt_call *c;

    while ((c = api->dirty) != NULL) {
        api->dirty = c->next_dirty;
        if (api->dirty == NULL)
            api->dirty_tail = &api->dirty;
        c->dirty = false;
        PS_ASSERT(c->state == RT_CALL_RUN && c->ask != NULL);
        ps_buf_clear(&api->scratch);
        if (c->failed)
            flush_failed(c, &api->scratch);
        else if (c->p.stream)
            flush_stream(c, &api->scratch);
        else
            flush_whole(c, &api->scratch);
    }
    if (api->scratch.cap > KEEP_BYTES)
        ps_buf_fini(&api->scratch);
}

void rt_calls_care(struct rt_api *api)
{
    const struct rt_conf *conf = api->loop->router->conf;
    const char *ping = conf->sse_keepalive == RT_KEEPALIVE_COMMENT ? ":\n\n" : "\n";
    uint64_t now = ps_now_us(api->loop->router->clock);

    for (struct rt_call *c = api->calls; c != NULL; c = c->next) {
        bool silent;

        if (c->state != RT_CALL_RUN || !c->p.stream)
            continue;
        silent = c->keepalive_us > 0 && now - c->last_write_us >= c->keepalive_us;
        if (!c->began && (silent || now - c->start_us >= (uint64_t)conf->header_flush_s * 1000000))
            begin(c);
        if (silent) {
            ps_http_write(c->ask->req, ping, strlen(ping));
            c->last_write_us = now;
        }
    }
    if (api->calls == NULL) {
        api->timer_on = false;
        ps_timer_stop(api->timer);
    }
}
