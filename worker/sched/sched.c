#include "worker/sched/state.h"

#include "common/log.h"

enum {
    IDLE_WAIT_MS = 1000, /* an idle worker still ticks once a second: a frozen tick is a hang */
    STUCK_WAIT_MS = 5,   /* the link's ring is full: it empties without telling */
    DEADLINE_WAIT_MS = 50,
};

struct wk_sched *wk_sched_create(const struct wk_sched_conf *conf)
{
    struct wk_sched *s = ps_calloc(1, sizeof(*s));
    uint32_t n_slots = conf->exec->n_slots, n_pages = conf->exec->n_pages;

    /* Rows that are functions of the prefix: the only kind of cache the families here have. */
    PS_ASSERT(conf->layout->n_group == 1 && conf->layout->comp[0].shape == WK_KV_ROWS);
    PS_ASSERT(conf->exec->depth >= 1 && conf->exec->depth <= WK_SCHED_DEPTH_MAX);
    PS_ASSERT(conf->chunk > 0 && conf->chunk <= UINT16_MAX && conf->context > 0);
    s->conf = *conf;
    s->page_tokens = conf->layout->group[0].page_tokens;
    s->pool_tokens = (uint32_t)ps_min_u64((uint64_t)n_pages * s->page_tokens, UINT32_MAX / 2);
    s->next_step = 1;
    s->pool = wk_kv_pool_create(conf->layout, n_pages);
    s->tree = wk_kv_tree_create(s->pool, s->page_tokens);
    wk_admit_init(&s->admit, &(struct wk_admit_conf){.reserve = conf->reserve,
                                                     .chunk = conf->chunk,
                                                     .page_tokens = s->page_tokens,
                                                     .n_fly = conf->exec->depth - 1,
                                                     .n_rows_max = n_slots});
    s->batch = (struct wk_batch){.builder = wk_plan_builder_create(),
                                 .tree = s->tree,
                                 .eos = conf->eos,
                                 .page_tokens = s->page_tokens,
                                 .chunk = conf->chunk};
    s->scratch = ps_calloc(n_pages, sizeof(*s->scratch));
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

    s->n_flights = 0;
    wk_limbo_drop(&s->limbo, s->tree, UINT64_MAX);
    while (i < s->n_handles || s->n_retiring > 0) {
        struct wk_seq *q = s->n_retiring > 0 ? s->retiring[--s->n_retiring] : s->by_handle[i++];

        if (q == NULL)
            continue;
        if (s->by_handle[q->handle] == q)
            s->by_handle[q->handle] = NULL;
        q->n_fly_steps = q->n_fly_tok = 0;
        q->n_kv = q->n_kv_done;
        wk_admit_remove(&s->admit, &q->adm);
        if (q->slot != WK_SEQ_NO_SLOT)
            wk_step_release(s, q);
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
    PS_ASSERT(wk_kv_tree_n_avail(s->tree) == wk_kv_tree_n_total(s->tree)); /* nothing leaked */
    wk_kv_tree_destroy(s->tree);
    wk_kv_pool_destroy(s->pool);
    wk_plan_builder_destroy(s->batch.builder);
    for (uint32_t i = 0; i < WK_SCHED_DEPTH_MAX; i++)
        ps_free(s->flights[i].rows);
    ps_free(s->scratch);
    ps_free(s->by_handle);
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

void wk_sched_load(struct wk_sched *s, struct pb_load *out)
{
    uint32_t n_free = wk_kv_tree_n_free(s->tree), n_evictable = wk_kv_tree_n_evictable(s->tree);

    *out = (struct pb_load){
        .n_running = s->admit.n_rows,
        .kv_total = wk_kv_tree_n_total(s->tree),
        .kv_free = n_free,
        .kv_evictable = n_evictable,
        .kv_pinned = wk_kv_tree_n_total(s->tree) - n_free - n_evictable,
        .kv_growth = wk_admit_growth(&s->admit),
        .prompt_tokens = s->stats.prompt_tokens,
        .generated_tokens = s->stats.generated_tokens,
        .cached_tokens = s->stats.cached_tokens,
        .n_preempted = s->stats.n_preempted,
        .n_finished = s->stats.n_finished,
        .rss_bytes = wk_stats_rss(&s->stats, ps_now_us(s->conf.clock)),
        .step_us_mean = (uint32_t)s->stats.step_us,
        .prefill_tok_per_s = (uint32_t)s->stats.prefill_tok_per_s,
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
    wk_outq_flush(&s->outq, s->conf.link);
}

int wk_sched_tick(struct wk_sched *s, uint32_t *out_wait_ms)
{
    struct pb_load load;
    bool stuck = !wk_outq_flush(&s->outq, s->conf.link); /* of earlier ticks */
    int r;

    s->tick++;
    wk_intake_drain(s);
    r = wk_step_commit_all(s);
    if (r < 0)
        return r;
    wk_intake_deadlines(s);
    if (!stuck) {
        r = wk_step_fill(s);
        if (r < 0)
            return r;
    }
    emit(s);
    wk_sched_load(s, &load);
    wk_link_set_load(s->conf.link, &load, s->tick);
    *out_wait_ms = !wk_outq_is_empty(&s->outq) ? STUCK_WAIT_MS
                   : s->n_deadlines > 0        ? DEADLINE_WAIT_MS
                                               : IDLE_WAIT_MS;
    return 0;
}
