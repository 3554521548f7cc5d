#include "worker/sched/sched_world.h"

#include <stdlib.h>

#include "common/rng.h"

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
    n_want = solo_run(s, w->conf.context, w->pool_tokens, want, &finish);
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

/* The invariants of admit.h, seen from outside. 1 and 3 are asserted where they hold (hold.c, step.c). */
struct watcher {
    uint64_t n_preempted, next_step, head_ticket;
    uint32_t head_n_kv, n_sat_out;
    bool running[REQS_MAX];
    uint32_t len[REQS_MAX], len_then[REQS_MAX]; /* now; at the last admission of anybody */
    uint32_t out_then[REQS_MAX];                /* answer tokens at its own admission */
};

/* 2: the head computes something in nearly every step that could hold it. */
static void watch_head(struct watcher *x, const struct world *w)
{
    const struct wk_seq *q = w->s->admit.n_rows > 0 ? wk_seq_of(w->s->admit.rows[0]) : NULL;
    bool stepped = w->s->next_step != x->next_step;
    bool same = q != NULL && q->adm.ticket == x->head_ticket && q->n_kv == x->head_n_kv;

    if (!same || q->n_fly_tok > 0)
        x->n_sat_out = 0;
    else if (stepped)
        assert_true(++x->n_sat_out <= w->exec.base.depth - 1 + 3);
    x->next_step = w->s->next_step;
    x->head_ticket = q != NULL ? q->adm.ticket : UINT64_MAX;
    x->head_n_kv = q != NULL ? q->n_kv : 0;
}

/* 5: it has had its tokens. A row with penalties runs every other step when two are in flight. */
static void check_residency(const struct watcher *x, const struct world *w, uint32_t h)
{
    const struct wk_seq *q = w->s->by_handle[h];
    uint32_t d = w->exec.base.depth - 1, out;

    if (w->conf.itl_us != 0 || (d > 0 && wk_sample_needs_history(&q->submit->samp)))
        return;
    out = q->n_ids + q->n_fly_tok - x->out_then[h];
    assert_true(out + (d + 1) + d + 1 >= w->conf.reserve);
}

static void watch(struct world *w, void *ud)
{
    struct watcher *x = ud;
    uint32_t most = 0, d = w->exec.base.depth - 1;
    bool admitted = false;

    watch_head(x, w);
    for (uint32_t h = 0; h < w->n_reqs; h++) {
        const struct wk_seq *q = h < w->s->n_handles ? w->s->by_handle[h] : NULL;
        bool runs = q != NULL && q->state == WK_SEQ_RUN;

        if (q != NULL)
            x->len[h] = q->n_ids + q->n_fly_tok;
        most = ps_max_u32(most, x->len[h] - x->len_then[h]);
        if (x->running[h] && q != NULL && !runs)
            check_residency(x, w, h);
        if (runs && !x->running[h]) {
            admitted = true;
            x->out_then[h] = q->n_ids;
        }
        x->running[h] = runs;
    }
    if (w->link.load.n_preempted != x->n_preempted) /* 4: some row has grown by what was reserved */
        assert_true(most + 2 * (d + 1) + 1 > w->conf.reserve);
    x->n_preempted = w->link.load.n_preempted;
    if (admitted)
        memcpy(x->len_then, x->len, sizeof(x->len));
}

struct totals {
    uint64_t n_reqs, n_tokens, n_cached, n_preempted, n_copies, n_no_write, n_from_slot, n_refused,
        n_cancelled, n_followed;
};

static void random_costs(struct ps_rng *r, struct world *w)
{
    if (below(r, 2) == 0)
        return;
    w->conf.itl_us = 1000 + below(r, 20000);
    w->exec.row_us = below(r, 500);
    w->exec.tok_us = below(r, 500);
    world_reopen(w);
}

static void random_life(uint64_t seed, struct totals *t)
{
    static struct world w;
    struct script sc;
    struct watcher x = {0};
    struct ps_rng *r = &sc.r;
    uint32_t n_reqs;

    ps_rng_seed(r, seed);
    for (uint32_t i = 0; i < 3 * 400; i++)
        sc.base[i / 400][i % 400] =
            i / 400 == 2 && i % 400 < 40 ? sc.base[1][i % 400] : below(r, VOCAB);
    world_open(&w, 3 + below(r, seed % 4 == 0 ? 100 : 30), 1 + below(r, SLOTS_MAX), 1 + below(r, 2),
               1 + below(r, 64), 8u << below(r, 4), 40 + below(r, 360));
    random_costs(r, &w);
    w.link.full = r;
    w.watch = watch;
    w.watch_ud = &x;
    n_reqs = 1 + below(r, 24);
    for (uint32_t i = 0; i < n_reqs; i++) {
        world_submit(&w, random_request(&sc, &w));
        for (uint32_t k = below(r, below(r, 5) == 0 ? 60 : 4); k > 0; k--) {
            world_tick(&w, below(r, 2) == 0);
            if (below(r, 60) == 0) {
                uint32_t h = below(r, w.n_reqs);

                w.reqs[h].cancelled = true;
                if (w.reqs[h].finish == NOTHING)
                    world_send(&w, WK_IN_CANCEL, h);
            }
            if (below(r, 200) == 0)
                world_send(&w, WK_IN_FLUSH, 0);
        }
    }
    world_run(&w);
    t->n_followed += w.s->stats.followed_tokens;
    t->n_preempted += w.link.load.n_preempted;
    for (uint32_t h = 0; h < w.n_reqs; h++) {
        if (must_be_refused(&w, w.reqs[h].s)) {
            assert_int_equal(w.reqs[h].reject, PB_REJ_TOO_LONG);
            t->n_refused++;
            continue;
        }
        world_check(&w, h);
        t->n_tokens += w.reqs[h].n_got;
        t->n_cached += w.reqs[h].n_cached;
        t->n_cancelled += w.reqs[h].finish == PB_FIN_CANCELLED;
    }
    t->n_reqs += w.n_reqs;
    t->n_copies += w.exec.n_copies;
    t->n_no_write += w.exec.n_no_write;
    t->n_from_slot += w.exec.n_from_slot;
    w.link.full = NULL;
    world_check_idle(&w);
    world_close(&w);
}

static void every_answer_equals_the_solo_run_and_nothing_leaks(void **state)
{
    uint64_t n_lives = getenv("PENSTOCK_FULL") != NULL ? 10000 : 400;
    struct totals t = {0};

    (void)state;
    for (uint64_t seed = 0; seed < n_lives; seed++)
        random_life(seed, &t);
    print_message(
        "# %llu requests, %llu tokens, %llu cached, %llu suspended, %llu copies, %llu without "
        "write, %llu from slot, %llu refused, %llu cancelled, %llu followed\n",
        (unsigned long long)t.n_reqs, (unsigned long long)t.n_tokens,
        (unsigned long long)t.n_cached, (unsigned long long)t.n_preempted,
        (unsigned long long)t.n_copies, (unsigned long long)t.n_no_write,
        (unsigned long long)t.n_from_slot, (unsigned long long)t.n_refused,
        (unsigned long long)t.n_cancelled, (unsigned long long)t.n_followed);
    /* The lives were lively. */
    assert_true(t.n_cached > 1000 && t.n_preempted > 100 && t.n_copies > 100 && t.n_no_write > 10);
    assert_true(t.n_from_slot > 1000 && t.n_refused > 10 && t.n_cancelled > 100);
    assert_true(t.n_followed > 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_answer_equals_the_solo_run_and_nothing_leaks),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
