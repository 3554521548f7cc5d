#include "common/text/tokenizer.h"

#include "common/rng.h"
#include "common/test.h"
#include "common/text/tok_int.h"
#include "common/text/utf8.h"

#define PRE_QWEN2 \
    "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":" \
    "\"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}| " \
    "?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+\"}," \
    "\"behavior\":\"Isolated\",\"invert\":false}," PRE_BYTES "]}"
#define PRE_BYTES \
    "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":false,\"use_regex\":" \
    "false}"
#define DECODER "{\"type\":\"ByteLevel\"}"

/* The stages of a tokenizer.json under test; NULL: the usual one. */
struct spec {
    const char *added, *normalizer, *pre, *post, *decoder, *model_more, *config;
};

enum { ID_AB = 256, ID_CD, ID_ABCD, ID_E_ACUTE, N_MODEL };

/* All 256 bytes under their own numbers, and the tokens ab, cd, abcd and U+00E9. */
static void add_model(struct ps_buf *b, const char *more)
{
    uint32_t next = 0x100;

    ps_buf_addf(b, "{\"type\":\"BPE\",%s\"vocab\":{", more);
    for (uint32_t i = 0; i < 256; i++) {
        bool own = (i >= 0x21 && i <= 0x7E) || (i >= 0xA1 && i <= 0xAC) || i >= 0xAE;

        ps_buf_addf(b, "\"\\u%04x\":%u,", (unsigned)(own ? i : next++), (unsigned)i);
    }
    ps_buf_add_str(b, "\"ab\":256,\"cd\":257,\"abcd\":258,\"\\u00c3\\u00a9\":259},"
                      "\"merges\":[\"a b\",[\"c\",\"d\"],\"ab cd\",\"\\u00c3 \\u00a9\"]}");
}

static int parse(struct ps_tok **t, const struct spec *x, struct ps_buf *err)
{
    struct ps_buf b = PS_BUF_INIT;
    int r;

    ps_buf_addf(&b, "{\"added_tokens\":[%s],\"normalizer\":%s,\"pre_tokenizer\":%s,",
                x->added ? x->added : "", x->normalizer ? x->normalizer : "null",
                x->pre ? x->pre : PRE_QWEN2);
    ps_buf_addf(&b, "\"post_processor\":%s,\"decoder\":%s,\"model\":", x->post ? x->post : "null",
                x->decoder ? x->decoder : DECODER);
    add_model(&b, x->model_more ? x->model_more : "");
    ps_buf_add_byte(&b, '}');
    r = ps_tok_parse(t, b.data, b.len, x->config, x->config ? strlen(x->config) : 0, err);
    ps_buf_fini(&b);
    return r;
}

static struct ps_tok *must_parse(const struct spec *x)
{
    struct ps_buf err = PS_BUF_INIT;
    struct ps_tok *t = NULL;

    if (parse(&t, x, &err) != PS_TOK_OK)
        fail_msg("%s", err.data);
    assert_int_equal(err.len, 0);
    return t;
}

#define TOK(content, flags) "{\"id\":0,\"content\":\"" content "\"," flags "}"
#define RAW                 "\"normalized\":false,\"special\":false"
#define SPECIAL             "\"normalized\":false,\"special\":true"

static void expect_ids(struct ps_tok_ctx *c, const char *s, uint32_t flags, const uint32_t *want,
                       uint32_t n)
{
    struct ps_tok_ids ids = {NULL, 0, 0};

    assert_int_equal(ps_tok_encode(c, s, strlen(s), flags, 0, &ids), PS_TOK_OK);
    if (ids.n != n || memcmp(ids.ids, want, n * sizeof(want[0])) != 0) {
        for (uint32_t i = 0; i < ids.n; i++)
            print_message("got %u\n", (unsigned)ids.ids[i]);
        fail_msg("%s", s);
    }
    ps_tok_ids_fini(&ids);
}

#define EXPECT(c, s, flags, ...) \
    expect_ids(c, s, flags, (const uint32_t[]){__VA_ARGS__}, \
               sizeof((const uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t))

static void merges_apply_in_order_of_rank(void **state)
{
    struct ps_tok *t = must_parse(&(struct spec){0});
    struct ps_tok_ctx *c = ps_tok_ctx_create(t);

    (void)state;
    EXPECT(c, "abcd", 0, ID_ABCD);
    EXPECT(c, "abc ab", 0, ID_AB, 'c', ' ', ID_AB);
    EXPECT(c, "\u00e9", 0, ID_E_ACUTE);
    assert_int_equal(ps_tok_n_vocab(t), N_MODEL);
    ps_tok_ctx_destroy(c);
    ps_tok_destroy(t);
}

static void added_tokens_cut_the_text(void **state)
{
    struct ps_tok *t = must_parse(&(struct spec){
        .added =
            TOK("<a>", RAW) "," TOK("<a><b>", RAW) "," TOK("<l>", RAW ",\"lstrip\":true") "," TOK(
                "<r>", RAW ",\"rstrip\":true") "," TOK("wo", RAW ",\"single_word\":true")});
    struct ps_tok_ctx *c = ps_tok_ctx_create(t);
    const uint32_t a = N_MODEL, ab = N_MODEL + 1, l = N_MODEL + 2, r = N_MODEL + 3, w = N_MODEL + 4;

    (void)state;
    EXPECT(c, "<a>ab<a><b><a>", 0, a, ID_AB, ab, a); /* leftmost, longest */
    EXPECT(c, "<a><", 0, a, '<');
    EXPECT(c, "ab \t<l> ab", 0, ID_AB, l, ' ', ID_AB);
    EXPECT(c, "ab <r> \n ab", 0, ID_AB, ' ', r, ID_AB);
    EXPECT(c, "<r> <l>", 0, r, l); /* the space is swallowed once */
    EXPECT(c, "wo awo woa wo_", 0, w, ' ', 'a', 'w', 'o', ' ', 'w', 'o', 'a', ' ', 'w', 'o', '_');
    EXPECT(c, "-wo-", 0, '-', w, '-');
    EXPECT(c, "<a>", PS_TOK_NO_CONTROL, '<', 'a', '>');
    ps_tok_ctx_destroy(c);
    ps_tok_destroy(t);
}

static void normalised_tokens_match_normalised_text(void **state)
{
    struct ps_tok *t = must_parse(
        &(struct spec){.added = TOK("<e\\u0301>", "\"normalized\":true,\"special\":true") "," TOK(
                           "<\\u00e9\\u0323>", RAW),
                       .normalizer = "{\"type\":\"NFC\"}"});
    struct ps_tok_ctx *c = ps_tok_ctx_create(t);

    (void)state;
    EXPECT(c, "a<e\u0301>", 0, 'a', N_MODEL);
    EXPECT(c, "<\u00e9>", 0, N_MODEL);
    EXPECT(c, "<\u00e9\u0323>", 0, N_MODEL + 1);
    EXPECT(c, "e\u0301", 0, ID_E_ACUTE);
    ps_tok_ctx_destroy(c);
    ps_tok_destroy(t);
}

static void post_processor_frames_the_ids_on_request(void **state)
{
    static const char post[] =
        "{\"type\":\"Sequence\",\"processors\":[{\"type\":\"ByteLevel\"},{\"type\":"
        "\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"B\",\"type_id\":0}},"
        "{\"Sequence\":{\"id\":\"A\",\"type_id\":0}},{\"SpecialToken\":{\"id\":\"E\",\"type_id\":"
        "0}}],\"pair\":[],\"special_tokens\":{\"B\":{\"id\":\"B\",\"ids\":[260,5],\"tokens\":[]},"
        "\"E\":{\"id\":\"E\",\"ids\":[7],\"tokens\":[]}}}]}";
    struct ps_tok *t = must_parse(&(struct spec){.added = TOK("<s>", SPECIAL), .post = post});
    struct ps_tok_ctx *c = ps_tok_ctx_create(t);

    (void)state;
    EXPECT(c, "ab", 0, ID_AB);
    EXPECT(c, "ab", PS_TOK_SPECIAL, 260, 5, ID_AB, 7);
    EXPECT(c, "", PS_TOK_SPECIAL, 260, 5, 7);
    ps_tok_ctx_destroy(c);
    ps_tok_destroy(t);
}

static void config_names_control_tokens_and_bos(void **state)
{
    struct ps_tok *t = must_parse(
        &(struct spec){.added = TOK("<s>", SPECIAL) "," TOK("</s>", SPECIAL),
                       .config = "{\"bos_token\":\"<s>\",\"eos_token\":{\"content\":\"</s>\"},"
                                 "\"add_bos_token\":true,\"pad_token\":null}"});
    struct ps_tok_ctx *c = ps_tok_ctx_create(t);
    uint32_t id = 0;

    (void)state;
    assert_string_equal(ps_tok_bos(t), "<s>");
    assert_string_equal(ps_tok_eos(t), "</s>");
    assert_string_equal(ps_tok_pad(t), "");
    assert_true(ps_tok_eos_id(t, &id));
    assert_int_equal(id, N_MODEL + 1);
    assert_true(ps_tok_is_special(t, id));
    assert_false(ps_tok_is_special(t, ID_AB));
    EXPECT(c, "ab", PS_TOK_SPECIAL, N_MODEL, ID_AB);
    ps_tok_ctx_destroy(c);
    ps_tok_destroy(t);
}

static void too_many_tokens_leave_the_list_as_it_was(void **state)
{
    struct ps_tok *t = must_parse(&(struct spec){0});
    struct ps_tok_ctx *c = ps_tok_ctx_create(t);
    struct ps_tok_ids ids = {NULL, 0, 0};

    (void)state;
    assert_int_equal(ps_tok_encode(c, "ab", 2, 0, 1, &ids), PS_TOK_OK);
    assert_int_equal(ps_tok_encode(c, "a b c d", 7, 0, 6, &ids), PS_TOK_E_LIMIT);
    assert_int_equal(ids.n, 1);
    assert_int_equal(ps_tok_encode(c, "a b c d", 7, 0, 7, &ids), PS_TOK_OK);
    assert_int_equal(ids.n, 8);
    ps_tok_ids_fini(&ids);
    ps_tok_ctx_destroy(c);
    ps_tok_destroy(t);
}

/* A text of words, spaces, added tokens and characters of two to four bytes. */
static void random_text(struct ps_rng *rng, struct ps_buf *b, size_t n_parts)
{
    static const char *const parts[] = {"abcd",       " ",      "ab",      "cd", "  \n",
                                        "<s>",        "\u00e9", "1234",    "'s", ".",
                                        "\U0001F600", "\u4f60", "e\u0301", "<n>"};

    ps_buf_clear(b);
    ps_buf_add_str(b, "a");
    for (size_t i = 0; i < n_parts; i++)
        ps_buf_add_str(b, parts[ps_rng_below(rng, PS_ARRAY_LEN(parts))]);
}

static void warm_caches_give_the_ids_of_cold_ones(void **state)
{
    struct ps_tok *t = must_parse(
        &(struct spec){.added = TOK("<s>", SPECIAL) "," TOK("<n>", "\"normalized\":true"),
                       .normalizer = "{\"type\":\"NFC\"}"});
    struct ps_tok_ctx *c = ps_tok_ctx_create(t);
    struct ps_tok_ids cold = {NULL, 0, 0}, warm = {NULL, 0, 0};
    struct ps_buf text = PS_BUF_INIT;
    struct ps_rng rng;

    (void)state;
    ps_rng_seed(&rng, 3);
    for (int i = 0; i < 1500; i++) {
        uint32_t flags = i % 3 == 1 ? PS_TOK_NO_CONTROL : 0; /* the same text in both ways */

        if (i % 3 == 0)
            random_text(&rng, &text, 1 + ps_rng_below(&rng, 100));
        cold.n = 0;
        assert_int_equal(ps_tok_encode(c, text.data, text.len, flags | PS_TOK_NO_CACHE, 0, &cold),
                         PS_TOK_OK);
        warm.n = 0;
        assert_int_equal(ps_tok_encode(c, text.data, text.len, flags, 0, &warm), PS_TOK_OK);
        assert_int_equal(warm.n, cold.n);
        assert_memory_equal(warm.ids, cold.ids, cold.n * sizeof(cold.ids[0]));
    }
    ps_tok_ids_fini(&cold);
    ps_tok_ids_fini(&warm);
    ps_buf_fini(&text);
    ps_tok_ctx_destroy(c);
    ps_tok_destroy(t);
}

static void decode_undoes_encode(void **state)
{
    struct ps_tok *t = must_parse(&(struct spec){.added = TOK("<s>", SPECIAL)});
    struct ps_tok_ctx *c = ps_tok_ctx_create(t);
    struct ps_tok_ids ids = {NULL, 0, 0};
    struct ps_buf text = PS_BUF_INIT, back = PS_BUF_INIT;
    struct ps_rng rng;

    (void)state;
    ps_rng_seed(&rng, 4);
    for (int i = 0; i < 300; i++) {
        random_text(&rng, &text, 1 + ps_rng_below(&rng, 60));
        ids.n = 0;
        ps_buf_clear(&back);
        assert_int_equal(ps_tok_encode(c, text.data, text.len, 0, 0, &ids), PS_TOK_OK);
        ps_tok_decode(t, ids.ids, ids.n, false, &back);
        assert_int_equal(back.len, text.len);
        assert_memory_equal(back.data, text.data, text.len);
    }
    ps_tok_ids_fini(&ids);
    ps_buf_fini(&text);
    ps_buf_fini(&back);
    ps_tok_ctx_destroy(c);
    ps_tok_destroy(t);
}

/* Lossy decoding of the joined bytes, the definition that the stream must meet. */
static void joined_lossy(const struct ps_tok *t, const uint32_t *ids, uint32_t n, bool skip,
                         struct ps_buf *out)
{
    struct ps_buf raw = PS_BUF_INIT;

    for (uint32_t i = 0; i < n; i++) {
        uint32_t len;
        const char *p = ps_tok_bytes(t, ids[i], &len);

        if (!skip || !ps_tok_is_special(t, ids[i]))
            ps_buf_add(&raw, p, len);
    }
    (void)ps_utf8_repair(out, raw.data ? raw.data : "", raw.len, true);
    ps_buf_fini(&raw);
}

static void stream_equals_the_whole_and_splits_no_character(void **state)
{
    /* Single bytes of an emoji, lead bytes, stray continuations, a special token, an unknown id. */
    static const uint32_t odd[] = {0xF0, 0x9F, 0x98,    0x80,       0xE4,    0xBD,
                                   0xA0, 0xC3, 0xA9,    0xFF,       0xED,    0xA0,
                                   'a',  ' ',  ID_ABCD, ID_E_ACUTE, N_MODEL, N_MODEL + 9};
    struct ps_tok *t = must_parse(&(struct spec){.added = TOK("<s>", SPECIAL)});
    struct ps_buf whole = PS_BUF_INIT, parts = PS_BUF_INIT;
    struct ps_rng rng;

    (void)state;
    ps_rng_seed(&rng, 9);
    for (int i = 0; i < 5000; i++) {
        uint32_t ids[24], n = 1 + (uint32_t)ps_rng_below(&rng, 24);
        bool skip = i % 2 == 0;
        struct ps_detok d;

        for (uint32_t k = 0; k < n; k++)
            ids[k] = odd[ps_rng_below(&rng, PS_ARRAY_LEN(odd))];
        ps_buf_clear(&whole);
        ps_buf_clear(&parts);
        joined_lossy(t, ids, n, skip, &whole);
        ps_detok_init(&d, t, skip);
        for (uint32_t k = 0; k < n; k++) {
            size_t before = parts.len;

            ps_detok_push(&d, ids[k], &parts);
            if (parts.len > before)
                assert_true(ps_utf8_valid(parts.data + before, parts.len - before));
        }
        ps_detok_flush(&d, &parts);
        assert_int_equal(parts.len, whole.len);
        if (whole.len > 0)
            assert_memory_equal(parts.data, whole.data, whole.len);
    }
    ps_buf_fini(&whole);
    ps_buf_fini(&parts);
    ps_tok_destroy(t);
}

static void unsupported_files_are_refused_by_stage(void **state)
{
    static const struct {
        struct spec spec;
        const char *says;
    } cases[] = {
        {{.normalizer = "{\"type\":\"NFKC\"}"}, "normalizer: NFKC is not supported"},
        {{.normalizer = "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Lowercase\"}]}"},
         "normalizer: Lowercase is not supported"},
        {{.pre = "null"}, "pre_tokenizer: there is none"},
        {{.pre = "{\"type\":\"Metaspace\"}"}, "pre_tokenizer: Metaspace is not supported"},
        {{.pre = "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":"
                 "{\"Regex\":\"(\"},\"behavior\":\"Isolated\"}]}"},
         "pre_tokenizer: Split: a regex does not compile"},
        {{.pre =
              "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"[a[b]]\"},\"behavior\":\"Isolated\"}"},
         "a class inside a class"},
        {{.post = "{\"type\":\"RobertaProcessing\"}"}, "post_processor: RobertaProcessing"},
        {{.decoder = "null"}, "decoder: there is none"},
        {{.decoder = "{\"type\":\"WordPiece\"}"}, "decoder: WordPiece is not supported"},
        {{.model_more = "\"dropout\":0.1,"}, "model: dropout is not supported"},
        {{.model_more = "\"end_of_word_suffix\":\"</w>\","}, "model: end_of_word_suffix"},
        {{.added = "{\"id\":1}"}, "added_tokens: an entry has no content"},
        {{.config = "[]"}, "tokenizer_config.json is not a JSON object"},
    };

    (void)state;
    for (size_t i = 0; i < PS_ARRAY_LEN(cases); i++) {
        struct ps_buf err = PS_BUF_INIT;
        struct ps_tok *t = NULL;

        assert_int_equal(parse(&t, &cases[i].spec, &err), PS_TOK_E_BAD);
        assert_null(t);
        if (strstr(err.data, cases[i].says) == NULL)
            fail_msg("case %zu says: %s", i, err.data);
        ps_buf_fini(&err);
    }
}

static void broken_models_are_refused(void **state)
{
    static const char *const cases[] = {
        "",
        "[]",
        "{\"model\":{}}",
        "{\"a\":0,\"b\":0}|[]",
        "{\"a\":-1}|[]",
        "{\"a\":1.5}|[]",
        "{\"a\":4194304}|[]",
        "{\"a\":0}|[\"a a\"]",
        "{\"a\":0}|[\"a\"]",
        "{\"a\":0}|[\"a b c\"]",
        "{\"a\":0}|[[\"a\"]]",
        "{\"a\":0}|[7]",
        "{\"a\":0}|{}",
        "{}|[]",
    };

    (void)state;
    for (size_t i = 0; i < PS_ARRAY_LEN(cases); i++) {
        struct ps_buf err = PS_BUF_INIT, b = PS_BUF_INIT;
        const char *bar = strchr(cases[i], '|');
        struct ps_tok *t = NULL;

        ps_buf_add_str(&b, cases[i]);
        if (bar != NULL) {
            ps_buf_clear(&b);
            ps_buf_addf(&b,
                        "{\"model\":{\"vocab\":%.*s,\"merges\":%s},\"pre_tokenizer\":" PRE_BYTES
                        ",\"decoder\":" DECODER "}",
                        (int)(bar - cases[i]), cases[i], bar + 1);
        }
        if (ps_tok_parse(&t, b.data ? b.data : "", b.len, NULL, 0, &err) != PS_TOK_E_BAD)
            fail_msg("case %zu was taken", i);
        assert_true(err.len > 0);
        ps_buf_fini(&b);
        ps_buf_fini(&err);
    }
}

static void vocabulary_gives_raw_bytes(void **state)
{
    struct ps_tok *t =
        must_parse(&(struct spec){.added = TOK("a b", SPECIAL) "," TOK("ab", SPECIAL)});
    uint32_t len, id;

    (void)state;
    for (uint32_t i = 0; i < 256; i++) {
        const char *p = ps_tok_bytes(t, i, &len);

        assert_int_equal(len, 1);
        assert_int_equal((uint8_t)p[0], i);
    }
    assert_memory_equal(ps_tok_bytes(t, N_MODEL, &len), "a b", 3);
    assert_int_equal(len, 3);
    (void)ps_tok_bytes(t, 99999, &len);
    assert_int_equal(len, 0);
    assert_true(ps_tok_find(t, "ab", 2, &id));
    assert_int_equal(id, ID_AB); /* an added token that the model has keeps its id */
    assert_true(ps_tok_is_special(t, ID_AB));
    assert_false(ps_tok_find(t, "nope", 4, &id));
    ps_tok_destroy(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merges_apply_in_order_of_rank),
        cmocka_unit_test(added_tokens_cut_the_text),
        cmocka_unit_test(normalised_tokens_match_normalised_text),
        cmocka_unit_test(post_processor_frames_the_ids_on_request),
        cmocka_unit_test(config_names_control_tokens_and_bos),
        cmocka_unit_test(too_many_tokens_leave_the_list_as_it_was),
        cmocka_unit_test(warm_caches_give_the_ids_of_cold_ones),
        cmocka_unit_test(decode_undoes_encode),
        cmocka_unit_test(stream_equals_the_whole_and_splits_no_character),
        cmocka_unit_test(unsupported_files_are_refused_by_stage),
        cmocka_unit_test(broken_models_are_refused),
        cmocka_unit_test(vocabulary_gives_raw_bytes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
