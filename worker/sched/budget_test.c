#include "worker/sched/budget.h"

#include "common/rng.h"
#include "common/test.h"

/* A machine with a known price list; noise is a share of the time, both ways. */
struct machine {
    double fixed, row, kv, token, pair, noise;
    struct ps_rng rng;
};

static const struct machine cpu = {8000, 700, 0.05, 250, 0.004, 0, {{0}}};

static uint32_t time_of(struct machine *m, const struct wk_step_load *l)
{
    double us = m->fixed + m->row * l->n_decode + m->kv * (double)l->n_kv_read +
                m->token * l->n_prefill + m->pair * (double)l->n_pairs;

    if (m->noise > 0)
        us *= 1 + m->noise * (2 * ps_rng_unit(&m->rng) - 1);
    return (uint32_t)us;
}

/* A step with rows of this context and a prompt that has computed pos tokens and never ends. */
static uint32_t step(struct wk_budget *b, struct machine *m, uint32_t n_rows, uint32_t context,
                     uint32_t pos, double slow, uint32_t *out_n)
{
    struct wk_step_load l = {.n_decode = n_rows, .n_kv_read = (uint64_t)n_rows * context};
    struct wk_budget_room r;
    uint32_t n, us;

    wk_budget_open(b, n_rows, l.n_kv_read, &r);
    n = wk_budget_fit(&r, pos, UINT32_MAX);
    assert_true(n >= 16 && n <= b->chunk);
    wk_budget_spend(&r, pos, n);
    wk_budget_close(b, n_rows, n, &r);
    l.n_prefill = n;
    l.n_pairs = (uint64_t)n * pos + (uint64_t)n * n / 2;
    us = (uint32_t)(time_of(m, &l) * slow);
    wk_budget_learn(b, &l, us);
    *out_n = n;
    return us;
}

static void a_step_takes_what_the_objective_leaves(void **state)
{
    struct machine m = cpu;
    struct wk_budget b;
    uint32_t n, us = 0;

    (void)state;
    wk_budget_init(&b, 1024, 50000);
    for (uint32_t i = 0; i < 200; i++) {
        us = step(&b, &m, 4 + i % 8, 500, i * 64 % 2048, 1, &n);
        if (i >= 40)
            assert_in_range(us, 40000, 51000);
    }
    for (uint32_t i = 0; i < 20; i++) /* rows come: prompts get less */
        us = step(&b, &m, 40, 500, 0, 1, &n);
    assert_in_range(us, 44000, 51000);
    assert_in_range(n, 30, 60);
}

static void with_noise_nearly_every_step_holds_the_objective(void **state)
{
    struct machine m = cpu;
    struct wk_budget b;
    uint32_t n, n_over = 0, n_tok = 0;

    (void)state;
    m.noise = 0.15;
    ps_rng_seed(&m.rng, 5);
    wk_budget_init(&b, 1024, 50000);
    for (uint32_t i = 0; i < 4000; i++) {
        uint32_t us = step(&b, &m, 1 + i / 100 % 16, 200 + i % 1000, i * 100 % 4096, 1, &n);

        if (i >= 100) {
            n_over += us > 50000;
            n_tok += n;
        }
    }
    assert_true(n_over <= 39);        /* 1 % */
    assert_true(n_tok / 3900.0 > 75); /* about 120 would fit without noise */
}

static void nobody_waits_so_the_whole_chunk_is_taken(void **state)
{
    struct machine m = cpu;
    struct wk_budget b;
    uint32_t n;

    (void)state;
    wk_budget_init(&b, 256, 1000);
    for (uint32_t i = 0; i < 30; i++) {
        (void)step(&b, &m, 0, 0, 0, 1, &n);
        assert_int_equal(n, 256);
    }
    assert_int_equal(wk_budget_steady(&b), 256);
    (void)step(&b, &m, 1, 64, 0, 1, &n); /* one row waits; the objective cannot be held at all */
    assert_int_equal(n, 16);
    assert_int_equal(wk_budget_steady(&b), 16);
}

static void without_an_objective_the_chunk_is_fixed(void **state)
{
    struct machine m = cpu;
    struct wk_budget b;
    uint32_t n;

    (void)state;
    wk_budget_init(&b, 256, 0);
    for (uint32_t i = 0; i < 30; i++) {
        (void)step(&b, &m, 30, 4000, 0, 1, &n);
        assert_int_equal(n, 256);
    }
}

static void one_slow_step_changes_little_and_is_forgotten(void **state)
{
    struct machine m = cpu;
    struct wk_budget b;
    uint32_t n, usual, after;

    (void)state;
    wk_budget_init(&b, 1024, 50000);
    for (uint32_t i = 0; i < 200; i++)
        (void)step(&b, &m, 4 + i % 8, 500, i * 64 % 2048, 1, &n);
    (void)step(&b, &m, 8, 500, 0, 1, &usual);
    (void)step(&b, &m, 8, 500, 0, 40, &n); /* two seconds */
    for (uint32_t i = 0; i < 6; i++) {
        (void)step(&b, &m, 8, 500, 0, 1, &after);
        assert_true(after * 10 > usual * 7);
    }
    assert_true(after * 100 > usual * 85);
}

static void a_time_too_short_to_be_true_changes_little(void **state)
{
    struct machine m = cpu;
    struct wk_budget b;
    uint32_t n, usual, after;

    (void)state;
    wk_budget_init(&b, 1024, 50000);
    for (uint32_t i = 0; i < 200; i++)
        (void)step(&b, &m, 4 + i % 8, 500, i * 64 % 2048, 1, &n);
    (void)step(&b, &m, 8, 500, 0, 1, &usual);
    (void)step(&b, &m, 8, 500, 0, 0.0001, &n);
    for (uint32_t i = 0; i < 6; i++) {
        (void)step(&b, &m, 8, 500, 0, 1, &after);
        assert_true(after * 10 < usual * 13 && after * 10 > usual * 7);
    }
}

static void a_machine_that_became_slower_or_faster_is_known_soon(void **state)
{
    struct machine m = cpu;
    struct wk_budget b;
    uint32_t n, n_over = 0, us = 0;

    (void)state;
    wk_budget_init(&b, 1024, 50000);
    for (uint32_t i = 0; i < 200; i++)
        (void)step(&b, &m, 4 + i % 8, 500, i * 64 % 2048, 1, &n);
    for (uint32_t i = 0; i < 100; i++)
        n_over += step(&b, &m, 4 + i % 8, 500, i * 64 % 2048, 2, &n) > 50000;
    assert_true(n_over <= 6);
    for (uint32_t i = 0; i < 100; i++)
        us = step(&b, &m, 8, 500, 0, 1, &n);
    assert_true(us > 40000);
}

static void no_price_is_ever_negative(void **state)
{
    struct ps_rng r;
    struct wk_budget b;

    (void)state;
    ps_rng_seed(&r, 9);
    wk_budget_init(&b, 512, 50000);
    for (uint32_t i = 0; i < 5000; i++) { /* numbers without any sense */
        struct wk_step_load l = {(uint32_t)ps_rng_below(&r, 300), (uint32_t)ps_rng_below(&r, 513),
                                 ps_rng_below(&r, 1 << 24), ps_rng_below(&r, 1 << 26)};
        struct wk_budget_room room;
        uint32_t n;

        wk_budget_learn(&b, &l, (uint32_t)ps_rng_below(&r, i % 3 ? 100000 : 1u << 31));
        for (uint32_t k = 0; k < WK_BUDGET_N_TERMS; k++)
            assert_true(b.price[k] >= 0 && b.price[k] < 1e12);
        wk_budget_open(&b, l.n_decode, l.n_kv_read, &room);
        n = wk_budget_fit(&room, 1000, 100000);
        assert_in_range(n, 16, 512);
    }
}

static void admission_counts_on_the_smallest_room_of_late(void **state)
{
    struct machine m = cpu;
    struct wk_budget b;
    uint32_t n, least = UINT32_MAX;

    (void)state;
    wk_budget_init(&b, 512, 50000);
    for (uint32_t i = 0; i < 100; i++)
        (void)step(&b, &m, 4 + i % 8, 500, 0, 1, &n);
    for (uint32_t i = 0; i < 3; i++) { /* a short crowd */
        (void)step(&b, &m, 50, 500, 0, 1, &n);
        least = ps_min_u32(least, n);
    }
    for (uint32_t i = 0; i < 32; i++) {
        (void)step(&b, &m, 4, 500, 0, 1, &n);
        assert_true(wk_budget_steady(&b) <= least && wk_budget_steady(&b) >= 16);
    }
    for (uint32_t i = 0; i < 64; i++)
        (void)step(&b, &m, 4, 500, 0, 1, &n);
    assert_true(wk_budget_steady(&b) > 2 * least);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_step_takes_what_the_objective_leaves),
        cmocka_unit_test(with_noise_nearly_every_step_holds_the_objective),
        cmocka_unit_test(nobody_waits_so_the_whole_chunk_is_taken),
        cmocka_unit_test(without_an_objective_the_chunk_is_fixed),
        cmocka_unit_test(one_slow_step_changes_little_and_is_forgotten),
        cmocka_unit_test(a_time_too_short_to_be_true_changes_little),
        cmocka_unit_test(a_machine_that_became_slower_or_faster_is_known_soon),
        cmocka_unit_test(no_price_is_ever_negative),
        cmocka_unit_test(admission_counts_on_the_smallest_room_of_late),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
