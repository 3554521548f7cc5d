#include "worker/sched/state.h"

#include "common/log.h"
#include "worker/sched/follow.h"

#include <errno.h>
#include <string.h>

void wk_step_release(struct wk_sched *s, struct wk_seq *q)
{
    PS_ASSERT(q->n_fly_steps == 0 && q->slot != WK_SEQ_NO_SLOT);
    q->n_fly_tok = 0;             /* a zombie's last tokens are dropped */
    if (q->state != WK_SEQ_FETCH) /* what it was promised there has not come */
        q->n_kv_most = ps_max_u32(q->n_kv_most, q->n_kv_done);
    wk_hold_release(s->store, q);
    s->free_slots[s->n_free_slots++] = q->slot;
    q->slot = WK_SEQ_NO_SLOT;
}

void wk_step_end_retiring(struct wk_sched *s, struct wk_seq *q)
{
    uint32_t i = 0;

    while (i < s->n_retiring && s->retiring[i] != q)
        i++;
    PS_ASSERT(i < s->n_retiring && q->n_fly_steps == 0);
    s->retiring[i] = s->retiring[--s->n_retiring];
    wk_step_release(s, q);
}

/* The last step that named a zombie or a suspended row is committed. */
static void retire(struct wk_sched *s, struct wk_seq *q)
{
    wk_step_end_retiring(s, q);
    if (q->state == WK_SEQ_DRAIN) {
        q->adm.drains = false;
        wk_seq_goto(q, WK_SEQ_PARKED);
        return;
    }
    wk_intake_forget(s, q);
}

static void keep_scores(struct wk_seq *q, uint32_t pos_lo, const struct wk_row_out *out)
{
    for (uint32_t i = 0; i < out->n_scores; i++) {
        uint32_t of = pos_lo + i + 1; /* a position scores the token after it */

        if (of < q->submit->n_prompt) {
            q->scores[of] = out->scores[i];
            q->n_scored = ps_max_u32(q->n_scored, of);
        }
    }
}

static void emit_token(struct wk_sched *s, struct wk_seq *q, const struct wk_row_out *out,
                       uint32_t flags)
{
    struct wk_out o = {.kind = WK_OUT_TOKEN, .handle = q->handle, .token = out->token};

    if (flags & WK_ROW_LOGPROBS) {
        o.logprob = ps_alloc(sizeof(*o.logprob));
        *o.logprob = out->logprob;
    }
    wk_outq_push(&s->outq, &o);
    s->stats.generated_tokens++;
}

/* The sampled token becomes part of the sequence. Returns why the answer ends, or 0. */
static int commit_token(struct wk_sched *s, struct wk_seq *q, const struct wk_row_out *out,
                        uint32_t flags)
{
    PS_ASSERT(q->n_fly_tok > 0);
    q->n_fly_tok--;
    wk_seq_push(q, out->token);
    emit_token(s, q, out, flags);
    if (s->conf.trace != NULL && wk_seq_n_out(q) == q->submit->n_done + 1)
        wk_trace_first_token(s->conf.trace, q->adm.ticket);
    if (q->state == WK_SEQ_RUN)
        wk_sched_phase(s, q, WK_PHASE_DECODE);
    wk_deadlines_remove(&s->deadlines, q);
    return wk_sample_stop(q->submit, &s->conf.eos, out->token, wk_seq_n_out(q),
                          ps_min_u32(s->conf.context, s->pool_tokens));
}

static void commit_row(struct wk_sched *s, const struct wk_flight *f, uint32_t i,
                       const struct wk_row_out *out)
{
    struct wk_seq *q = f->rows[i].q;
    uint32_t flags = f->rows[i].flags, kept = f->rows[i].kept;
    int end = 0;

    PS_ASSERT(q->n_fly_steps > 0 && out->slot == q->slot);
    q->n_fly_steps--;
    if (kept != WK_KV_NO_ITEM && (q->state == WK_SEQ_ZOMBIE || out->fault != 0))
        wk_hold_return(s->store, kept);
    if (q->state == WK_SEQ_ZOMBIE) {
        if (q->n_fly_steps == 0)
            retire(s, q);
        return;
    }
    PS_ASSERT(f->rows[i].pos_lo == q->n_kv_done);
    if (out->fault != 0) { /* NaN in its numbers: neither pages nor state are ever published */
        wk_intake_finish(s, q, PB_FIN_NUMERICAL, 0);
        return;
    }
    q->n_kv_done = f->rows[i].pos_hi;
    if (f->rows[i].copied)
        wk_hold_end_copy(s->store, q);
    if (flags & WK_ROW_PROMPT_SCORES)
        keep_scores(q, f->rows[i].pos_lo, out);
    if (flags & WK_ROW_LAST_CHUNK)
        end = q->prefill_only ? (int)q->end : commit_token(s, q, out, flags);
    wk_hold_publish(s->store, q, s->page_tokens, s->next_step - 1, &s->limbo);
    if (kept != WK_KV_NO_ITEM)
        s->stats.n_snapshots += wk_hold_keep(s->store, q, s->page_tokens, f->rows[i].pos_hi, kept);
    wk_seq_sync(q);
    if (end != 0)
        wk_intake_finish(s, q, (enum pb_finish)end,
                         q->prefill_only                                   ? q->end_id
                         : end == PB_FIN_STOP_EOS || end == PB_FIN_STOP_ID ? out->token
                                                                           : 0);
    else if (q->state == WK_SEQ_DRAIN && q->n_fly_steps == 0)
        retire(s, q);
}

static void trace_step(struct wk_sched *s, const struct wk_flight *f, uint32_t step_us)
{
    struct wk_trace_step t = {.ticket = f->ticket,
                              .step_us = step_us,
                              .n_fetching = s->n_fetching,
                              .tick_us = s->tick_us,
                              .store_us = s->store_us};

    for (uint32_t i = 0; i < f->n; i++)
        wk_step_work_add(&t.work, f->rows[i].pos_lo, f->rows[i].pos_hi - f->rows[i].pos_lo);
    wk_trace_step(s->conf.trace, &t);
    s->tick_us = s->store_us = 0;
}

static void commit(struct wk_sched *s, const struct wk_done *done)
{
    struct wk_flight *f = &s->flights[s->first_flight];

    PS_ASSERT(s->n_flights > 0 && done->ticket == f->ticket && done->n_row == f->n);
    if (s->conf.trace != NULL)
        trace_step(s, f, done->step_us);
    for (uint32_t i = 0; i < f->n; i++)
        commit_row(s, f, i, &done->row[i]);
    wk_limbo_drop(&s->limbo, s->store, done->ticket);
    wk_stats_step(&s->stats, done->step_us, f->load.n_prefill);
    wk_budget_learn(&s->budget, &f->load, done->step_us);
    s->first_flight = (s->first_flight + 1) % WK_SCHED_DEPTH_MAX;
    s->n_flights--;
}

int wk_step_commit_all(struct wk_sched *s)
{
    struct wk_exec *e = s->conf.exec;

    while (s->n_flights > 0) {
        struct wk_done done;
        int r = e->ops->poll(e, &done);

        if (r == WK_EXEC_E_NONE)
            return 0;
        if (r != WK_EXEC_OK)
            return r < 0 ? r : PS_FAULT(-EPROTO);
        if (done.fault != 0)
            return done.fault < 0 ? done.fault : PS_FAULT(-EIO);
        commit(s, &done);
    }
    return 0;
}

static uint32_t unshared(const struct wk_admit_row *r, void *ud)
{
    const struct wk_sched *s = ud;

    return wk_hold_unshared(s->store, PS_CONTAINER((uintptr_t)r, struct wk_seq, adm));
}

static void suspend(struct wk_sched *s, struct wk_seq *q)
{
    bool in_flight = q->n_fly_steps > 0;

    s->stats.n_preempted++;
    wk_sched_phase(s, q, WK_PHASE_SUSPENDED);
    wk_admit_suspend(&s->admit, &q->adm, in_flight);
    if (in_flight) {
        wk_seq_goto(q, WK_SEQ_DRAIN);
        s->retiring[s->n_retiring++] = q;
    } else {
        s->n_fetching -= q->state == WK_SEQ_FETCH;
        wk_step_release(s, q);
        wk_seq_goto(q, WK_SEQ_PARKED);
    }
}

static void relieve(struct wk_sched *s)
{
    for (;;) {
        uint64_t avail = wk_sched_n_avail(s) + (uint64_t)s->limbo.n;
        struct wk_admit_row *v;

        for (uint32_t i = 0; i < s->n_retiring; i++)
            avail += wk_hold_unshared(s->store, s->retiring[i]);
        if (!wk_admit_is_short(&s->admit, avail))
            return;
        v = wk_admit_victim(&s->admit, unshared, s);
        if (v == NULL)
            return;
        suspend(s, wk_seq_of(v));
    }
}

/* Every page is there: the row may be planned from now on. */
static void begin_running(struct wk_sched *s, struct wk_seq *q)
{
    q->adm.paused = false;
    wk_seq_goto(q, WK_SEQ_RUN);
    wk_sched_phase(s, q, WK_PHASE_PREFILL);
    if (q->was_admitted) {
        s->stats.resume_tokens += q->n_kv_most - ps_min_u32(q->n_kv_most, q->n_kv);
        return;
    }
    q->was_admitted = true;
    q->n_cached = ps_min_u32(q->n_kv, q->submit->n_prompt);
    s->stats.cached_tokens += q->n_cached;
}

/* Its fetch came to nothing: back into the queue, with its rank, to see what is left of the path. */
static void return_to_queue(struct wk_sched *s, struct wk_seq *q)
{
    q->n_fetch_failed++;
    wk_admit_return(&s->admit, &q->adm);
    wk_step_release(s, q);
    wk_seq_goto(q, q->was_admitted ? WK_SEQ_PARKED : WK_SEQ_WAIT);
    wk_sched_phase(s, q, q->was_admitted ? WK_PHASE_SUSPENDED : WK_PHASE_QUEUED);
}

void wk_step_fetched(struct wk_sched *s)
{
    static const enum wk_store_fetch fetch_result[] = {[WK_STORE_READY] = WK_STORE_FETCHED,
                                                       [WK_STORE_MOVING] = WK_STORE_FETCH_LATE,
                                                       [WK_STORE_GONE] = WK_STORE_FETCH_FAILED};
    uint64_t now = s->n_fetching > 0 ? ps_now_us(s->conf.clock) : 0;

    for (uint32_t i = s->admit.n_rows; i-- > 0 && s->n_fetching > 0;) {
        struct wk_seq *q = wk_seq_of(s->admit.rows[i]);
        enum wk_store_state state;

        if (q->state != WK_SEQ_FETCH)
            continue;
        state = wk_hold_fetched(s->store, q);
        if (state == WK_STORE_MOVING && now < q->fetch_until_us)
            continue;
        s->n_fetching--;
        wk_store_fetch_ended(s->store, fetch_result[state], now - q->fetch_begin_us);
        if (state == WK_STORE_READY)
            begin_running(s, q);
        else
            return_to_queue(s, q);
    }
}

/* True: it waits for the page its leader computes. The leader is looked at first: it costs nothing. */
static bool follows(struct wk_sched *s, struct wk_seq *q)
{
    struct wk_seq *leader = q->follow.on ? s->by_handle[q->follow.handle] : NULL;

    return wk_follow_goes_on(q, leader, s->page_tokens);
}

/* Does the offer fit beside everybody else? With a state: what it needs of group 1 is taken then. */
static bool fits(struct wk_sched *s, struct wk_seq *q, struct wk_hold_offer *o)
{
    struct wk_admit_row *r = &q->adm;
    uint32_t left = q->n_ids - o->n_kv;

    r->n_left = left > 1 ? left : 0;
    if (!wk_admit_fits(&s->admit, r, o->need, o->n_pages, wk_sched_n_avail(s)))
        return false;
    if (!wk_store_has_state(s->store))
        return true;
    if (!wk_hold_reserve(s->store, q, s->page_tokens, s->scratch, o))
        return false;
    /* Once more: an item of group 1 may have cost a slab that pages could have had. */
    if (wk_admit_fits(&s->admit, r, o->need, o->n_pages, wk_sched_n_avail(s)))
        return true;
    wk_hold_unreserve(s->store, q, s->scratch, o);
    return false;
}

static void admit(struct wk_sched *s)
{
    struct wk_admit_row *r = wk_admit_next(&s->admit);

    wk_follow_reset(&s->admit);
    wk_admit_set_chunk(&s->admit, wk_budget_steady(&s->budget));
    while (s->n_free_slots > 0 && r != NULL) {
        struct wk_seq *q = wk_seq_of(r);
        struct wk_hold_offer o;

        if (follows(s, q)) {
            r = wk_admit_behind(&s->admit, r);
            continue;
        }
        wk_hold_offer(s->store, q, s->page_tokens, s->scratch, &o);
        if (wk_follow_begin(&s->admit, q, o.n_use, o.n_kv, s->page_tokens,
                            wk_store_has_state(s->store))) {
            r = wk_admit_behind(&s->admit, r);
            continue;
        }
        while (!fits(s, q, &o)) {
            if (!wk_hold_offer_less(s->store, q, s->page_tokens, s->scratch, s->admit.n_rows == 0,
                                    &o))
                return;
        }
        wk_admit_enter(&s->admit, r);
        wk_hold_attach(s->store, q, s->page_tokens, &o, s->scratch);
        q->slot = s->free_slots[--s->n_free_slots];
        q->is_new_in_slot = true;
        q->adm.paused = true;
        wk_seq_goto(q, WK_SEQ_FETCH);
        s->stats.followed_tokens += wk_follow_end(q, o.n_kv);
        if (wk_hold_fetched(s->store, q) == WK_STORE_READY) {
            begin_running(s, q);
        } else {
            wk_sched_phase(s, q, WK_PHASE_FETCH);
            q->fetch_begin_us = ps_now_us(s->conf.clock);
            s->n_fetching++;
        }
        r = wk_admit_next(&s->admit);
    }
}

int wk_step_fill(struct wk_sched *s)
{
    struct wk_exec *e = s->conf.exec;

    while (s->n_flights < e->depth) {
        uint32_t at = (s->first_flight + s->n_flights) % WK_SCHED_DEPTH_MAX;
        const struct wk_plan *p;
        int r;

        relieve(s);
        admit(s);
        if (s->n_fetching > 0)
            wk_store_start(s->store); /* now: nothing rings for the next turn */
        p = wk_batch_build(&s->batch, &s->admit, s->next_step, &s->flights[at]);
        if (p == NULL) {
            /* The head can always run, or waits for its fetch, which has an end; and a row alone is
             * always admitted (admit.h 2, 3). But for what the store copies out of T0 just now. */
            PS_ASSERT(s->n_flights > 0 || s->n_fetching > 0 || wk_store_is_moving(s->store) ||
                      (s->admit.n_rows == 0 && s->admit.n_waiting == 0));
            return 0;
        }
        r = e->ops->enqueue(e, p);
        if (r != WK_EXEC_OK) /* full cannot be: the depth is known here */
            return r < 0 ? r : PS_FAULT(-EPROTO);
        s->next_step++;
        s->n_flights++;
    }
    return 0;
}
