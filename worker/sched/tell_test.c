#include "worker/sched/sched_world.h"

/* What beats tell of the KV store. */

static struct pb_kv_load told;
static uint32_t n_told;

static void note_kv(void *ud, const struct pb_kv_load *kv)
{
    (void)ud;
    told = *kv;
    n_told++;
}

static void world_open_told(struct world *w, uint32_t n_pages, uint32_t reserve)
{
    world_open(w, n_pages, 4, 2, 64, reserve, 512);
    w->conf.port.set_kv = note_kv;
    world_reopen(w);
    n_told = 0;
}

static void what_is_computed_again_after_a_suspension_is_told(void **state)
{
    struct world w;
    uint64_t first, more;

    (void)state;
    world_open(&w, 11, 4, 1, 64, 16, 512);
    for (uint32_t i = 0; i < 3; i++) {
        world_submit(&w, plain_request(i == 1 ? 40 : 20, 100));
        w.reqs[i].s->ids[0] = w.link.in[i].submit->ids[0] = 50 + i; /* nothing is shared */
    }
    world_run(&w);
    for (uint32_t i = 0; i < 3; i++)
        world_check(&w, i);
    first = 80 - w.link.load.cached_tokens;
    assert_true(w.link.load.n_preempted > 0 && w.link.load.resume_tokens > 0);
    /* Each time a row comes back its last token is new: it was sampled and never computed. */
    more = w.exec.n_prompt_toks - first;
    assert_in_range(more, w.link.load.resume_tokens,
                    w.link.load.resume_tokens + w.link.load.n_preempted);
    world_close(&w);
}

static void a_busy_worker_tells_its_tiers_at_most_every_50_ms(void **state)
{
    struct world w;
    uint64_t begin_us, busy_us;

    (void)state;
    world_open_told(&w, 64, 64);
    begin_us = ps_now_us(&w.clock);
    world_submit(&w, plain_request(100, 400));
    for (uint32_t i = 0; i < 300; i++) {
        world_tick(&w, true);
        assert_false(wk_sched_is_idle(w.s));
    }
    busy_us = ps_now_us(&w.clock) - begin_us;
    assert_in_range(n_told, busy_us / 50000 / 2, busy_us / 50000 + 1);
    assert_true(n_told < 100);
    world_run(&w);
    world_close(&w);
}

static void the_last_word_of_a_worker_that_falls_idle_is_the_truth(void **state)
{
    struct world w;
    struct pb_load load;

    (void)state;
    world_open_told(&w, 64, 64);
    world_submit(&w, plain_request(100, 3));
    world_run(&w);
    wk_sched_load(w.s, &load);
    assert_int_equal(told.n_tier, 1);
    assert_true(told.tier[0].id == PB_KV_T0 && told.tier[0].is_open);
    assert_int_equal(told.tier[0].pages, 64);
    assert_int_equal(told.tier[0].free_pages, load.group[0].n_free);
    assert_int_equal(told.tier[0].idle_pages, load.group[0].n_evictable);
    assert_int_equal(load.group[0].n_free + load.group[0].n_evictable, 64);
    assert_true(load.group[0].n_evictable > 0 && load.n_group == 1);
    world_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_computed_again_after_a_suspension_is_told),
        cmocka_unit_test(a_busy_worker_tells_its_tiers_at_most_every_50_ms),
        cmocka_unit_test(the_last_word_of_a_worker_that_falls_idle_is_the_truth),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
