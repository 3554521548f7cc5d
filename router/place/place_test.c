#include "router/place/place.h"

#include <string.h>

#include "common/rng.h"
#include "common/test.h"

/* A fleet that is an array. */
static struct rt_worker workers[16];
static uint32_t n_workers;

uint32_t rt_fleet_n_slots(const struct rt_fleet *f)
{
    (void)f;
    return n_workers;
}

bool rt_fleet_worker(const struct rt_fleet *f, uint32_t slot, struct rt_worker *out)
{
    (void)f;
    *out = workers[slot];
    return true;
}

static void make_fleet(uint32_t n)
{
    uint32_t i;

    memset(workers, 0, sizeof(workers));
    n_workers = n;
    for (i = 0; i < n; i++) {
        workers[i].state = RT_W_LIVE;
        workers[i].info.uid = 1000 + i;
        workers[i].info.n_slots = 8;
        workers[i].info.max_waiting = 8;
    }
}

static uint32_t pick(uint64_t key)
{
    const struct rt_place_req req = {.key = key};
    uint32_t slot = UINT32_MAX;

    assert_int_equal(rt_place_pick(NULL, &req, &slot), RT_PLACE_OK);
    return slot;
}

static void equal_beginnings_have_one_key(void **state)
{
    uint32_t a[200], b[200], i;

    (void)state;
    for (i = 0; i < 200; i++)
        a[i] = b[i] = i * 7;
    b[64] = 1; /* behind the first stride */
    assert_true(rt_place_key(5, a, 200, 0) == rt_place_key(5, b, 200, 0));
    assert_true(rt_place_key(5, a, 200, 0) == rt_place_key(5, a, 64, 0));
    b[63] = 1;
    assert_false(rt_place_key(5, a, 200, 0) == rt_place_key(5, b, 200, 0));
    assert_false(rt_place_key(5, a, 200, 0) == rt_place_key(6, a, 200, 0));
    assert_false(rt_place_key(5, a, 3, 0) == rt_place_key(5, b + 1, 3, 0));
    assert_true(rt_place_key(5, a, 200, 9) == rt_place_key(5, b + 100, 7, 9));
}

static void keys_spread_and_only_those_of_a_lost_worker_move(void **state)
{
    uint32_t first[1000], n[5] = {0}, i;

    (void)state;
    make_fleet(5);
    for (i = 0; i < 1000; i++)
        n[first[i] = pick(i)]++;
    for (i = 0; i < 5; i++)
        assert_in_range(n[i], 130, 270);
    workers[2].state = RT_W_DEAD;
    for (i = 0; i < 1000; i++) {
        if (first[i] == 2)
            assert_int_not_equal(pick(i), 2);
        else
            assert_int_equal(pick(i), first[i]);
    }
}

static void nobody_gets_more_than_the_bound(void **state)
{
    uint32_t i;

    (void)state;
    make_fleet(4);
    for (i = 0; i < 4; i++)
        workers[i].info.max_waiting = 1000;
    for (i = 0; i < 400; i++)
        workers[pick(77)].resv_req++; /* one key: everybody wants the same worker */
    for (i = 0; i < 4; i++)
        assert_in_range(workers[i].resv_req, 20, 126);
}

static void only_live_workers_below_their_limit_are_chosen(void **state)
{
    const struct rt_place_req req = {.key = 1};
    uint32_t slot = 7;

    (void)state;
    make_fleet(3);
    workers[0].state = RT_W_SUSPECT;
    workers[1].state = RT_W_DRAINING;
    assert_int_equal(pick(1), 2);
    workers[2].load.n_running = 8;
    workers[2].load.n_waiting = 8;
    assert_int_equal(rt_place_pick(NULL, &req, &slot), RT_PLACE_E_BUSY);
    workers[2].state = RT_W_DEAD;
    assert_int_equal(rt_place_pick(NULL, &req, &slot), RT_PLACE_E_NONE);
    assert_int_equal(slot, 7);
}

static void an_avoided_worker_is_the_last_resort(void **state)
{
    struct rt_place_req req = {.key = 42, .n_avoid = 1};
    uint32_t slot;

    (void)state;
    make_fleet(2);
    req.avoid[0] = pick(42);
    assert_int_equal(rt_place_pick(NULL, &req, &slot), RT_PLACE_OK);
    assert_int_not_equal(slot, req.avoid[0]);
    workers[slot].state = RT_W_DEAD;
    assert_int_equal(rt_place_pick(NULL, &req, &slot), RT_PLACE_OK);
    assert_int_equal(slot, req.avoid[0]);
}

static void a_stream_that_began_stays_with_equal_arithmetic(void **state)
{
    struct rt_place_req req = {.space_id = 7, .arith_id = 8};
    uint32_t slot;

    (void)state;
    make_fleet(3);
    workers[1].info.space_id = 7;
    assert_int_equal(rt_place_pick(NULL, &req, &slot), RT_PLACE_E_NONE);
    workers[1].info.arith_id = 8;
    for (req.key = 0; req.key < 20; req.key++) {
        assert_int_equal(rt_place_pick(NULL, &req, &slot), RT_PLACE_OK);
        assert_int_equal(slot, 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_beginnings_have_one_key),
        cmocka_unit_test(keys_spread_and_only_those_of_a_lost_worker_move),
        cmocka_unit_test(nobody_gets_more_than_the_bound),
        cmocka_unit_test(only_live_workers_below_their_limit_are_chosen),
        cmocka_unit_test(an_avoided_worker_is_the_last_resort),
        cmocka_unit_test(a_stream_that_began_stays_with_equal_arithmetic),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
