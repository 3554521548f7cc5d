#include "common/net/wheel.h"

#include "common/rng.h"
#include "common/test.h"

enum { STEP_MS = 50 };

struct item {
    struct ps_wheel_node node;
    uint64_t due_ms, fired_ms;
    uint32_t n_fired;
};

static uint64_t now_ms;

static void on_due(struct ps_wheel_node *n, void *ud)
{
    struct item *it = PS_CONTAINER(n, struct item, node);

    (void)ud;
    it->fired_ms = now_ms;
    it->n_fired++;
}

static void run_until(struct ps_wheel *w, uint64_t end_ms)
{
    for (; now_ms <= end_ms; now_ms += STEP_MS)
        ps_wheel_run(w, now_ms, on_due, NULL);
}

static void fires_never_early_and_at_most_two_steps_late(void **state)
{
    static struct item items[2000];
    struct ps_wheel w;
    struct ps_rng rng;

    (void)state;
    ps_rng_seed(&rng, 1);
    now_ms = 1000003;
    ps_wheel_init(&w, STEP_MS, now_ms);
    for (size_t i = 0; i < PS_ARRAY_LEN(items); i++) {
        items[i] = (struct item){.due_ms = now_ms + ps_rng_below(&rng, 200000)};
        ps_wheel_arm(&w, &items[i].node, items[i].due_ms);
    }
    run_until(&w, now_ms + 200000 + 2 * STEP_MS);
    for (size_t i = 0; i < PS_ARRAY_LEN(items); i++) {
        assert_int_equal(items[i].n_fired, 1);
        assert_true(items[i].fired_ms >= items[i].due_ms);
        assert_true(items[i].fired_ms <= items[i].due_ms + 2 * STEP_MS);
    }
}

static void moving_later_and_earlier_both_hold(void **state)
{
    struct item later = {0}, earlier = {0}, off = {0};
    struct ps_wheel w;

    (void)state;
    now_ms = 0;
    ps_wheel_init(&w, STEP_MS, now_ms);
    ps_wheel_arm(&w, &later.node, 100);
    ps_wheel_arm(&w, &later.node, 1000);
    ps_wheel_arm(&w, &earlier.node, 90000);
    ps_wheel_arm(&w, &earlier.node, 500);
    ps_wheel_arm(&w, &off.node, 100);
    ps_wheel_disarm(&off.node);
    ps_wheel_disarm(&off.node);
    run_until(&w, 2000);
    assert_in_range(later.fired_ms, 1000, 1100);
    assert_in_range(earlier.fired_ms, 500, 600);
    assert_int_equal(off.n_fired, 0);
}

static void a_long_sleep_fires_everything_once(void **state)
{
    struct item items[600] = {0};
    struct ps_wheel w;

    (void)state;
    now_ms = 0;
    ps_wheel_init(&w, STEP_MS, now_ms);
    for (size_t i = 0; i < PS_ARRAY_LEN(items); i++)
        ps_wheel_arm(&w, &items[i].node, i * 77);
    now_ms = 10 * 1000 * 1000;
    ps_wheel_run(&w, now_ms, on_due, NULL);
    for (size_t i = 0; i < PS_ARRAY_LEN(items); i++)
        assert_int_equal(items[i].n_fired, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fires_never_early_and_at_most_two_steps_late),
        cmocka_unit_test(moving_later_and_earlier_both_hold),
        cmocka_unit_test(a_long_sleep_fires_everything_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
