#include "common/buf.h"

#include "common/test.h"

static void data_is_always_terminated(void **state)
{
    struct ps_buf b = PS_BUF_INIT;

    (void)state;
    for (int i = 0; i < 1000; i++) {
        ps_buf_add_byte(&b, 'x');
        assert_int_equal(b.data[b.len], '\0');
        assert_int_equal(strlen(b.data), i + 1);
    }
    ps_buf_truncate(&b, 10);
    assert_int_equal(strlen(b.data), 10);
    ps_buf_clear(&b);
    assert_string_equal(b.data, "");
    ps_buf_fini(&b);
    assert_null(b.data);
}

static void formatted_text_of_any_length_fits(void **state)
{
    struct ps_buf b = PS_BUF_INIT;

    (void)state;
    for (int n = 0; n < 300; n++) {
        ps_buf_clear(&b);
        ps_buf_addf(&b, "%*d|", n, 7);
        assert_int_equal(b.len, n == 0 ? 2 : n + 1);
        assert_int_equal(b.data[b.len - 1], '|');
        assert_int_equal(strlen(b.data), b.len);
    }
    ps_buf_fini(&b);
}

static void consume_drops_from_the_front(void **state)
{
    struct ps_buf b = PS_BUF_INIT;

    (void)state;
    ps_buf_consume(&b, 0);
    ps_buf_add_str(&b, "penstock");
    ps_buf_consume(&b, 3);
    assert_string_equal(b.data, "stock");
    ps_buf_consume(&b, 5);
    assert_int_equal(b.len, 0);
    ps_buf_fini(&b);
}

static void take_too_much(void *ud)
{
    ps_buf_consume(ud, 4);
}

static void consuming_more_than_there_is_aborts(void **state)
{
    struct ps_buf b = PS_BUF_INIT;

    (void)state;
    ps_buf_add_str(&b, "abc");
    ps_test_dies(take_too_much, &b, "n_bytes <= b->len");
    ps_buf_fini(&b);
}

static void scalars_are_little_endian(void **state)
{
    struct ps_buf b = PS_BUF_INIT;

    (void)state;
    ps_buf_add_u32(&b, 0x03040506);
    ps_buf_add_u64(&b, UINT64_C(0x0708090A0B0C0D0E));
    assert_int_equal(b.len, 12);
    assert_memory_equal(b.data, "\x06\x05\x04\x03\x0E\x0D\x0C\x0B\x0A\x09\x08\x07", 12);
    ps_buf_fini(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(data_is_always_terminated),
        cmocka_unit_test(formatted_text_of_any_length_fits),
        cmocka_unit_test(consume_drops_from_the_front),
        cmocka_unit_test(consuming_more_than_there_is_aborts),
        cmocka_unit_test(scalars_are_little_endian),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
