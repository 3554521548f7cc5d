#include "common/clock.h"

#include "common/test.h"

static void the_manual_clock_moves_only_by_hand(void **state)
{
    struct ps_clock c;

    (void)state;
    ps_clock_manual(&c, 100);
    assert_int_equal(ps_now_us(&c), 100);
    assert_int_equal(ps_wall_us(&c), 100);
    ps_clock_advance(&c, 50);
    assert_int_equal(ps_now_us(&c), 150);
    assert_int_equal(ps_now_us(&c), 150);
}

static void the_real_clock_never_goes_back(void **state)
{
    struct ps_clock c;
    uint64_t last = 0;

    (void)state;
    ps_clock_real(&c);
    for (int i = 0; i < 1000; i++) {
        uint64_t now = ps_now_us(&c);

        assert_true(now >= last);
        last = now;
    }
    assert_true(ps_wall_us(&c) > UINT64_C(1700000000) * 1000000); /* after 2023 */
}

static void advance_real(void *ud)
{
    ps_clock_advance(ud, 1);
}

static void the_real_clock_cannot_be_moved(void **state)
{
    struct ps_clock c;

    (void)state;
    ps_clock_real(&c);
    ps_test_dies(advance_real, &c, "manual");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_manual_clock_moves_only_by_hand),
        cmocka_unit_test(the_real_clock_never_goes_back),
        cmocka_unit_test(the_real_clock_cannot_be_moved),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
