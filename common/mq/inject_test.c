#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/mq/inject.h"

struct seen {
    uint32_t n[2]; /* by tag */
};

static void count(void *ud, uint64_t tag, const uint8_t *id, size_t id_len, const uint8_t *data,
                  size_t len)
{
    struct seen *s = ud;

    assert_int_equal(id_len, 3);
    assert_int_equal(id[2], 'd');
    assert_int_equal(len, 4);
    assert_int_equal(data[0], 'x');
    s->n[tag]++;
}

static void feed(struct ps_inject *i, uint32_t n, uint64_t tag, struct seen *s)
{
    for (uint32_t k = 0; k < n; k++)
        ps_inject_pass(i, k, tag, (const uint8_t *)"qid", 3, (const uint8_t *)"xyz", 4, count, s);
}

static struct ps_inject *make(const char *text)
{
    struct ps_inject *i = NULL;

    assert_int_equal(ps_inject_create(&i, text, 1), PS_INJECT_OK);
    return i;
}

static void text_with_unknown_or_wild_values_is_refused(void **state)
{
    static const char *const bad[] = {"x=1", "drop",      "drop=",   "drop=1.5",   "drop=0.1;dup=1",
                                      "=1",  "dropp=0.1", "drop=-1", "late_ms=1e9"};
    struct ps_inject *i = NULL;

    (void)state;
    for (size_t k = 0; k < PS_ARRAY_LEN(bad); k++)
        assert_int_equal(ps_inject_create(&i, bad[k], 0), PS_INJECT_E_BAD);
    assert_int_equal(ps_inject_create(&i, "", 0), PS_INJECT_OK);
    assert_null(i);
}

static void messages_are_dropped_doubled_and_delayed_as_asked(void **state)
{
    struct ps_inject *i =
        make("seed=7,drop=0.1,dup=0.1,delay=0.1,delay_ms=60,late=0.05,late_ms=900");
    struct seen s = {{0, 0}};

    (void)state;
    feed(i, 20000, 0, &s);
    assert_in_range(s.n[0], 14500, 15500); /* 75 % pass at once */
    ps_inject_due(i, 20000 + 900000, count, &s);
    assert_in_range(s.n[0], 19500, 20500); /* 10 % less, 10 % more */
    ps_inject_destroy(i);
}

static void purge_forgets_what_waits_for_a_closed_socket(void **state)
{
    struct ps_inject *i = make("delay=1,delay_ms=10");
    struct seen s = {{0, 0}};

    (void)state;
    feed(i, 50, 0, &s);
    feed(i, 50, 1, &s);
    ps_inject_purge(i, 0);
    ps_inject_due(i, UINT64_MAX, count, &s);
    assert_int_equal(s.n[0], 0);
    assert_int_equal(s.n[1], 50);
    ps_inject_destroy(i);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_with_unknown_or_wild_values_is_refused),
        cmocka_unit_test(messages_are_dropped_doubled_and_delayed_as_asked),
        cmocka_unit_test(purge_forgets_what_waits_for_a_closed_socket),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
