#include "common/pool.h"

#include "common/test.h"

struct obj {
    uint64_t a;
    char text[20];
};

static void objects_are_zeroed_distinct_and_run_out(void **state)
{
    struct ps_pool *p = ps_pool_create(3, sizeof(struct obj));
    struct obj *o[3];

    (void)state;
    for (uint32_t i = 0; i < 3; i++) {
        o[i] = ps_pool_take(p);
        assert_non_null(o[i]);
        assert_int_equal(o[i]->a, 0);
        assert_int_equal(o[i]->text[19], 0);
        assert_int_equal(ps_pool_index(p, o[i]), i);
        o[i]->a = i + 1;
    }
    assert_null(ps_pool_take(p));
    assert_int_equal(ps_pool_n_out(p), 3);
    assert_int_equal(o[0]->a + o[1]->a + o[2]->a, 6);
    ps_pool_give(p, o[1]);
    assert_null(ps_pool_at(p, 1));
    assert_ptr_equal(ps_pool_at(p, 2), o[2]);
    assert_ptr_equal(ps_pool_take(p), o[1]);
    assert_int_equal(o[1]->a, 0);
    ps_pool_destroy(p);
    ps_pool_destroy(NULL);
}

static void a_free_object_is_poisoned(void **state)
{
    struct ps_pool *p = ps_pool_create(1, sizeof(struct obj));
    uint8_t *o = ps_pool_take(p);

    (void)state;
    ps_pool_give(p, o);
    for (size_t i = 0; i < sizeof(struct obj); i++)
        assert_int_equal(o[i], 0xA5);
    ps_pool_destroy(p);
}

static void give_twice(void *ud)
{
    void *o = ps_pool_take(ud);

    ps_pool_give(ud, o);
    ps_pool_give(ud, o);
}

static void give_inside(void *ud)
{
    char *o = ps_pool_take(ud);

    ps_pool_give(ud, o + 8);
}

static void give_stranger(void *ud)
{
    int x = 0;

    ps_pool_give(ud, &x);
}

static void a_wrong_give_aborts(void **state)
{
    struct ps_pool *p = ps_pool_create(2, sizeof(struct obj));

    (void)state;
    ps_test_dies(give_twice, p, "is_out[id] == 1");
    ps_test_dies(give_inside, p, "assertion failed");
    ps_test_dies(give_stranger, p, "assertion failed");
    ps_pool_destroy(p);
}

#ifdef PS_DEBUG
static void write_after_give(void *ud)
{
    struct obj *o = ps_pool_take(ud);

    ps_pool_give(ud, o);
    o->a = 1;
    ps_pool_take(ud);
}
#endif

static void a_write_after_give_aborts_in_debug_builds(void **state)
{
    struct ps_pool *p = ps_pool_create(1, sizeof(struct obj));

    (void)state;
#ifdef PS_DEBUG
    ps_test_dies(write_after_give, p, "is_poisoned");
#else
    assert_non_null(ps_pool_take(p));
#endif
    ps_pool_destroy(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(objects_are_zeroed_distinct_and_run_out),
        cmocka_unit_test(a_free_object_is_poisoned),
        cmocka_unit_test(a_wrong_give_aborts),
        cmocka_unit_test(a_write_after_give_aborts_in_debug_builds),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
