#include "common/arena.h"

#include "common/test.h"

static void everything_is_aligned_and_disjoint(void **state)
{
    struct ps_arena a;
    char *prev = NULL;

    (void)state;
    ps_arena_init(&a, 256);
    for (size_t n = 0; n < 100; n++) {
        char *p = ps_arena_alloc(&a, n);

        assert_int_equal((uintptr_t)p % 16, 0);
        memset(p, (int)n, n);
        if (prev != NULL)
            assert_int_equal((uint8_t)prev[n - 2], n - 1);
        prev = n > 0 ? p : NULL;
    }
    ps_arena_fini(&a);
}

static void a_large_object_gets_its_own_chunk(void **state)
{
    struct ps_arena a;
    char *small, *large, *next;

    (void)state;
    ps_arena_init(&a, 1024);
    small = ps_arena_alloc(&a, 16);
    large = ps_arena_alloc(&a, 100000);
    memset(large, 1, 100000);
    next = ps_arena_alloc(&a, 16);
    assert_ptr_equal(next, small + 16); /* the room of the first chunk is still used */
    ps_arena_fini(&a);
}

static void copies_and_zeros(void **state)
{
    struct ps_arena a;
    uint32_t *z;

    (void)state;
    ps_arena_init(&a, 0);
    z = ps_arena_calloc(&a, 16, 4);
    for (int i = 0; i < 16; i++)
        assert_int_equal(z[i], 0);
    assert_string_equal(ps_arena_strndup(&a, "penstock", 3), "pen");
    assert_string_equal(ps_arena_strndup(&a, NULL, 0), "");
    assert_memory_equal(ps_arena_memdup(&a, "a\0b", 3), "a\0b", 3);
    ps_arena_fini(&a);
}

static void overflow(void *ud)
{
    struct ps_arena a;

    (void)ud;
    ps_arena_init(&a, 0);
    ps_arena_calloc(&a, SIZE_MAX / 2, 4);
}

static void an_overflowing_product_aborts(void **state)
{
    (void)state;
    ps_test_dies(overflow, NULL, "assertion failed");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_is_aligned_and_disjoint),
        cmocka_unit_test(a_large_object_gets_its_own_chunk),
        cmocka_unit_test(copies_and_zeros),
        cmocka_unit_test(an_overflowing_product_aborts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
