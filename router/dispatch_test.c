/*
 * One loop's generations against a scripted fleet: what is submitted and cancelled is kept in arrays, events
 * come from a queue.
 */

#include <string.h>

#include "common/test.h"
#include "router/conf_def.h"
#include "router/gen.h"
#include "router/router.h"
#include "router/stats.h"

enum { MAX = 64, PROMPT = 20 };

static struct {
    struct rt_worker workers[4];
    uint32_t n_workers;
    struct pb_submit *submits[MAX];
    uint32_t submit_worker[MAX], n_submits;
    uint64_t cancels[MAX];
    uint32_t n_cancels;
    struct rt_event events[MAX];
    uint32_t n_events, next_event;
    bool submit_full, cancel_full;
} fleet;

static struct {
    uint32_t ids[256], n, n_finished, n_failed;
    struct rt_gen_end end;
    struct rt_fail fail;
    bool cancel_at_first;
} heard;

static struct rt_router router;
static struct rt_loop loop;
static struct rt_conf conf;
static struct ps_clock clock_;
static struct rt_metrics metrics;
static struct ps_counter counters[8];

uint32_t rt_fleet_n_slots(const struct rt_fleet *f)
{
    (void)f;
    return fleet.n_workers;
}

bool rt_fleet_worker(const struct rt_fleet *f, uint32_t slot, struct rt_worker *out)
{
    (void)f;
    *out = fleet.workers[slot];
    return true;
}

int64_t rt_fleet_reserve(struct rt_fleet *f, uint32_t slot, int64_t n_tok)
{
    (void)f;
    fleet.workers[slot].resv_req++;
    return fleet.workers[slot].resv_tok += n_tok;
}

void rt_fleet_unreserve(struct rt_fleet *f, uint32_t slot, int64_t n_tok)
{
    (void)f;
    fleet.workers[slot].resv_req--;
    fleet.workers[slot].resv_tok -= n_tok;
}

int rt_fleet_submit(struct rt_fleet *f, uint32_t l, uint32_t worker, struct pb_submit *s,
                    int64_t resv_tok)
{
    (void)f;
    (void)l;
    (void)resv_tok;
    if (fleet.submit_full)
        return RT_FLEET_E_FULL;
    fleet.submit_worker[fleet.n_submits] = worker;
    fleet.submits[fleet.n_submits++] = s;
    return RT_FLEET_OK;
}

int rt_fleet_cancel(struct rt_fleet *f, uint32_t l, uint64_t req, uint32_t attempt)
{
    (void)f;
    (void)l;
    (void)attempt;
    if (fleet.cancel_full)
        return RT_FLEET_E_FULL;
    fleet.cancels[fleet.n_cancels++] = req;
    return RT_FLEET_OK;
}

bool rt_fleet_poll(struct rt_fleet *f, uint32_t l, struct rt_event *out)
{
    (void)f;
    (void)l;
    if (fleet.next_event == fleet.n_events)
        return false;
    *out = fleet.events[fleet.next_event++];
    return true;
}

static void on_tokens(struct rt_gen *g, uint32_t first, uint32_t n, const uint32_t *ids,
                      const struct pb_logprob *lp, void *ud)
{
    (void)lp;
    (void)ud;
    assert_int_equal(first, heard.n);
    memcpy(heard.ids + heard.n, ids, n * sizeof(ids[0]));
    heard.n += n;
    if (heard.cancel_at_first)
        rt_gen_cancel(g);
}

static void on_finished(struct rt_gen *g, const struct rt_gen_end *e, void *ud)
{
    (void)g;
    (void)ud;
    heard.n_finished++;
    heard.end = *e;
}

static void on_failed(struct rt_gen *g, const struct rt_fail *f, void *ud)
{
    (void)g;
    (void)ud;
    heard.n_failed++;
    heard.fail = *f;
}

static const struct rt_gen_sink sink = {on_tokens, on_finished, on_failed};

static struct rt_gen *start_prio(int32_t priority, struct rt_fail *f)
{
    static const uint32_t ids[PROMPT] = {1, 2, 3};
    const struct rt_gen_spec spec = {.ids = ids,
                                     .n_prompt = PROMPT,
                                     .max_tokens = 10,
                                     .priority = priority,
                                     .samp = {.n_top = -1, .n_prompt_top = -1}};

    return rt_gen_start(&loop, &spec, &sink, NULL, f);
}

static struct rt_gen *start(void)
{
    struct rt_fail f;
    struct rt_gen *g = start_prio(0, &f);

    assert_non_null(g);
    return g;
}

static void event(enum rt_event_kind kind, uint32_t submit, struct rt_event more)
{
    more.kind = kind;
    more.req = fleet.submits[submit]->req;
    more.attempt = fleet.submits[submit]->attempt;
    more.worker = fleet.submit_worker[submit];
    fleet.events[fleet.n_events++] = more;
}

static void tokens(uint32_t submit, uint32_t first, uint32_t id)
{
    struct {
        struct rt_tokens t;
        uint32_t id;
    } *b = ps_calloc(1, sizeof(*b));

    b->id = id;
    b->t.n = 1;
    b->t.ids = &b->id;
    event(RT_EV_TOKENS, submit, (struct rt_event){.first = first, .tokens = &b->t});
}

static int setup(void **state)
{
    uint32_t i;

    (void)state;
    memset(&fleet, 0, sizeof(fleet));
    memset(&heard, 0, sizeof(heard));
    conf = (struct rt_conf){.max_queue = 4,
                            .max_queue_bytes = 1 << 20,
                            .queue_timeout_s = 60,
                            .move_wait_s = 10,
                            .max_moves = 3};
    ps_clock_manual(&clock_, 1000000);
    metrics.moves = &counters[0];
    metrics.refused_queue_full = &counters[2];
    router = (struct rt_router){.conf = &conf, .clock = &clock_, .n_loops = 1, .metrics = &metrics};
    router.model.context = 4096;
    router.model.eos[0] = 2;
    router.model.n_eos = 1;
    memset(&loop, 0, sizeof(loop));
    loop.router = &router;
    assert_int_equal(ps_loop_create(&loop.loop), 0);
    rt_gens_init(&loop);
    fleet.n_workers = 2;
    for (i = 0; i < 2; i++) {
        fleet.workers[i].state = RT_W_LIVE;
        fleet.workers[i].info.uid = 5 + i;
        fleet.workers[i].info.n_slots = 8;
    }
    return 0;
}

static int teardown(void **state)
{
    uint32_t i;

    (void)state;
    rt_gens_fini(&loop);
    ps_loop_destroy(loop.loop);
    for (i = 0; i < fleet.n_submits; i++)
        pb_submit_destroy(fleet.submits[i]);
    return 0;
}

static void tokens_and_the_end_are_heard_in_order(void **state)
{
    (void)state;
    (void)start();
    rt_gens_tick(&loop);
    assert_int_equal(fleet.n_submits, 1);
    assert_int_equal(fleet.submits[0]->attempt, 1);
    event(RT_EV_ACCEPTED, 0, (struct rt_event){0});
    tokens(0, 0, 41);
    tokens(0, 1, 42);
    event(RT_EV_FINISHED, 0,
          (struct rt_event){.finish = PB_FIN_LENGTH, .n_total = 2, .n_cached = 16});
    rt_gens_tick(&loop);
    assert_int_equal(heard.n, 2);
    assert_int_equal(heard.ids[1], 42);
    assert_int_equal(heard.n_finished, 1);
    assert_int_equal(heard.end.n_cached, 16);
    assert_int_equal(rt_gens_n_running(&loop) + rt_gens_n_queued(&loop), 0);
}

static void a_lost_stream_goes_on_elsewhere_with_its_tokens(void **state)
{
    uint32_t other;

    (void)state;
    (void)start();
    rt_gens_tick(&loop);
    tokens(0, 0, 41);
    event(RT_EV_LOST, 0, (struct rt_event){0});
    rt_gens_tick(&loop);
    assert_int_equal(fleet.n_submits, 2);
    other = fleet.submit_worker[1];
    assert_int_not_equal(other, fleet.submit_worker[0]);
    assert_int_equal(fleet.submits[1]->attempt, 2);
    assert_int_equal(fleet.submits[1]->n_done, 1);
    assert_int_equal(fleet.submits[1]->ids[PROMPT], 41);
    tokens(0, 1, 99); /* the old attempt is still talking */
    tokens(1, 1, 42);
    event(RT_EV_FINISHED, 1, (struct rt_event){.finish = PB_FIN_LENGTH, .n_total = 2});
    rt_gens_tick(&loop);
    assert_int_equal(heard.n, 2);
    assert_int_equal(heard.ids[1], 42);
    assert_int_equal(heard.n_finished, 1);
}

static void a_complete_answer_whose_end_was_lost_ends_here(void **state)
{
    (void)state;
    (void)start();
    rt_gens_tick(&loop);
    tokens(0, 0, 2); /* EOS */
    event(RT_EV_LOST, 0, (struct rt_event){0});
    rt_gens_tick(&loop);
    assert_int_equal(fleet.n_submits, 1);
    assert_int_equal(heard.n_finished, 1);
    assert_int_equal(heard.end.finish, PB_FIN_STOP_EOS);
    assert_int_equal(heard.end.matched_id, 2);
}

static void moves_are_bounded(void **state)
{
    uint32_t i;

    (void)state;
    (void)start();
    rt_gens_tick(&loop);
    for (i = 0; i < 4; i++) {
        event(RT_EV_LOST, i, (struct rt_event){0});
        rt_gens_tick(&loop);
    }
    assert_int_equal(fleet.n_submits, 4);
    assert_int_equal(heard.n_failed, 1);
    assert_int_equal(heard.fail.row, RT_E32_WORKER_LOST);
}

static void the_worker_s_own_cancellation_is_a_loss(void **state)
{
    (void)state;
    (void)start();
    rt_gens_tick(&loop);
    event(RT_EV_FINISHED, 0, (struct rt_event){.finish = PB_FIN_CANCELLED});
    rt_gens_tick(&loop);
    assert_int_equal(fleet.n_submits, 2);
    assert_int_equal(heard.n_finished, 0);
}

static void a_full_worker_sends_it_to_another(void **state)
{
    (void)state;
    (void)start();
    rt_gens_tick(&loop);
    event(RT_EV_REJECTED, 0, (struct rt_event){.reject = PB_REJ_FULL});
    rt_gens_tick(&loop);
    assert_int_equal(fleet.n_submits, 2);
    assert_int_not_equal(fleet.submit_worker[0], fleet.submit_worker[1]);
    event(RT_EV_REJECTED, 1, (struct rt_event){.reject = PB_REJ_TOO_LONG});
    rt_gens_tick(&loop);
    assert_int_equal(heard.fail.row, RT_E35_TOO_LONG_FOR_KV);
}

static void the_queue_is_bounded_and_served_by_priority(void **state)
{
    struct rt_fail f;
    uint32_t i;

    (void)state;
    for (i = 0; i < 2; i++)
        fleet.workers[i].load.n_running = 8;
    for (i = 0; i < 3; i++)
        (void)start();
    assert_non_null(start_prio(-5, &f)); /* lower is earlier */
    assert_null(start_prio(0, &f));
    assert_int_equal(f.row, RT_E27_QUEUE_FULL);
    rt_gens_tick(&loop);
    assert_int_equal(fleet.n_submits, 0);
    assert_int_equal(rt_gens_n_queued(&loop), 4);
    fleet.workers[0].load.n_running = 7;
    rt_gens_tick(&loop);
    assert_int_equal(fleet.n_submits, 1);
    assert_int_equal(fleet.submits[0]->priority, -5);
}

static void without_workers_or_while_draining_it_is_refused(void **state)
{
    struct rt_fail f;

    (void)state;
    fleet.workers[0].state = fleet.workers[1].state = RT_W_DEAD;
    assert_null(start_prio(0, &f));
    assert_int_equal(f.row, RT_E31_NO_WORKER);
    router.draining = RT_DRAIN_REFUSE;
    assert_null(start_prio(0, &f));
    assert_int_equal(f.row, RT_E37_DRAINING);
}

static void after_a_cancel_nothing_is_heard(void **state)
{
    struct rt_gen *g;

    (void)state;
    g = start();
    rt_gens_tick(&loop);
    rt_gen_cancel(g);
    assert_int_equal(fleet.n_cancels, 1);
    assert_true(fleet.cancels[0] == fleet.submits[0]->req);
    tokens(0, 0, 41);
    event(RT_EV_FINISHED, 0, (struct rt_event){.finish = PB_FIN_CANCELLED});
    (void)start(); /* takes the same slot */
    rt_gens_tick(&loop);
    assert_int_equal(heard.n + heard.n_finished + heard.n_failed, 0);
    assert_false(fleet.submits[1]->req == fleet.submits[0]->req);
}

static void a_sink_may_cancel_while_it_hears_tokens(void **state)
{
    (void)state;
    heard.cancel_at_first = true;
    (void)start();
    rt_gens_tick(&loop);
    tokens(0, 0, 41);
    tokens(0, 1, 42);
    rt_gens_tick(&loop);
    assert_int_equal(heard.n, 1);
    assert_int_equal(fleet.n_cancels, 1);
}

static void a_full_ring_loses_nothing(void **state)
{
    struct rt_gen *g;

    (void)state;
    fleet.submit_full = true;
    g = start();
    rt_gens_tick(&loop);
    assert_int_equal(fleet.workers[0].resv_req + fleet.workers[1].resv_req, 0);
    fleet.submit_full = false;
    rt_gens_tick(&loop);
    assert_int_equal(fleet.submits[0]->attempt, 1);
    fleet.cancel_full = true;
    rt_gen_cancel(g);
    assert_int_equal(fleet.n_cancels, 0);
    fleet.cancel_full = false;
    rt_gen_cancel(start()); /* queued only: no message of its own */
    rt_gens_tick(&loop);
    assert_int_equal(fleet.n_cancels, 1);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(tokens_and_the_end_are_heard_in_order),
        TEST(a_lost_stream_goes_on_elsewhere_with_its_tokens),
        TEST(a_complete_answer_whose_end_was_lost_ends_here),
        TEST(moves_are_bounded),
        TEST(the_worker_s_own_cancellation_is_a_loss),
        TEST(a_full_worker_sends_it_to_another),
        TEST(the_queue_is_bounded_and_served_by_priority),
        TEST(without_workers_or_while_draining_it_is_refused),
        TEST(after_a_cancel_nothing_is_heard),
        TEST(a_sink_may_cancel_while_it_hears_tokens),
        TEST(a_full_ring_loses_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
