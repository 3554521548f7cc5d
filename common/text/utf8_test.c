#include "common/text/utf8.h"

#include "common/test.h"

#define FFFD "\xEF\xBF\xBD"

static void every_code_point_survives(void **state)
{
    (void)state;
    for (uint32_t cp = 0; cp <= 0x10FFFF; cp++) {
        char s[4];
        uint32_t n, back = 0;

        if (cp >= 0xD800 && cp <= 0xDFFF)
            continue;
        n = ps_utf8_encode(s, cp);
        if (ps_utf8_decode(s, n, &back) != n || back != cp || !ps_utf8_valid(s, n) ||
            ps_utf8_n_cp(s, n) != 1)
            fail_msg("U+%04X", cp);
    }
}

static void ill_formed_is_refused(void **state)
{
    static const char *const bad[] = {
        "\x80",         "\xBF",         "\xC0\x80",         "\xC1\xBF",         "\xE0\x9F\xBF",
        "\xED\xA0\x80", "\xED\xBF\xBF", "\xF0\x8F\xBF\xBF", "\xF4\x90\x80\x80", "\xF5\x80\x80\x80",
        "\xFF",         "\xC3",         "\xE2\x82",         "\xF0\x9F\x98",     "\xC3(",
        "\xE2\x82(",    "abcdefgh\x80", "\xF0\x9F\x98 ",    "12345678\xC3",
    };
    uint32_t cp;

    (void)state;
    for (size_t i = 0; i < PS_ARRAY_LEN(bad); i++) {
        if (ps_utf8_valid(bad[i], strlen(bad[i])))
            fail_msg("case %zu", i);
    }
    assert_int_equal(ps_utf8_decode("\xED\xA0\x80", 3, &cp), 0);
    assert_int_equal(ps_utf8_decode("\xE2\x82", 2, &cp), 0);
    assert_true(ps_utf8_valid("", 0));
    assert_true(ps_utf8_valid("a\0b", 3));
    assert_true(ps_utf8_valid("\xED\x9F\xBF\xEE\x80\x80\xF4\x8F\xBF\xBF", 10));
}

static void check_repair(const char *in, size_t len, const char *want)
{
    struct ps_buf out = PS_BUF_INIT;

    assert_int_equal(ps_utf8_repair(&out, in, len, true), len);
    ps_buf_reserve(&out, 1);
    if (strcmp(out.data, want) != 0)
        fail_msg("%s, not %s", out.data, want);
    ps_buf_fini(&out);
}

/* The examples of the Unicode standard, "U+FFFD Substitution of Maximal Subparts" (3-8 to 3-11). */
static void each_maximal_subpart_becomes_one_replacement(void **state)
{
    (void)state;
    check_repair("\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41", 9,
                 FFFD FFFD FFFD FFFD FFFD FFFD FFFD FFFD "A");
    check_repair("\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41", 9,
                 FFFD FFFD FFFD FFFD FFFD FFFD FFFD FFFD "A");
    check_repair("\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42", 9,
                 FFFD FFFD FFFD FFFD FFFD "A" FFFD FFFD "B");
    check_repair("\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41", 9, FFFD FFFD FFFD FFFD "A");
    check_repair("ok \xF0\x9F\x98\x80", 7, "ok \xF0\x9F\x98\x80");
    check_repair("\xF0\x9F\x98", 3, FFFD);
    check_repair("", 0, "");
}

static void an_unfinished_character_waits(void **state)
{
    struct ps_buf out = PS_BUF_INIT;

    (void)state;
    assert_int_equal(ps_utf8_repair(&out, "ab\xF0\x9F\x98", 5, false), 2);
    assert_string_equal(out.data, "ab");
    assert_int_equal(ps_utf8_repair(&out, "\xF0\x9F\x98\x80", 4, false), 4);
    assert_string_equal(out.data, "ab\xF0\x9F\x98\x80");
    ps_buf_fini(&out);
}

/* Any bytes, cut anywhere: the pieces' repair equals the whole's, and at most 3 bytes wait. */
static void pieces_repair_like_the_whole(void **state)
{
    static const uint8_t alphabet[] = {'a', 0x80, 0xBF, 0xC3, 0xE0, 0xA0, 0xED, 0xF0, 0x90, 0xF4};
    uint32_t seed = 1;

    (void)state;
    for (int round = 0; round < 20000; round++) {
        struct ps_buf whole = PS_BUF_INIT, pieces = PS_BUF_INIT, rest = PS_BUF_INIT;
        char in[12];

        for (size_t i = 0; i < sizeof(in); i++) {
            seed = seed * 1664525 + 1013904223;
            in[i] = (char)alphabet[(seed >> 16) % sizeof(alphabet)];
        }
        ps_utf8_repair(&whole, in, sizeof(in), true);
        for (size_t i = 0; i < sizeof(in); i++) {
            ps_buf_add_byte(&rest, in[i]);
            ps_buf_consume(&rest, ps_utf8_repair(&pieces, rest.data, rest.len, false));
            assert_true(rest.len < 4);
        }
        ps_utf8_repair(&pieces, rest.data, rest.len, true);
        assert_int_equal(whole.len, pieces.len);
        assert_memory_equal(whole.data, pieces.data, whole.len);
        assert_true(ps_utf8_valid(whole.data, whole.len));
        ps_buf_fini(&whole);
        ps_buf_fini(&pieces);
        ps_buf_fini(&rest);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_code_point_survives),
        cmocka_unit_test(ill_formed_is_refused),
        cmocka_unit_test(each_maximal_subpart_becomes_one_replacement),
        cmocka_unit_test(an_unfinished_character_waits),
        cmocka_unit_test(pieces_repair_like_the_whole),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
