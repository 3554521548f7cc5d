#include "worker/sched/sched.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "common/hash.h"
#include "common/rng.h"
#include "worker/kv/layout.h"

/*
 * A world around the scheduler: an executor whose "model" is a hash of the exact token prefix it reads
 * back through the pages it is given, and a link that keeps what comes out. Wrong page tables, missing
 * copies, stale pages, early frees and wrong sampling data all show up as wrong tokens. Plans run as
 * late as possible, when their result is polled: the worst case for pages that were let go too early.
 */
enum {
    PT = 16,
    PAGES_MAX = 128,
    SLOTS_MAX = 12,
    VOCAB = 61,
    EOS = 3,
    IDS_MAX = 2048,
    REQS_MAX = 64,
    NOTHING = -1,
};

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

struct fake_exec {
    struct wk_exec base;
    uint32_t content[PAGES_MAX][PT];
    uint32_t last[SLOTS_MAX];
    struct wk_plan *plans[2];
    uint32_t first, n, chunk;
    struct wk_row_out outs[SLOTS_MAX];
    struct pb_logprob *scores;
    int fault;
    uint64_t nan_seed; /* rows with this seed fail once they reach nan_from */
    uint32_t nan_from;
    uint64_t n_copies, n_no_write, n_from_slot;
};

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
    for (uint32_t i = 0; i < p->n_row; i++)
        fake_write(f, p, i);
    for (uint32_t i = 0; i < p->n_row; i++)
        fake_read(f, p, i);
    *out = (struct wk_done){
        .ticket = p->ticket, .n_row = p->n_row, .row = f->outs, .step_us = 1000, .fault = f->fault};
    ps_free(p);
    f->first = (f->first + 1) % 2;
    f->n--;
    return WK_EXEC_OK;
}

/* Ready only when the world says so: lets two steps be in flight across ticks. */
static bool poll_open;

static int fake_poll_gated(struct wk_exec *e, struct wk_done *out)
{
    if (!poll_open)
        return WK_EXEC_E_NONE;
    poll_open = false;
    return fake_poll(e, out);
}

static const struct wk_exec_ops fake_ops = {.enqueue = fake_enqueue, .poll = fake_poll_gated};

/* ---- the link ---- */

struct wk_link { /* stands in for the real one */
    struct wk_in in[512];
    uint32_t n_in, next_in;
    struct ps_rng *full; /* now and then the ring is full */
    struct req *reqs;
    uint32_t n_drained, n_step_ends;
    struct pb_load load;
};

struct req {
    struct pb_submit *s; /* kept copy */
    uint32_t got[IDS_MAX], n_got;
    float logprob[IDS_MAX];
    int finish, reject; /* NOTHING until answered */
    uint32_t matched, n_cached, n_scores;
    struct pb_logprob *scores;
    bool cancelled;
    uint32_t n_step_ends_seen;
};

bool wk_link_pop(struct wk_link *l, struct wk_in *out)
{
    if (l->next_in == l->n_in) {
        l->next_in = l->n_in = 0;
        return false;
    }
    *out = l->in[l->next_in++];
    return true;
}

bool wk_link_push(struct wk_link *l, const struct wk_out *o)
{
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

void wk_link_set_load(struct wk_link *l, const struct pb_load *load, uint64_t tick)
{
    assert_true(tick > 0);
    l->load = *load;
    assert_true(load->kv_free + load->kv_evictable + load->kv_pinned == load->kv_total);
}

/* ---- the world ---- */

struct world {
    struct ps_clock clock;
    struct fake_exec exec;
    struct wk_link link;
    struct wk_kv_layout layout;
    struct wk_sched_conf conf;
    struct wk_sched *s;
    struct req reqs[REQS_MAX];
    uint32_t n_reqs, pool_tokens;
};

static void world_open(struct world *w, uint32_t n_pages, uint32_t n_slots, uint32_t depth,
                       uint32_t chunk, uint32_t reserve, uint32_t context)
{
    memset(w, 0, sizeof(*w));
    ps_clock_manual(&w->clock, 1000000);
    memset(w->exec.content, 0xee, sizeof(w->exec.content));
    w->exec.base =
        (struct wk_exec){.ops = &fake_ops, .depth = depth, .n_slots = n_slots, .n_pages = n_pages};
    w->exec.chunk = chunk;
    w->exec.nan_seed = UINT64_MAX;
    w->exec.scores = ps_calloc(n_slots + chunk, sizeof(*w->exec.scores));
    wk_kv_layout_init(&w->layout);
    wk_kv_layout_add_attn(&w->layout, 1, 1, 16, KN_F32, PT);
    wk_kv_layout_seal(&w->layout);
    w->link.reqs = w->reqs;
    w->pool_tokens = n_pages * PT;
    w->conf = (struct wk_sched_conf){.clock = &w->clock,
                                     .link = &w->link,
                                     .exec = &w->exec.base,
                                     .layout = &w->layout,
                                     .eos = {eos_ids, 1},
                                     .context = context,
                                     .chunk = chunk,
                                     .reserve = reserve,
                                     .max_waiting = REQS_MAX};
    w->s = wk_sched_create(&w->conf);
}

static void world_close(struct world *w)
{
    wk_sched_destroy(w->s); /* asserts that no page leaked */
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

static struct pb_submit *copy_of(const struct pb_submit *s)
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

static struct pb_submit *plain(uint32_t n_prompt, uint32_t max_tokens)
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

static uint32_t submit(struct world *w, struct pb_submit *move_s)
{
    uint32_t h = w->n_reqs++;

    assert_true(h < REQS_MAX && w->link.n_in < PS_ARRAY_LEN(w->link.in));
    w->reqs[h].s = move_s;
    w->reqs[h].finish = w->reqs[h].reject = NOTHING;
    w->link.in[w->link.n_in++] = (struct wk_in){WK_IN_OPEN, h, copy_of(move_s)};
    return h;
}

static void send(struct world *w, enum wk_in_kind kind, uint32_t h)
{
    w->link.in[w->link.n_in++] = (struct wk_in){kind, h, NULL};
}

static void tick(struct world *w, bool step_done)
{
    uint32_t wait_ms;

    poll_open = step_done;
    assert_int_equal(wk_sched_tick(w->s, &wait_ms), 0);
    ps_clock_advance(&w->clock, 1000);
}

static void run_until_idle(struct world *w)
{
    for (uint32_t i = 0; i < 200000; i++) {
        if (i > 0 && wk_sched_is_idle(w->s))
            return;
        tick(w, true);
    }
    fail_msg("not idle after 200000 ticks");
}

/* The answer of a run that nobody shares, from the definition alone. */
static uint32_t solo(const struct pb_submit *s, uint32_t context, uint32_t pool_tokens,
                     uint32_t *out, int *out_finish)
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

/* Equal to the solo run; a cancelled one to a part of it. */
static void check(const struct world *w, uint32_t h)
{
    const struct req *r = &w->reqs[h];
    const struct pb_submit *s = r->s;
    uint32_t want[IDS_MAX], ids[IDS_MAX], n;
    int finish;

    assert_int_equal(r->reject, NOTHING);
    assert_int_not_equal(r->finish, NOTHING);
    n = solo(s, w->conf.context, w->pool_tokens, want, &finish);
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

static void check_nothing_held(struct world *w)
{
    struct pb_load load;

    wk_sched_load(w->s, &load);
    assert_int_equal(load.n_running + load.n_waiting + load.n_suspended, 0);
    assert_int_equal(load.kv_pinned, 0);
    assert_int_equal(load.kv_free + load.kv_evictable, load.kv_total);
    send(w, WK_IN_FLUSH, 0);
    tick(w, false);
    wk_sched_load(w->s, &load);
    assert_int_equal(load.kv_free, load.kv_total);
}

/* ---- rules ---- */

static void a_prompt_is_prefilled_in_chunks_beside_decode_rows(void **state)
{
    struct world w;
    uint32_t a, b;

    (void)state;
    world_open(&w, 64, 4, 1, 8, 64, 512);
    a = submit(&w, plain(5, 40));
    for (uint32_t i = 0; i < 6; i++)
        tick(&w, true);
    assert_int_equal(w.reqs[a].n_got, 5);
    b = submit(&w, plain(64, 3));
    w.reqs[b].s->ids[0] = 50; /* only the copy is compared: keep both alike */
    w.link.in[w.link.n_in - 1].submit->ids[0] = 50;
    for (uint32_t i = 0; i < 9; i++) {
        uint32_t before = w.reqs[a].n_got;

        tick(&w, true);
        assert_int_equal(w.reqs[a].n_got, before + 1); /* decode never waits for the prompt */
        assert_int_equal(w.reqs[b].n_got, i < 8 ? 0 : 1);
    }
    run_until_idle(&w);
    check(&w, a);
    check(&w, b);
    check_nothing_held(&w);
    world_close(&w);
}

static void a_prompt_cached_to_its_end_computes_one_token_and_writes_nothing(void **state)
{
    struct world w;
    uint32_t h[3];

    (void)state;
    world_open(&w, 64, 4, 1, 64, 64, 512);
    for (uint32_t i = 0; i < 3; i++) {
        h[i] = submit(&w, plain(i < 2 ? 64 : 70, 4));
        run_until_idle(&w);
        check(&w, h[i]);
    }
    assert_int_equal(w.reqs[h[0]].n_cached, 0);
    assert_int_equal(w.reqs[h[1]].n_cached, 63);
    assert_int_equal(w.exec.n_no_write, 1);
    assert_int_equal(w.reqs[h[2]].n_cached, 64);
    check_nothing_held(&w);
    world_close(&w);
}

static void tokens_generated_here_are_reused_by_the_next_turn(void **state)
{
    struct world w;
    struct pb_submit *next;
    uint32_t a, b;

    (void)state;
    world_open(&w, 64, 4, 1, 64, 64, 512);
    a = submit(&w, plain(20, 30));
    run_until_idle(&w);
    next = plain(60, 5); /* history of the first turn and ten new tokens */
    memcpy(next->ids + 20, w.reqs[a].got, 30 * 4);
    b = submit(&w, next);
    run_until_idle(&w);
    check(&w, b);
    assert_int_equal(w.reqs[b].n_cached, 48); /* 49 tokens have KV: three pages are full */
    check_nothing_held(&w);
    world_close(&w);
}

static void the_tail_of_a_page_is_copied_not_shared(void **state)
{
    struct world w;
    struct pb_submit *fork;
    uint32_t a, b, c;

    (void)state;
    world_open(&w, 64, 4, 1, 64, 64, 512);
    a = submit(&w, plain(48, 4));
    run_until_idle(&w);
    fork = plain(48, 4);
    for (uint32_t i = 41; i < 48; i++)
        fork->ids[i] = 60 - i % 5;
    b = submit(&w, fork);
    run_until_idle(&w);
    assert_int_equal(w.reqs[b].n_cached, 41);
    assert_int_equal(w.exec.n_copies, 1);
    c = submit(&w, plain(48, 4)); /* the source is as it was */
    run_until_idle(&w);
    check(&w, a);
    check(&w, b);
    check(&w, c);
    check_nothing_held(&w);
    world_close(&w);
}

static void equal_prompts_at_once_end_up_stored_once(void **state)
{
    struct world w;
    struct pb_load load;

    (void)state;
    world_open(&w, 64, 4, 1, 256, 64, 512);
    for (uint32_t i = 0; i < 4; i++)
        submit(&w, plain(64, 20));
    for (uint32_t i = 0; i < 3; i++)
        tick(&w, true);
    wk_sched_load(w.s, &load);
    assert_int_equal(load.n_running, 4);
    assert_int_equal(load.kv_pinned, 4 + 4); /* the prompt once, and a page each for the answers */
    run_until_idle(&w);
    for (uint32_t i = 0; i < 4; i++)
        check(&w, i);
    check_nothing_held(&w);
    world_close(&w);
}

static void prompt_scores_bypass_the_cache(void **state)
{
    struct world w;
    struct pb_submit *s;
    uint32_t h;

    (void)state;
    world_open(&w, 64, 4, 1, 10, 64, 512);
    submit(&w, plain(64, 4));
    run_until_idle(&w);
    s = plain(64, 4);
    s->samp.n_prompt_top = 0;
    h = submit(&w, s);
    run_until_idle(&w);
    assert_int_equal(w.reqs[h].n_cached, 0);
    check(&w, h);
    s = plain(64, 0); /* echo: scores and no answer */
    s->samp.n_prompt_top = 2;
    h = submit(&w, s);
    run_until_idle(&w);
    check(&w, h);
    assert_int_equal(w.reqs[h].finish, PB_FIN_LENGTH);
    check_nothing_held(&w);
    world_close(&w);
}

static void what_can_never_fit_is_refused_at_once(void **state)
{
    struct world w;
    uint32_t h[4];

    (void)state;
    world_open(&w, 4, 4, 1, 16, 64, 512);
    h[0] = submit(&w, plain(64, PB_NO_LIMIT)); /* prompt + 1 > 64 */
    h[1] = submit(&w, plain(60, 5));
    h[2] = submit(&w, plain(60, 4));
    h[3] = submit(&w, plain(63, PB_NO_LIMIT));
    run_until_idle(&w);
    assert_int_equal(w.reqs[h[0]].reject, PB_REJ_TOO_LONG);
    assert_int_equal(w.reqs[h[1]].reject, PB_REJ_TOO_LONG);
    check(&w, h[2]);
    check(&w, h[3]);
    world_close(&w);
}

static void a_full_queue_and_a_draining_worker_refuse(void **state)
{
    struct world w;
    uint32_t h[5];

    (void)state;
    world_open(&w, 64, 1, 1, 16, 64, 512);
    wk_sched_destroy(w.s);
    w.conf.max_waiting = 2;
    w.s = wk_sched_create(&w.conf);
    for (uint32_t i = 0; i < 4; i++)
        h[i] = submit(&w, plain(4, 4));
    tick(&w, true);
    assert_int_equal(w.reqs[h[3]].reject, PB_REJ_FULL);
    send(&w, WK_IN_DRAIN, 0);
    h[4] = submit(&w, plain(4, 4));
    tick(&w, true);
    assert_int_equal(w.reqs[h[4]].reject, PB_REJ_DRAINING);
    assert_int_equal(w.link.n_drained, 0);
    run_until_idle(&w);
    for (uint32_t i = 0; i < 3; i++)
        check(&w, h[i]);
    tick(&w, true);
    tick(&w, true);
    assert_int_equal(w.link.n_drained, 1); /* told once */
    send(&w, WK_IN_UNDRAIN, 0);
    h[0] = submit(&w, plain(4, 4));
    run_until_idle(&w);
    check(&w, h[0]);
    world_close(&w);
}

static void nan_ends_only_its_own_request_and_is_never_cached(void **state)
{
    struct world w;
    struct pb_submit *bad;
    uint32_t a, b, c;

    (void)state;
    world_open(&w, 64, 4, 1, 64, 64, 512);
    w.exec.nan_seed = 666;
    a = submit(&w, plain(33, 6));
    bad = plain(40, 6);
    bad->ids[0] = 9;
    bad->samp.seed = 666;
    b = submit(&w, bad);
    run_until_idle(&w);
    check(&w, a);
    assert_int_equal(w.reqs[b].finish, PB_FIN_NUMERICAL);
    bad = copy_of(bad);
    bad->samp.seed = 5;
    c = submit(&w, bad);
    run_until_idle(&w);
    check(&w, c);
    assert_int_equal(w.reqs[c].n_cached, 0);
    world_close(&w);
}

static void pages_of_a_step_in_flight_are_not_published(void **state)
{
    struct world w;
    struct pb_submit *s = plain(64, 6);
    uint32_t a, b;

    (void)state;
    world_open(&w, 64, 4, 2, 16, 64, 512);
    w.exec.nan_seed = s->samp.seed = 666;
    w.exec.nan_from = 32; /* the second chunk is in flight when the first is committed, and fails */
    a = submit(&w, s);
    run_until_idle(&w);
    assert_int_equal(w.reqs[a].finish, PB_FIN_NUMERICAL);
    b = submit(&w, plain(64, 6));
    run_until_idle(&w);
    check(&w, b);
    assert_int_equal(w.reqs[b].n_cached, 16);
    check_nothing_held(&w);
    world_close(&w);
}

/* The end may be found in the very step that was in flight when its row was suspended: every length of
 * the largest row is tried, so that some end there. */
static void a_row_may_end_while_it_is_being_suspended(void **state)
{
    uint64_t n_suspended = 0;

    (void)state;
    for (uint32_t max = 20; max < 60; max++) {
        struct world w;

        world_open(&w, 11, 4, 2, 64, 16, 512);
        submit(&w, plain(20, 100));
        submit(&w, plain(40, max));
        submit(&w, plain(20, 100));
        for (uint32_t i = 0; i < 3; i++) /* prompts of their own: nothing is shared */
            w.reqs[i].s->ids[0] = w.link.in[i].submit->ids[0] = 50 + i;
        for (uint32_t i = 0; i < 1000 && !wk_sched_is_idle(w.s); i++)
            tick(&w, i % 3 != 0);
        run_until_idle(&w);
        for (uint32_t i = 0; i < 3; i++)
            check(&w, i);
        n_suspended += w.link.load.n_preempted;
        check_nothing_held(&w);
        world_close(&w);
    }
    assert_true(n_suspended > 20);
}

static void a_moved_stream_whose_end_was_already_sent_ends_at_once(void **state)
{
    struct world w;
    struct pb_submit *s = pb_submit_create(12, 0, 0, 0), *base = plain(10, 50);
    uint32_t h, *ids = s->ids;

    (void)state;
    world_open(&w, 64, 4, 1, 64, 64, 512);
    *s = *base;
    s->ids = ids;
    memcpy(ids, base->ids, 10 * 4);
    s->n_done = 2;
    s->ignore_eos = false;
    ids[10] = 1;
    ids[11] = EOS;
    h = submit(&w, s);
    run_until_idle(&w);
    assert_int_equal(w.reqs[h].n_got, 0);
    assert_int_equal(w.reqs[h].finish, PB_FIN_STOP_EOS);
    assert_int_equal(w.reqs[h].matched, EOS);
    pb_submit_destroy(base);
    world_close(&w);
}

static void a_request_past_its_deadline_without_a_token_is_dropped(void **state)
{
    struct world w;
    struct pb_submit *late = plain(8, 10);
    uint32_t a, b;

    (void)state;
    world_open(&w, 64, 1, 1, 64, 64, 512);
    a = submit(&w, plain(8, 50));
    late->deadline_ms = 20;
    b = submit(&w, late);
    run_until_idle(&w);
    check(&w, a);
    assert_int_equal(w.reqs[b].finish, PB_FIN_CANCELLED);
    assert_int_equal(w.reqs[b].n_got, 0);
    check_nothing_held(&w);
    world_close(&w);
}

static void an_executor_fault_is_handed_up_and_nothing_leaks(void **state)
{
    struct world w;
    uint32_t wait_ms;

    (void)state;
    world_open(&w, 64, 4, 2, 64, 64, 512);
    submit(&w, plain(8, 50));
    tick(&w, false);
    w.exec.fault = -EIO;
    poll_open = true;
    assert_int_equal(wk_sched_tick(w.s, &wait_ms), -EIO);
    world_close(&w);
}

static void priority_goes_first(void **state)
{
    struct world w;
    struct pb_submit *s = plain(8, 4);
    uint32_t a, b, c;

    (void)state;
    world_open(&w, 64, 1, 1, 64, 64, 512);
    a = submit(&w, plain(8, 4));
    b = submit(&w, plain(8, 4));
    s->priority = -5;
    c = submit(&w, s);
    for (uint32_t i = 0; i < 100 && w.reqs[c].finish == NOTHING; i++)
        tick(&w, true);
    assert_int_equal(w.reqs[a].n_got + w.reqs[b].n_got, 0);
    run_until_idle(&w);
    world_close(&w);
}

/* ---- everything at once ---- */

struct script {
    struct ps_rng r;
    uint32_t base[3][400]; /* prompts share prefixes of these */
};

static uint32_t below(struct ps_rng *r, uint32_t n)
{
    return (uint32_t)ps_rng_below(r, n);
}

static void random_options(struct ps_rng *r, struct pb_submit *s)
{
    s->chain_seed = 1 + below(r, 2);
    s->priority = below(r, 4) == 0 ? (int32_t)below(r, 3) - 1 : 0;
    s->ignore_eos = below(r, 2) == 0;
    s->min_tokens = below(r, 3) == 0 ? below(r, 20) : 0;
    for (uint32_t i = 0; i < s->n_stop_ids; i++)
        s->stop_ids[i] = 10 + below(r, 40);
    for (uint32_t i = 0; i < s->n_bias; i++) {
        s->bias_ids[i] = below(r, VOCAB);
        s->bias[i] = (float)below(r, 10);
    }
    s->samp = (struct pb_sampling){.rep_penalty = 1.0f,
                                   .frequency_penalty = below(r, 5) == 0 ? 0.5f : 0.0f,
                                   .seed = below(r, 3),
                                   .n_top = (int32_t)below(r, 3) - 1,
                                   .n_prompt_top = below(r, 8) == 0 ? 1 : -1};
}

/* A request; one in four is a stream that moved here with part of its answer. */
static struct pb_submit *random_request(struct script *sc, const struct world *w)
{
    struct ps_rng *r = &sc->r;
    uint32_t limit = ps_min_u32(ps_min_u32(w->conf.context, w->pool_tokens + 8), 400);
    uint32_t n = 1 + below(r, below(r, 4) == 0 ? limit : limit / 3), want[IDS_MAX], n_want, base;
    struct pb_submit *s = pb_submit_create(n, below(r, 3) == 0 ? 1 + below(r, 3) : 0, below(r, 3),
                                           0),
                     *m;
    int finish;

    if (n > PT && below(r, 4) == 0)
        n -= n % PT; /* ends with a page */
    s->n_prompt = n;
    s->max_tokens = below(r, 2) == 0 ? PB_NO_LIMIT : below(r, below(r, 4) == 0 ? 200 : 40);
    random_options(r, s);
    base = below(r, 3);
    memcpy(s->ids, sc->base[base], n * 4);
    for (uint32_t i = below(r, 2 * n); i < n; i++)
        s->ids[i] = below(r, VOCAB);
    if (below(r, 4) != 0 || n + 1 > w->pool_tokens)
        return s;
    n_want = solo(s, w->conf.context, w->pool_tokens, want, &finish);
    if (n_want == 0)
        return s;
    m = pb_submit_create(n + n_want, s->n_stop_ids, s->n_bias, 0);
    memcpy(m->stop_ids, s->stop_ids, s->n_stop_ids * 4);
    memcpy(m->bias_ids, s->bias_ids, s->n_bias * 4);
    memcpy(m->bias, s->bias, s->n_bias * 4);
    memcpy(m->ids, s->ids, n * 4);
    memcpy(m->ids + n, want, n_want * 4);
    m->n_prompt = n;
    m->n_done = 1 + below(r, n_want);
    m->max_tokens = s->max_tokens;
    m->min_tokens = s->min_tokens;
    m->ignore_eos = s->ignore_eos;
    m->chain_seed = s->chain_seed;
    m->samp = s->samp;
    pb_submit_destroy(s);
    return m;
}

static bool must_be_refused(const struct world *w, const struct pb_submit *s)
{
    uint32_t n_ids = s->n_prompt + s->n_done;

    if (s->max_tokens != PB_NO_LIMIT)
        return ps_min_u32(s->n_prompt + s->max_tokens, w->conf.context) > w->pool_tokens;
    return ps_min_u32(n_ids + 1, w->conf.context) > w->pool_tokens;
}

struct totals {
    uint64_t n_reqs, n_tokens, n_cached, n_preempted, n_copies, n_no_write, n_from_slot, n_refused,
        n_cancelled;
};

static void random_life(uint64_t seed, struct totals *t)
{
    static struct world w;
    struct script sc;
    struct ps_rng *r = &sc.r;
    uint32_t n_reqs;

    ps_rng_seed(r, seed);
    for (uint32_t i = 0; i < 3 * 400; i++)
        sc.base[i / 400][i % 400] =
            i / 400 == 2 && i % 400 < 40 ? sc.base[1][i % 400] : below(r, VOCAB);
    world_open(&w, 3 + below(r, seed % 4 == 0 ? 100 : 30), 1 + below(r, SLOTS_MAX), 1 + below(r, 2),
               1 + below(r, 64), 8u << below(r, 4), 40 + below(r, 360));
    w.link.full = r;
    n_reqs = 1 + below(r, 24);
    for (uint32_t i = 0; i < n_reqs; i++) {
        submit(&w, random_request(&sc, &w));
        for (uint32_t k = below(r, below(r, 5) == 0 ? 60 : 4); k > 0; k--) {
            tick(&w, below(r, 2) == 0);
            if (below(r, 60) == 0) {
                uint32_t h = below(r, w.n_reqs);

                w.reqs[h].cancelled = true;
                if (w.reqs[h].finish == NOTHING)
                    send(&w, WK_IN_CANCEL, h);
            }
            if (below(r, 200) == 0)
                send(&w, WK_IN_FLUSH, 0);
        }
    }
    run_until_idle(&w);
    t->n_preempted += w.link.load.n_preempted;
    for (uint32_t h = 0; h < w.n_reqs; h++) {
        if (must_be_refused(&w, w.reqs[h].s)) {
            assert_int_equal(w.reqs[h].reject, PB_REJ_TOO_LONG);
            t->n_refused++;
            continue;
        }
        check(&w, h);
        t->n_tokens += w.reqs[h].n_got;
        t->n_cached += w.reqs[h].n_cached;
        t->n_cancelled += w.reqs[h].finish == PB_FIN_CANCELLED;
    }
    t->n_reqs += w.n_reqs;
    t->n_copies += w.exec.n_copies;
    t->n_no_write += w.exec.n_no_write;
    t->n_from_slot += w.exec.n_from_slot;
    w.link.full = NULL;
    check_nothing_held(&w);
    world_close(&w);
}

static void every_answer_equals_the_solo_run_and_nothing_leaks(void **state)
{
    enum { LIVES = 400 };
    struct totals t = {0};

    (void)state;
    for (uint64_t seed = 0; seed < LIVES; seed++)
        random_life(seed, &t);
    print_message(
        "# %llu requests, %llu tokens, %llu cached, %llu suspended, %llu copies, %llu without "
        "write, %llu from slot, %llu refused, %llu cancelled\n",
        (unsigned long long)t.n_reqs, (unsigned long long)t.n_tokens,
        (unsigned long long)t.n_cached, (unsigned long long)t.n_preempted,
        (unsigned long long)t.n_copies, (unsigned long long)t.n_no_write,
        (unsigned long long)t.n_from_slot, (unsigned long long)t.n_refused,
        (unsigned long long)t.n_cancelled);
    /* The lives were lively. */
    assert_true(t.n_cached > 1000 && t.n_preempted > 100 && t.n_copies > 100 && t.n_no_write > 10);
    assert_true(t.n_from_slot > 1000 && t.n_refused > 10 && t.n_cancelled > 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_prompt_is_prefilled_in_chunks_beside_decode_rows),
        cmocka_unit_test(a_prompt_cached_to_its_end_computes_one_token_and_writes_nothing),
        cmocka_unit_test(tokens_generated_here_are_reused_by_the_next_turn),
        cmocka_unit_test(the_tail_of_a_page_is_copied_not_shared),
        cmocka_unit_test(equal_prompts_at_once_end_up_stored_once),
        cmocka_unit_test(prompt_scores_bypass_the_cache),
        cmocka_unit_test(what_can_never_fit_is_refused_at_once),
        cmocka_unit_test(a_full_queue_and_a_draining_worker_refuse),
        cmocka_unit_test(nan_ends_only_its_own_request_and_is_never_cached),
        cmocka_unit_test(pages_of_a_step_in_flight_are_not_published),
        cmocka_unit_test(a_row_may_end_while_it_is_being_suspended),
        cmocka_unit_test(a_moved_stream_whose_end_was_already_sent_ends_at_once),
        cmocka_unit_test(a_request_past_its_deadline_without_a_token_is_dropped),
        cmocka_unit_test(an_executor_fault_is_handed_up_and_nothing_leaks),
        cmocka_unit_test(priority_goes_first),
        cmocka_unit_test(every_answer_equals_the_solo_run_and_nothing_leaks),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
