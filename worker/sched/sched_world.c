#include "worker/sched/sched_world.h"

#include "common/hash.h"
#include "common/rng.h"

static const uint32_t eos_ids[1] = {EOS};

/* ---- the model ---- */

static uint64_t mix(uint64_t h, const void *p, size_t n)
{
    return ps_hash64(p, n, h);
}

static bool is_banned(uint32_t id, const uint32_t *ban, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        if (ban[i] == id)
            return true;
    }
    return false;
}

static uint32_t model_next(const uint32_t *ids, uint32_t n, const struct pb_sampling *p,
                           const uint32_t *bias_ids, const float *bias, uint32_t n_bias,
                           const uint32_t *ban, uint32_t n_ban)
{
    uint64_t h = mix(p->seed, ids, n * sizeof(*ids));

    h = mix(h, bias_ids, n_bias * sizeof(*bias_ids));
    h = mix(h, bias, n_bias * sizeof(*bias));
    h = mix(h, &p->frequency_penalty, sizeof(p->frequency_penalty));
    while (is_banned((uint32_t)(h % VOCAB), ban, n_ban))
        h = mix(h, &h, sizeof(h));
    return (uint32_t)(h % VOCAB);
}

static float model_score(const uint32_t *ids, uint32_t n, uint32_t next)
{
    return (float)(mix(next, ids, n * sizeof(*ids)) % 4096);
}

/* ---- the executor ---- */

static int fake_enqueue(struct wk_exec *e, const struct wk_plan *p)
{
    struct fake_exec *f = (struct fake_exec *)e;

    if (f->n == e->depth)
        return WK_EXEC_E_FULL;
    assert_true(p->n_row <= e->n_slots && p->n_tok <= e->n_slots + f->chunk);
    f->plans[(f->first + f->n) % 2] = ps_alloc(p->bytes);
    memcpy(f->plans[(f->first + f->n) % 2], p, p->bytes);
    f->n++;
    return WK_EXEC_OK;
}

static uint32_t *cell(struct fake_exec *f, const struct wk_plan *p, uint32_t row, uint32_t pos)
{
    uint32_t page;

    assert_true(pos / PT < p->table_stride);
    page = wk_plan_table(p)[row * p->table_stride + pos / PT];
    assert_true(page < f->base.n_pages);
    return &f->content[page][pos % PT];
}

static void fake_write(struct fake_exec *f, const struct wk_plan *p, uint32_t i)
{
    const struct wk_row *r = &wk_plan_rows(p)[i];
    const uint32_t *toks = wk_plan_toks(p) + r->tok_off;

    assert_int_equal(r->pos_lo + r->n_q, r->pos_hi);
    for (uint32_t k = 0; k < r->n_q; k++) {
        uint32_t tok = r->flags & WK_ROW_TOK_FROM_SLOT ? f->last[r->slot] : toks[k];

        if (r->flags & WK_ROW_NO_KV_WRITE) {
            f->n_no_write++;
            assert_int_equal(*cell(f, p, i, r->pos_lo + k), tok);
        }
        *cell(f, p, i, r->pos_lo + k) = tok;
    }
    f->n_from_slot += (r->flags & WK_ROW_TOK_FROM_SLOT) != 0;
}

static void fake_read(struct fake_exec *f, const struct wk_plan *p, uint32_t i)
{
    const struct wk_row *r = &wk_plan_rows(p)[i];
    const struct wk_samp *s = &wk_plan_samps(p)[r->samp];
    const uint32_t *pool = wk_plan_pool(p);
    struct wk_row_out *o = &f->outs[i];
    uint32_t ids[IDS_MAX];

    *o = (struct wk_row_out){.slot = r->slot, .flags = r->flags};
    for (uint32_t k = 0; k < r->pos_hi; k++)
        ids[k] = *cell(f, p, i, k);
    o->fault = s->p.seed == f->nan_seed && r->pos_hi >= f->nan_from;
    if (r->flags & WK_ROW_PROMPT_SCORES) {
        o->scores = f->scores + r->tok_off;
        o->n_scores = r->n_q;
        for (uint32_t k = 0; k < r->n_q; k++) {
            uint32_t next = pool[s->next_off + k];

            assert_int_equal(next == UINT32_MAX, (r->flags & WK_ROW_LAST_CHUNK) && k + 1 == r->n_q);
            f->scores[r->tok_off + k].logprob = model_score(ids, r->pos_lo + k + 1, next);
        }
    }
    if (!(r->flags & WK_ROW_LAST_CHUNK))
        return;
    assert_int_equal(s->pos, r->pos_hi);
    if (wk_sample_needs_history(&s->p)) {
        assert_int_equal(s->n_hist, r->pos_hi);
        assert_memory_equal(pool + s->hist_off, ids, r->pos_hi * sizeof(*ids));
    }
    o->token = model_next(ids, r->pos_hi, &s->p, pool + s->bias_off,
                          (const float *)(const void *)(pool + s->bias_off + s->n_bias), s->n_bias,
                          pool + s->ban_off, s->n_ban);
    f->last[r->slot] = o->token;
    if (r->flags & WK_ROW_LOGPROBS)
        o->logprob.logprob = model_score(ids, r->pos_hi, o->token);
}

static int fake_poll(struct wk_exec *e, struct wk_done *out)
{
    struct fake_exec *f = (struct fake_exec *)e;
    struct wk_plan *p = f->plans[f->first];

    if (f->n == 0)
        return WK_EXEC_E_NONE;
    for (uint32_t i = 0; i < p->n_copy; i++) {
        const struct wk_copy *c = &wk_plan_copies(p)[i];

        memset(f->content[c->dst], 0xee, sizeof(f->content[0]));
        memcpy(f->content[c->dst], f->content[c->src], c->n_tok * 4);
        f->n_copies++;
    }
    f->step_us = f->fixed_us;
    for (uint32_t i = 0; i < p->n_row; i++) {
        uint32_t n_q = wk_plan_rows(p)[i].n_q;

        f->step_us += n_q > 1 ? n_q * f->tok_us : f->row_us;
        f->n_prompt_toks += n_q > 1 ? n_q : 0;
        fake_write(f, p, i);
    }
    for (uint32_t i = 0; i < p->n_row; i++)
        fake_read(f, p, i);
    *out = (struct wk_done){.ticket = p->ticket,
                            .n_row = p->n_row,
                            .row = f->outs,
                            .step_us = f->step_us,
                            .fault = f->fault};
    ps_free(p);
    f->first = (f->first + 1) % 2;
    f->n--;
    return WK_EXEC_OK;
}

/* Ready only when the world says so: lets two steps be in flight across ticks. */
static int fake_poll_gated(struct wk_exec *e, struct wk_done *out)
{
    struct fake_exec *f = (struct fake_exec *)e;

    if (!f->poll_open)
        return WK_EXEC_E_NONE;
    f->poll_open = false;
    return fake_poll(e, out);
}

static const struct wk_exec_ops fake_ops = {.enqueue = fake_enqueue, .poll = fake_poll_gated};

/* ---- the link ---- */

static bool fake_pop(void *ud, struct wk_in *out)
{
    struct fake_link *l = ud;

    if (l->next_in == l->n_in) {
        l->next_in = l->n_in = 0;
        return false;
    }
    *out = l->in[l->next_in++];
    return true;
}

static bool fake_push(void *ud, const struct wk_out *o)
{
    struct fake_link *l = ud;
    struct req *r = &l->reqs[o->handle];

    if (l->full != NULL && ps_rng_below(l->full, 40) == 0)
        return false;
    switch (o->kind) {
    case WK_OUT_TOKEN:
        assert_true(r->finish == NOTHING && r->reject == NOTHING);
        assert_int_equal(o->logprob != NULL, r->s->samp.n_top >= 0);
        r->logprob[r->n_got] = o->logprob != NULL ? o->logprob->logprob : 0;
        ps_free(o->logprob);
        r->got[r->n_got++] = o->token;
        break;
    case WK_OUT_FINISHED:
        assert_true(r->finish == NOTHING && r->reject == NOTHING);
        r->finish = (int)o->finish;
        r->matched = o->matched_id;
        r->n_cached = o->n_cached;
        r->n_scores = o->n_prompt_scores;
        r->scores = o->prompt_scores;
        break;
    case WK_OUT_REJECTED:
        assert_true(r->finish == NOTHING && r->reject == NOTHING && r->n_got == 0);
        r->reject = (int)o->reject;
        r->predicted_wait_ms = o->predicted_wait_ms;
        break;
    case WK_OUT_STEP_END:
        l->n_step_ends++;
        break;
    case WK_OUT_DRAINED:
        l->n_drained++;
        break;
    }
    return true;
}

static void fake_set_load(void *ud, const struct pb_load *load, uint64_t tick)
{
    struct fake_link *l = ud;

    assert_true(tick > 0);
    l->load = *load;
    assert_true(load->group[0].n_free + load->group[0].n_evictable + load->group[0].n_pinned ==
                load->group[0].n_total);
}

/* ---- the world ---- */

void world_open(struct world *w, uint32_t n_pages, uint32_t n_slots, uint32_t depth, uint32_t chunk,
                uint32_t reserve, uint32_t context)
{
    memset(w, 0, sizeof(*w));
    ps_clock_manual(&w->clock, 1000000);
    memset(w->exec.content, 0xee, sizeof(w->exec.content));
    w->exec.base =
        (struct wk_exec){.ops = &fake_ops, .depth = depth, .n_slots = n_slots, .n_pages = n_pages};
    w->exec.chunk = chunk;
    w->exec.nan_seed = UINT64_MAX;
    w->exec.fixed_us = 1000;
    w->exec.scores = ps_calloc(n_slots + chunk, sizeof(*w->exec.scores));
    wk_kv_layout_init(&w->layout);
    wk_kv_layout_add_attn(&w->layout, 1, 1, 16, KN_F32, PT);
    wk_kv_layout_seal(&w->layout);
    w->link.reqs = w->reqs;
    w->pool_tokens = n_pages * PT;
    w->conf = (struct wk_sched_conf){.clock = &w->clock,
                                     .port = {&w->link, fake_pop, fake_push, fake_set_load, NULL},
                                     .exec = &w->exec.base,
                                     .layout = &w->layout,
                                     .eos = {eos_ids, 1},
                                     .context = context,
                                     .chunk = chunk,
                                     .reserve = reserve,
                                     .max_waiting = REQS_MAX};
    w->conf.store = wk_store_create_t0(&w->layout, &w->clock, &w->exec.base);
    w->s = wk_sched_create(&w->conf);
}

void world_reopen(struct world *w)
{
    wk_sched_destroy(w->s);
    w->s = wk_sched_create(&w->conf);
}

void world_close(struct world *w)
{
    wk_sched_destroy(w->s);
    wk_store_destroy(w->conf.store, 0); /* asserts that no page leaked */
    for (uint32_t i = 0; i < w->n_reqs; i++) {
        pb_submit_destroy(w->reqs[i].s);
        ps_free(w->reqs[i].scores);
    }
    while (w->exec.n > 0) {
        ps_free(w->exec.plans[w->exec.first]);
        w->exec.first = (w->exec.first + 1) % 2;
        w->exec.n--;
    }
    ps_free(w->exec.scores);
}

struct pb_submit *copy_request(const struct pb_submit *s)
{
    struct pb_submit *c =
        pb_submit_create(s->n_prompt + s->n_done, s->n_stop_ids, s->n_bias, s->n_cuts);
    uint32_t *ids = c->ids, *stop = c->stop_ids, *bids = c->bias_ids, *cuts = c->cuts;
    float *bias = c->bias;

    *c = *s;
    c->ids = ids;
    c->stop_ids = stop;
    c->bias_ids = bids;
    c->bias = bias;
    c->cuts = cuts;
    memcpy(ids, s->ids, (s->n_prompt + s->n_done) * 4);
    memcpy(stop, s->stop_ids, s->n_stop_ids * 4);
    memcpy(bids, s->bias_ids, s->n_bias * 4);
    memcpy(bias, s->bias, s->n_bias * 4);
    return c;
}

struct pb_submit *plain_request(uint32_t n_prompt, uint32_t max_tokens)
{
    struct pb_submit *s = pb_submit_create(n_prompt, 0, 0, 0);

    s->n_prompt = n_prompt;
    s->max_tokens = max_tokens;
    s->ignore_eos = true;
    s->chain_seed = 1;
    s->samp = (struct pb_sampling){.rep_penalty = 1, .seed = 7, .n_top = -1, .n_prompt_top = -1};
    for (uint32_t i = 0; i < n_prompt; i++)
        s->ids[i] = i % VOCAB;
    return s;
}

uint32_t world_submit(struct world *w, struct pb_submit *move_s)
{
    uint32_t h = w->n_reqs++;

    assert_true(h < REQS_MAX && w->link.n_in < PS_ARRAY_LEN(w->link.in));
    w->reqs[h].s = move_s;
    w->reqs[h].finish = w->reqs[h].reject = NOTHING;
    w->link.in[w->link.n_in++] = (struct wk_in){WK_IN_OPEN, h, copy_request(move_s)};
    return h;
}

void world_send(struct world *w, enum wk_in_kind kind, uint32_t h)
{
    w->link.in[w->link.n_in++] = (struct wk_in){kind, h, NULL};
}

void world_tick(struct world *w, bool step_done)
{
    uint32_t wait_ms;

    w->exec.poll_open = step_done;
    assert_int_equal(wk_sched_tick(w->s, &wait_ms), 0);
    if (w->watch != NULL)
        w->watch(w, w->watch_ud);
    ps_clock_advance(&w->clock, 1000);
}

void world_run(struct world *w)
{
    for (uint32_t i = 0; i < 200000; i++) {
        if (i > 0 && wk_sched_is_idle(w->s))
            return;
        world_tick(w, true);
    }
    fail_msg("not idle after 200000 ticks");
}

uint32_t solo_run(const struct pb_submit *s, uint32_t context, uint32_t pool_tokens, uint32_t *out,
                  int *out_finish)
{
    uint32_t ids[IDS_MAX], n = s->n_prompt, n_out = 0, end = ps_min_u32(context, pool_tokens);

    memcpy(ids, s->ids, n * sizeof(*ids));
    for (;;) {
        uint32_t ban[64], n_ban = 0, t;

        if (n_out >= s->max_tokens) {
            *out_finish = PB_FIN_LENGTH;
            return n_out;
        }
        if (n >= end) {
            *out_finish = PB_FIN_CONTEXT;
            return n_out;
        }
        if (n_out < s->min_tokens) {
            memcpy(ban, s->stop_ids, s->n_stop_ids * 4);
            n_ban = s->n_stop_ids;
            if (!s->ignore_eos)
                ban[n_ban++] = EOS;
        }
        t = model_next(ids, n, &s->samp, s->bias_ids, s->bias, s->n_bias, ban, n_ban);
        ids[n++] = out[n_out++] = t;
        if (n_ban == 0 && !s->ignore_eos && t == EOS) {
            *out_finish = PB_FIN_STOP_EOS;
            return n_out;
        }
        if (n_out > s->min_tokens && is_banned(t, s->stop_ids, s->n_stop_ids)) {
            *out_finish = PB_FIN_STOP_ID;
            return n_out;
        }
    }
}

static void check_scores(const struct req *r)
{
    if (r->s->samp.n_prompt_top < 0) {
        assert_null(r->scores);
        return;
    }
    assert_int_equal(r->n_scores, r->s->n_prompt);
    for (uint32_t i = 1; i < r->s->n_prompt; i++)
        assert_true(r->scores[i].logprob == model_score(r->s->ids, i, r->s->ids[i]));
}

void world_check(const struct world *w, uint32_t h)
{
    const struct req *r = &w->reqs[h];
    const struct pb_submit *s = r->s;
    uint32_t want[IDS_MAX], ids[IDS_MAX], n;
    int finish;

    assert_int_equal(r->reject, NOTHING);
    assert_int_not_equal(r->finish, NOTHING);
    n = solo_run(s, w->conf.context, w->pool_tokens, want, &finish);
    assert_true(s->n_done + r->n_got <= n);
    assert_memory_equal(r->got, want + s->n_done, r->n_got * 4);
    memcpy(ids, s->ids, s->n_prompt * 4);
    memcpy(ids + s->n_prompt, want, n * 4);
    for (uint32_t i = 0; i < r->n_got && s->samp.n_top >= 0; i++)
        assert_true(r->logprob[i] == model_score(ids, s->n_prompt + s->n_done + i, r->got[i]));
    assert_true(r->n_cached <= s->n_prompt);
    if (r->finish == PB_FIN_CANCELLED) {
        assert_true(r->cancelled);
        return;
    }
    assert_int_equal(r->finish, finish);
    assert_int_equal(s->n_done + r->n_got, n);
    assert_int_equal(r->matched,
                     finish == PB_FIN_STOP_EOS || finish == PB_FIN_STOP_ID ? want[n - 1] : 0);
    check_scores(r);
}

void world_check_idle(struct world *w)
{
    struct pb_load load;

    wk_sched_load(w->s, &load);
    assert_int_equal(load.n_running + load.n_waiting + load.n_suspended, 0);
    assert_int_equal(load.group[0].n_pinned, 0);
    assert_int_equal(load.group[0].n_free + load.group[0].n_evictable, load.group[0].n_total);
    world_send(w, WK_IN_FLUSH, 0);
    world_tick(w, false);
    wk_sched_load(w->s, &load);
    assert_int_equal(load.group[0].n_free, load.group[0].n_total);
}
