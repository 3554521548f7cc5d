#include "worker/sched/state.h"

#include "common/log.h"

enum {
    BUSY_MS_MAX = 60000, /* a longer step is a hang, whatever the prediction says */
    IDLE_WAIT_MS = 1000, /* an idle worker still ticks once a second: a frozen tick is a hang */
    STUCK_WAIT_MS = 5,   /* the link's ring is full: it empties without telling */
    FETCH_WAIT_MS = 20,  /* pages that come ring; pages that do not come do not */
};

struct wk_sched *wk_sched_create(const struct wk_sched_conf *conf)
{
    struct wk_sched *s = ps_calloc(1, sizeof(*s));
    uint32_t n_slots = conf->exec->n_slots, n_pages = conf->exec->n_pages;

    /* Rows that are functions of the prefix, and beside them at most a state (hold.h). */
    PS_ASSERT(conf->layout->n_group <= WK_KV_N_GROUPS_MAX &&
              conf->layout->comp[0].shape == WK_KV_ROWS);
    PS_ASSERT(conf->layout->n_group == 1 || conf->layout->group[1].page_tokens == 0);
    if (conf->layout->n_group > 1) { /* a row alone: its state has a slab, its pages the others */
        uint32_t n_slab = wk_kv_pool_slab_items(wk_store_pool(conf->store), WK_KV_ROWS_GROUP);

        PS_ASSERT(n_pages > n_slab);
        n_pages -= n_slab;
    }
    PS_ASSERT(conf->exec->depth >= 1 && conf->exec->depth <= WK_SCHED_DEPTH_MAX);
    PS_ASSERT(conf->chunk > 0 && conf->chunk <= UINT16_MAX && conf->context > 0);
    s->conf = *conf;
    s->page_tokens = conf->layout->group[0].page_tokens;
    s->pool_tokens = (uint32_t)ps_min_u64((uint64_t)n_pages * s->page_tokens, UINT32_MAX / 2);
    s->next_step = 1;
    s->store = conf->store;
    wk_admit_init(&s->admit, &(struct wk_admit_conf){.reserve = conf->reserve,
                                                     .chunk = conf->chunk,
                                                     .page_tokens = s->page_tokens,
                                                     .n_fly = conf->exec->depth - 1,
                                                     .n_rows_max = n_slots});
    wk_budget_init(&s->budget, conf->chunk, conf->itl_us);
    s->batch = (struct wk_batch){.builder = wk_plan_builder_create(),
                                 .store = s->store,
                                 .budget = &s->budget,
                                 .grants = ps_calloc(n_slots, sizeof(uint32_t)),
                                 .eos = conf->eos,
                                 .page_tokens = s->page_tokens};
    s->scratch = ps_calloc(conf->exec->n_pages, sizeof(*s->scratch));
    for (uint32_t i = 0; i < WK_SCHED_DEPTH_MAX; i++)
        s->flights[i].rows = ps_calloc(n_slots, sizeof(*s->flights[i].rows));
    s->retiring = ps_calloc(n_slots, sizeof(struct wk_seq *));
    s->free_slots = ps_calloc(n_slots, sizeof(*s->free_slots));
    while (s->n_free_slots < n_slots) {
        s->free_slots[s->n_free_slots] = n_slots - 1 - s->n_free_slots;
        s->n_free_slots++;
    }
    return s;
}

/* Nothing is in flight any more, whatever the books say. */
static void abandon_all(struct wk_sched *s)
{
    uint32_t i = 0;

    while (s->n_flights > 0) {
        const struct wk_flight *f =
            &s->flights[(s->first_flight + --s->n_flights) % WK_SCHED_DEPTH_MAX];

        for (uint32_t k = 0; k < f->n; k++) {
            if (f->rows[k].kept != WK_KV_NO_ITEM)
                wk_hold_return(s->store, f->rows[k].kept);
        }
    }
    wk_limbo_drop(&s->limbo, s->store, UINT64_MAX);
    while (i < s->n_handles || s->n_retiring > 0) {
        struct wk_seq *q = s->n_retiring > 0 ? s->retiring[--s->n_retiring] : s->by_handle[i++];

        if (q == NULL)
            continue;
        if (s->by_handle[q->handle] == q)
            s->by_handle[q->handle] = NULL;
        wk_deadlines_remove(&s->deadlines, q);
        q->n_fly_steps = q->n_fly_tok = 0;
        q->n_kv = q->n_kv_done;
        wk_admit_remove(&s->admit, &q->adm);
        if (q->slot != WK_SEQ_NO_SLOT)
            wk_step_release(s, q);
        wk_store_probe_end(s->store, q->probe);
        q->probe = NULL;
        wk_seq_goto(q, WK_SEQ_DONE);
        wk_seq_destroy(q);
        s->n_live--;
    }
    PS_ASSERT(s->n_live == 0);
}

void wk_sched_destroy(struct wk_sched *s)
{
    if (s == NULL)
        return;
    abandon_all(s);
    wk_outq_fini(&s->outq);
    wk_limbo_fini(&s->limbo);
    wk_admit_fini(&s->admit);
    wk_plan_builder_destroy(s->batch.builder);
    wk_deadlines_fini(&s->deadlines);
    ps_free(s->batch.grants);
    for (uint32_t i = 0; i < WK_SCHED_DEPTH_MAX; i++)
        ps_free(s->flights[i].rows);
    ps_free(s->scratch);
    ps_free(s->by_handle);
    ps_free(s->probing);
    ps_free(s->retiring);
    ps_free(s->free_slots);
    ps_free(s);
}

void wk_sched_drain(struct wk_sched *s, bool on)
{
    if (s->draining != on)
        ps_info(on ? "draining" : "taking requests again", "n_live=%u", s->n_live);
    s->draining = on;
    s->drained_told = false;
}

bool wk_sched_is_idle(const struct wk_sched *s)
{
    return s->n_live == 0 && wk_outq_is_empty(&s->outq);
}

uint32_t wk_sched_n_avail(const struct wk_sched *s)
{
    return wk_kv_tree_n_avail(wk_store_tree(s->store), WK_KV_T0, WK_KV_ROWS_GROUP);
}

void wk_sched_load(struct wk_sched *s, struct pb_load *out)
{
    const struct wk_kv_tree *t = wk_store_tree(s->store);

    *out = (struct pb_load){
        .n_running = s->admit.n_rows,
        .n_group = s->conf.layout->n_group,
        .prompt_tokens = s->stats.prompt_tokens,
        .generated_tokens = s->stats.generated_tokens,
        .cached_tokens = s->stats.cached_tokens,
        .followed_tokens = s->stats.followed_tokens,
        .resume_tokens = s->stats.resume_tokens,
        .n_preempted = s->stats.n_preempted,
        .n_finished = s->stats.n_finished,
        .rss_bytes = wk_stats_rss(&s->stats, ps_now_us(s->conf.clock)),
        .step_us_mean = (uint32_t)s->stats.step_us,
        .prefill_tok_per_s = (uint32_t)s->stats.prefill_tok_per_s,
        .busy_ms = (uint32_t)ps_min_u64(wk_budget_longest_us(&s->budget) / 1000, BUSY_MS_MAX),
    };
    for (uint32_t i = 0; i < s->admit.n_rows; i++)
        out->n_prefill_pending += s->admit.rows[i]->n_left;
    for (const struct wk_admit_row *r = s->admit.first; r != NULL; r = r->next) {
        out->n_prefill_pending += r->len;
        if (r->n_suspends > 0)
            out->n_suspended++;
        else
            out->n_waiting++;
    }
    for (uint32_t g = 0; g < out->n_group; g++) {
        uint32_t n_total = wk_kv_tree_n_total(t, WK_KV_T0, g);
        uint32_t n_free = wk_kv_tree_n_free(t, WK_KV_T0, g);
        uint32_t n_avail = wk_kv_tree_n_avail(t, WK_KV_T0, g);

        out->group[g] = (struct pb_kv_group){.n_total = n_total,
                                             .n_free = n_free,
                                             .n_evictable = n_avail - n_free,
                                             .n_pinned = n_total - n_avail,
                                             .n_suspended = out->n_suspended};
    }
    out->group[WK_KV_ROWS_GROUP].n_growth = wk_admit_growth(&s->admit);
}

/* Everything this tick produced goes out as one message per router. */
static void emit(struct wk_sched *s)
{
    struct wk_out end = {.kind = WK_OUT_STEP_END}, drained = {.kind = WK_OUT_DRAINED};

    if (s->outq.n_pushed != s->n_emitted)
        wk_outq_push(&s->outq, &end);
    if (s->draining && s->n_live == 0 && !s->drained_told) {
        wk_outq_push(&s->outq, &drained);
        s->drained_told = true;
    }
    s->n_emitted = s->outq.n_pushed;
    wk_outq_flush(&s->outq, &s->conf.port);
}

/* Nothing but a wake or the first deadline needs another tick. */
static uint32_t wait_ms(const struct wk_sched *s)
{
    const struct wk_seq *q = wk_deadlines_first(&s->deadlines);
    uint64_t now;

    if (!wk_outq_is_empty(&s->outq))
        return STUCK_WAIT_MS;
    if (s->n_fetching > 0 || s->n_probing > 0)
        return FETCH_WAIT_MS;
    if (q == NULL)
        return IDLE_WAIT_MS;
    now = ps_now_us(s->conf.clock);
    return q->deadline_us <= now
               ? 0
               : (uint32_t)ps_min_u64(ps_div_up_u64(q->deadline_us - now, 1000), IDLE_WAIT_MS);
}

static uint64_t trace_now(const struct wk_sched *s)
{
    return s->conf.trace != NULL ? ps_now_us(s->conf.clock) : 0;
}

static void trace_turn(const struct wk_sched *s, uint32_t *longest_us, uint64_t begin_us)
{
    *longest_us = ps_max_u32(*longest_us, (uint32_t)(trace_now(s) - begin_us));
}

int wk_sched_tick(struct wk_sched *s, uint32_t *out_wait_ms)
{
    uint64_t begin_us = trace_now(s), store_us;
    bool more, stuck = !wk_outq_flush(&s->outq, &s->conf.port); /* of earlier ticks */
    int r;

    s->tick++;
    wk_intake_drain(s);
    r = wk_step_commit_all(s);
    if (r < 0)
        return r;
    wk_intake_deadlines(s);
    wk_store_set_prefill_rate(s->store, s->stats.prefill_tok_per_s);
    store_us = trace_now(s);
    more = wk_store_tick(s->store);
    trace_turn(s, &s->store_us, store_us);
    wk_intake_probed(s);
    wk_step_fetched(s);
    if (!stuck) {
        r = wk_step_fill(s);
        if (r < 0)
            return r;
    }
    emit(s);
    wk_sched_load(s, &s->load);
    if (s->conf.trace != NULL)
        wk_trace_load(s->conf.trace, &s->load);
    s->conf.port.set_load(s->conf.port.ud, &s->load, s->tick);
    wk_tell_kv(s);
    *out_wait_ms = more ? 1 : wait_ms(s);
    trace_turn(s, &s->tick_us, begin_us);
    return 0;
}
