#include "router/answer/stream.h"

#include "router/request/tok_fixture.h"

enum { MAX_SUBS = 256, MAX_TEXT = 12 };

/* Every piece of a text as a token, so that the text can be cut into tokens in every way. */
struct pieces {
    char subs[MAX_SUBS][MAX_TEXT + 1];
    const char *names[MAX_SUBS];
    uint32_t n;
    struct ps_tok *tok;
    struct ps_arena arena;
};

static void open_pieces(struct pieces *p, const char *text)
{
    size_t len = strlen(text);

    p->n = 0;
    assert_true(len <= MAX_TEXT);
    for (size_t i = 0; i < len; i++) {
        for (size_t n = 2; i + n <= len; n++) {
            bool known = false;

            for (uint32_t k = 0; k < p->n; k++)
                known |= strlen(p->subs[k]) == n && memcmp(p->subs[k], text + i, n) == 0;
            if (known)
                continue;
            memcpy(p->subs[p->n], text + i, n);
            p->subs[p->n][n] = '\0';
            p->names[p->n] = p->subs[p->n];
            p->n++;
        }
    }
    p->tok = fix_tok(p->names, p->n);
    ps_arena_init(&p->arena, 0);
}

static void close_pieces(struct pieces *p)
{
    ps_tok_destroy(p->tok);
    ps_arena_fini(&p->arena);
}

static uint32_t id_of(const struct pieces *p, const char *s, size_t n)
{
    for (uint32_t i = 0; i < p->n && n > 1; i++) {
        if (strlen(p->subs[i]) == n && memcmp(p->subs[i], s, n) == 0)
            return FIX_FIRST_EXTRA + i;
    }
    assert_int_equal(n, 1);
    return (uint8_t)s[0];
}

struct stop_case {
    const char *stops[4];
    uint32_t n_stops;
    bool include;
    const char *want; /* visible text */
    int matched;      /* index, -1 none */
};

/* Pushes text cut by the bits of mask and checks what becomes visible. */
static void push_cut(struct pieces *p, const struct rt_stream_conf *conf, const char *text,
                     uint32_t mask, const struct stop_case *c)
{
    size_t len = strlen(text), from = 0;
    struct ps_buf seen = PS_BUF_INIT;
    struct rt_stream s;
    bool hit = false;

    rt_stream_init(&s, conf, &p->arena);
    for (size_t i = 1; i <= len && !hit; i++) {
        if (i < len && (mask >> (i - 1) & 1) == 0)
            continue;
        hit = rt_stream_push(&s, id_of(p, text + from, i - from), NULL);
        from = i;
        ps_buf_add(&seen, s.text.data, s.text.len);
        rt_stream_take(&s);
        /* Whatever is visible at any time is a prefix of the right answer. */
        assert_true(seen.len <= strlen(c->want));
        if (seen.len > 0)
            assert_memory_equal(seen.data, c->want, seen.len);
    }
    rt_stream_end(&s);
    ps_buf_add(&seen, s.text.data, s.text.len);
    ps_buf_add_byte(&seen, '\0');
    assert_string_equal(seen.data, c->want);
    assert_int_equal(s.matched, c->matched);
    assert_int_equal(hit, c->matched >= 0);
    ps_buf_fini(&seen);
    rt_stream_fini(&s);
}

static void in_every_cut(const char *text, const struct stop_case *c)
{
    struct rt_str strs[4];
    struct rt_stream_conf conf = {.include_stop = c->include, .n_stops = c->n_stops};
    struct pieces p;

    open_pieces(&p, text);
    for (uint32_t i = 0; i < c->n_stops; i++)
        strs[i] = (struct rt_str){.s = c->stops[i], .len = strlen(c->stops[i])};
    conf.tok = p.tok;
    conf.stops = rt_stops_compile(&p.arena, strs, c->n_stops);
    for (uint32_t mask = 0; mask < 1u << (strlen(text) - 1); mask++)
        push_cut(&p, &conf, text, mask, c);
    close_pieces(&p);
}

static void a_stop_string_is_found_in_every_cut(void **state)
{
    (void)state;
    in_every_cut("hello STOP!", &(struct stop_case){{"STOP"}, 1, false, "hello ", 0});
    in_every_cut("hello STOP!", &(struct stop_case){{"STOP"}, 1, true, "hello STOP", 0});
    in_every_cut("hello STO", &(struct stop_case){{"STOP"}, 1, false, "hello STO", -1});
    in_every_cut("aaab", &(struct stop_case){{"aab"}, 1, false, "a", 0});
    in_every_cut("ababac", &(struct stop_case){{"abac"}, 1, false, "ab", 0});
}

static void the_string_that_ends_first_wins_whatever_the_cut(void **state)
{
    (void)state;
    in_every_cut("xabcdy", &(struct stop_case){{"abcd", "bc"}, 2, false, "xa", 1});
    in_every_cut("xabcy", &(struct stop_case){{"bc", "abc"}, 2, false, "x", 1}); /* the longer */
    in_every_cut("xabcy", &(struct stop_case){{"zz", "y", "c"}, 3, false, "xab", 2});
}

static void characters_are_whole_in_every_cut(void **state)
{
    struct stop_case none = {{""}, 0, false, "\xf0\x9f\x98\x80z\xc3\xa9", -1};
    struct stop_case inner = {{"\xc3\xa9"}, 1, false, "\xf0\x9f\x98\x80z", 0};

    (void)state;
    in_every_cut(none.want, &none);
    in_every_cut(none.want, &inner);
}

static void only_what_may_become_a_stop_string_is_held(void **state)
{
    struct rt_str stop = {.s = "\n\nUser:", .len = 7};
    struct ps_arena a;
    struct ps_tok *tok = fix_tok(NULL, 0);
    struct rt_stream_conf conf = {.tok = tok, .n_stops = 1};
    struct rt_stream s;

    (void)state;
    ps_arena_init(&a, 0);
    conf.stops = rt_stops_compile(&a, &stop, 1);
    rt_stream_init(&s, &conf, &a);
    assert_false(rt_stream_push(&s, 'a', NULL));
    assert_int_equal(s.text.len, 1);
    assert_false(rt_stream_push(&s, '\n', NULL));
    assert_int_equal(s.held.len, 1);
    assert_false(rt_stream_push(&s, 'b', NULL)); /* a newline alone is no stop */
    assert_int_equal(s.held.len, 0);
    assert_string_equal(s.text.data, "a\nb");
    rt_stream_fini(&s);
    ps_arena_fini(&a);
    ps_tok_destroy(tok);
}

static void stop_strings_do_not_count_before_min_tokens(void **state)
{
    struct rt_str stop = {.s = "b", .len = 1};
    struct ps_arena a;
    struct ps_tok *tok = fix_tok(NULL, 0);
    struct rt_stream_conf conf = {.tok = tok, .n_stops = 1, .min_tokens = 2};
    struct rt_stream s;

    (void)state;
    ps_arena_init(&a, 0);
    conf.stops = rt_stops_compile(&a, &stop, 1);
    rt_stream_init(&s, &conf, &a);
    assert_false(rt_stream_push(&s, 'b', NULL));
    assert_false(rt_stream_push(&s, 'b', NULL));
    assert_true(rt_stream_push(&s, 'b', NULL));
    assert_string_equal(s.text.data, "bb");
    assert_int_equal(s.n_tokens, 3);
    rt_stream_fini(&s);
    ps_arena_fini(&a);
    ps_tok_destroy(tok);
}

static void tokens_that_end_the_answer_are_counted_but_not_shown(void **state)
{
    static const char *const extra[] = {"<|end|>"};
    static const uint32_t ends[] = {FIX_FIRST_EXTRA, 'z'};
    struct ps_arena a;
    struct ps_tok *tok = fix_tok(extra, 1);
    struct rt_stream_conf conf = {.tok = tok, .ends = ends, .n_ends = 2, .keep_ids = true};
    struct rt_stream s;

    (void)state;
    ps_arena_init(&a, 0);
    rt_stream_init(&s, &conf, &a);
    (void)rt_stream_push(&s, 'a', NULL);
    (void)rt_stream_push(&s, FIX_FIRST_EXTRA, NULL);
    (void)rt_stream_push(&s, 'z', NULL);
    rt_stream_end(&s);
    assert_string_equal(s.text.data, "a");
    assert_int_equal(s.n_tokens, 3);
    assert_int_equal(s.n_new, 3);
    assert_int_equal(s.offsets[2], 1);
    rt_stream_fini(&s);
    ps_arena_fini(&a);
    ps_tok_destroy(tok);
}

static void bytes_that_are_no_character_become_one_mark_at_the_end(void **state)
{
    struct ps_arena a;
    struct ps_tok *tok = fix_tok(NULL, 0);
    struct rt_stream_conf conf = {.tok = tok};
    struct rt_stream s;

    (void)state;
    ps_arena_init(&a, 0);
    rt_stream_init(&s, &conf, &a);
    (void)rt_stream_push(&s, 0xF0, NULL);
    (void)rt_stream_push(&s, 0x9F, NULL);
    assert_int_equal(s.text.len, 0);
    rt_stream_end(&s);
    assert_string_equal(s.text.data, "\xef\xbf\xbd");
    rt_stream_fini(&s);
    ps_arena_fini(&a);
    ps_tok_destroy(tok);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stop_string_is_found_in_every_cut),
        cmocka_unit_test(the_string_that_ends_first_wins_whatever_the_cut),
        cmocka_unit_test(characters_are_whole_in_every_cut),
        cmocka_unit_test(only_what_may_become_a_stop_string_is_held),
        cmocka_unit_test(stop_strings_do_not_count_before_min_tokens),
        cmocka_unit_test(tokens_that_end_the_answer_are_counted_but_not_shown),
        cmocka_unit_test(bytes_that_are_no_character_become_one_mark_at_the_end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
