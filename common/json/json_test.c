#include "common/json/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/json/prescan.h"
#include "common/rng.h"
#include "common/test.h"

static const struct ps_json_limits limits = {.max_depth = 128, .max_values = 1000000};

static struct ps_json_doc *parse_len(const char *text, size_t len)
{
    struct ps_json_doc *d = NULL;
    size_t off = 0;
    int r = ps_json_parse(&d, text, len, &limits, &off);

    if (r != PS_JSON_OK)
        fail_msg("%.200s: case %d at %zu", text, r, off);
    return d;
}

static struct ps_json_doc *parse(const char *text)
{
    return parse_len(text, strlen(text));
}

static void check_fails(const char *text, size_t len, const struct ps_json_limits *lim, int want,
                        size_t want_off)
{
    struct ps_json_doc *d = NULL;
    size_t off = 999;
    int r = ps_json_parse(&d, text, len, lim, &off);

    if (r != want || off != want_off || d != NULL)
        fail_msg("%.200s: case %d at %zu, not %d at %zu", text, r, off, want, want_off);
}

static void check_writes(const char *text, bool python_style, const char *want)
{
    struct ps_json_doc *d = parse(text);
    struct ps_buf out = PS_BUF_INIT;

    ps_json_write(&out, ps_json_root(d), python_style);
    assert_string_equal(out.data, want);
    ps_buf_fini(&out);
    ps_json_free(d);
}

static void values_have_their_types(void **state)
{
    struct ps_json_doc *d =
        parse(" {\"i\": -5, \"r\": 1.0, \"t\": true, \"f\": false, \"n\": null, \"s\": \"x\","
              " \"a\": [1, \"2\"], \"o\": {\"k\": {}}} ");
    const struct ps_json *o = ps_json_root(d);
    size_t len;

    (void)state;
    assert_int_equal(ps_json_type(o), PS_JSON_OBJ);
    assert_int_equal(ps_json_n(o), 8);
    assert_int_equal(ps_json_int(ps_json_get(o, "i")), -5);
    assert_int_equal(ps_json_type(ps_json_get(o, "r")), PS_JSON_REAL);
    assert_true(ps_json_num(ps_json_get(o, "r")) == 1.0);
    assert_true(ps_json_num(ps_json_get(o, "i")) == -5.0);
    assert_true(ps_json_bool(ps_json_get(o, "t")));
    assert_false(ps_json_bool(ps_json_get(o, "f")));
    assert_int_equal(ps_json_type(ps_json_get(o, "n")), PS_JSON_NULL);
    assert_string_equal(ps_json_str(ps_json_get(o, "s"), &len), "x");
    assert_int_equal(len, 1);
    assert_int_equal(ps_json_n(ps_json_get(o, "a")), 2);
    assert_int_equal(ps_json_type(ps_json_at(ps_json_get(o, "a"), 1)), PS_JSON_STR);
    assert_null(ps_json_get(o, "absent"));
    ps_json_free(d);
    ps_json_free(NULL);
}

static void any_value_may_be_the_root(void **state)
{
    static const char *const roots[] = {"1", "\"s\"", "null", "[]", "-0.5", "true"};

    (void)state;
    for (size_t i = 0; i < PS_ARRAY_LEN(roots); i++)
        check_writes(roots[i], false, roots[i]);
}

static void iteration_keeps_document_order(void **state)
{
    struct ps_json_doc *d = parse("{\"z\":1,\"a\":2,\"m\":3}");
    const char *key, *want[] = {"z", "a", "m"};
    void *it = NULL;
    const struct ps_json *v;
    int64_t n = 0;

    (void)state;
    while ((v = ps_json_next(ps_json_root(d), &it, &key)) != NULL) {
        assert_string_equal(key, want[n]);
        assert_int_equal(ps_json_int(v), ++n);
    }
    assert_int_equal(n, 3);
    ps_json_free(d);
}

/* The expected text is what Python 3.11 prints for json.dumps(json.loads(x), ensure_ascii=False). */
static void python_style_equals_json_dumps(void **state)
{
    (void)state;
    check_writes(
        "{\"a\":1,\"b\":[1,2.5,-0.0,-0,1e16,1e15,123456789012345680.0,1e-4,1e-5,1e22,5e-324,"
        "1.7976931348623157e308,0.1,100.0,18446744073709551615,-9223372036854775808,"
        "-9223372036854775809],\"s\":\"q\\\"b\\\\\\/\\b\\f\\n\\r\\t\\u0001\\u001f\\u007f\\u00e9"
        "\\u2028\\ud83d\\ude00\",\"e\":{},\"l\":[],\"n\":null,\"t\":true,\"f\":false,"
        "\"nest\":[[{\"x\":[{}]}]]}",
        true,
        "{\"a\": 1, \"b\": [1, 2.5, -0.0, 0, 1e+16, 1000000000000000.0, 1.2345678901234568e+17, "
        "0.0001, 1e-05, 1e+22, 5e-324, 1.7976931348623157e+308, 0.1, 100.0, 18446744073709551615, "
        "-9223372036854775808, -9223372036854775809], \"s\": \"q\\\"b\\\\/\\b\\f\\n\\r\\t\\u0001"
        "\\u001f\x7f\xC3\xA9\xE2\x80\xA8\xF0\x9F\x98\x80\", \"e\": {}, \"l\": [], \"n\": null, "
        "\"t\": true, \"f\": false, \"nest\": [[{\"x\": [{}]}]]}");
}

static void compact_style_has_no_spaces(void **state)
{
    (void)state;
    check_writes("{ \"a\" : [ 1 , 2 ] , \"b\" : { } }", false, "{\"a\":[1,2],\"b\":{}}");
}

static void the_last_duplicate_wins_in_the_first_place(void **state)
{
    (void)state;
    check_writes("{\"a\":1,\"b\":2,\"a\":3}", false, "{\"a\":3,\"b\":2}");
}

static void integers_beyond_int64_are_flagged_reals(void **state)
{
    struct ps_json_doc *d = parse("[9223372036854775807,-9223372036854775808,9223372036854775808,"
                                  "18446744073709551615,-9223372036854775809,1e300,1]");
    const struct ps_json *a = ps_json_root(d);

    (void)state;
    assert_true(ps_json_int(ps_json_at(a, 0)) == INT64_MAX);
    assert_true(ps_json_int(ps_json_at(a, 1)) == INT64_MIN);
    for (size_t i = 2; i < 5; i++) {
        assert_int_equal(ps_json_type(ps_json_at(a, i)), PS_JSON_REAL);
        assert_true(ps_json_is_big_int(ps_json_at(a, i)));
    }
    assert_true(ps_json_num(ps_json_at(a, 3)) == 18446744073709551615.0);
    assert_false(ps_json_is_big_int(ps_json_at(a, 5))); /* was never written as an integer */
    assert_false(ps_json_is_big_int(ps_json_at(a, 6)));
    ps_json_free(d);
}

static void a_number_no_double_holds_is_a_syntax_error(void **state)
{
    char digits[402];

    (void)state;
    check_fails("[1e400]", 7, &limits, PS_JSON_E_SYNTAX, 6);
    check_fails("-1e400", 6, &limits, PS_JSON_E_SYNTAX, 6);
    memset(digits, '9', sizeof(digits));
    check_fails(digits, 401, &limits, PS_JSON_E_SYNTAX, 0);
    check_fails(digits, 310, &limits, PS_JSON_E_SYNTAX, 0);
    check_fails(digits, 309, &limits, PS_JSON_E_SYNTAX, 0);
    memcpy(digits, "11", 2); /* the largest double is 1.797...e308 */
    ps_json_free(parse_len(digits, 309));
}

/* The mark inside is ours alone: strings that begin with it come back unchanged. */
static void no_string_is_taken_for_a_big_integer(void **state)
{
    static const struct {
        const char *json, *text;
        size_t len;
    } c[] = {
        {"\"\\u0001I12\"", "\001I12", 4},        {"\"\\u0001\"", "\001", 1},
        {"\"\\u0001S\\u0001\"", "\001S\001", 3}, {"\"a\\u0001I\"", "a\001I", 3},
        {"\"\\u0001\\u0000\"", "\001\0", 2},
    };

    (void)state;
    for (size_t i = 0; i < PS_ARRAY_LEN(c); i++) {
        struct ps_json_doc *d = parse(c[i].json);
        const struct ps_json *v = ps_json_root(d);
        size_t len;

        assert_int_equal(ps_json_type(v), PS_JSON_STR);
        assert_memory_equal(ps_json_str(v, &len), c[i].text, c[i].len);
        assert_int_equal(len, c[i].len);
        ps_json_free(d);
        check_writes(c[i].json, false, c[i].json);
    }
    check_writes("{\"\\u0001I\":1}", false, "{\"\\u0001I\":1}");
}

static void lone_surrogates_become_replacements(void **state)
{
    (void)state;
    check_writes("[\"\\ud800\",\"a\\uDFFFb\",\"\\ud800\\ud83d\\ude00\",\"\\ud83d\\ude00\\ude00\","
                 "\"\\ud800\\n\",\"\\ud800\\u0041\"]",
                 false,
                 "[\"\xEF\xBF\xBD\",\"a\xEF\xBF\xBD"
                 "b\",\"\xEF\xBF\xBD\xF0\x9F\x98\x80\",\"\xF0\x9F\x98\x80\xEF\xBF\xBD\","
                 "\"\xEF\xBF\xBD\\n\",\"\xEF\xBF\xBD"
                 "A\"]");
    check_writes("{\"k\\udc00\":1}", false, "{\"k\xEF\xBF\xBD\":1}");
}

static void a_nul_is_kept_in_values_and_replaced_in_keys(void **state)
{
    struct ps_json_doc *d = parse("\"a\\u0000b\"");
    size_t len;

    (void)state;
    assert_memory_equal(ps_json_str(ps_json_root(d), &len), "a\0b", 4);
    assert_int_equal(len, 3);
    ps_json_free(d);
    check_writes("\"a\\u0000b\"", false, "\"a\\u0000b\"");
    check_writes("{\"a\\u0000b\":1}", false,
                 "{\"a\xEF\xBF\xBD"
                 "b\":1}");
}

static void depth_is_limited(void **state)
{
    char text[400];

    (void)state;
    memset(text, '[', 200);
    memset(text + 128, ']', 128);
    ps_json_free(parse_len(text, 256));
    memset(text, '[', 129);
    memset(text + 129, ']', 129);
    check_fails(text, 258, &limits, PS_JSON_E_DEPTH, 128);
    /* A million brackets cost no stack. */
    char *big = ps_alloc(1000000);

    memset(big, '[', 1000000);
    check_fails(big, 1000000, &limits, PS_JSON_E_DEPTH, 128);
    ps_free(big);
}

static void a_deep_document_is_written_back(void **state)
{
    struct ps_buf text = PS_BUF_INIT;

    (void)state;
    for (int i = 0; i < 64; i++)
        ps_buf_add_str(&text, "[{\"k\":");
    ps_buf_add_str(&text, "1");
    for (int i = 0; i < 64; i++)
        ps_buf_add_str(&text, "}]");
    check_writes(text.data, false, text.data);
    ps_buf_fini(&text);
}

static void values_are_counted_but_not_token_ids(void **state)
{
    const struct ps_json_limits ten = {.max_depth = 8, .max_values = 10};
    struct ps_buf text = PS_BUF_INIT;
    struct ps_json_doc *d;
    size_t off;

    (void)state;
    check_fails("[\"\",\"\",\"\",\"\",\"\",\"\",\"\",\"\",\"\",\"\"]", 31, &ten, PS_JSON_E_COUNT,
                28);
    ps_buf_add_str(&text, "{\"prompt\":[[");
    for (int i = 0; i < 1000; i++)
        ps_buf_addf(&text, "%s%d", i > 0 ? "," : "", i);
    ps_buf_add_str(&text, "],[1,2,3]],\"x\":1}");
    assert_int_equal(ps_json_parse(&d, text.data, text.len, &ten, &off), PS_JSON_OK);
    ps_json_free(d);
    /* One value that is not an integer, and all of them count. */
    ps_buf_truncate(&text, text.len - strlen("3]],\"x\":1}"));
    ps_buf_add_str(&text, "3.0]]}");
    assert_int_equal(ps_json_parse(&d, text.data, text.len, &ten, &off), PS_JSON_OK);
    ps_json_free(d);
    ps_buf_clear(&text);
    ps_buf_add_str(&text, "[1,2,3,4,5,6,7,8,9,1.5]");
    assert_int_equal(ps_json_parse(&d, text.data, text.len, &ten, &off), PS_JSON_E_COUNT);
    ps_buf_fini(&text);
}

static void a_bom_is_skipped(void **state)
{
    (void)state;
    check_writes("\xEF\xBB\xBF[1]", false, "[1]");
    check_fails("\xEF\xBB\xBF[1", 5, &limits, PS_JSON_E_SYNTAX, 5);
    check_fails("\xEF\xBB\xBF", 3, &limits, PS_JSON_E_SYNTAX, 3);
}

static void bad_utf8_is_named(void **state)
{
    (void)state;
    check_fails("[\"ab\xFF\"]", 7, &limits, PS_JSON_E_UTF8, 4);
    check_fails("\"\xED\xA0\x80\"", 5, &limits, PS_JSON_E_UTF8, 1);
    check_fails("[\xC3]", 3, &limits, PS_JSON_E_UTF8, 1);
    check_fails("[\xC2\xA0]", 4, &limits, PS_JSON_E_SYNTAX, 1);
}

static void malformed_text_is_refused_where_it_breaks(void **state)
{
    static const struct {
        const char *text;
        size_t off;
    } c[] = {
        {"", 0},           {" ", 1},          {"[", 1},         {"]", 0},           {"[1,]", 3},
        {"[1 2]", 3},      {"{", 1},          {"{1:2}", 1},     {"{\"a\"}", 4},     {"{\"a\":}", 5},
        {"{\"a\":1,}", 7}, {"[1}", 2},        {"{\"a\":1]", 6}, {"1 2", 2},         {"nul", 0},
        {"NaN", 0},        {"[Infinity]", 1}, {"-Infinity", 0}, {"01", 0},          {"1.", 0},
        {".5", 0},         {"1e", 0},         {"1e+", 0},       {"+1", 0},          {"-", 0},
        {"\"a", 2},        {"\"\n\"", 1},     {"\"\\x\"", 1},   {"\"\\u12g4\"", 1}, {"\"\\", 1},
        {"\"\\u12", 1},    {"// c\n1", 0},    {"[1/*c*/]", 2},  {"'a'", 0},         {"{a:1}", 1},
        {"tru", 0},        {"truex", 4},      {"[1,,2]", 3},    {"{\"a\" 1}", 5},   {"0x10", 1},
    };

    (void)state;
    for (size_t i = 0; i < PS_ARRAY_LEN(c); i++)
        check_fails(c[i].text, strlen(c[i].text), &limits, PS_JSON_E_SYNTAX, c[i].off);
    check_fails("[1]\0", 4, &limits, PS_JSON_E_SYNTAX, 3);
    check_fails("\"\\\0\"", 4, &limits, PS_JSON_E_SYNTAX, 1);
}

/* The expected text is Python's repr. */
static void doubles_are_shortest_and_plain_like_python(void **state)
{
    static const struct {
        double v;
        const char *want;
    } c[] = {
        {0, "0.0"},
        {-0.0, "-0.0"},
        {1, "1.0"},
        {-1.5, "-1.5"},
        {0.1, "0.1"},
        {1.0 / 3, "0.3333333333333333"},
        {0.1 + 0.2, "0.30000000000000004"},
        {1e15, "1000000000000000.0"},
        {9999999999999998, "9999999999999998.0"},
        {1e16, "1e+16"},
        {1.5e16, "1.5e+16"},
        {1e-4, "0.0001"},
        {0.00012345, "0.00012345"},
        {1e-5, "1e-05"},
        {1e100, "1e+100"},
        {5e-324, "5e-324"},
        {2.2250738585072014e-308, "2.2250738585072014e-308"},
        {1.7976931348623157e308, "1.7976931348623157e+308"},
        {123456.789, "123456.789"},
        {100, "100.0"},
        {1234567890123456.0, "1234567890123456.0"},
    };

    (void)state;
    for (size_t i = 0; i < PS_ARRAY_LEN(c); i++) {
        struct ps_buf out = PS_BUF_INIT;

        ps_json_add_double(&out, c[i].v);
        assert_string_equal(out.data, c[i].want);
        ps_buf_fini(&out);
    }
}

static void any_double_reads_back_equal(void **state)
{
    struct ps_rng rng;

    (void)state;
    ps_rng_seed(&rng, 3);
    for (int i = 0; i < 20000; i++) {
        uint64_t bits = ps_rng_u64(&rng);
        struct ps_buf out = PS_BUF_INIT;
        double v;

        memcpy(&v, &bits, sizeof(v));
        if (!isfinite(v))
            continue;
        ps_json_add_double(&out, v);
        if (strtod(out.data, NULL) != v)
            fail_msg("%a", v);
        ps_buf_fini(&out);
    }
}

/* Whatever the scan accepts, jansson must parse; the assertion in ps_json_parse is the check. */
static void random_mutations_never_split_scan_and_parser(void **state)
{
    static const char seed[] = "{\"a\":[1,-2.5e3,true,null,\"\\u0001x\\ud83d\\ude00\"],\"b\":"
                               "{\"c\":18446744073709551615,\"d\":\"\xC3\xA9\\n\"}}";
    static const char alphabet[] = "{}[],:\"\\u01dD8eE+-. tfn\xC3\x80\x01";
    struct ps_rng rng;
    uint32_t n_ok = 0;

    (void)state;
    ps_rng_seed(&rng, 4);
    for (int i = 0; i < 50000; i++) {
        char text[sizeof(seed)];
        struct ps_json_doc *d = NULL;
        size_t off, len = sizeof(seed) - 1;

        memcpy(text, seed, sizeof(seed));
        for (uint64_t k = ps_rng_below(&rng, 3) + 1; k > 0; k--)
            text[ps_rng_below(&rng, len)] = alphabet[ps_rng_below(&rng, sizeof(alphabet) - 1)];
        if (ps_json_parse(&d, text, len, &limits, &off) == PS_JSON_OK) {
            struct ps_buf once = PS_BUF_INIT, twice = PS_BUF_INIT;
            struct ps_json_doc *again;

            n_ok++;
            ps_json_write(&once, ps_json_root(d), false);
            again = parse_len(once.data, once.len);
            ps_json_write(&twice, ps_json_root(again), false);
            assert_string_equal(once.data, twice.data);
            ps_json_free(again);
            ps_buf_fini(&once);
            ps_buf_fini(&twice);
        } else {
            assert_true(off <= len);
        }
        ps_json_free(d);
    }
    assert_true(n_ok > 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_have_their_types),
        cmocka_unit_test(any_value_may_be_the_root),
        cmocka_unit_test(iteration_keeps_document_order),
        cmocka_unit_test(python_style_equals_json_dumps),
        cmocka_unit_test(compact_style_has_no_spaces),
        cmocka_unit_test(the_last_duplicate_wins_in_the_first_place),
        cmocka_unit_test(integers_beyond_int64_are_flagged_reals),
        cmocka_unit_test(a_number_no_double_holds_is_a_syntax_error),
        cmocka_unit_test(no_string_is_taken_for_a_big_integer),
        cmocka_unit_test(lone_surrogates_become_replacements),
        cmocka_unit_test(a_nul_is_kept_in_values_and_replaced_in_keys),
        cmocka_unit_test(depth_is_limited),
        cmocka_unit_test(a_deep_document_is_written_back),
        cmocka_unit_test(values_are_counted_but_not_token_ids),
        cmocka_unit_test(a_bom_is_skipped),
        cmocka_unit_test(bad_utf8_is_named),
        cmocka_unit_test(malformed_text_is_refused_where_it_breaks),
        cmocka_unit_test(doubles_are_shortest_and_plain_like_python),
        cmocka_unit_test(any_double_reads_back_equal),
        cmocka_unit_test(random_mutations_never_split_scan_and_parser),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
