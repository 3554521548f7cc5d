#include "worker/sched/sched_world.h"

#include "common/rng.h"

static struct pb_submit *request(uint32_t n, uint32_t max, uint32_t who)
{
    struct pb_submit *s = plain_request(n, max);

    s->samp.seed = who;
    for (uint32_t i = 0; i < n; i++)
        s->ids[i] = (i * 3 + 11 * who) % VOCAB;
    return s;
}

/* ---- the budget ---- */

static void steps_hold_the_objective_while_a_row_waits_for_its_next_token(void **state)
{
    struct world w;
    uint32_t n_full = 0;

    (void)state;
    world_open(&w, 128, 4, 1, 512, 64, 2000);
    w.conf.itl_us = 10000;
    world_reopen(&w);
    w.exec.row_us = 500;
    w.exec.tok_us = 50;
    world_submit(&w, request(1400, 4, 1));
    for (uint32_t i = 0; i < 3; i++) { /* alone: whole chunks of 26.6 ms */
        world_tick(&w, true);
        n_full += w.exec.step_us >= 512 * 50;
    }
    assert_int_equal(n_full, 2);
    world_run(&w);
    world_submit(&w, request(5, 500, 2));
    for (uint32_t i = 0; i < 20; i++)
        world_tick(&w, true);
    {
        const struct wk_step_load *l = &w.s->flights[w.s->first_flight].load;

        assert_int_equal(l->n_decode, 1);
        assert_int_equal(l->n_kv_read, w.s->by_handle[1]->n_kv);
        assert_int_equal(l->n_prefill, 0);
    }
    world_submit(&w, request(1000, 4, 3));
    for (uint32_t i = 0; i < 6; i++) {
        world_tick(&w, true);
        assert_true(w.exec.step_us <= 10500);
        assert_true(i < 2 || w.exec.step_us >= 8000); /* and what is left is used */
    }
    world_run(&w);
    for (uint32_t i = 0; i < 3; i++)
        world_check(&w, i);
    world_check_idle(&w);
    world_close(&w);
}

static void admission_counts_on_the_room_that_prompts_really_have(void **state)
{
    struct world w;

    (void)state;
    world_open(&w, 128, 4, 1, 512, 64, 2000);
    w.conf.itl_us = 10000;
    world_reopen(&w);
    w.exec.row_us = 500;
    w.exec.tok_us = 50;
    assert_int_equal(w.s->admit.conf.chunk, 512);
    world_submit(&w, request(600, 100, 1));
    world_submit(&w, request(700, 100, 2));
    world_submit(&w, request(5, 500, 3));
    for (uint32_t i = 0; i < 60; i++)
        world_tick(&w, true);
    assert_in_range(w.s->admit.conf.chunk, 16, 180);
    world_run(&w);
    for (uint32_t i = 0; i < 3; i++)
        world_check(&w, i);
    world_close(&w);
}

/* ---- who gets it ---- */

static void a_short_prompt_does_not_wait_for_a_long_one(void **state)
{
    struct world w;
    uint32_t a, b;

    (void)state;
    world_open(&w, 128, 4, 1, 32, 64, 2000);
    a = world_submit(&w, request(1000, 4, 1));
    for (uint32_t i = 0; i < 3; i++)
        world_tick(&w, true);
    b = world_submit(&w, request(40, 4, 2));
    for (uint32_t i = 0; i < 3; i++) /* 24 of 32 tokens are its own */
        world_tick(&w, true);
    assert_int_equal(w.reqs[b].n_got, 1);
    assert_int_equal(w.reqs[a].n_got, 0);
    assert_true(w.s->by_handle[a]->n_kv > 3 * 32); /* the head went on meanwhile */
    world_run(&w);
    world_check(&w, a);
    world_check(&w, b);
    world_close(&w);
}

static void a_flood_of_short_prompts_does_not_starve_a_long_one(void **state)
{
    enum { N = 480, CHUNK = 32 };
    struct world w;
    uint32_t a, n = 0;

    (void)state;
    world_open(&w, 128, 10, 1, CHUNK, 16, 2000);
    world_submit(&w, request(4, 600, 1)); /* the head decodes all the time */
    world_tick(&w, true);
    a = world_submit(&w, request(N, 2, 2));
    while (w.reqs[a].finish == NOTHING) {
        if (w.n_reqs < REQS_MAX && w.s->n_live < 10)
            world_submit(&w, request(CHUNK, 1, 3 + w.n_reqs));
        world_tick(&w, true);
        n++;
        assert_true(n <= 4 * N / CHUNK + N / CHUNK + 8);
    }
    world_run(&w);
    for (uint32_t i = 0; i < w.n_reqs; i++)
        world_check(&w, i);
    world_close(&w);
}

static void who_waits_holds_no_page(void **state) /* C9 */
{
    struct world w;
    uint32_t held = 0;

    (void)state;
    world_open(&w, 60, 8, 1, 32, 64, 960);
    for (uint32_t i = 0; i < 8; i++)
        world_submit(&w, request(200, 40, i + 1));
    world_tick(&w, true);
    for (uint32_t i = 0; i < w.s->admit.n_rows; i++)
        held += w.s->admit.rows[i]->held;
    assert_true(w.link.load.n_waiting > 3);
    assert_int_equal(w.link.load.group[0].n_pinned, held);
    world_run(&w);
    world_close(&w);
}

/* ---- deadlines and waits ---- */

static void deadlines_fire_in_their_order_and_only_without_a_token(void **state)
{
    struct ps_rng rng;
    struct world w;

    (void)state;
    ps_rng_seed(&rng, 4);
    world_open(&w, 64, 1, 1, 64, 64, 512);
    world_submit(&w, request(8, 200, 1)); /* has a token at once, so its own deadline is over */
    w.reqs[0].s->deadline_ms = w.link.in[0].submit->deadline_ms = 30;
    for (uint32_t i = 1; i < 50; i++) {
        struct pb_submit *s = request(8, 4, i);

        s->deadline_ms = i % 7 == 0 ? 0 : 20 + (uint32_t)ps_rng_below(&rng, 100);
        w.reqs[world_submit(&w, s)].cancelled = s->deadline_ms > 0;
    }
    for (uint32_t ms = 0; ms < 150; ms++) { /* a tick is a millisecond */
        world_tick(&w, true);
        for (uint32_t i = 1; i < 50; i++) {
            uint32_t at = w.reqs[i].s->deadline_ms;

            assert_int_equal(w.reqs[i].finish == PB_FIN_CANCELLED, at != 0 && ms >= at);
        }
    }
    assert_int_equal(w.s->deadlines.n, 0);
    world_run(&w);
    for (uint32_t i = 0; i < w.n_reqs; i++)
        world_check(&w, i);
    assert_int_equal(w.reqs[0].finish, PB_FIN_LENGTH);
    world_check_idle(&w);
    world_close(&w);
}

static void the_next_tick_is_due_at_the_first_deadline(void **state)
{
    struct world w;
    struct pb_submit *s;
    uint32_t wait_ms;

    (void)state;
    world_open(&w, 64, 1, 1, 64, 64, 512);
    world_submit(&w, request(8, 50, 1));
    s = request(8, 4, 2);
    s->deadline_ms = 333;
    world_submit(&w, s);
    assert_int_equal(wk_sched_tick(w.s, &wait_ms), 0);
    assert_int_equal(wait_ms, 333);
    world_run(&w);
    assert_int_equal(wk_sched_tick(w.s, &wait_ms), 0);
    assert_int_equal(wait_ms, 1000);
    world_close(&w);
}

static void a_full_queue_tells_how_long_it_is(void **state)
{
    struct world w;
    uint32_t h = 0;

    (void)state;
    world_open(&w, 64, 1, 1, 16, 64, 512);
    w.conf.max_waiting = 8;
    world_reopen(&w);
    for (uint32_t i = 0; i < 40; i++) { /* each takes 4 ticks of 1 ms, one after the other */
        if (w.s->admit.n_waiting < 8)
            world_submit(&w, request(4, 4, i));
        world_tick(&w, true);
    }
    while (w.reqs[h].reject == NOTHING && w.n_reqs < REQS_MAX) {
        h = world_submit(&w, request(4, 4, 50));
        world_tick(&w, false);
    }
    assert_int_equal(w.reqs[h].reject, PB_REJ_FULL);
    assert_in_range(w.reqs[h].predicted_wait_ms, 8 * 3, 10 * 8);
    assert_true(w.link.load.busy_ms >= 1);
    world_run(&w);
    world_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steps_hold_the_objective_while_a_row_waits_for_its_next_token),
        cmocka_unit_test(admission_counts_on_the_room_that_prompts_really_have),
        cmocka_unit_test(a_short_prompt_does_not_wait_for_a_long_one),
        cmocka_unit_test(a_flood_of_short_prompts_does_not_starve_a_long_one),
        cmocka_unit_test(who_waits_holds_no_page),
        cmocka_unit_test(deadlines_fire_in_their_order_and_only_without_a_token),
        cmocka_unit_test(the_next_tick_is_due_at_the_first_deadline),
        cmocka_unit_test(a_full_queue_tells_how_long_it_is),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
