#include <string.h>

#include "common/log.h"
#include "router/fleet/fleet_internal.h"

static const uint64_t submit_wait_us[RT_SUBMIT_TRIES] = {250000, 500000, 1000000, 500000};

/* ---- lists ---- */

static void attn_add(struct rt_fleet *f, struct rt_att *a)
{
    if (a->in_attn)
        return;
    a->in_attn = true;
    a->attn_prev = NULL;
    a->attn_next = f->attn_first;
    if (f->attn_first != NULL)
        f->attn_first->attn_prev = a;
    f->attn_first = a;
}

static void attn_del(struct rt_fleet *f, struct rt_att *a)
{
    if (!a->in_attn)
        return;
    if (a->attn_prev != NULL)
        a->attn_prev->attn_next = a->attn_next;
    else
        f->attn_first = a->attn_next;
    if (a->attn_next != NULL)
        a->attn_next->attn_prev = a->attn_prev;
    a->in_attn = false;
}

static void join_peer(struct rt_att *a, struct rt_peer *p)
{
    a->peer = p;
    a->prev = NULL;
    a->next = p->first;
    if (p->first != NULL)
        p->first->prev = a;
    p->first = a;
    p->n_att++;
}

static void leave_peer(struct rt_fleet *f, struct rt_att *a)
{
    struct rt_peer *p = a->peer;

    if (p != NULL) {
        if (a->prev != NULL)
            a->prev->next = a->next;
        else
            p->first = a->next;
        if (a->next != NULL)
            a->next->prev = a->prev;
        PS_ASSERT(p->n_att > 0);
        p->n_att--;
        if (a->accepted)
            p->n_accepted--;
        a->peer = NULL;
    }
    if (a->holds_resv) {
        rt_fleet_unreserve(f, a->worker, a->resv_tok);
        a->holds_resv = false;
    }
    pb_submit_destroy(a->submit);
    a->submit = NULL;
}

struct rt_att *rt_att_find(struct rt_fleet *f, uint64_t req)
{
    uint32_t loop = RT_REQ_LOOP(req), slot = RT_REQ_SLOT(req);
    struct rt_att *a;

    if (loop >= f->n_loops || slot >= f->loops[loop].n_slots)
        return NULL;
    a = f->loops[loop].by_slot[slot];
    return a != NULL && a->req == req ? a : NULL;
}

struct rt_att *rt_att_current(struct rt_fleet *f, const struct rt_peer *p, uint64_t req,
                              uint32_t attempt)
{
    struct rt_att *a = rt_att_find(f, req);

    return a != NULL && a->attempt == attempt && a->peer == p ? a : NULL;
}

void rt_att_free(struct rt_fleet *f, struct rt_att *a)
{
    struct rt_loop_side *s = &f->loops[a->loop];

    leave_peer(f, a);
    attn_del(f, a);
    PS_ASSERT(s->by_slot[a->slot] == a);
    s->by_slot[a->slot] = NULL;
    ps_free(a->prompt_scores);
    ps_free(a);
}

/* ---- telling the loop ---- */

static struct rt_event event_of(const struct rt_att *a, enum rt_event_kind kind)
{
    return (struct rt_event){
        .kind = kind, .req = a->req, .attempt = a->attempt, .worker = a->worker};
}

/* False: no room; the caller leaves its fact unapplied (F4). */
static bool tell_accept(struct rt_fleet *f, struct rt_att *a)
{
    struct rt_event e = event_of(a, RT_EV_ACCEPTED);

    if (!a->accept_told)
        a->accept_told = rt_view_tell(f, a->loop, &e);
    return a->accept_told;
}

static bool end_is_ready(const struct rt_att *a)
{
    return a->end == RT_END_REJECTED || a->end == RT_END_LOST ||
           (a->end == RT_END_FINISHED && a->n_have == a->fin.n_total);
}

/* Tells the end if it is known and complete, and frees the attempt; else it stays on the scan. */
static void tell_end(struct rt_fleet *f, struct rt_att *a)
{
    struct rt_event e;

    attn_add(f, a);
    if (!end_is_ready(a))
        return;
    if (a->end == RT_END_FINISHED && !tell_accept(f, a))
        return;
    if (a->end == RT_END_FINISHED) {
        e = event_of(a, RT_EV_FINISHED);
        e.finish = a->fin.reason;
        e.n_total = a->fin.n_total;
        e.matched_id = a->fin.matched_id;
        e.n_cached = a->fin.n_cached;
        e.n_prompt_scores = a->fin.n_prompt_scores;
        e.prompt_scores = a->prompt_scores;
    } else if (a->end == RT_END_REJECTED) {
        e = event_of(a, RT_EV_REJECTED);
        e.reject = a->reject;
        e.predicted_wait_ms = a->predicted_wait_ms;
    } else {
        e = event_of(a, RT_EV_LOST);
        e.fault_kills = a->fault_kills;
    }
    if (!rt_view_tell(f, a->loop, &e))
        return;
    if (a->end == RT_END_FINISHED)
        a->prompt_scores = NULL; /* moved */
    if (a->end == RT_END_FINISHED && a->peer != NULL)
        rt_link_send_attempt(f, a->peer, PB_FINACK, a->req, a->attempt, 0, 0);
    rt_att_free(f, a);
}

void rt_att_accept(struct rt_fleet *f, struct rt_att *a, uint32_t frame_seq)
{
    if (a->accepted)
        return;
    PS_ASSERT(a->peer != NULL);
    a->accepted = true;
    a->accept_epoch = a->peer->epoch;
    a->accept_seq = frame_seq;
    a->peer->n_accepted++;
    pb_submit_destroy(a->submit);
    a->submit = NULL;
    (void)tell_accept(f, a); /* without room: before its first tokens, or by the scan */
}

/* The attempt is over here; with `cancel` its worker may still run it and is told to stop. */
void rt_att_lost(struct rt_fleet *f, struct rt_att *a, bool fault_kills, bool cancel)
{
    struct rt_peer *p = a->peer;

    PS_ASSERT(p != NULL);
    if (cancel)
        rt_cancel_add(f, p, a->req, a->attempt, a->dispatch_seq);
    a->fault_kills = fault_kills && a->accepted;
    a->end = RT_END_LOST;
    leave_peer(f, a);
    ps_counter_add(f->count.lost, 1);
    tell_end(f, a);
}

/* ---- submit and cancel ---- */

static void send_submit(struct rt_fleet *f, struct rt_att *a)
{
    struct pb_msg m = {.submit = a->submit};

    PS_ASSERT(a->tries < RT_SUBMIT_TRIES);
    a->next_us = f->now_us + submit_wait_us[a->tries++];
    (void)rt_link_send_msg(f, a->peer, &m, PB_SUBMIT);
}

static void grow_slots(struct rt_loop_side *s, uint32_t slot)
{
    uint32_t n = s->n_slots > 0 ? s->n_slots : 256;

    while (n <= slot)
        n *= 2;
    if (n == s->n_slots)
        return;
    s->by_slot = ps_realloc(s->by_slot, n * sizeof(s->by_slot[0]));
    memset(s->by_slot + s->n_slots, 0, (n - s->n_slots) * sizeof(s->by_slot[0]));
    s->n_slots = n;
}

static bool too_long(const struct pb_submit *s)
{
    uint64_t n = (uint64_t)s->n_prompt + s->n_done + s->n_stop_ids + 2 * (uint64_t)s->n_bias;

    return n * 4 + 4096 > PB_SEND_MAX;
}

/* The loop uses the slot again, so it wants nothing more of what was there. */
static void supersede(struct rt_fleet *f, struct rt_att *a)
{
    if (a->peer != NULL)
        rt_cancel_add(f, a->peer, a->req, a->attempt, a->dispatch_seq);
    rt_att_free(f, a);
}

void rt_att_submit(struct rt_fleet *f, uint32_t loop, struct rt_cmd *c)
{
    struct rt_peer *p = c->worker < RT_MAX_WORKERS ? f->peers[c->worker] : NULL;
    struct rt_loop_side *side = &f->loops[loop];
    struct rt_att *a = ps_calloc(1, sizeof(*a));

    a->loop = loop;
    a->slot = RT_REQ_SLOT(c->submit->req);
    a->worker = c->worker;
    a->req = c->submit->req;
    a->attempt = c->submit->attempt;
    a->submit = c->submit;
    a->holds_resv = true;
    a->resv_tok = c->resv_tok;
    a->n_have = c->submit->n_done;
    PS_ASSERT(RT_REQ_LOOP(a->req) == loop);
    grow_slots(side, a->slot);
    if (side->by_slot[a->slot] != NULL)
        supersede(f, side->by_slot[a->slot]);
    side->by_slot[a->slot] = a;
    attn_add(f, a);
    if (p == NULL || p->epoch == 0) {
        a->end = RT_END_LOST;
        leave_peer(f, a);
        tell_end(f, a);
        return;
    }
    join_peer(a, p);
    a->dispatch_seq = c->submit->dispatch_seq = ++p->dispatch_seq;
    if (too_long(a->submit)) {
        a->end = RT_END_REJECTED;
        a->reject = PB_REJ_TOO_LONG;
        leave_peer(f, a);
        tell_end(f, a);
        return;
    }
    send_submit(f, a);
}

void rt_att_cancel(struct rt_fleet *f, uint32_t loop, uint64_t req, uint32_t attempt)
{
    struct rt_loop_side *s = &f->loops[loop];
    struct rt_att *a = rt_att_find(f, req);

    if (a != NULL && a->attempt == attempt)
        supersede(f, a);
    if (s->n_done == s->done_cap) {
        s->done_cap = s->done_cap > 0 ? 2 * s->done_cap : 64;
        s->done = ps_realloc(s->done, s->done_cap * sizeof(s->done[0]));
    }
    s->done[s->n_done++] = (struct rt_done){req, attempt};
}

/* ---- what a worker says ---- */

/* Asks for the tokens after n_have: go-back-n, at most every 20 ms, again while the gap lasts. */
void rt_att_ask_again(struct rt_fleet *f, struct rt_att *a)
{
    a->gap = true;
    attn_add(f, a);
    if (f->now_us < a->resend_next_us)
        return;
    a->resend_next_us = f->now_us + RT_RESEND_MIN_US;
    ps_counter_add(f->count.resends, 1);
    rt_link_send_attempt(f, a->peer, PB_RESEND, a->req, a->attempt, 0, a->n_have);
}

void rt_att_on_reject(struct rt_fleet *f, struct rt_peer *p, const struct pb_refusal *r)
{
    struct rt_att *a = rt_att_current(f, p, r->req, r->attempt);

    rt_link_send_attempt(f, p, PB_FINACK, r->req, r->attempt, 0, 0);
    if (a == NULL) {
        rt_cancel_del(p, r->req, r->attempt);
        return;
    }
    a->end = RT_END_REJECTED;
    a->reject = r->reason;
    a->predicted_wait_ms = r->predicted_wait_ms;
    leave_peer(f, a);
    tell_end(f, a);
}

void rt_att_on_finished(struct rt_fleet *f, struct rt_peer *p, struct pb_msg *m)
{
    struct pb_finished *fin = &m->finished;
    struct rt_att *a = rt_att_current(f, p, fin->req, fin->attempt);

    if (a == NULL) { /* nobody's: acknowledged, or it comes for 30 s */
        rt_cancel_del(p, fin->req, fin->attempt);
        rt_link_send_attempt(f, p, PB_FINACK, fin->req, fin->attempt, 0, 0);
        return;
    }
    rt_att_accept(f, a, m->head.seq);
    if (a->end == RT_END_FINISHED) { /* a repeat: what it waits for is asked by the scan */
        tell_end(f, a);
        return;
    }
    if (fin->reason == PB_FIN_CANCELLED || fin->n_total < a->n_have) {
        rt_link_send_attempt(f, p, PB_FINACK, fin->req, fin->attempt, 0, 0);
        rt_att_lost(f, a, false, false);
        return;
    }
    if (fin->n_prompt_scores > 0) {
        a->prompt_scores = ps_calloc(fin->n_prompt_scores, sizeof(*a->prompt_scores));
        if (!pb_logprobs_read(&fin->scores, a->prompt_scores, fin->n_prompt_scores)) {
            ps_free(a->prompt_scores); /* cannot be: decoding walked over it */
            a->prompt_scores = NULL;
            fin->n_prompt_scores = 0;
        }
    }
    a->fin = *fin;
    a->end = RT_END_FINISHED;
    if (a->n_have < fin->n_total)
        rt_att_ask_again(f, a);
    else
        tell_end(f, a);
}

/* The new part of a row in one allocation; NULL when an id is outside the vocabulary. */
static struct rt_tokens *take_tokens(const struct rt_peer *p, const struct pb_token_row *row,
                                     uint32_t n_skip)
{
    uint32_t n = row->n - n_skip;
    size_t lp_bytes = row->has_logprobs ? row->n * sizeof(struct pb_logprob) : 0;
    struct rt_tokens *t = ps_alloc(sizeof(*t) + lp_bytes + 4 * (size_t)n);
    struct pb_logprob *lps = (struct pb_logprob *)(void *)(t + 1);
    uint32_t *ids = (uint32_t *)(void *)((char *)(t + 1) + lp_bytes);
    struct pb_raw raw = row->logprobs;

    for (uint32_t i = 0; i < n; i++) {
        ids[i] = pb_load_u32(row->ids + 4 * (size_t)(n_skip + i));
        if (ids[i] >= p->info.n_vocab) {
            ps_free(t);
            return NULL;
        }
    }
    if (row->has_logprobs && !pb_logprobs_read(&raw, lps, row->n)) {
        ps_free(t);
        return NULL;
    }
    *t = (struct rt_tokens){n, ids, row->has_logprobs ? lps + n_skip : NULL};
    return t;
}

static void on_row(struct rt_fleet *f, struct rt_att *a, const struct pb_token_row *row)
{
    struct rt_event e = event_of(a, RT_EV_TOKENS);

    if (row->first > a->n_have) {
        rt_att_ask_again(f, a);
        return;
    }
    if (row->first + row->n <= a->n_have)
        return; /* an overlap: seen before */
    if (!tell_accept(f, a)) {
        rt_att_ask_again(f, a);
        return;
    }
    e.first = a->n_have;
    e.tokens = take_tokens(a->peer, row, a->n_have - row->first);
    if (e.tokens == NULL) {
        ps_counter_add(f->count.bad, 1);
        ps_warn("token outside the vocabulary", "worker=%u", a->worker);
        rt_att_lost(f, a, false, true);
        return;
    }
    if (!rt_view_tell(f, a->loop, &e)) {
        ps_free(e.tokens);
        rt_att_ask_again(f, a);
        return;
    }
    a->n_have = row->first + row->n;
    a->gap = false;
    if (a->end == RT_END_FINISHED && a->n_have > a->fin.n_total)
        rt_att_lost(f, a, false, true);
    else if (a->end == RT_END_FINISHED)
        tell_end(f, a);
}

void rt_att_on_tokens(struct rt_fleet *f, struct rt_peer *p, struct pb_msg *m)
{
    struct pb_token_row row;

    while (pb_tokens_next(&m->tokens, &row)) {
        struct rt_att *a = rt_att_current(f, p, row.req, row.attempt);

        if (a == NULL) { /* nobody's: it must not run on */
            rt_cancel_add(f, p, row.req, row.attempt, 0);
            continue;
        }
        rt_att_accept(f, a, m->head.seq);
        on_row(f, a, &row);
    }
}

/* A beat's load contains what was dispatched up to `applied`: the reservation has done its work. */
void rt_att_covered(struct rt_fleet *f, struct rt_peer *p, uint64_t applied, uint32_t frame_seq)
{
    for (struct rt_att *a = p->first; a != NULL; a = a->next) {
        if (!a->holds_resv || !a->accepted || a->dispatch_seq > applied)
            continue;
        if (a->accept_epoch == p->epoch && a->accept_seq > frame_seq)
            continue;
        rt_fleet_unreserve(f, a->worker, a->resv_tok);
        a->holds_resv = false;
    }
}

/* ---- time ---- */

static void scan_one(struct rt_fleet *f, struct rt_att *a)
{
    bool wants_more = a->gap || (a->end == RT_END_FINISHED && a->n_have < a->fin.n_total);

    if (end_is_ready(a)) {
        tell_end(f, a);
        return;
    }
    PS_ASSERT(a->peer != NULL);
    if (!a->accepted) {
        if (f->now_us < a->next_us)
            return;
        if (a->tries < RT_SUBMIT_TRIES)
            send_submit(f, a);
        else
            rt_att_lost(f, a, false, true); /* another worker may answer */
        return;
    }
    if (!tell_accept(f, a))
        return;
    if (wants_more && f->now_us + RT_RESEND_MIN_US >= a->resend_next_us + RT_RESEND_REPEAT_US)
        rt_att_ask_again(f, a);
    else if (!wants_more)
        attn_del(f, a);
}

void rt_att_scan(struct rt_fleet *f)
{
    struct rt_att *a = f->attn_first, *next;

    for (; a != NULL; a = next) {
        next = a->attn_next;
        scan_one(f, a);
    }
}

void rt_att_extend(struct rt_fleet *f, uint64_t gap_us)
{
    for (struct rt_att *a = f->attn_first; a != NULL; a = a->attn_next) {
        a->next_us += gap_us;
        a->resend_next_us += gap_us;
    }
}
