#include "worker/host.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void a_core_is_left_for_io_and_the_rest_is_shared_out(void **state)
{
    (void)state;
    assert_int_equal(wk_host_share(1, 1), 1);
    assert_int_equal(wk_host_share(2, 1), 2);
    assert_int_equal(wk_host_share(2, 2), 1);
    assert_int_equal(wk_host_share(3, 1), 2);
    assert_int_equal(wk_host_share(16, 2), 7);
    assert_int_equal(wk_host_share(2, 8), 1);
    assert_true(wk_host_threads(1) >= 1);
    assert_true(wk_host_mem_available() > 0);
}

static void a_quota_counts_whole_cores(void **state)
{
    (void)state;
    assert_int_equal(wk_host_parse_quota("max 100000\n"), UINT32_MAX);
    assert_int_equal(wk_host_parse_quota("150000 100000\n"), 1);
    assert_int_equal(wk_host_parse_quota("50000 100000\n"), 1);
    assert_int_equal(wk_host_parse_quota("400000 100000\n"), 4);
    assert_int_equal(wk_host_parse_quota("garbage"), UINT32_MAX);
}

static void sizes_are_powers_of_1024(void **state)
{
    static const struct {
        const char *text;
        uint64_t bytes; /* 0: refused */
    } rows[] = {
        {"1", 1},
        {"1000000", 1000000},
        {"512M", 512u << 20},
        {"512m", 512u << 20},
        {"4GiB", 4ull << 30},
        {"4GB", 4ull << 30},
        {"3k", 3072},
        {"1T", 1ull << 40},
        {"7B", 7},
        {"", 0},
        {"M", 0},
        {"-1", 0},
        {"4GiBs", 0},
        {"4 G", 0},
        {"0", 0},
        {"99999999T", 0},
        {"1.5G", 0},
        {"99999999999999999999999", 0},
    };

    (void)state;
    for (uint32_t i = 0; i < PS_ARRAY_LEN(rows); i++) {
        uint64_t bytes = 0;

        assert_int_equal(wk_size_parse(rows[i].text, &bytes), rows[i].bytes != 0);
        assert_true(bytes == rows[i].bytes);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_core_is_left_for_io_and_the_rest_is_shared_out),
        cmocka_unit_test(a_quota_counts_whole_cores),
        cmocka_unit_test(sizes_are_powers_of_1024),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
