/* Scanners against the patterns they stand for, run by PCRE2. */

#include "common/rng.h"
#include "common/test.h"
#include "common/text/regex.h"
#include "common/text/scan.h"
#include "common/text/uprop.h"
#include "common/text/utf8.h"

enum { TEXT_MAX = 256, TRIES = 30000, SPLITS = 3 };

static struct ps_regex *must_compile(const char *pattern)
{
    struct ps_buf why = PS_BUF_INIT;
    struct ps_regex *r = ps_regex_create(pattern, strlen(pattern), false, &why);

    if (r == NULL)
        fail_msg("%s: %s", pattern, why.data);
    return r;
}

/* Piece ends of s by the patterns in order, each isolated within the pieces of the one before. */
static void mark_ends(struct ps_regex *const *re, struct ps_regex_ctx *c, const char *s, size_t n,
                      uint8_t *is_end)
{
    memset(is_end, 0, TEXT_MAX + 1);
    is_end[0] = is_end[n] = 1;
    for (int k = 0; k < SPLITS && re[k] != NULL; k++) {
        uint8_t now[TEXT_MAX + 1];
        size_t from = 0;

        memcpy(now, is_end, sizeof(now));
        for (size_t to = 1; to <= n; to++) {
            size_t at = 0, a, b;

            if (!is_end[to])
                continue;
            while (at < to - from &&
                   ps_regex_find(re[k], c, s + from, to - from, at, &a, &b) == PS_REGEX_MATCH) {
                now[from + a] = now[from + b] = 1;
                at = b;
            }
            from = to;
        }
        memcpy(is_end, now, sizeof(now));
    }
}

/* A random code point that PCRE2 and our table both know; many of those that patterns name. */
static uint32_t random_cp(struct ps_rng *rng, const struct ps_regex *unassigned,
                          struct ps_regex_ctx *c)
{
    static const char near[] = "  \t\n\r\n''''sStTrReEvVlLmMdDaZ09..,-!$_/\\";
    static const uint32_t odd[] = {0x17F,  0x180E, 0xA0,   0x3000, 0x2028, 0x85,    0x301,  0x903,
                                   0x4E00, 0x9FA5, 0x9FA6, 0x3040, 0x3041, 0x3099,  0x309B, 0x309F,
                                   0x30A0, 0x30FB, 0x30FF, 0x3100, 0x664,  0x2167,  0xBD,   0x20AC,
                                   0x200D, 0xE000, 0x378,  0x7F,   0,      0x1F600, 0x3007, 0x5F};
    char u[4];
    size_t a, b;

    for (;;) {
        uint64_t k = ps_rng_below(rng, 8);
        uint32_t cp;

        if (k < 4)
            return (uint8_t)near[ps_rng_below(rng, sizeof(near) - 1)];
        if (k < 6)
            return odd[ps_rng_below(rng, PS_ARRAY_LEN(odd))];
        cp = (uint32_t)ps_rng_below(rng, k == 6 ? 0x3000 : 0x110000);
        if (cp >= 0xD800 && cp <= 0xDFFF)
            continue;
        if (ps_regex_find(unassigned, c, u, ps_utf8_encode(u, cp), 0, &a, &b) == PS_REGEX_MATCH &&
            ps_uprop(cp) != 0)
            continue; /* younger than this PCRE2 */
        return cp;
    }
}

static void scanner_cuts_where_its_pattern_does(void **state)
{
    struct ps_regex_ctx *c = ps_regex_ctx_create();
    struct ps_regex *unassigned = must_compile("\\p{Cn}");

    (void)state;
    for (uint32_t k = 0; k < PS_SCAN_N; k++) {
        const struct ps_scan_def *d = &ps_scan_defs[k];
        struct ps_regex *re[SPLITS] = {NULL};
        struct ps_rng rng;

        ps_rng_seed(&rng, 100 + k);
        for (int i = 0; i < SPLITS && d->patterns[i] != NULL; i++)
            re[i] = must_compile(d->patterns[i]);
        for (int t = 0; t < TRIES / PS_SCAN_N; t++) {
            uint8_t is_end[TEXT_MAX + 1];
            char s[TEXT_MAX];
            size_t n = 0, max = 1 + ps_rng_below(&rng, 60), p = 0;

            while (n < max)
                n += ps_utf8_encode(s + n, random_cp(&rng, unassigned, c));
            mark_ends(re, c, s, n, is_end);
            while (p < n) {
                size_t q = d->fn((const uint8_t *)s, p, n), want = p + 1;

                while (!is_end[want])
                    want++;
                if (q != want)
                    fail_msg("%s, try %d: piece at %zu ends at %zu, not %zu", d->name, t, p, q,
                             want);
                p = q;
            }
        }
        for (int i = 0; i < SPLITS; i++)
            ps_regex_destroy(re[i]);
    }
    ps_regex_destroy(unassigned);
    ps_regex_ctx_destroy(c);
}

static void expect_pieces(uint32_t kind, const char *s, const char *const *want)
{
    size_t n = strlen(s), p = 0;

    for (; *want != NULL; want++) {
        size_t q = ps_scan_defs[kind].fn((const uint8_t *)s, p, n);

        assert_int_equal(q - p, strlen(*want));
        assert_memory_equal(s + p, *want, q - p);
        p = q;
    }
    assert_int_equal(p, n);
}

static void spaces_give_their_last_to_the_next_word(void **state)
{
    (void)state;
    expect_pieces(PS_SCAN_QWEN2, "a   b", (const char *const[]){"a", "  ", " b", NULL});
    expect_pieces(PS_SCAN_QWEN2, "a   ", (const char *const[]){"a", "   ", NULL});
    expect_pieces(PS_SCAN_QWEN2, "a  \n  b", (const char *const[]){"a", "  \n", " ", " b", NULL});
    expect_pieces(PS_SCAN_GPT2, "a \n b", (const char *const[]){"a", " \n", " b", NULL});
}

static void digits_group_as_the_family_says(void **state)
{
    (void)state;
    expect_pieces(PS_SCAN_QWEN2, "123", (const char *const[]){"1", "2", "3", NULL});
    expect_pieces(PS_SCAN_LLAMA3, "12345", (const char *const[]){"123", "45", NULL});
    expect_pieces(PS_SCAN_GPT2, " 12345", (const char *const[]){" 12345", NULL});
    expect_pieces(PS_SCAN_DEEPSEEK, "  12345", (const char *const[]){"  ", "123", "45", NULL});
}

static void contraction_folds_long_s(void **state)
{
    (void)state;
    expect_pieces(PS_SCAN_QWEN2, "it'\u017fa", (const char *const[]){"it", "'\u017f", "a", NULL});
    expect_pieces(PS_SCAN_GPT2, "it'Sa", (const char *const[]){"it", "'", "Sa", NULL});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scanner_cuts_where_its_pattern_does),
        cmocka_unit_test(spaces_give_their_last_to_the_next_word),
        cmocka_unit_test(digits_group_as_the_family_says),
        cmocka_unit_test(contraction_folds_long_s),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
