#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "common/rng.h"
#include "proto/window.h"

static void number_is_applied_only_after_its_mark(void **state)
{
    static struct pb_window w;

    (void)state;
    pb_window_clear(&w);
    assert_false(pb_window_has(&w, 1));
    pb_window_mark(&w, 3);
    assert_true(pb_window_has(&w, 3));
    assert_false(pb_window_has(&w, 1)); /* skipped, may still arrive */
    assert_false(pb_window_has(&w, 2));
    assert_false(pb_window_has(&w, 4));
    pb_window_mark(&w, 1);
    assert_true(pb_window_has(&w, 1));
    assert_int_equal(w.high, 3);
}

static void number_older_than_the_window_counts_as_applied(void **state)
{
    static struct pb_window w;

    (void)state;
    pb_window_clear(&w);
    pb_window_mark(&w, 10);
    pb_window_mark(&w, 11 + PB_WINDOW);
    assert_true(pb_window_has(&w, 5));
    assert_true(pb_window_has(&w, 11));
    assert_false(pb_window_has(&w, 12)); /* the oldest that the window still tells apart */
    pb_window_mark(&w, 5);               /* no effect, no harm */
    assert_false(pb_window_has(&w, 12));
}

/* Against a plain table of every number. */
static void window_equals_a_full_table(void **state)
{
    enum { N = 60000 };
    static struct pb_window w;
    static bool seen[N + 1];
    struct ps_rng rng;
    uint64_t high = 0;

    (void)state;
    ps_rng_seed(&rng, 1);
    pb_window_clear(&w);
    memset(seen, 0, sizeof(seen));
    for (uint64_t s = 1; s <= N; s++) {
        uint64_t late = ps_rng_below(&rng, 3) == 0 ? ps_rng_below(&rng, 9000) : 0;
        uint64_t seq = s > late ? s - late : 1;
        bool want = seen[seq] || (high >= seq && high - seq >= PB_WINDOW);

        assert_int_equal(pb_window_has(&w, seq), want);
        pb_window_mark(&w, seq);
        seen[seq] = true;
        high = ps_max_u64(high, seq);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(number_is_applied_only_after_its_mark),
        cmocka_unit_test(number_older_than_the_window_counts_as_applied),
        cmocka_unit_test(window_equals_a_full_table),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
