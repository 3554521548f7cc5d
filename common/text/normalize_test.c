/* The partial NFC against utf8proc on the whole text, and the other steps. */

#include "common/text/normalize.h"

#include <stdlib.h>

#include <utf8proc.h>

#include "common/rng.h"
#include "common/test.h"
#include "common/text/uprop.h"
#include "common/text/utf8.h"

static struct ps_norm *must_create(const char *json)
{
    const struct ps_json_limits lim = {32, 1000};
    struct ps_buf err = PS_BUF_INIT;
    struct ps_json_doc *doc;
    struct ps_norm *n;
    size_t off;

    assert_int_equal(ps_json_parse(&doc, json, strlen(json), &lim, &off), PS_JSON_OK);
    n = ps_norm_create(ps_json_root(doc), &err);
    ps_json_free(doc);
    if (n == NULL)
        fail_msg("%s", err.data);
    return n;
}

/*
 * Plain letters, marks, precomposed letters, Hangul parts: anything but barriers. Behind a syllable
 * utf8proc 2.8 loses U+11A7 (it is one below the first final consonant); we do not ask it there.
 */
static uint32_t random_cp(struct ps_rng *rng)
{
    static const uint32_t range[][2] = {{0x20, 0x7E},     {0xC0, 0x17F},    {0x300, 0x36F},
                                        {0x41, 0x7A},     {0x1E00, 0x1FFF}, {0x1100, 0x11FF},
                                        {0xAC00, 0xD7A3}, {0x900, 0xDFF},   {0x300, 0x345},
                                        {0x0, 0x2FFFF},   {0x591, 0x5C7},   {0xF00, 0xFFF}};

    for (;;) {
        const uint32_t *r = range[ps_rng_below(rng, PS_ARRAY_LEN(range))];
        uint32_t cp = r[0] + (uint32_t)ps_rng_below(rng, r[1] - r[0] + 1);

        if ((cp < 0xD800 || cp > 0xDFFF) && cp != 0x11A7 && (ps_uprop(cp) & PS_UP_NFC_BARRIER) == 0)
            return cp;
    }
}

static void nfc_equals_nfc_of_the_whole_text(void **state)
{
    struct ps_norm_scratch scratch = {PS_BUF_INIT, PS_BUF_INIT};
    struct ps_norm *n = must_create("{\"type\":\"NFC\"}");
    struct ps_rng rng;

    (void)state;
    ps_rng_seed(&rng, 1);
    for (int t = 0; t < 50000; t++) {
        size_t len = 0, max = 1 + ps_rng_below(&rng, 40), got_len;
        utf8proc_uint8_t *want = NULL;
        utf8proc_ssize_t want_len;
        const char *got;
        char s[64];

        while (len < max)
            len += ps_utf8_encode(s + len, random_cp(&rng));
        want_len = utf8proc_map((const utf8proc_uint8_t *)s, (utf8proc_ssize_t)len, &want,
                                UTF8PROC_STABLE | UTF8PROC_COMPOSE);
        assert_true(ps_norm_run(n, &scratch, s, len, &got, &got_len));
        if (got_len != (size_t)want_len || memcmp(got, want, got_len) != 0)
            fail_msg("try %d: %.*s", t, (int)len, s);
        free(want);
    }
    ps_norm_scratch_fini(&scratch);
    ps_norm_destroy(n);
}

static void expect(const char *json, const char *s, const char *want)
{
    struct ps_norm_scratch scratch = {PS_BUF_INIT, PS_BUF_INIT};
    struct ps_norm *n = must_create(json);
    const char *got;
    size_t len;

    assert_true(ps_norm_run(n, &scratch, s, strlen(s), &got, &len));
    assert_int_equal(len, strlen(want));
    if (len > 0)
        assert_memory_equal(got, want, len);
    ps_norm_scratch_fini(&scratch);
    ps_norm_destroy(n);
}

static void marks_younger_than_unicode_10_stay_where_they_are(void **state)
{
    (void)state;
    /* U+1AC5 (Unicode 14) would be reordered before U+0345 by a newer table. */
    expect("{\"type\":\"NFC\"}", "x\u0345\u1ac5", "x\u0345\u1ac5");
    expect("{\"type\":\"NFC\"}", "\U00011935\U00011930", "\U00011935\U00011930");
    expect("{\"type\":\"NFC\"}", "x\u0345\u0301", "x\u0301\u0345");
    expect("{\"type\":\"NFC\"}", "\ub108\u11a7\u0312", "\ub108\u11a7\u0312");
}

static void steps_run_in_order(void **state)
{
    (void)state;
    expect("{\"type\":\"Sequence\",\"normalizers\":[]}", "a b", "a b");
    expect("{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":\"_\"},"
           "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"_\"}]}",
           "a b", "_a_b");
    expect("{\"type\":\"Prepend\",\"prepend\":\"_\"}", "", "");
    expect("{\"type\":\"Replace\",\"pattern\":{\"String\":\"aa\"},\"content\":\"\"}", "aaab", "ab");
}

static void growth_is_bounded(void **state)
{
    static const char twice[] =
        "{\"type\":\"Replace\",\"pattern\":{\"String\":\"a\"},\"content\":\"aaaaaaaaaaaaaaaa\"}";
    struct ps_norm_scratch scratch = {PS_BUF_INIT, PS_BUF_INIT};
    struct ps_buf json = PS_BUF_INIT;
    struct ps_norm *n;
    const char *got;
    size_t len;
    char s[64];

    (void)state;
    memset(s, 'a', sizeof(s));
    ps_buf_addf(&json, "{\"type\":\"Sequence\",\"normalizers\":[%s,%s,%s,%s]}", twice, twice, twice,
                twice);
    n = must_create(json.data);
    assert_false(ps_norm_run(n, &scratch, s, sizeof(s), &got, &len));
    ps_norm_scratch_fini(&scratch);
    ps_norm_destroy(n);
    ps_buf_fini(&json);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nfc_equals_nfc_of_the_whole_text),
        cmocka_unit_test(marks_younger_than_unicode_10_stay_where_they_are),
        cmocka_unit_test(steps_run_in_order),
        cmocka_unit_test(growth_is_bounded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
