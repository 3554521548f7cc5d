#include "common/log.h"

#include <regex.h>
#include <stdlib.h>

#include "common/test.h"

static const char *log_of(void (*fn)(void *ud), void *ud)
{
    static char said[65536];

    assert_int_equal(ps_test_run(fn, ud, said, sizeof(said)), 0);
    return said;
}

static void assert_matches(const char *text, const char *pattern)
{
    regex_t re;

    assert_int_equal(regcomp(&re, pattern, REG_EXTENDED | REG_NOSUB), 0);
    if (regexec(&re, text, 0, NULL, 0) != 0)
        fail_msg("\"%s\" does not match %s", text, pattern);
    regfree(&re);
}

static void say_one(void *ud)
{
    (void)ud;
    ps_log_init("router", PS_LOG_INFO);
    ps_info("worker joined", "worker=%d model=%s", 3, "demo");
    ps_debug("not shown", "x=%d", 1);
}

static void a_line_is_logfmt(void **state)
{
    (void)state;
    assert_matches(
        log_of(say_one, NULL),
        "^ts=20[0-9]{2}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-6][0-9]\\.[0-9]{3}Z "
        "level=info prog=router msg=\"worker joined\" worker=3 model=demo\n$");
}

static void say_nothing_more(void *ud)
{
    (void)ud;
    ps_error("stopped", "");
}

static void a_line_needs_no_values(void **state)
{
    (void)state;
    assert_matches(log_of(say_nothing_more, NULL), "level=error prog=penstock msg=\"stopped\"\n$");
}

static void say_often(void *ud)
{
    (void)ud;
    for (int i = 0; i < 100; i++)
        ps_warn("often", "i=%d", i);
    ps_warn("other site", "");
}

static uint32_t n_of(const char *text, const char *what)
{
    uint32_t n = 0;

    for (; (text = strstr(text, what)) != NULL; text++)
        n++;
    return n;
}

/* A second may begin in the middle, so up to twice the limit can appear. */
static void a_call_site_is_limited_and_others_are_not(void **state)
{
    const char *said = log_of(say_often, NULL);

    (void)state;
    assert_in_range(n_of(said, "often"), 10, 20);
    assert_int_equal(n_of(said, "other site"), 1);
}

static void say_after_silence(void *ud)
{
    struct ps_log_site site = {0};

    (void)ud;
    for (int i = 0; i < 30; i++)
        ps_log_line(&site, PS_LOG_INFO, "flood", "");
    site.window_s = 1; /* as if a second had passed */
    ps_log_line(&site, PS_LOG_INFO, "flood", "");
}

/* Also when a second begins in the middle: each line is either printed or confessed. */
static void what_was_dropped_is_told(void **state)
{
    const char *said = log_of(say_after_silence, NULL);
    uint64_t n = n_of(said, "msg=\"flood\"");

    (void)state;
    assert_in_range(n, 11, 30);
    for (const char *p = said; (p = strstr(p, "suppressed=")) != NULL;) {
        p += strlen("suppressed=");
        n += strtoul(p, NULL, 10);
    }
    assert_int_equal(n, 31);
}

static void say_evil(void *ud)
{
    static char big[5000];

    (void)ud;
    ps_info("evil", "name=%s", "a\nts=forged\x1b[0m");
    memset(big, 'x', sizeof(big) - 1);
    ps_info("big", "v=%s", big);
}

static void a_value_cannot_forge_or_flood_a_line(void **state)
{
    const char *said = log_of(say_evil, NULL);

    (void)state;
    assert_int_equal(n_of(said, "\n"), 2);
    assert_null(strchr(said, '\x1b'));
    assert_true(strlen(said) < 2500);
    assert_int_equal(said[strlen(said) - 1], '\n');
}

static void quoting_escapes_and_cuts(void **state)
{
    char out[16];

    (void)state;
    assert_string_equal(PS_Q("plain"), "\"plain\"");
    assert_string_equal(PS_Q("a \"b\"\\\n"), "\"a \\\"b\\\"\\\\\\x0a\"");
    assert_string_equal(ps_log_quote("0123456789abcdef", out, sizeof(out)), "\"0123456...\"");
    assert_string_equal(ps_log_quote("\x01\x01\x01\x01\x01", out, sizeof(out)),
                        "\"\\x01\\x01...\"");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line_is_logfmt),
        cmocka_unit_test(a_line_needs_no_values),
        cmocka_unit_test(a_call_site_is_limited_and_others_are_not),
        cmocka_unit_test(what_was_dropped_is_told),
        cmocka_unit_test(a_value_cannot_forge_or_flood_a_line),
        cmocka_unit_test(quoting_escapes_and_cuts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
