#include "worker/sched/state.h"

#include <string.h>

/* Handles are small indices of the link; a larger one is a bug there. */
enum { HANDLES_MAX = 1 << 20 };

static void set_handle(struct wk_sched *s, uint32_t handle, struct wk_seq *q)
{
    PS_ASSERT(handle < HANDLES_MAX);
    if (handle >= s->n_handles) {
        uint32_t n = ps_max_u32(handle + 1, s->n_handles * 2);

        s->by_handle = ps_realloc(s->by_handle, n * sizeof(*s->by_handle));
        memset(s->by_handle + s->n_handles, 0, (n - s->n_handles) * sizeof(*s->by_handle));
        s->n_handles = n;
    }
    s->by_handle[handle] = q;
}

void wk_intake_forget(struct wk_sched *s, struct wk_seq *q)
{
    wk_seq_goto(q, WK_SEQ_DONE);
    s->n_live--;
    wk_seq_destroy(q);
}

static void answer(struct wk_sched *s, struct wk_seq *q, enum pb_finish why, uint32_t matched_id)
{
    struct wk_out o = {.kind = WK_OUT_FINISHED,
                       .handle = q->handle,
                       .finish = why,
                       .matched_id = matched_id,
                       .n_cached = q->n_cached};
    bool complete = q->scores != NULL && !wk_seq_needs_scores(q);

    if (complete && why != PB_FIN_CANCELLED) {
        o.n_prompt_scores = q->submit->n_prompt;
        o.prompt_scores = q->scores;
        q->scores = NULL;
    }
    PS_ASSERT(s->by_handle[q->handle] == q);
    s->by_handle[q->handle] = NULL;
    s->stats.n_finished++;
    wk_sched_phase(s, q, WK_PHASE_NONE);
    wk_stats_left(&s->stats, ps_now_us(s->conf.clock), s->admit.n_waiting > 0);
    wk_deadlines_remove(&s->deadlines, q);
    wk_outq_push(&s->outq, &o);
}

/* Asks T3 and the peers for what the tree does not know of a prompt. True: wait for the answer. */
static bool begin_probing(struct wk_sched *s, struct wk_seq *q)
{
    if (wk_seq_needs_scores(q))
        return false; /* it reads no cache */
    wk_hold_hash(s->store, q, s->page_tokens);
    q->probe = wk_store_probe(s->store, q->submit->chain_seed, q->ids, q->n_ids, q->hashes);
    if (q->probe == NULL)
        return false;
    if (s->n_probing == s->cap_probing) {
        s->cap_probing = ps_max_u32(16, s->cap_probing * 2);
        s->probing = ps_realloc(s->probing, s->cap_probing * sizeof(struct wk_seq *));
    }
    s->probing[s->n_probing++] = q;
    return true;
}

static void stop_probing(struct wk_sched *s, struct wk_seq *q)
{
    uint32_t i = 0;

    while (i < s->n_probing && s->probing[i] != q)
        i++;
    PS_ASSERT(i < s->n_probing);
    s->probing[i] = s->probing[--s->n_probing];
    wk_store_probe_end(s->store, q->probe);
    q->probe = NULL;
}

void wk_intake_probed(struct wk_sched *s)
{
    for (uint32_t i = s->n_probing; i-- > 0;) {
        struct wk_seq *q = s->probing[i];

        if (!wk_store_probe_is_over(q->probe))
            continue;
        stop_probing(s, q);
        wk_admit_push(&s->admit, &q->adm);
    }
}

void wk_intake_finish(struct wk_sched *s, struct wk_seq *q, enum pb_finish why, uint32_t matched_id)
{
    bool was_retiring = q->state == WK_SEQ_DRAIN;

    PS_ASSERT(q->state != WK_SEQ_ZOMBIE && q->state != WK_SEQ_DONE);
    answer(s, q, why, matched_id);
    s->n_fetching -= q->state == WK_SEQ_FETCH;
    if (q->probe != NULL)
        stop_probing(s, q);
    wk_admit_remove(&s->admit, &q->adm);
    q->adm.drains = false;
    if (q->n_fly_steps > 0) {
        wk_seq_goto(q, WK_SEQ_ZOMBIE);
        if (!was_retiring)
            s->retiring[s->n_retiring++] = q;
        return;
    }
    if (was_retiring) /* it was suspended, and its last step in flight brought its end */
        wk_step_end_retiring(s, q);
    else if (q->state == WK_SEQ_RUN || q->state == WK_SEQ_FETCH)
        wk_step_release(s, q);
    wk_intake_forget(s, q);
}

static void reject(struct wk_sched *s, uint32_t handle, enum pb_reject why)
{
    struct wk_out o = {.kind = WK_OUT_REJECTED, .handle = handle, .reject = why};

    if (why == PB_REJ_FULL)
        o.predicted_wait_ms =
            wk_stats_wait_ms(&s->stats, s->admit.n_waiting, s->load.n_prefill_pending);

    wk_outq_push(&s->outq, &o);
}

/* 0, or why this worker can never (or not now) serve it. */
static int refusal(const struct wk_sched *s, const struct pb_submit *m)
{
    uint64_t n_ids = (uint64_t)m->n_prompt + m->n_done;
    uint64_t end = ps_min_u64((uint64_t)m->n_prompt + m->max_tokens, s->conf.context);

    if (s->draining)
        return PB_REJ_DRAINING;
    if (m->n_prompt == 0 || n_ids > s->conf.context)
        return PB_REJ_BAD;
    if (m->max_tokens != PB_NO_LIMIT && end > s->pool_tokens)
        return PB_REJ_TOO_LONG;
    if (m->max_tokens == PB_NO_LIMIT && ps_min_u64(n_ids + 1, s->conf.context) > s->pool_tokens)
        return PB_REJ_TOO_LONG;
    if (s->admit.n_waiting + (uint64_t)s->n_probing >=
        (uint64_t)s->conf.max_waiting + s->n_free_slots)
        return PB_REJ_FULL;
    return 0;
}

/*
 * Why the answer is over before a step has run, or 0: the tokens that earlier attempts emitted end
 * it (their worker died before it could say so), nothing may be generated, or the context is full.
 */
static int end_at_start(const struct wk_sched *s, const struct wk_seq *q, uint32_t *out_id)
{
    const struct pb_submit *m = q->submit;
    uint32_t len_max = ps_min_u32(s->conf.context, s->pool_tokens), last = q->ids[q->n_ids - 1];
    int why;

    *out_id = 0;
    if (m->n_done > 0) {
        why = wk_sample_stop(m, &s->conf.eos, last, m->n_done, len_max);
        if (why == PB_FIN_STOP_EOS || why == PB_FIN_STOP_ID)
            *out_id = last;
        return why;
    }
    if (m->max_tokens == 0)
        return PB_FIN_LENGTH;
    return m->n_prompt >= len_max ? PB_FIN_CONTEXT : 0;
}

static void open_request(struct wk_sched *s, struct wk_in *in)
{
    struct pb_submit *m = in->submit;
    int why = refusal(s, m), end;
    uint32_t len_max = ps_min_u32(s->conf.context, s->pool_tokens), end_id;
    struct wk_seq *q;

    if (why != 0) {
        pb_submit_destroy(m);
        reject(s, in->handle, (enum pb_reject)why);
        return;
    }
    PS_ASSERT(in->handle >= s->n_handles || s->by_handle[in->handle] == NULL);
    q = wk_seq_create(m, in->handle, s->next_request++);
    set_handle(s, in->handle, q);
    s->n_live++;
    if (m->deadline_ms > 0 && m->n_done == 0)
        wk_deadlines_add(&s->deadlines, q,
                         ps_now_us(s->conf.clock) + (uint64_t)m->deadline_ms * 1000);
    s->stats.prompt_tokens += m->n_prompt;
    if (s->conf.trace != NULL)
        wk_trace_open(s->conf.trace, q->adm.ticket, m);
    wk_sched_phase(s, q, WK_PHASE_QUEUED);
    q->adm.hard = (uint32_t)ps_min_u64((uint64_t)m->n_prompt + m->max_tokens, len_max);
    end = end_at_start(s, q, &end_id);
    if (end != 0) {
        /* Nothing to generate. The prompt is still computed for its scores, or to warm the cache. */
        bool warm = m->max_tokens == 0 && m->n_done == 0;

        if (!warm && q->scores == NULL) {
            wk_intake_finish(s, q, (enum pb_finish)end, end_id);
            return;
        }
        q->prefill_only = true;
        q->end = (enum pb_finish)end;
        q->end_id = end_id;
        q->n_ids = q->adm.hard = m->n_prompt;
        wk_seq_sync(q);
    }
    if (!begin_probing(s, q))
        wk_admit_push(&s->admit, &q->adm);
}

void wk_intake_drain(struct wk_sched *s)
{
    struct wk_in in;

    while (s->conf.port.pop(s->conf.port.ud, &in)) {
        switch (in.kind) {
        case WK_IN_OPEN:
            open_request(s, &in);
            break;
        case WK_IN_CANCEL: /* it may have been answered while the cancel was on its way */
            if (in.handle < s->n_handles && s->by_handle[in.handle] != NULL)
                wk_intake_finish(s, s->by_handle[in.handle], PB_FIN_CANCELLED, 0);
            break;
        case WK_IN_DRAIN:
            wk_sched_drain(s, true);
            break;
        case WK_IN_UNDRAIN:
            wk_sched_drain(s, false);
            break;
        case WK_IN_FLUSH:
            wk_store_flush(s->store);
            break;
        }
    }
}

/* Nobody waits any longer for a request whose deadline passed without a token. */
void wk_intake_deadlines(struct wk_sched *s)
{
    uint64_t now = s->deadlines.n > 0 ? ps_now_us(s->conf.clock) : 0;
    struct wk_seq *q;

    while ((q = wk_deadlines_first(&s->deadlines)) != NULL && now >= q->deadline_us)
        wk_intake_finish(s, q, PB_FIN_CANCELLED, 0);
}
