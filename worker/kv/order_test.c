#include "worker/kv/order.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "common/rng.h"

static void a_path_goes_leaf_first(void **state)
{
    struct wk_order *o = wk_order_create(64, 64);

    (void)state;
    /* Paths of four, root first in number; the root's uses are as many as all others' together. */
    for (uint32_t path = 0; path < 16; path++) {
        for (uint32_t i = 4; i-- > 0;)
            wk_order_push(o, path * 4 + i, path % 3 + (4 - i) / 2);
    }
    for (uint32_t n = 64, seen[16] = {0}; n > 0; n--) {
        uint32_t id = wk_order_first(o);

        assert_int_equal(wk_order_n(o), n);
        assert_int_equal(id % 4, 3 - seen[id / 4]++);
        wk_order_remove(o, id);
    }
    assert_int_equal(wk_order_first(o), WK_ORDER_NONE);
    wk_order_destroy(o);
}

static void the_held_are_unseen_and_keep_their_place(void **state)
{
    struct wk_order *o = wk_order_create(4, 4);

    (void)state;
    for (uint32_t id = 0; id < 4; id++)
        wk_order_push(o, id, 0);
    wk_order_hold(o, 0);
    wk_order_hold(o, 2);
    assert_false(wk_order_has(o, 0));
    assert_true(wk_order_is_held(o, 0));
    assert_int_equal(wk_order_n(o), 2);
    assert_int_equal(wk_order_first(o), 1);
    assert_int_equal(wk_order_next(o, 1), 3);
    assert_int_equal(wk_order_next(o, 3), WK_ORDER_NONE);
    wk_order_remove(o, 2);
    wk_order_release(o, 0);
    assert_int_equal(wk_order_first(o), 0);
    assert_int_equal(wk_order_next(o, 0), 1);
    assert_int_equal(wk_order_next(o, 1), 3);
    assert_int_equal(wk_order_n(o), 3);
    wk_order_destroy(o);
}

static void what_was_used_outlives_what_is_fresh_up_to_a_third_of_the_room(void **state)
{
    const uint32_t want[] = {0, 1, 8, 2, 3, 9, 4, 5, 6, 7}; /* 2 and 3 fell back */
    struct wk_order *o = wk_order_create(10, 12);
    uint32_t id = WK_ORDER_NONE;

    (void)state;
    wk_order_push(o, 0, 0);
    wk_order_push(o, 1, 0);
    for (uint32_t i = 2; i < 6; i++)
        wk_order_push(o, i, 1);
    wk_order_push(o, 8, 0);
    wk_order_push(o, 6, 1);
    wk_order_push(o, 7, 3);
    wk_order_push(o, 9, 0);
    for (uint32_t i = 0; i < PS_ARRAY_LEN(want); i++) {
        id = i == 0 ? wk_order_first(o) : wk_order_next(o, id);
        assert_int_equal(id, want[i]);
    }
    assert_int_equal(wk_order_next(o, id), WK_ORDER_NONE);
    wk_order_destroy(o);
}

static void ghosts_are_known_for_as_long_as_the_room(void **state)
{
    enum { ROOM = 64 };
    struct wk_order *o = wk_order_create(4, ROOM);
    const uint64_t step = UINT64_C(0x9e3779b97f4a7c15);
    uint32_t n_known = 0;

    (void)state;
    for (uint64_t i = 1; i <= 1000; i++) {
        assert_false(wk_order_is_ghost(o, i * step));
        wk_order_remember(o, i * step);
        assert_true(wk_order_is_ghost(o, i * step));
        assert_false(i > ROOM && wk_order_is_ghost(o, (i - ROOM) * step));
        for (uint64_t k = i > ROOM ? i - ROOM : 0; k < i; k++)
            n_known += wk_order_is_ghost(o, k * step);
    }
    assert_true(n_known > 1000 * ROOM * 7 / 10); /* few are overwritten before their time */
    wk_order_destroy(o);
}

/* Random pushes, removals, holds: every id is where it was put, once. */
static void walking_meets_each_evictable_id_once(void **state)
{
    enum { N = 40, STEPS = 20000 };
    struct wk_order *o = wk_order_create(N, N);
    uint8_t is[N] = {0}; /* 0 out, 1 in, 2 held */
    struct ps_rng r;

    (void)state;
    ps_rng_seed(&r, 3);
    for (uint32_t step = 0; step < STEPS; step++) {
        uint32_t id = (uint32_t)ps_rng_below(&r, N), n = 0, seen = 0;
        uint64_t met = 0;

        if (is[id] == 0) {
            wk_order_push(o, id, (uint32_t)ps_rng_below(&r, 4));
            is[id] = 1;
        } else if (ps_rng_below(&r, 2) == 0) {
            wk_order_remove(o, id);
            is[id] = 0;
        } else if (is[id] == 1) {
            wk_order_hold(o, id);
            is[id] = 2;
        } else {
            wk_order_release(o, id);
            is[id] = 1;
        }
        if (step % 7 == 0 && wk_order_first(o) != WK_ORDER_NONE) {
            id = wk_order_first(o);
            wk_order_remove(o, id);
            is[id] = 0;
        }
        for (uint32_t i = 0; i < N; i++) {
            assert_int_equal(wk_order_has(o, i), is[i] == 1);
            assert_int_equal(wk_order_is_held(o, i), is[i] == 2);
            n += is[i] == 1;
        }
        assert_int_equal(wk_order_n(o), n);
        for (id = wk_order_first(o); id != WK_ORDER_NONE; id = wk_order_next(o, id), seen++) {
            assert_true(is[id] == 1 && (met >> id & 1) == 0);
            met |= UINT64_C(1) << id;
        }
        assert_int_equal(seen, n);
    }
    wk_order_destroy(o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_path_goes_leaf_first),
        cmocka_unit_test(the_held_are_unseen_and_keep_their_place),
        cmocka_unit_test(what_was_used_outlives_what_is_fresh_up_to_a_third_of_the_room),
        cmocka_unit_test(ghosts_are_known_for_as_long_as_the_room),
        cmocka_unit_test(walking_meets_each_evictable_id_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
