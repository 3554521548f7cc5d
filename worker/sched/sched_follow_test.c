#include "worker/sched/sched_world.h"

/* A prompt of n tokens of which the first n_shared are everybody's. */
static struct pb_submit *request(uint32_t n, uint32_t n_shared, uint32_t who)
{
    struct pb_submit *s = plain_request(n, 8);

    s->samp.seed = who;
    for (uint32_t i = n_shared; i < n; i++)
        s->ids[i] = (i + 7 * who) % VOCAB;
    return s;
}

static uint32_t n_running(struct world *w)
{
    return w->s->admit.n_rows;
}

static void choices_of_one_prompt_compute_it_once(void **state)
{
    struct world w;

    (void)state;
    world_open(&w, 128, 8, 1, 32, 64, 1024);
    for (uint32_t i = 0; i < 8; i++)
        world_submit(&w, request(200, 200, i));
    world_run(&w);
    for (uint32_t i = 0; i < 8; i++)
        world_check(&w, i);
    /* 12 full pages once; the last 8 tokens are nobody's page while the leader has not answered. */
    assert_int_equal(w.exec.n_prompt_toks, 200 + 7 * 8);
    assert_int_equal(w.s->stats.followed_tokens, 7 * 192);
    world_check_idle(&w);
    world_close(&w);
}

static void a_burst_with_a_new_system_prompt_computes_it_once(void **state)
{
    struct world w;

    (void)state;
    world_open(&w, 128, 12, 2, 48, 64, 1024);
    for (uint32_t i = 0; i < 12; i++)
        world_submit(&w, request(160 + 8 * i, 128, i + 1));
    world_run(&w);
    for (uint32_t i = 0; i < 12; i++)
        world_check(&w, i);
    assert_int_equal(w.s->stats.followed_tokens, 11 * 128);
    assert_true(w.exec.n_prompt_toks <= 128 + 12 * 32 + 8 * 66);
    world_check_idle(&w);
    world_close(&w);
}

static void a_follower_forks_where_the_prompts_part(void **state)
{
    struct world w;

    (void)state;
    world_open(&w, 128, 4, 1, 16, 64, 1024);
    world_submit(&w, request(400, 400, 1));
    world_submit(&w, request(400, 72, 2)); /* parts in the fifth page of 25 */
    for (uint32_t i = 0; i < 4; i++) {
        world_tick(&w, true);
        assert_int_equal(n_running(&w), 1);
    }
    world_tick(&w, true);
    assert_int_equal(n_running(&w), 2); /* long before the leader is done */
    assert_int_equal(w.s->stats.followed_tokens, 64);
    world_run(&w);
    world_check(&w, 0);
    world_check(&w, 1);
    world_close(&w);
}

static void who_ends_is_followed_by_the_next(void **state)
{
    struct world w;

    (void)state;
    world_open(&w, 128, 4, 1, 16, 64, 1024);
    for (uint32_t i = 0; i < 3; i++)
        world_submit(&w, request(320, 320, i));
    for (uint32_t i = 0; i < 5; i++)
        world_tick(&w, true);
    assert_int_equal(n_running(&w), 1);
    w.reqs[0].cancelled = true;
    world_send(&w, WK_IN_CANCEL, 0);
    for (uint32_t i = 0; i < 3; i++)
        world_tick(&w, true);
    assert_int_equal(n_running(&w), 1); /* the second leads, the third follows on */
    assert_true(w.s->by_handle[1]->adm.admitted && w.s->by_handle[2]->follow.on);
    world_run(&w);
    for (uint32_t i = 0; i < 3; i++)
        world_check(&w, i);
    assert_true(w.exec.n_prompt_toks <= 320 + 2 * 16);
    world_close(&w);
}

static void a_leader_that_is_suspended_holds_nobody_up(void **state)
{
    struct world w;
    struct pb_submit *first = request(40, 0, 3);

    (void)state;
    world_open(&w, 40, 4, 1, 16, 16, 640);
    first->max_tokens = 300;
    world_submit(&w, first);
    world_submit(&w, request(400, 400, 1));
    world_submit(&w, request(400, 400, 2));
    for (uint32_t i = 0; i < 6; i++)
        world_tick(&w, true);
    assert_true(w.s->by_handle[2]->follow.on);
    {
        struct wk_seq *q = w.s->by_handle[1]; /* as relieve does it */

        world_tick(&w, false);
        wk_admit_suspend(&w.s->admit, &q->adm, true);
        wk_seq_goto(q, WK_SEQ_DRAIN);
        w.s->retiring[w.s->n_retiring++] = q;
    }
    world_tick(&w, true);
    world_tick(&w, true);
    assert_false(w.s->by_handle[1]->follow.on); /* the suspended never follow */
    world_run(&w);
    for (uint32_t i = 0; i < 3; i++)
        world_check(&w, i);
    world_check_idle(&w);
    world_close(&w);
}

static void a_flush_ends_the_wait(void **state)
{
    struct world w;

    (void)state;
    world_open(&w, 128, 4, 1, 16, 64, 1024);
    world_submit(&w, request(320, 320, 1));
    world_submit(&w, request(320, 320, 2));
    for (uint32_t i = 0; i < 4; i++)
        world_tick(&w, true);
    assert_int_equal(n_running(&w), 1);
    world_send(&w, WK_IN_FLUSH, 0); /* the leader will not publish any more */
    world_tick(&w, true);
    assert_int_equal(n_running(&w), 2);
    world_run(&w);
    world_check(&w, 0);
    world_check(&w, 1);
    world_close(&w);
}

static void others_of_its_priority_pass_a_follower_and_lower_ones_do_not(void **state)
{
    struct world w;
    struct pb_submit *low = request(20, 0, 9);

    (void)state;
    world_open(&w, 128, 6, 1, 16, 64, 1024);
    world_submit(&w, request(320, 320, 1));
    world_submit(&w, request(320, 320, 2));
    world_submit(&w, request(20, 0, 3));
    low->priority = 1;
    world_submit(&w, low);
    world_tick(&w, true);
    assert_true(w.s->by_handle[0]->adm.admitted && w.s->by_handle[2]->adm.admitted);
    assert_true(w.s->by_handle[1]->adm.waiting && w.s->by_handle[3]->adm.waiting);
    world_run(&w);
    for (uint32_t i = 0; i < 4; i++)
        world_check(&w, i);
    world_close(&w);
}

static void nobody_waits_for_a_lower_priority_or_another_tenant(void **state)
{
    struct world w;
    struct pb_submit *s = request(320, 320, 1);

    (void)state;
    world_open(&w, 128, 6, 1, 16, 64, 1024);
    s->priority = 1;
    world_submit(&w, s);
    world_tick(&w, true);
    world_submit(&w, request(320, 320, 2));
    s = request(320, 320, 3);
    s->chain_seed = 99;
    world_submit(&w, s);
    world_tick(&w, true);
    assert_int_equal(n_running(&w), 3);
    world_run(&w);
    for (uint32_t i = 0; i < 3; i++)
        world_check(&w, i);
    world_close(&w);
}

static void a_short_follower_is_not_held_up_by_the_rest_of_a_long_leader(void **state)
{
    struct world w;

    (void)state;
    world_open(&w, 128, 8, 1, 16, 64, 1500);
    world_submit(&w, request(12, 0, 5)); /* the head: it decodes */
    w.reqs[0].s->max_tokens = w.link.in[0].submit->max_tokens = 200;
    world_tick(&w, true);
    world_submit(&w, request(800, 800, 1));
    for (uint32_t i = 0; i < 3; i++)
        world_submit(&w, request(90, 0, 10 + i)); /* shorter than the leader: they go first */
    world_submit(&w, request(40, 32, 2));
    for (uint32_t i = 0; i < 6; i++) /* 16 for each of two pages, 8 of its own */
        world_tick(&w, true);
    assert_true(w.reqs[5].n_got > 0);
    world_run(&w);
    for (uint32_t i = 0; i < 6; i++)
        world_check(&w, i);
    world_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(choices_of_one_prompt_compute_it_once),
        cmocka_unit_test(a_burst_with_a_new_system_prompt_computes_it_once),
        cmocka_unit_test(a_follower_forks_where_the_prompts_part),
        cmocka_unit_test(who_ends_is_followed_by_the_next),
        cmocka_unit_test(a_leader_that_is_suspended_holds_nobody_up),
        cmocka_unit_test(a_flush_ends_the_wait),
        cmocka_unit_test(others_of_its_priority_pass_a_follower_and_lower_ones_do_not),
        cmocka_unit_test(nobody_waits_for_a_lower_priority_or_another_tenant),
        cmocka_unit_test(a_short_follower_is_not_held_up_by_the_rest_of_a_long_leader),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
