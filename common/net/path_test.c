#include <string.h>

#include "common/net/parse.h"
#include "common/test.h"

static void paths_are_decoded_and_normalised(void **state)
{
    static const struct {
        const char *raw, *want; /* NULL: refused */
    } rows[] = {
        {"/", "/"},
        {"//", "/"},
        {"/v1/models", "/v1/models"},
        {"/v1//models", "/v1/models"},
        {"//v1/models", "/v1/models"},
        {"/v1/models/", "/v1/models"},
        {"/v1/models//", "/v1/models"},
        {"/V1/models", "/V1/models"},
        {"/v1/models/org%2Fm", "/v1/models/org/m"},
        {"/v1%2f%2fmodels%2f", "/v1/models"},
        {"/%76%31/models", "/v1/models"},
        {"/a%20b", "/a b"},
        {"/caf%C3%A9", "/caf\xc3\xa9"},
        {"/...", "/..."},
        {"/.a/..b", "/.a/..b"},
        {"/a.", "/a."},
        {"/%2541", "/%41"}, /* decoded once, not twice */
        {"/.", NULL},
        {"/..", NULL},
        {"/v1/../v1/models", NULL},
        {"/v1/./models", NULL},
        {"/v1/%2e%2e/models", NULL},
        {"/v1/.%2E", NULL},
        {"/a%2f..%2fb", NULL},
        {"/../", NULL},
        {"/%", NULL},
        {"/%4", NULL},
        {"/%zz", NULL},
        {"/%4g", NULL},
        {"/%00", NULL},
        {"/%0d%0a", NULL},
        {"/%7f", NULL},
        {"", NULL},
        {"v1", NULL},
        {"*", NULL},
    };
    char out[64];

    (void)state;
    for (size_t i = 0; i < PS_ARRAY_LEN(rows); i++) {
        bool ok = ps_path_clean(rows[i].raw, strlen(rows[i].raw), out);

        if (ok != (rows[i].want != NULL))
            print_error("row %zu: %s\n", i, rows[i].raw);
        assert_int_equal(ok, rows[i].want != NULL);
        assert_string_equal(out, rows[i].want != NULL ? rows[i].want : "");
    }
}

static void hosts_hold_a_name_or_address_and_a_port(void **state)
{
    static const char *const good[] = {"a",         "localhost:8080", "127.0.0.1", "[::1]",
                                       "[::1]:443", "a-b_c.example",  "a:"};
    static const char *const bad[] = {"",    ":80",   "a b", "a/b",       "u@h",  "a:80:90", "a:x",
                                      "[]",  "[::1",  "[g]", "[::1]x",    "a%41", "a\"",     "a\\b",
                                      "<a>", "a,b/c", "a#b", "a:1234567", "a?b",  "a|b",     "{a}"};

    (void)state;
    for (size_t i = 0; i < PS_ARRAY_LEN(good); i++)
        assert_true(ps_host_ok(good[i], strlen(good[i])));
    for (size_t i = 0; i < PS_ARRAY_LEN(bad); i++) {
        if (ps_host_ok(bad[i], strlen(bad[i])))
            print_error("taken: %s\n", bad[i]);
        assert_false(ps_host_ok(bad[i], strlen(bad[i])));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(paths_are_decoded_and_normalised),
        cmocka_unit_test(hosts_hold_a_name_or_address_and_a_port),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
