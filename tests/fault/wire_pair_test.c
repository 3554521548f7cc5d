#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/buf.h"
#include "common/mq/zap.h"
#include "tests/fault/wire_fake.h"

#ifdef __SANITIZE_THREAD__ /* ten times slower, and timers are real */
enum { WAIT_MS = 60000, STEP_US = 5000, STREAMS = 16 };
#else
enum { WAIT_MS = 15000, STEP_US = 500, STREAMS = 48 };
#endif

struct pair {
    struct wire_drive *d;
    struct wire_worker *w[3];
    char router[64], same[64]; /* one router by two addresses */
    const char *routers[2];
};

static void open_drive(struct pair *p, const struct wire_drive_conf *c)
{
    struct ps_buf err = PS_BUF_INIT;

    p->d = wire_drive_start(c, &err);
    if (p->d == NULL)
        fail_msg("%s", err.data);
    ps_buf_fini(&err);
    snprintf(p->router, sizeof(p->router), "tcp://127.0.0.1:%u",
             rt_fleet_port(wire_drive_fleet(p->d)));
    snprintf(p->same, sizeof(p->same), "tcp://[::ffff:127.0.0.1]:%u",
             rt_fleet_port(wire_drive_fleet(p->d)));
    p->routers[0] = p->router;
    p->routers[1] = p->same;
}

static struct wire_worker *open_worker(const struct pair *p, uint64_t uid, const char *inject)
{
    struct wire_worker_conf c = {.routers = (const char **)(uintptr_t)p->routers,
                                 .n_routers = 1,
                                 .uid = uid,
                                 .inject = inject,
                                 .secret_file = "",
                                 .server_key_file = "",
                                 .step_us = STEP_US};

    return wire_worker_start(&c);
}

static uint64_t now_ms(void)
{
    struct ps_clock c;

    ps_clock_real(&c);
    return ps_now_us(&c) / 1000;
}

/* Turns until n requests are complete, then until none is open. */
static void run_to(struct pair *p, uint64_t n_completed)
{
    struct wire_table *t = wire_drive_table(p->d);
    uint64_t until = now_ms() + WAIT_MS;

    while (atomic_load(&t->n_completed) < n_completed && now_ms() < until)
        wire_drive_turn(p->d, true);
    assert_true(atomic_load(&t->n_completed) >= n_completed);
    while (wire_drive_n_open(p->d) > 0 && now_ms() < until)
        wire_drive_turn(p->d, false);
    if (wire_drive_n_open(p->d) > 0)
        wire_drive_describe(p->d);
    assert_int_equal(wire_drive_n_open(p->d), 0);
    assert_int_equal(atomic_load(&t->n_wrong), 0);
}

/* The ends are acknowledged, the reservations taken back. */
static void settle(struct pair *p, uint32_t n_workers)
{
    uint64_t until = now_ms() + WAIT_MS;
    bool quiet = false;

    while (!quiet && now_ms() < until) {
        wire_drive_turn(p->d, false);
        quiet = wire_drive_unreserved(p->d);
        for (uint32_t i = 0; i < n_workers; i++)
            quiet = quiet && wire_worker_idle(p->w[i]);
    }
    assert_true(quiet);
}

static void wait_live(struct pair *p, uint32_t n)
{
    uint64_t until = now_ms() + WAIT_MS;

    while (wire_drive_n_live(p->d) != n && now_ms() < until)
        wire_drive_turn(p->d, false);
    assert_int_equal(wire_drive_n_live(p->d), n);
}

static const struct wire_drive_conf plain = {
    .seed = 5, .n_streams = STREAMS, .inject = "", .secret_file = "", .allow_file = ""};

static void streams_are_whole_and_nothing_is_left(void **state)
{
    struct pair p;

    (void)state;
    open_drive(&p, &plain);
    p.w[0] = open_worker(&p, 1, "");
    p.w[1] = open_worker(&p, 2, "");
    wait_live(&p, 2);
    run_to(&p, 600);
    settle(&p, 2);
    assert_int_equal(atomic_load(&wire_drive_table(p.d)->n_lost), 0);
    wire_worker_stop(p.w[0], true);
    wait_live(&p, 1); /* Bye: at once, not after a lease */
    wire_worker_stop(p.w[1], true);
    wire_drive_stop(p.d);
}

static void streams_are_whole_under_heavy_loss(void **state)
{
    static const char inject[] =
        "seed=3,drop=0.1,dup=0.1,delay=0.1,delay_ms=30,late=0.01,late_ms=600";
    struct wire_drive_conf c = plain;
    struct pair p;

    (void)state;
    c.inject = inject;
    open_drive(&p, &c);
    p.w[0] = open_worker(&p, 1, inject);
    p.w[1] = open_worker(&p, 2, inject);
    run_to(&p, 300);
    settle(&p, 2);
    assert_true(atomic_load(&wire_drive_table(p.d)->n_tokens) > 0);
    wire_worker_stop(p.w[0], true);
    wire_worker_stop(p.w[1], true);
    wire_drive_stop(p.d);
}

static void restarted_worker_loses_its_attempts_and_the_rest_goes_on(void **state)
{
    struct pair p;

    (void)state;
    open_drive(&p, &plain);
    p.w[0] = open_worker(&p, 1, "");
    p.w[1] = open_worker(&p, 2, "");
    for (int i = 0; i < 3; i++) {
        run_to(&p, atomic_load(&wire_drive_table(p.d)->n_completed) + 60);
        for (int k = 0; k < 20; k++)
            wire_drive_turn(p.d, true); /* some are open */
        wire_worker_stop(p.w[1], false);
        p.w[1] = open_worker(&p, 2, "");
    }
    run_to(&p, atomic_load(&wire_drive_table(p.d)->n_completed) + 60);
    settle(&p, 2);
    assert_true(atomic_load(&wire_drive_table(p.d)->n_lost) > 0);
    wire_worker_stop(p.w[0], true);
    wire_worker_stop(p.w[1], true);
    wire_drive_stop(p.d);
}

static void drained_worker_finishes_and_takes_nothing_new(void **state)
{
    uint64_t until = now_ms() + WAIT_MS;
    struct pair p;

    (void)state;
    open_drive(&p, &plain);
    p.w[0] = open_worker(&p, 1, "");
    p.w[1] = open_worker(&p, 2, "");
    wait_live(&p, 2);
    for (int k = 0; k < 20; k++)
        wire_drive_turn(p.d, true);
    assert_int_equal(rt_fleet_drain(wire_drive_fleet(p.d), 0, 0, true), RT_FLEET_OK);
    while (!wire_worker_drained(p.w[0]) && !wire_worker_drained(p.w[1]) && now_ms() < until)
        wire_drive_turn(p.d, true);
    assert_true(wire_worker_drained(p.w[0]) || wire_worker_drained(p.w[1]));
    assert_int_equal(wire_drive_n_live(p.d), 1);
    run_to(&p, atomic_load(&wire_drive_table(p.d)->n_completed) + 50);
    assert_int_equal(rt_fleet_drain(wire_drive_fleet(p.d), 0, 0, false), RT_FLEET_OK);
    wait_live(&p, 2);
    wire_worker_stop(p.w[0], true);
    wire_worker_stop(p.w[1], true);
    wire_drive_stop(p.d);
}

static void two_addresses_of_one_router_are_one_link(void **state)
{
    struct wire_worker_conf wc = {.n_routers = 2,
                                  .uid = 1,
                                  .inject = "",
                                  .secret_file = "",
                                  .server_key_file = "",
                                  .step_us = STEP_US};
    uint64_t until;
    struct pair p;

    (void)state;
    open_drive(&p, &plain);
    wc.routers = p.routers;
    p.w[0] = wire_worker_start(&wc);
    wait_live(&p, 1);
    run_to(&p, 50);
    until = now_ms() + 600; /* several times what a second dial takes */
    while (now_ms() < until) {
        wire_drive_turn(p.d, true);
        assert_true(wire_worker_n_joined(p.w[0]) <= 1);
    }
    run_to(&p, atomic_load(&wire_drive_table(p.d)->n_completed) + 50);
    assert_int_equal(wire_worker_n_joined(p.w[0]), 1);
    assert_int_equal(atomic_load(&wire_drive_table(p.d)->n_lost), 0);
    settle(&p, 1);
    wire_worker_stop(p.w[0], true);
    wire_drive_stop(p.d);
}

static void key_file(char path[64], const char *text)
{
    int fd;

    snprintf(path, 64, "/tmp/ps_wire_test_XXXXXX");
    fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
}

/* joins: within 10 s; or must not within 1.5 s, which is many handshakes. */
static void try_key(struct pair *p, uint64_t uid, const char *secret, const char *server,
                    bool joins)
{
    struct wire_worker_conf c = {.routers = (const char **)(uintptr_t)p->routers,
                                 .n_routers = 1,
                                 .uid = uid,
                                 .inject = "",
                                 .secret_file = secret,
                                 .server_key_file = server,
                                 .step_us = STEP_US};
    struct wire_worker *w = wire_worker_start(&c);
    uint64_t until = now_ms() + (joins ? 10000 : 1500);

    while (wire_worker_n_joined(w) == 0 && now_ms() < until)
        wire_drive_turn(p->d, false);
    assert_int_equal(wire_worker_n_joined(w), joins);
    assert_int_equal(wire_drive_n_live(p->d), joins);
    if (joins)
        run_to(p, 30);
    wire_worker_stop(w, true);
}

static void only_an_allowed_key_joins_and_only_as_its_own_uid(void **state)
{
    char server_pub[PS_MQ_KEY_CHARS], server_sec[PS_MQ_KEY_CHARS], pub[PS_MQ_KEY_CHARS];
    char sec[PS_MQ_KEY_CHARS], other_pub[PS_MQ_KEY_CHARS], other_sec[PS_MQ_KEY_CHARS];
    char f_server_sec[64], f_server_pub[64], f_sec[64], f_other[64], f_allow[64], line[128];
    struct wire_drive_conf c = plain;
    struct pair p;

    (void)state;
    ps_curve_keypair(server_pub, server_sec);
    ps_curve_keypair(pub, sec);
    ps_curve_keypair(other_pub, other_sec);
    key_file(f_server_sec, server_sec);
    key_file(f_server_pub, server_pub);
    key_file(f_sec, sec);
    key_file(f_other, other_sec);
    snprintf(line, sizeof(line), "%s 0000000000000005\n", pub);
    key_file(f_allow, line);
    c.secret_file = f_server_sec;
    c.allow_file = f_allow;
    open_drive(&p, &c);
    try_key(&p, 5, f_other, f_server_pub, false); /* a random key */
    try_key(&p, 6, f_sec, f_server_pub, false);   /* an allowed key with another worker's uid */
    try_key(&p, 5, f_sec, f_server_pub, true);
    wire_drive_stop(p.d);
    unlink(f_server_sec);
    unlink(f_server_pub);
    unlink(f_sec);
    unlink(f_other);
    unlink(f_allow);
}

static void public_bind_without_keys_is_refused(void **state)
{
    struct rt_fleet_conf conf = {.bind_host = "0.0.0.0",
                                 .n_loops = 1,
                                 .n_events = 64,
                                 .curve_secret_file = "",
                                 .curve_allow_file = "",
                                 .inject = ""};
    struct ps_buf err = PS_BUF_INIT;
    struct rt_fleet *f = NULL;
    struct ps_clock clock;

    (void)state;
    ps_clock_real(&clock);
    assert_int_not_equal(rt_fleet_create(&f, &conf, &clock, &err), 0);
    assert_null(f);
    assert_true(err.len > 0);
    ps_buf_fini(&err);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(streams_are_whole_and_nothing_is_left),
        cmocka_unit_test(streams_are_whole_under_heavy_loss),
        cmocka_unit_test(restarted_worker_loses_its_attempts_and_the_rest_goes_on),
        cmocka_unit_test(drained_worker_finishes_and_takes_nothing_new),
        cmocka_unit_test(two_addresses_of_one_router_are_one_link),
        cmocka_unit_test(only_an_allowed_key_joins_and_only_as_its_own_uid),
        cmocka_unit_test(public_bind_without_keys_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
