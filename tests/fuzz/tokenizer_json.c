/*
 * tokenizer_json [FILE..] | tokenizer_json -n N SEED: feeds bytes to the tokenizer's loader.
 *
 * Whatever the bytes are, loading either works or says in one sentence why not; and with what was
 * loaded a text encodes to the same ids with and without caches, and whole and streamed decoding give
 * the same text. With libFuzzer the engine brings main(); else this program replays files, or makes N
 * mutations of its own tokenizer files.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/rng.h"
#include "common/text/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { INPUT_BYTES_MAX = 1 << 16 };

static uint64_t n_loaded; /* a run in which nothing loads tests only half */

static const char *const texts[] = {
    "",
    "ab  <s>abc \n\n e\xCC\x81 123 <t> 's\t<n>",
    "\xF0\x9F\x98\x80 \xE4\xBD\xA0\xE5\xA5\xBD  x<s><s> \r\n''ll",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
};

static void use(const struct ps_tok *t)
{
    struct ps_tok_ctx *c = ps_tok_ctx_create(t);
    struct ps_tok_ids a = {NULL, 0, 0}, b = {NULL, 0, 0};

    for (size_t i = 0; i < PS_ARRAY_LEN(texts); i++) {
        struct ps_buf whole = PS_BUF_INIT, parts = PS_BUF_INIT;
        struct ps_detok d;
        int ra, rb;

        a.n = b.n = 0;
        ra = ps_tok_encode(c, texts[i], strlen(texts[i]), PS_TOK_SPECIAL | PS_TOK_NO_CACHE, 0, &a);
        rb = ps_tok_encode(c, texts[i], strlen(texts[i]), PS_TOK_SPECIAL, 0, &b);
        PS_ASSERT(ra == rb && a.n == b.n);
        PS_ASSERT(a.n == 0 || memcmp(a.ids, b.ids, a.n * sizeof(a.ids[0])) == 0);
        ps_tok_decode(t, a.ids, a.n, true, &whole);
        ps_detok_init(&d, t, true);
        for (uint32_t k = 0; k < a.n; k++) {
            PS_ASSERT(a.ids[k] < ps_tok_n_vocab(t));
            ps_detok_push(&d, a.ids[k], &parts);
        }
        ps_detok_flush(&d, &parts);
        PS_ASSERT(whole.len == parts.len);
        ps_buf_fini(&whole);
        ps_buf_fini(&parts);
    }
    ps_tok_ids_fini(&a);
    ps_tok_ids_fini(&b);
    ps_tok_ctx_destroy(c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct ps_buf err = PS_BUF_INIT;
    struct ps_tok *t = NULL;
    int r;

    if (size > INPUT_BYTES_MAX)
        return 0;
    r = ps_tok_parse(&t, (const char *)data, size, NULL, 0, &err);
    PS_ASSERT(r == PS_TOK_OK ? t != NULL && err.len == 0 : r == PS_TOK_E_BAD && err.len > 0);
    if (r == PS_TOK_OK) {
        use(t);
        n_loaded++;
    }
    ps_tok_destroy(t);
    ps_buf_fini(&err);
    return 0;
}

#ifndef PS_FUZZ_ENGINE

#define TAIL \
    "\"decoder\":{\"type\":\"ByteLevel\"},\"model\":{\"type\":\"BPE\",\"unk_token\":\"a\"," \
    "\"fuse_unk\":true,\"ignore_merges\":false,\"vocab\":{\"a\":0,\"b\":1,\"c\":2,\"\\u0120\":3," \
    "\"ab\":4,\"abc\":5,\"\\u0120a\":6,\"aa\":7,\"aaaa\":8,\"1\":9,\"\\u00f0\\u0141\":10," \
    "\"\\u00f0\":11,\"\\u0141\":12,\"<s>\":13},\"merges\":[\"a b\",[\"ab\",\"c\"],\"\\u0120 a\"," \
    "\"a a\",\"aa aa\",\"\\u00f0 \\u0141\"]}}"
#define ADDED \
    "{\"version\":\"1.0\",\"truncation\":null,\"added_tokens\":[{\"id\":13,\"content\":\"<s>\"," \
    "\"single_word\":false,\"lstrip\":false,\"rstrip\":false,\"normalized\":false,\"special\":" \
    "true},{\"id\":14,\"content\":\"<t>\",\"single_word\":true,\"lstrip\":true,\"rstrip\":true," \
    "\"normalized\":true,\"special\":false}],"

static const char *const seeds[] = {
    ADDED
    "\"normalizer\":{\"type\":\"NFC\"},\"pre_tokenizer\":{\"type\":\"ByteLevel\","
    "\"add_prefix_space\":true,\"trim_offsets\":false,\"use_regex\":true},"
    "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":"
    "\"<s>\",\"type_id\":0}},{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}],\"special_tokens\":"
    "{\"<s>\":{\"id\":\"<s>\",\"ids\":[13],\"tokens\":[\"<s>\"]}}}," TAIL,
    ADDED
    "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Replace\","
    "\"pattern\":{\"String\":\"b\"},\"content\":\"cc\"},{\"type\":\"Prepend\",\"prepend\":\"a\"}"
    "]},\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\","
    "\"pattern\":{\"Regex\":\"\\\\s+(?!\\\\S)|\\\\s*\\\\w{1,3}|(?i:'s|'t)\"},\"behavior\":"
    "\"MergedWithPrevious\",\"invert\":true},{\"type\":\"Digits\",\"individual_digits\":true},"
    "{\"type\":\"Split\",\"pattern\":{\"String\":\"x\"},\"behavior\":\"Removed\",\"invert\":"
    "false},{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}]},"
    "\"post_processor\":{\"type\":\"Sequence\",\"processors\":[{\"type\":\"ByteLevel\"}]}," TAIL,
    ADDED
    "\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\","
    "\"pattern\":{\"Regex\":\"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}"
    "+|\\\\p{N}{1,3}| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)"
    "|\\\\s+\"},\"behavior\":\"Isolated\",\"invert\":false},{\"type\":\"ByteLevel\","
    "\"add_prefix_space\":false,\"use_regex\":false}]}," TAIL,
};

static const char *const words[] = {
    "null",   "{}",   "[]",        "\"\"",     "-1",          "4194303",    "4294967296",
    "1e9",    "true", "false",     "\\u0000",  "\"\\ud800\"", "\"a\"",      "Sequence",
    "Split",  "NFC",  "Metaspace", "Isolated", "Removed",     "Contiguous", "MergedWithNext",
    "Digits", "(",    "[",         "(?=",      ")*+",         "{0,99}",     "\\\\p{L}",
    "\\\\S",  "^",    "$",         "|",        "\"id\":",     ",",          ":",
    "}",      "]",    "\"",        "a a",      "<",
};

static void insert(struct ps_buf *b, size_t at, const char *p, size_t n)
{
    (void)ps_buf_grow(b, n);
    memmove(b->data + at + n, b->data + at, b->len - n - at);
    memcpy(b->data + at, p, n);
}

static void erase(struct ps_buf *b, size_t at, size_t n)
{
    memmove(b->data + at, b->data + at + n, b->len - at - n);
    ps_buf_truncate(b, b->len - n);
}

/* Where something of a JSON text begins or ends: mutations there are more often still JSON. */
static size_t edge(const struct ps_buf *b, struct ps_rng *rng)
{
    size_t at = ps_rng_below(rng, b->len + 1);

    while (at < b->len && strchr("{}[],:\"", b->data[at]) == NULL)
        at++;
    return at;
}

static void mutate(struct ps_buf *b, struct ps_rng *rng)
{
    const char *word = words[ps_rng_below(rng, PS_ARRAY_LEN(words))];
    size_t from = edge(b, rng), to = edge(b, rng), n;

    switch (ps_rng_below(rng, 6)) {
    case 0: /* one byte becomes any other */
        if (from < b->len)
            b->data[from] = (char)ps_rng_below(rng, 128);
        return;
    case 1: /* a piece is lost */
        n = ps_rng_below(rng, 40);
        if (n <= b->len - from)
            erase(b, from, n);
        return;
    case 2: /* a value becomes another */
        while (to < b->len && b->data[to] != ':')
            to++;
        n = 0;
        while (to + 1 + n < b->len && strchr(",}]", b->data[to + 1 + n]) == NULL)
            n++;
        if (to + 1 + n > b->len)
            return;
        erase(b, to + 1, n);
        insert(b, to + 1, word, strlen(word));
        return;
    case 3: { /* a piece stands somewhere else as well */
        char piece[256];

        n = ps_rng_below(rng, sizeof(piece));
        if (n > b->len - from)
            return;
        memcpy(piece, b->data + from, n);
        insert(b, to, piece, n);
        return;
    }
    default:
        insert(b, from, word, strlen(word));
        return;
    }
}

static void run_mutations(uint64_t n, uint64_t seed)
{
    struct ps_buf b = PS_BUF_INIT;
    struct ps_rng rng;

    ps_rng_seed(&rng, seed);
    for (uint64_t i = 0; i < n; i++) {
        ps_buf_clear(&b);
        ps_buf_add_str(&b, seeds[ps_rng_below(&rng, PS_ARRAY_LEN(seeds))]);
        for (uint64_t k = ps_rng_below(&rng, 4); k > 0; k--)
            mutate(&b, &rng);
        LLVMFuzzerTestOneInput((const uint8_t *)b.data, b.len);
    }
    ps_buf_fini(&b);
    printf("%llu files, %llu loaded\n", (unsigned long long)n, (unsigned long long)n_loaded);
    PS_ASSERT(n < 1000 || n_loaded > n / 20);
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "-n") == 0) {
        run_mutations(strtoull(argv[2], NULL, 10), strtoull(argv[3], NULL, 10));
        return 0;
    }
    for (int i = 1; i < argc; i++) {
        uint8_t *data = ps_alloc(INPUT_BYTES_MAX);
        FILE *f = fopen(argv[i], "rb");
        size_t n;

        if (f == NULL) {
            fprintf(stderr, "tokenizer_json: cannot read %s\n", argv[i]);
            return 2;
        }
        n = fread(data, 1, INPUT_BYTES_MAX, f);
        (void)fclose(f);
        LLVMFuzzerTestOneInput(data, n);
        ps_free(data);
    }
    return 0;
}

#endif
