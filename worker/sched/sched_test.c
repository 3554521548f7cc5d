#include "worker/sched/sched_world.h"

#include <errno.h>

static void a_prompt_is_prefilled_in_chunks_beside_decode_rows(void **state)
{
    struct world w;
    uint32_t a, b;

    (void)state;
    world_open(&w, 64, 4, 1, 8, 64, 512);
    a = world_submit(&w, plain_request(5, 40));
    for (uint32_t i = 0; i < 6; i++)
        world_tick(&w, true);
    assert_int_equal(w.reqs[a].n_got, 5);
    b = world_submit(&w, plain_request(64, 3));
    w.reqs[b].s->ids[0] = 50; /* only the copy is compared: keep both alike */
    w.link.in[w.link.n_in - 1].submit->ids[0] = 50;
    for (uint32_t i = 0; i < 9; i++) {
        uint32_t before = w.reqs[a].n_got;

        world_tick(&w, true);
        assert_int_equal(w.reqs[a].n_got, before + 1); /* decode never waits for the prompt */
        assert_int_equal(w.reqs[b].n_got, i < 8 ? 0 : 1);
    }
    world_run(&w);
    world_check(&w, a);
    world_check(&w, b);
    world_check_idle(&w);
    world_close(&w);
}

static void a_prompt_cached_to_its_end_computes_one_token_and_writes_nothing(void **state)
{
    struct world w;
    uint32_t h[3];

    (void)state;
    world_open(&w, 64, 4, 1, 64, 64, 512);
    for (uint32_t i = 0; i < 3; i++) {
        h[i] = world_submit(&w, plain_request(i < 2 ? 64 : 70, 4));
        world_run(&w);
        world_check(&w, h[i]);
    }
    assert_int_equal(w.reqs[h[0]].n_cached, 0);
    assert_int_equal(w.reqs[h[1]].n_cached, 63);
    assert_int_equal(w.exec.n_no_write, 1);
    assert_int_equal(w.reqs[h[2]].n_cached, 64);
    world_check_idle(&w);
    world_close(&w);
}

static void tokens_generated_here_are_reused_by_the_next_turn(void **state)
{
    struct world w;
    struct pb_submit *next;
    uint32_t a, b;

    (void)state;
    world_open(&w, 64, 4, 1, 64, 64, 512);
    a = world_submit(&w, plain_request(20, 30));
    world_run(&w);
    next = plain_request(60, 5); /* history of the first turn and ten new tokens */
    memcpy(next->ids + 20, w.reqs[a].got, 30 * 4);
    b = world_submit(&w, next);
    world_run(&w);
    world_check(&w, b);
    assert_int_equal(w.reqs[b].n_cached, 48); /* 49 tokens have KV: three pages are full */
    world_check_idle(&w);
    world_close(&w);
}

static void the_tail_of_a_page_is_copied_not_shared(void **state)
{
    struct world w;
    struct pb_submit *fork;
    uint32_t a, b, c;

    (void)state;
    world_open(&w, 64, 4, 1, 64, 64, 512);
    a = world_submit(&w, plain_request(48, 4));
    world_run(&w);
    fork = plain_request(48, 4);
    for (uint32_t i = 41; i < 48; i++)
        fork->ids[i] = 60 - i % 5;
    b = world_submit(&w, fork);
    world_run(&w);
    assert_int_equal(w.reqs[b].n_cached, 41);
    assert_int_equal(w.exec.n_copies, 1);
    c = world_submit(&w, plain_request(48, 4)); /* the source is as it was */
    world_run(&w);
    world_check(&w, a);
    world_check(&w, b);
    world_check(&w, c);
    world_check_idle(&w);
    world_close(&w);
}

static void equal_prompts_at_once_end_up_stored_once(void **state)
{
    struct world w;
    struct pb_load load;

    (void)state;
    world_open(&w, 64, 4, 1, 256, 64, 512);
    for (uint32_t i = 0; i < 4; i++)
        world_submit(&w, plain_request(64, 20));
    for (uint32_t i = 0; i < 3; i++)
        world_tick(&w, true);
    wk_sched_load(w.s, &load);
    assert_int_equal(load.n_running, 4);
    assert_int_equal(load.group[0].n_pinned,
                     4 + 4); /* the prompt once, and a page each for the answers */
    world_run(&w);
    for (uint32_t i = 0; i < 4; i++)
        world_check(&w, i);
    world_check_idle(&w);
    world_close(&w);
}

static void prompt_scores_bypass_the_cache(void **state)
{
    struct world w;
    struct pb_submit *s;
    uint32_t h;

    (void)state;
    world_open(&w, 64, 4, 1, 10, 64, 512);
    world_submit(&w, plain_request(64, 4));
    world_run(&w);
    s = plain_request(64, 4);
    s->samp.n_prompt_top = 0;
    h = world_submit(&w, s);
    world_run(&w);
    assert_int_equal(w.reqs[h].n_cached, 0);
    world_check(&w, h);
    s = plain_request(64, 0); /* echo: scores and no answer */
    s->samp.n_prompt_top = 2;
    h = world_submit(&w, s);
    world_run(&w);
    world_check(&w, h);
    assert_int_equal(w.reqs[h].finish, PB_FIN_LENGTH);
    world_check_idle(&w);
    world_close(&w);
}

static void what_can_never_fit_is_refused_at_once(void **state)
{
    struct world w;
    uint32_t h[4];

    (void)state;
    world_open(&w, 4, 4, 1, 16, 64, 512);
    h[0] = world_submit(&w, plain_request(64, PB_NO_LIMIT)); /* prompt + 1 > 64 */
    h[1] = world_submit(&w, plain_request(60, 5));
    h[2] = world_submit(&w, plain_request(60, 4));
    h[3] = world_submit(&w, plain_request(63, PB_NO_LIMIT));
    world_run(&w);
    assert_int_equal(w.reqs[h[0]].reject, PB_REJ_TOO_LONG);
    assert_int_equal(w.reqs[h[1]].reject, PB_REJ_TOO_LONG);
    world_check(&w, h[2]);
    world_check(&w, h[3]);
    world_close(&w);
}

static void a_full_queue_and_a_draining_worker_refuse(void **state)
{
    struct world w;
    uint32_t h[5];

    (void)state;
    world_open(&w, 64, 1, 1, 16, 64, 512);
    w.conf.max_waiting = 2;
    world_reopen(&w);
    for (uint32_t i = 0; i < 4; i++)
        h[i] = world_submit(&w, plain_request(4, 4));
    world_tick(&w, true);
    assert_int_equal(w.reqs[h[3]].reject, PB_REJ_FULL);
    world_send(&w, WK_IN_DRAIN, 0);
    h[4] = world_submit(&w, plain_request(4, 4));
    world_tick(&w, true);
    assert_int_equal(w.reqs[h[4]].reject, PB_REJ_DRAINING);
    assert_int_equal(w.link.n_drained, 0);
    world_run(&w);
    for (uint32_t i = 0; i < 3; i++)
        world_check(&w, h[i]);
    world_tick(&w, true);
    world_tick(&w, true);
    assert_int_equal(w.link.n_drained, 1); /* told once */
    world_send(&w, WK_IN_UNDRAIN, 0);
    h[0] = world_submit(&w, plain_request(4, 4));
    world_run(&w);
    world_check(&w, h[0]);
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
    a = world_submit(&w, plain_request(33, 6));
    bad = plain_request(40, 6);
    bad->ids[0] = 9;
    bad->samp.seed = 666;
    b = world_submit(&w, bad);
    world_run(&w);
    world_check(&w, a);
    assert_int_equal(w.reqs[b].finish, PB_FIN_NUMERICAL);
    bad = copy_request(bad);
    bad->samp.seed = 5;
    c = world_submit(&w, bad);
    world_run(&w);
    world_check(&w, c);
    assert_int_equal(w.reqs[c].n_cached, 0);
    world_close(&w);
}

static void pages_of_a_step_in_flight_are_not_published(void **state)
{
    struct world w;
    struct pb_submit *s = plain_request(64, 6);
    uint32_t a, b;

    (void)state;
    world_open(&w, 64, 4, 2, 16, 64, 512);
    w.exec.nan_seed = s->samp.seed = 666;
    w.exec.nan_from = 32; /* the second chunk is in flight when the first is committed, and fails */
    a = world_submit(&w, s);
    world_run(&w);
    assert_int_equal(w.reqs[a].finish, PB_FIN_NUMERICAL);
    b = world_submit(&w, plain_request(64, 6));
    world_run(&w);
    world_check(&w, b);
    assert_int_equal(w.reqs[b].n_cached, 16);
    world_check_idle(&w);
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
        world_submit(&w, plain_request(20, 100));
        world_submit(&w, plain_request(40, max));
        world_submit(&w, plain_request(20, 100));
        for (uint32_t i = 0; i < 3; i++) /* prompts of their own: nothing is shared */
            w.reqs[i].s->ids[0] = w.link.in[i].submit->ids[0] = 50 + i;
        for (uint32_t i = 0; i < 1000 && !wk_sched_is_idle(w.s); i++)
            world_tick(&w, i % 3 != 0);
        world_run(&w);
        for (uint32_t i = 0; i < 3; i++)
            world_check(&w, i);
        n_suspended += w.link.load.n_preempted;
        world_check_idle(&w);
        world_close(&w);
    }
    assert_true(n_suspended > 20);
}

static void a_moved_stream_whose_end_was_already_sent_ends_at_once(void **state)
{
    struct world w;
    struct pb_submit *s = pb_submit_create(12, 0, 0, 0), *base = plain_request(10, 50);
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
    h = world_submit(&w, s);
    world_run(&w);
    assert_int_equal(w.reqs[h].n_got, 0);
    assert_int_equal(w.reqs[h].finish, PB_FIN_STOP_EOS);
    assert_int_equal(w.reqs[h].matched, EOS);
    pb_submit_destroy(base);
    world_close(&w);
}

static void a_request_past_its_deadline_without_a_token_is_dropped(void **state)
{
    struct world w;
    struct pb_submit *late = plain_request(8, 10);
    uint32_t a, b;

    (void)state;
    world_open(&w, 64, 1, 1, 64, 64, 512);
    a = world_submit(&w, plain_request(8, 50));
    late->deadline_ms = 20;
    b = world_submit(&w, late);
    world_run(&w);
    world_check(&w, a);
    assert_int_equal(w.reqs[b].finish, PB_FIN_CANCELLED);
    assert_int_equal(w.reqs[b].n_got, 0);
    world_check_idle(&w);
    world_close(&w);
}

static void an_executor_fault_is_handed_up_and_nothing_leaks(void **state)
{
    struct world w;
    uint32_t wait_ms;

    (void)state;
    world_open(&w, 64, 4, 2, 64, 64, 512);
    world_submit(&w, plain_request(8, 50));
    world_tick(&w, false);
    w.exec.fault = -EIO;
    w.exec.poll_open = true;
    assert_int_equal(wk_sched_tick(w.s, &wait_ms), -EIO);
    world_close(&w);
}

static void priority_goes_first(void **state)
{
    struct world w;
    struct pb_submit *s = plain_request(8, 4);
    uint32_t a, b, c;

    (void)state;
    world_open(&w, 64, 1, 1, 64, 64, 512);
    a = world_submit(&w, plain_request(8, 4));
    b = world_submit(&w, plain_request(8, 4));
    s->priority = -5;
    c = world_submit(&w, s);
    for (uint32_t i = 0; i < 100 && w.reqs[c].finish == NOTHING; i++)
        world_tick(&w, true);
    assert_int_equal(w.reqs[a].n_got + w.reqs[b].n_got, 0);
    world_run(&w);
    world_close(&w);
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
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
