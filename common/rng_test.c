#include "common/rng.h"

#include "common/test.h"

/* Known-answer vectors of the Random123 distribution. */
static void philox_gives_the_published_vectors(void **state)
{
    static const struct {
        uint64_t key;
        uint32_t counter[4], out[4];
    } v[] = {
        {0, {0, 0, 0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {UINT64_MAX,
         {0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {UINT64_C(0x299f31d0a4093822),
         {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };

    (void)state;
    for (size_t i = 0; i < PS_ARRAY_LEN(v); i++) {
        uint32_t out[4];

        ps_philox(v[i].key, v[i].counter, out);
        assert_memory_equal(out, v[i].out, sizeof(out));
    }
}

/* From the reference programs splitmix64.c (seed 0) and xoshiro256starstar.c (state 1, 2, 3, 4). */
static void the_stream_equals_the_reference(void **state)
{
    static const uint64_t want[] = {11520, 0, 1509978240, UINT64_C(1215971899390074240)};
    struct ps_rng r;

    (void)state;
    ps_rng_seed(&r, 0);
    assert_true(r.s[0] == UINT64_C(0xe220a8397b1dcdaf));
    assert_true(r.s[1] == UINT64_C(0x6e789e6aa1b965f4));
    r = (struct ps_rng){{1, 2, 3, 4}};
    for (size_t i = 0; i < PS_ARRAY_LEN(want); i++)
        assert_true(ps_rng_u64(&r) == want[i]);
}

static void the_same_seed_gives_the_same_stream(void **state)
{
    struct ps_rng a, b, c;

    (void)state;
    ps_rng_seed(&a, 5);
    ps_rng_seed(&b, 5);
    ps_rng_seed(&c, 6);
    for (int i = 0; i < 100; i++) {
        uint64_t x = ps_rng_u64(&a);

        assert_true(x == ps_rng_u64(&b));
        assert_true(x != ps_rng_u64(&c));
    }
}

static void below_is_in_range_and_even(void **state)
{
    uint32_t n[3] = {0};
    struct ps_rng r;

    (void)state;
    ps_rng_seed(&r, 1);
    for (int i = 0; i < 30000; i++)
        n[ps_rng_below(&r, 3)]++;
    for (int i = 0; i < 3; i++)
        assert_in_range(n[i], 9600, 10400);
    for (int i = 0; i < 100; i++) {
        assert_int_equal(ps_rng_below(&r, 1), 0);
        assert_true(ps_rng_below(&r, UINT64_MAX) < UINT64_MAX);
    }
}

static void unit_is_half_open(void **state)
{
    struct ps_rng r;
    double sum = 0;

    (void)state;
    ps_rng_seed(&r, 2);
    for (int i = 0; i < 10000; i++) {
        double x = ps_rng_unit(&r);

        assert_true(x >= 0 && x < 1);
        sum += x;
    }
    assert_true(sum > 4900 && sum < 5100);
}

static void random_bytes_differ(void **state)
{
    uint8_t a[32], b[32];

    (void)state;
    ps_random_bytes(a, sizeof(a));
    ps_random_bytes(b, sizeof(b));
    assert_memory_not_equal(a, b, sizeof(a));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox_gives_the_published_vectors),
        cmocka_unit_test(the_stream_equals_the_reference),
        cmocka_unit_test(the_same_seed_gives_the_same_stream),
        cmocka_unit_test(below_is_in_range_and_even),
        cmocka_unit_test(unit_is_half_open),
        cmocka_unit_test(random_bytes_differ),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
