#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "router/fleet/fleet_internal.h"

/* The fleet's own functions under a clock that the test sets; the thread is never started. */
struct fixture {
    struct rt_fleet *f;
    struct ps_clock clock;
    uint8_t id[RT_ID_BYTES];
    uint32_t gen, beat_seq;
    uint64_t tick;
};

static void open_fleet(struct fixture *x)
{
    struct rt_fleet_conf conf = {.bind_host = "127.0.0.1",
                                 .n_loops = 1,
                                 .n_events = 64,
                                 .curve_secret_file = "",
                                 .curve_allow_file = "",
                                 .inject = ""};
    struct ps_buf err = PS_BUF_INIT;

    memset(x, 0, sizeof(*x));
    ps_clock_real(&x->clock);
    assert_int_equal(rt_fleet_create(&x->f, &conf, &x->clock, &err), 0);
    x->f->now_us = 1000000000;
}

static struct rt_peer *hello(struct fixture *x, uint64_t inc, uint32_t nonce)
{
    struct pb_hello h = {.nonce = nonce,
                         .info = {.uid = 9, .incarnation = inc, .n_vocab = 100, .context = 100}};

    rt_peer_on_hello(x->f, x->id, &h);
    return x->f->peers[0];
}

/* Nobody is connected, so every send says so; only the test of that rule wants it. */
static void scan(struct fixture *x, uint64_t us)
{
    x->f->now_us += us;
    x->f->peers[0]->unreachable_us = 0;
    rt_peer_scan(x->f, x->f->peers[0]);
}

static void heard(struct fixture *x)
{
    x->f->peers[0]->heard_us = x->f->now_us;
}

static void beat(struct fixture *x, bool tick_moves, uint32_t busy_ms)
{
    struct pb_msg m = {.head = {.seq = ++x->beat_seq}};

    x->tick += tick_moves;
    m.beat.tick = x->tick;
    m.beat.load.busy_ms = busy_ms;
    heard(x);
    rt_peer_on_beat(x->f, x->f->peers[0], &m);
}

static uint64_t submit(struct fixture *x, bool accept)
{
    struct pb_submit *s = pb_submit_create(1, 0, 0, 0);
    struct rt_cmd c = {.kind = RT_CMD_SUBMIT, .submit = s, .resv_tok = 10};
    uint64_t req = RT_REQ_ID(0, ++x->gen, 3);

    s->req = req;
    s->attempt = 1;
    s->n_prompt = 1;
    rt_fleet_reserve(x->f, 0, 10);
    rt_att_submit(x->f, 0, &c);
    if (accept)
        rt_att_accept(x->f, rt_att_find(x->f, req), 1);
    return req;
}

static struct rt_event next_event(struct fixture *x)
{
    struct rt_event e = {.kind = RT_EV_FLEET};

    rt_view_flush(x->f);
    while (rt_fleet_poll(x->f, 0, &e) && e.kind == RT_EV_FLEET)
        continue;
    return e;
}

static void nonce_names_one_link(void **state)
{
    struct fixture x;
    struct rt_peer *p;
    uint32_t epoch;

    (void)state;
    open_fleet(&x);
    p = hello(&x, 100, 5);
    epoch = p->epoch;
    assert_true(epoch != 0 && p->state == RT_W_LIVE);
    hello(&x, 100, 5); /* our Welcome was lost, or this is a copy */
    assert_int_equal(p->epoch, epoch);
    hello(&x, 100, 4);
    assert_int_equal(p->epoch, epoch);
    hello(&x, 99, 50); /* an older process */
    assert_int_equal(p->epoch, epoch);
    hello(&x, 100, 6);
    assert_true(p->epoch > epoch);
    rt_fleet_destroy(x.f);
}

static void a_worker_with_another_tokenizer_is_not_let_in(void **state)
{
    struct fixture x;

    (void)state;
    open_fleet(&x);
    x.f->checks_tokenizer = true;
    x.f->tokenizer_digest[5] = 1;
    assert_null(hello(&x, 100, 1));
    x.f->tokenizer_digest[5] = 0; /* the fixture's worker says zeros */
    assert_non_null(hello(&x, 100, 2));
    rt_fleet_destroy(x.f);
}

static void new_epoch_keeps_attempts_and_new_incarnation_loses_them(void **state)
{
    struct fixture x;
    struct rt_event e;
    uint64_t req, generation;

    (void)state;
    open_fleet(&x);
    generation = hello(&x, 100, 1)->generation;
    req = submit(&x, true);
    assert_int_equal(next_event(&x).kind, RT_EV_ACCEPTED);
    hello(&x, 100, 2);
    assert_non_null(rt_att_find(x.f, req));
    hello(&x, 101, 1);
    e = next_event(&x);
    assert_int_equal(e.kind, RT_EV_LOST);
    assert_true(e.req == req && e.fault_kills);
    assert_true(x.f->peers[0]->generation > generation);
    assert_int_equal(x.f->peers[0]->cancels.n, 0); /* that process is gone */
    rt_fleet_destroy(x.f);
}

static void silence_makes_suspect_then_dead(void **state)
{
    struct fixture x;
    struct rt_worker w;
    struct rt_peer *p;

    (void)state;
    open_fleet(&x);
    p = hello(&x, 100, 1);
    submit(&x, true);
    assert_int_equal(next_event(&x).kind, RT_EV_ACCEPTED);
    scan(&x, RT_SUSPECT_US);
    assert_int_equal(p->state, RT_W_LIVE);
    scan(&x, 1000);
    assert_int_equal(p->state, RT_W_SUSPECT);
    heard(&x);
    scan(&x, 1000);
    assert_int_equal(p->state, RT_W_LIVE);
    scan(&x, RT_DEAD_US);
    assert_int_equal(p->state, RT_W_DEAD);
    assert_int_equal(next_event(&x).kind, RT_EV_LOST);
    assert_int_equal(p->cancels.n, 1); /* it may come back and still run it */
    assert_true(rt_fleet_worker(x.f, 0, &w));
    assert_int_equal(w.state, RT_W_DEAD);
    assert_int_equal(w.resv_tok, 0);
    assert_int_equal(w.resv_req, 0);
    hello(&x, 100, 1); /* a delayed copy does not raise the dead */
    assert_int_equal(p->epoch, 0);
    hello(&x, 100, 2);
    assert_int_equal(p->state, RT_W_LIVE);
    rt_fleet_destroy(x.f);
}

static void unreachable_worker_is_dead_after_half_a_second(void **state)
{
    struct fixture x;
    struct rt_peer *p;

    (void)state;
    open_fleet(&x);
    p = hello(&x, 100, 1);
    p->unreachable_us = x.f->now_us;
    heard(&x);
    x.f->now_us += RT_UNREACHABLE_US;
    heard(&x);
    rt_peer_scan(x.f, p);
    assert_int_equal(p->state, RT_W_LIVE);
    x.f->now_us += 1000;
    heard(&x);
    rt_peer_scan(x.f, p);
    assert_int_equal(p->state, RT_W_DEAD);
    rt_fleet_destroy(x.f);
}

static void own_stall_extends_every_lease(void **state)
{
    struct fixture x;
    struct rt_peer *p;

    (void)state;
    open_fleet(&x);
    p = hello(&x, 100, 1);
    x.f->now_us += 5000000; /* we slept, not they */
    rt_peer_extend(x.f, 5000000);
    scan(&x, 0);
    assert_int_equal(p->state, RT_W_LIVE);
    rt_fleet_destroy(x.f);
}

static void frozen_tick_with_work_is_a_hang(void **state)
{
    struct fixture x;
    struct rt_peer *p;

    (void)state;
    open_fleet(&x);
    p = hello(&x, 100, 1);
    for (int i = 0; i < 200; i++) { /* 20 s without work: an idle scheduler may sleep */
        beat(&x, false, 0);
        scan(&x, 100000);
    }
    assert_int_equal(p->state, RT_W_LIVE);
    submit(&x, true);
    assert_int_equal(next_event(&x).kind, RT_EV_ACCEPTED);
    for (int i = 0; i < 150; i++) { /* it said that it would be busy */
        beat(&x, false, 8000);
        scan(&x, 100000);
    }
    assert_int_equal(p->state, RT_W_LIVE);
    for (int i = 0; i < 50; i++) {
        beat(&x, false, 8000);
        scan(&x, 100000);
    }
    assert_int_equal(p->state, RT_W_DEAD);
    assert_true(next_event(&x).fault_kills);
    beat(&x, false, 0);
    scan(&x, 100000);
    assert_int_equal(p->state, RT_W_DEAD); /* its I/O thread lives, its scheduler does not */
    beat(&x, true, 0);
    scan(&x, 100000);
    assert_int_equal(p->state, RT_W_LIVE);
    rt_fleet_destroy(x.f);
}

static void submit_is_repeated_then_given_up(void **state)
{
    struct fixture x;
    struct rt_event e;

    (void)state;
    open_fleet(&x);
    hello(&x, 100, 1);
    submit(&x, false);
    for (int i = 0; i < 224; i++) {
        x.f->now_us += 10000;
        rt_att_scan(x.f);
        assert_int_equal(next_event(&x).kind, RT_EV_FLEET); /* nothing yet */
    }
    x.f->now_us += 20000;
    rt_att_scan(x.f);
    e = next_event(&x);
    assert_int_equal(e.kind, RT_EV_LOST);
    assert_false(e.fault_kills);
    assert_int_equal(x.f->peers[0]->cancels.n, 1); /* a late copy must not open it */
    rt_fleet_destroy(x.f);
}

static void cancelled_attempt_is_never_heard_of_again(void **state)
{
    struct fixture x;
    struct rt_cmd c;
    uint64_t req;

    (void)state;
    open_fleet(&x);
    hello(&x, 100, 1);
    req = submit(&x, true); /* its event waits in the ring */
    assert_int_equal(rt_fleet_cancel(x.f, 0, req, 1), RT_FLEET_OK);
    assert_int_equal(next_event(&x).kind, RT_EV_FLEET);
    assert_int_equal(ps_ring_pop(x.f->loops[0].cmds, &c), PS_RING_OK);
    rt_att_cancel(x.f, 0, c.req, c.attempt);
    assert_int_equal(next_event(&x).kind, RT_EV_FLEET);
    assert_null(rt_att_find(x.f, req));
    assert_int_equal(x.f->loops[0].cancelled.n, 0);
    rt_fleet_destroy(x.f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nonce_names_one_link),
        cmocka_unit_test(a_worker_with_another_tokenizer_is_not_let_in),
        cmocka_unit_test(new_epoch_keeps_attempts_and_new_incarnation_loses_them),
        cmocka_unit_test(silence_makes_suspect_then_dead),
        cmocka_unit_test(unreachable_worker_is_dead_after_half_a_second),
        cmocka_unit_test(own_stall_extends_every_lease),
        cmocka_unit_test(frozen_tick_with_work_is_a_hang),
        cmocka_unit_test(submit_is_repeated_then_given_up),
        cmocka_unit_test(cancelled_attempt_is_never_heard_of_again),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
