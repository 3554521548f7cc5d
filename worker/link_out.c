#include <string.h>

#include "worker/link_internal.h"

/* ---- from the scheduler ---- */

static void take_token(struct wk_att *a, struct wk_out *o)
{
    if (a->route == NULL || a->cancel_wanted) { /* nobody will read it */
        ps_free(o->logprob);
        return;
    }
    if (a->n == a->cap) {
        a->cap = a->cap > 0 ? 2 * a->cap : 32;
        a->ids = ps_realloc(a->ids, a->cap * sizeof(a->ids[0]));
        if (a->logprobs != NULL)
            a->logprobs = ps_realloc(a->logprobs, a->cap * sizeof(struct pb_logprob *));
    }
    if (o->logprob != NULL && a->logprobs == NULL) {
        PS_ASSERT(a->n == 0); /* all tokens of an attempt carry them, or none */
        a->logprobs = ps_alloc(a->cap * sizeof(struct pb_logprob *));
    }
    PS_ASSERT((o->logprob != NULL) == (a->logprobs != NULL));
    if (a->logprobs != NULL)
        a->logprobs[a->n] = o->logprob;
    a->ids[a->n++] = o->token;
}

static void take_end(struct wk_link *l, struct wk_att *a, struct wk_out *o)
{
    l->handles[a->handle] = NULL;
    l->free_handles[l->n_free_handles++] = a->handle;
    a->handle = WK_NO_HANDLE;
    a->state = WK_ATT_ENDED;
    a->rejected = o->kind == WK_OUT_REJECTED;
    a->reject = o->reject;
    a->predicted_wait_ms = o->predicted_wait_ms;
    a->finish = o->finish;
    /* Tokens were not kept after a cancel, so whatever end it was, it is not a whole answer. */
    if (!a->rejected && a->cancel_wanted)
        a->finish = PB_FIN_CANCELLED;
    a->matched_id = o->matched_id;
    a->n_cached = o->n_cached;
    a->n_prompt_scores = o->n_prompt_scores;
    a->prompt_scores = o->prompt_scores;
    a->end_next_us = l->now_us;
    a->expire_us = l->now_us + WK_END_KEEP_US;
    if (a->route == NULL && !a->in_todo)
        wk_att_free(l, a);
}

void wk_out_take(struct wk_link *l)
{
    uint32_t n = ps_ring_n(l->out_ring); /* what is there now: a bound on this turn */
    struct wk_out o;

    while (n-- > 0 && ps_ring_pop(l->out_ring, &o) == PS_RING_OK) {
        struct wk_att *a = NULL;

        if (o.kind == WK_OUT_STEP_END) {
            l->flush_due = true;
            l->scan_next_us = 0;
            continue;
        }
        if (o.kind == WK_OUT_DRAINED) {
            l->drained = true;
            continue;
        }
        PS_ASSERT(o.handle < l->n_handles && l->handles[o.handle] != NULL); /* L1 */
        a = l->handles[o.handle];
        PS_ASSERT(a->state == WK_ATT_OPEN);
        if (o.kind == WK_OUT_TOKEN)
            take_token(a, &o);
        else
            take_end(l, a, &o);
    }
}

/* ---- tokens ---- */

static void commit_row(struct wk_link *l, struct wk_att *a, uint32_t n_sent)
{
    if (l->n_commits == l->commits_cap) {
        l->commits_cap = l->commits_cap > 0 ? 2 * l->commits_cap : 64;
        l->commits = ps_realloc(l->commits, l->commits_cap * sizeof(l->commits[0]));
    }
    l->commits[l->n_commits].att = a;
    l->commits[l->n_commits++].n_sent = n_sent;
}

/* n_sent moves only when ZeroMQ took the message; Resend and OpenList can set it back. */
static bool send_tokens(struct wk_link *l, struct wk_dial *d)
{
    struct pb_head h = wk_dial_head(l, d, PB_TOKENS);
    bool ok;

    if (l->n_commits == 0)
        return true;
    ps_buf_clear(&l->buf);
    pb_tokens_encode(&l->buf, &h, &l->tokens);
    ok = wk_dial_send(l, d) == PS_MQ_OK;
    for (uint32_t i = 0; ok && i < l->n_commits; i++)
        l->commits[i].att->n_sent = l->commits[i].n_sent;
    l->n_commits = 0;
    pb_tokens_builder_clear(&l->tokens);
    return ok;
}

/* False: the socket is full and something stays unsent. */
static bool flush_dial(struct wk_link *l, struct wk_dial *d)
{
    for (struct wk_att *a = d->route->first; a != NULL; a = a->next) {
        uint32_t at = a->n_sent;

        while (at < a->n) {
            uint32_t n = ps_min_u32(a->n - at, WK_TOKENS_ROW);

            pb_tokens_add(&l->tokens, a->req, a->attempt, a->base + at, n, a->ids + at,
                          a->logprobs != NULL ? a->logprobs + at : NULL);
            at += n;
            commit_row(l, a, at);
            if (pb_tokens_bytes(&l->tokens) > WK_TOKENS_BYTES && !send_tokens(l, d))
                return false;
        }
    }
    return send_tokens(l, d);
}

void wk_out_flush(struct wk_link *l)
{
    l->flush_due = false;
    for (uint32_t i = 0; i < l->n_dials; i++) {
        struct wk_dial *d = l->dials[i];

        if (d->state == WK_DIAL_JOINED && !flush_dial(l, d))
            l->flush_due = true;
    }
}

/* ---- ends ---- */

static bool send_end(struct wk_link *l, struct wk_dial *d, const struct wk_att *a)
{
    struct pb_msg m = {.head = {0}};

    if (a->rejected) {
        m.refusal = (struct pb_refusal){.req = a->req,
                                        .attempt = a->attempt,
                                        .reason = a->reject,
                                        .predicted_wait_ms = a->predicted_wait_ms};
        return wk_dial_send_msg(l, d, &m, PB_REJECT) == PS_MQ_OK;
    }
    m.head = wk_dial_head(l, d, PB_FINISHED);
    m.finished = (struct pb_finished){
        .req = a->req,
        .attempt = a->attempt,
        .reason = a->finish,
        .n_total = a->base + a->n,
        .matched_id = a->matched_id,
        .n_cached = a->n_cached,
        .n_prompt_scores = a->n_prompt_scores,
    };
    ps_buf_clear(&l->buf);
    pb_finished_encode(&l->buf, &m.head, &m.finished, a->prompt_scores);
    if (l->buf.len >
        PB_SEND_MAX) { /* longer than a frame: told as what it is, an answer we cannot give */
        m.finished.reason = PB_FIN_ERROR;
        m.finished.n_prompt_scores = 0;
        ps_buf_clear(&l->buf);
        pb_finished_encode(&l->buf, &m.head, &m.finished, NULL);
    }
    return wk_dial_send(l, d) == PS_MQ_OK;
}

void wk_out_scan(struct wk_link *l, struct wk_dial *d)
{
    struct wk_att *a = d->route->first, *next;

    for (; a != NULL; a = next) {
        next = a->next;
        if (a->state != WK_ATT_ENDED)
            continue;
        if (l->now_us >= a->expire_us) {
            wk_att_abandon(l, a);
            continue;
        }
        if (d->state != WK_DIAL_JOINED || l->now_us < a->end_next_us)
            continue;
        if (a->n_sent < a->n && a->finish != PB_FIN_CANCELLED && !a->rejected)
            continue; /* its tokens first */
        if (send_end(l, d, a)) {
            a->end_sent = true;
            a->end_next_us = l->now_us + WK_END_REPEAT_US;
        }
    }
}

/* ---- what is open ---- */

void wk_out_beat(struct wk_link *l, struct wk_dial *d)
{
    struct pb_msg m = {.head = {0}};
    struct wk_published p;

    if (!ps_seq_read(&l->published_ver, l->published, &p, sizeof(p)))
        memset(&p, 0, sizeof(p));
    if (!ps_seq_read(&l->kv_ver, l->kv, &m.beat.kv, sizeof(m.beat.kv)))
        memset(&m.beat.kv, 0, sizeof(m.beat.kv));
    m.beat.interval_ms = d->interval_ms;
    m.beat.load = p.load;
    m.beat.tick = p.tick;
    m.beat.applied = d->route->window.high;
    m.beat.draining = atomic_load(&l->draining);
    m.beat.drained = l->drained;
    for (const struct wk_att *a = d->route->first; a != NULL; a = a->next) {
        if (a->state == WK_ATT_ENDED && a->end_sent)
            continue;
        m.beat.n_open++;
        m.beat.digest_id ^= pb_digest_id(a->req, a->attempt);
        m.beat.digest_n ^= pb_digest_n(a->req, a->attempt, a->base + a->n_sent);
    }
    (void)wk_dial_send_msg(l, d, &m, PB_BEAT); /* a lost beat is followed by the next */
    d->beat_next_us = l->now_us + 1000ULL * d->interval_ms;
}

void wk_out_open_list(struct wk_link *l, struct wk_dial *d)
{
    struct pb_head h = wk_dial_head(l, d, PB_OPENLIST);
    struct pb_open_row *rows = ps_alloc((d->route->n_att + 1) * sizeof(*rows));
    uint32_t n = 0;

    for (const struct wk_att *a = d->route->first; a != NULL; a = a->next) {
        rows[n++] = (struct pb_open_row){
            .req = a->req,
            .dispatch_seq = a->dispatch_seq,
            .attempt = a->attempt,
            .n_sent = a->base + a->n_sent,
            .ended = a->state == WK_ATT_ENDED,
        };
    }
    PS_ASSERT(n == d->route->n_att);
    ps_buf_clear(&l->buf);
    pb_open_list_encode(&l->buf, &h, d->route->window.high, rows, n);
    ps_free(rows);
    d->want_open_list = wk_dial_send(l, d) != PS_MQ_OK;
}
