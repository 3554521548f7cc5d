#include "worker/sched/state.h"

#include "common/log.h"

#include <errno.h>
#include <string.h>

void wk_step_release(struct wk_sched *s, struct wk_seq *q)
{
    PS_ASSERT(q->n_fly_steps == 0 && q->slot != WK_SEQ_NO_SLOT);
    q->n_fly_tok = 0; /* a zombie's last tokens are dropped */
    wk_hold_release(s->tree, q);
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
    return wk_sample_stop(q->submit, &s->conf.eos, out->token, wk_seq_n_out(q),
                          ps_min_u32(s->conf.context, s->pool_tokens));
}

static void commit_row(struct wk_sched *s, const struct wk_flight *f, uint32_t i,
                       const struct wk_row_out *out)
{
    struct wk_seq *q = f->rows[i].q;
    uint32_t flags = f->rows[i].flags;
    int end = 0;

    PS_ASSERT(q->n_fly_steps > 0 && out->slot == q->slot);
    q->n_fly_steps--;
    if (q->state == WK_SEQ_ZOMBIE) {
        if (q->n_fly_steps == 0)
            retire(s, q);
        return;
    }
    PS_ASSERT(f->rows[i].pos_lo == q->n_kv_done);
    if (out->fault != 0) { /* NaN in its numbers: its pages are never published */
        wk_intake_finish(s, q, PB_FIN_NUMERICAL, 0);
        return;
    }
    q->n_kv_done = f->rows[i].pos_hi;
    if (f->rows[i].copied)
        wk_hold_end_copy(s->tree, q);
    if (flags & WK_ROW_PROMPT_SCORES)
        keep_scores(q, f->rows[i].pos_lo, out);
    if (flags & WK_ROW_LAST_CHUNK)
        end = q->prefill_only ? (int)q->end : commit_token(s, q, out, flags);
    wk_hold_publish(s->tree, q, s->page_tokens, s->next_step - 1, &s->limbo);
    wk_seq_sync(q);
    if (end != 0)
        wk_intake_finish(s, q, (enum pb_finish)end,
                         q->prefill_only                                   ? q->end_id
                         : end == PB_FIN_STOP_EOS || end == PB_FIN_STOP_ID ? out->token
                                                                           : 0);
    else if (q->state == WK_SEQ_DRAIN && q->n_fly_steps == 0)
        retire(s, q);
}

static void commit(struct wk_sched *s, const struct wk_done *done)
{
    struct wk_flight *f = &s->flights[s->first_flight];

    PS_ASSERT(s->n_flights > 0 && done->ticket == f->ticket && done->n_row == f->n);
    for (uint32_t i = 0; i < f->n; i++)
        commit_row(s, f, i, &done->row[i]);
    wk_limbo_drop(&s->limbo, s->tree, done->ticket);
    wk_stats_step(&s->stats, done->step_us, f->n_prefill);
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

    return wk_hold_unshared(s->tree, PS_CONTAINER((uintptr_t)r, struct wk_seq, adm));
}

static void suspend(struct wk_sched *s, struct wk_seq *q)
{
    bool in_flight = q->n_fly_steps > 0;

    s->stats.n_preempted++;
    wk_admit_suspend(&s->admit, &q->adm, in_flight);
    if (in_flight) {
        wk_seq_goto(q, WK_SEQ_DRAIN);
        s->retiring[s->n_retiring++] = q;
    } else {
        wk_step_release(s, q);
        wk_seq_goto(q, WK_SEQ_PARKED);
    }
}

static void relieve(struct wk_sched *s)
{
    for (;;) {
        uint64_t avail = (uint64_t)wk_kv_tree_n_avail(s->tree) + s->limbo.n;
        struct wk_admit_row *v;

        for (uint32_t i = 0; i < s->n_retiring; i++)
            avail += wk_hold_unshared(s->tree, s->retiring[i]);
        if (!wk_admit_is_short(&s->admit, avail))
            return;
        v = wk_admit_victim(&s->admit, unshared, s);
        if (v == NULL)
            return;
        suspend(s, wk_seq_of(v));
    }
}

static void admit(struct wk_sched *s)
{
    struct wk_admit_row *r;

    while (s->n_free_slots > 0 && (r = wk_admit_next(&s->admit)) != NULL) {
        struct wk_seq *q = wk_seq_of(r);
        struct wk_hold_offer o;
        uint64_t avail = wk_kv_tree_n_avail(s->tree);

        wk_hold_offer(s->tree, q, s->page_tokens, s->scratch, &o);
        for (;;) {
            uint32_t left = q->n_ids - o.n_kv;

            r->n_left = left > 1 ? left : 0;
            if (wk_admit_fits(&s->admit, r, o.need, o.n_pages, avail))
                break;
            if (o.match.n_tail == 0)
                return;
            wk_hold_offer_no_tail(q, s->page_tokens, &o);
        }
        wk_admit_enter(&s->admit, r);
        wk_hold_attach(s->tree, q, &o, s->scratch);
        wk_seq_goto(q, WK_SEQ_RUN);
        q->slot = s->free_slots[--s->n_free_slots];
        if (!q->was_admitted) {
            q->was_admitted = true;
            q->n_cached = ps_min_u32(o.n_kv, q->submit->n_prompt);
            s->stats.cached_tokens += q->n_cached;
        }
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
        p = wk_batch_build(&s->batch, &s->admit, s->next_step, &s->flights[at]);
        if (p == NULL) {
            /* The head can always run, and a row alone is always admitted (admit.h 2, 3). */
            PS_ASSERT(s->n_flights > 0 || (s->admit.n_rows == 0 && s->admit.n_waiting == 0));
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
