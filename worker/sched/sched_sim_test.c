/*
 * The real scheduler over exec_sim on a manual clock: thousands of requests, a pool that is far too
 * small, and answers that are checked token by token against their definition.
 */

#include <stdio.h>
#include <string.h>

#include "common/rng.h"
#include "common/test.h"
#include "worker/exec/exec_sim.h"
#include "worker/sched/sched.h"

enum {
    N_REQS = 2000,
    N_IDS = 5000,
    N_SLOTS = 48,
    PAGES = 300,
    CONTEXT = 2048,
    PROMPT_MAX = 1000,
    ANSWER_MAX = 300,
    STEPS_MAX = 2000000,
};

static const uint32_t eos[1] = {11};
static const struct wk_cost cost = {{7000, 20, 25, 0.04, 0}};

struct req {
    struct pb_submit *s; /* kept copy of what it asks */
    uint64_t arrive_us;
    uint32_t *got;
    uint32_t n_got;
    int finish;
};

struct world {
    struct ps_clock clock;
    struct wk_exec *exec;
    struct wk_sched *s;
    struct wk_sim_vocab vocab;
    struct wk_kv_layout layout;
    struct wk_store *store;
    struct req *reqs;
    uint32_t n_reqs, n_arrived, n_finished;
    struct pb_load load;
};

static struct pb_submit *make(struct ps_rng *r, uint32_t shared_id)
{
    uint32_t n = 1 + (uint32_t)ps_rng_below(r, ps_rng_below(r, 4) == 0 ? PROMPT_MAX : 100);
    struct pb_submit *s = pb_submit_create(n, 0, 0, 0);
    struct ps_rng ids;

    /* A third of them begin like another one. */
    ps_rng_seed(&ids, ps_rng_below(r, 3) == 0 ? 1 : shared_id + 2);
    s->n_prompt = n;
    for (uint32_t i = 0; i < n; i++)
        s->ids[i] = (uint32_t)ps_rng_below(i < n / 2 ? &ids : r, N_IDS);
    s->max_tokens = ps_rng_below(r, 2) ? 1 + (uint32_t)ps_rng_below(r, ANSWER_MAX) : PB_NO_LIMIT;
    s->chain_seed = 1 + ps_rng_below(r, 2);
    s->priority = (int32_t)ps_rng_below(r, 3);
    s->samp = (struct pb_sampling){
        .temperature = 1, .rep_penalty = 1, .seed = ps_rng_u64(r), .n_top = -1, .n_prompt_top = -1};
    return s;
}

static struct pb_submit *copy_of(const struct pb_submit *s)
{
    struct pb_submit *c = pb_submit_create(s->n_prompt, 0, 0, 0);
    uint32_t *ids = c->ids, *stop = c->stop_ids, *bias_ids = c->bias_ids, *cuts = c->cuts;
    float *bias = c->bias;

    *c = *s;
    c->ids = ids;
    c->stop_ids = stop;
    c->bias_ids = bias_ids;
    c->bias = bias;
    c->cuts = cuts;
    memcpy(ids, s->ids, s->n_prompt * sizeof(*ids));
    return c;
}

static bool port_pop(void *ud, struct wk_in *out)
{
    struct world *w = ud;
    struct req *r = &w->reqs[w->n_arrived];

    if (w->n_arrived == w->n_reqs || r->arrive_us > ps_now_us(&w->clock))
        return false;
    *out = (struct wk_in){WK_IN_OPEN, w->n_arrived++, copy_of(r->s)};
    return true;
}

static bool port_push(void *ud, const struct wk_out *o)
{
    struct world *w = ud;
    struct req *r = &w->reqs[o->handle];

    assert_int_not_equal(o->kind, WK_OUT_REJECTED);
    if (o->kind == WK_OUT_TOKEN) {
        assert_int_equal(r->finish, 0);
        r->got[r->n_got++] = o->token;
    } else if (o->kind == WK_OUT_FINISHED) {
        assert_int_equal(r->finish, 0);
        r->finish = (int)o->finish;
        w->n_finished++;
    }
    return true;
}

static void port_set_load(void *ud, const struct pb_load *load, uint64_t tick)
{
    struct world *w = ud;

    (void)tick;
    w->load = *load;
}

static void world_open(struct world *w, uint32_t depth, uint32_t n_reqs)
{
    struct ps_buf err = PS_BUF_INIT;
    struct wk_exec_sim_conf ec = {.clock = &w->clock,
                                  .depth = depth,
                                  .n_slots = N_SLOTS,
                                  .kv_bytes = (uint64_t)PAGES * 4096,
                                  .item_bytes = 4096,
                                  .cost = cost};
    struct wk_sched_conf sc = {.clock = &w->clock,
                               .port = {w, port_pop, port_push, port_set_load, NULL},
                               .layout = &w->layout,
                               .eos = {eos, 1},
                               .context = CONTEXT,
                               .chunk = 256,
                               .reserve = 16,
                               .max_waiting = N_REQS};
    struct ps_rng r;
    uint64_t at = 1;

    memset(w, 0, sizeof(*w));
    ps_clock_manual(&w->clock, 1);
    /* Answers end by EOS after 200 tokens in the mean: max_tokens alone would fill the context. */
    w->vocab = ec.vocab =
        (struct wk_sim_vocab){.n_ids = N_IDS, .eos = eos, .n_eos = 1, .p_eos = 0.005};
    wk_exec_sim_layout(&w->layout, 4096);
    assert_int_equal(wk_exec_sim_create(&w->exec, &ec, &err), 0);
    sc.exec = w->exec;
    sc.store = w->store = wk_store_create_t0(&w->layout, &w->clock, w->exec);
    w->s = wk_sched_create(&sc);
    w->n_reqs = n_reqs;
    w->reqs = ps_calloc(n_reqs, sizeof(*w->reqs));
    ps_rng_seed(&r, 42);
    for (uint32_t i = 0; i < n_reqs; i++) {
        w->reqs[i].s = make(&r, i % 300);
        w->reqs[i].arrive_us = at;
        w->reqs[i].got = ps_calloc(CONTEXT, sizeof(uint32_t));
        at += ps_rng_below(&r, 40000);
    }
}

static void world_close(struct world *w)
{
    wk_sched_destroy(w->s);
    wk_store_destroy(w->store, 0); /* asserts that no page leaked */
    w->exec->ops->destroy(w->exec);
    for (uint32_t i = 0; i < w->n_reqs; i++) {
        pb_submit_destroy(w->reqs[i].s);
        ps_free(w->reqs[i].got);
    }
    ps_free(w->reqs);
}

/* Time goes to the next thing that happens. */
static void run(struct world *w)
{
    for (uint32_t i = 0; i < STEPS_MAX && w->n_finished < w->n_reqs; i++) {
        uint64_t next = wk_exec_sim_next_due(w->exec), now = ps_now_us(&w->clock);
        uint32_t wait_ms;

        if (w->n_arrived < w->n_reqs)
            next = ps_min_u64(next, w->reqs[w->n_arrived].arrive_us);
        assert_true(next != UINT64_MAX);
        if (next > now)
            ps_clock_advance(&w->clock, next - now);
        assert_int_equal(wk_sched_tick(w->s, &wait_ms), 0);
    }
    assert_int_equal(w->n_finished, w->n_reqs);
}

/* The answer by definition: each token from the digest of its prefix. */
static void check(const struct world *w, const struct req *r)
{
    uint32_t ids[CONTEXT + 1], n = r->s->n_prompt;

    memcpy(ids, r->s->ids, n * sizeof(*ids));
    for (uint32_t i = 0; i < r->n_got; i++, n++) {
        ids[n] = wk_exec_sim_token(&w->vocab, wk_exec_sim_digest(ids, n), &r->s->samp, n, NULL, 0);
        assert_int_equal(r->got[i], ids[n]);
        assert_true(ids[n] != eos[0] || i + 1 == r->n_got);
    }
    if (r->finish == PB_FIN_STOP_EOS)
        assert_int_equal(ids[n - 1], eos[0]);
    else if (r->finish == PB_FIN_LENGTH)
        assert_int_equal(r->n_got, r->s->max_tokens);
    else
        assert_int_equal(r->finish, PB_FIN_CONTEXT);
}

static void answers_are_those_of_the_definition(struct world *w, uint32_t depth)
{
    uint64_t n_tokens = 0;

    world_open(w, depth, N_REQS);
    run(w);
    for (uint32_t i = 0; i < N_REQS; i++) {
        check(w, &w->reqs[i]);
        n_tokens += w->reqs[i].n_got;
    }
    (void)printf("# depth %u: %llu tokens in %.1f s of the clock, %llu suspended, %llu cached\n",
                 depth, (unsigned long long)n_tokens, (double)ps_now_us(&w->clock) / 1e6,
                 (unsigned long long)w->load.n_preempted,
                 (unsigned long long)w->load.cached_tokens);
    assert_true(w->load.n_preempted > 20 && w->load.cached_tokens > 1000);
}

static void two_thousand_answers_under_preemption_are_those_of_the_definition(void **state)
{
    struct world w;

    (void)state;
    for (uint32_t depth = 1; depth <= 2; depth++) {
        answers_are_those_of_the_definition(&w, depth);
        world_close(&w);
    }
}

static void the_same_run_takes_the_same_time_to_the_microsecond(void **state)
{
    struct world a, b;

    (void)state;
    world_open(&a, 2, N_REQS / 10);
    world_open(&b, 2, N_REQS / 10);
    run(&a);
    run(&b);
    assert_true(ps_now_us(&a.clock) == ps_now_us(&b.clock));
    world_close(&a);
    world_close(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_thousand_answers_under_preemption_are_those_of_the_definition),
        cmocka_unit_test(the_same_run_takes_the_same_time_to_the_microsecond),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
