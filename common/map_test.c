#include "common/map.h"

#include "common/rng.h"
#include "common/test.h"

enum { N_KEY = 2000 };

/* Against the simplest model: an array indexed by key. */
static void random_operations_equal_a_plain_array(void **state)
{
    static uint64_t value[N_KEY];
    static bool there[N_KEY];
    struct ps_rng rng;
    struct ps_map m;
    uint32_t n = 0;

    (void)state;
    ps_rng_seed(&rng, 1);
    ps_map_init(&m, 42);
    for (int i = 0; i < 200000; i++) {
        uint64_t k = ps_rng_below(&rng, N_KEY), v = 0, op = ps_rng_below(&rng, 100);

        /* Long phases of growth and of decay, so that both sides of the load are seen. */
        if (op < (i / 20000 % 2 == 0 ? 60U : 30U)) {
            n += !there[k];
            there[k] = true;
            value[k] = ps_rng_u64(&rng);
            ps_map_put(&m, k, value[k]);
        } else if (op < 90) {
            assert_int_equal(ps_map_del(&m, k), there[k]);
            n -= there[k];
            there[k] = false;
        } else {
            assert_int_equal(ps_map_get(&m, k, &v), there[k]);
            if (there[k])
                assert_true(v == value[k]);
        }
        assert_int_equal(m.n, n);
    }
    for (uint64_t k = 0; k < N_KEY; k++) {
        uint64_t v;

        assert_int_equal(ps_map_get(&m, k, &v), there[k]);
    }
    ps_map_fini(&m);
}

static void a_cleared_map_has_nothing(void **state)
{
    struct ps_map m;
    uint64_t v;

    (void)state;
    ps_map_init(&m, 7);
    for (uint64_t i = 0; i < 100; i++)
        ps_map_put(&m, i, i * 10);
    assert_int_equal(m.n, 100);
    ps_map_clear(&m);
    assert_int_equal(m.n, 0);
    assert_false(ps_map_get(&m, 5, &v));
    ps_map_fini(&m);
}

static void an_empty_map_answers(void **state)
{
    struct ps_map m;
    uint64_t v = 9;

    (void)state;
    ps_map_init(&m, 0);
    assert_false(ps_map_get(&m, 0, &v));
    assert_false(ps_map_del(&m, 0));
    assert_null(ps_map_get_ptr(&m, 0));
    assert_int_equal(v, 9);
    ps_map_put(&m, 0, (uint64_t)(uintptr_t)&v);
    assert_ptr_equal(ps_map_get_ptr(&m, 0), &v);
    ps_map_fini(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_operations_equal_a_plain_array),
        cmocka_unit_test(a_cleared_map_has_nothing),
        cmocka_unit_test(an_empty_map_answers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
