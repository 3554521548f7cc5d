/* The two merge algorithms and the cache against the definition, on small random vocabularies. */

#include "common/rng.h"
#include "common/test.h"
#include "common/text/bpe.h"

enum { MERGES = 60, TOKEN_MAX = 16, PIECE_MAX = 32, LONG_MAX = 3000 };

struct merge {
    uint32_t left, right, id;
};

struct fixture {
    struct ps_vocab vocab;
    struct ps_bpe bpe;
    struct merge merges[MERGES];
    uint32_t n;
    struct ps_bpe_ctx *ctx;
};

/* Letters a to d, and merges of random pairs of what there is so far. */
static void fixture_init(struct fixture *f, uint64_t seed)
{
    struct ps_rng rng;

    memset(f, 0, sizeof(*f));
    ps_rng_seed(&rng, seed);
    ps_vocab_init(&f->vocab);
    for (uint32_t i = 0; i < 4; i++) {
        char c = (char)('a' + i);

        assert_true(ps_vocab_add_model(&f->vocab, &c, 1, i));
    }
    ps_bpe_init(&f->bpe, &f->vocab, MERGES);
    for (int t = 0; t < 400 && f->n < MERGES; t++) {
        uint32_t l = (uint32_t)ps_rng_below(&rng, f->vocab.n_id);
        uint32_t r = (uint32_t)ps_rng_below(&rng, f->vocab.n_id), id;
        const struct ps_vocab_ent *a = ps_vocab_at(&f->vocab, l), *b = ps_vocab_at(&f->vocab, r);
        char text[2 * TOKEN_MAX];
        size_t len = a->text_len + b->text_len;
        bool again = false;

        if (len > TOKEN_MAX)
            continue;
        memcpy(text, ps_vocab_text(&f->vocab, a), a->text_len);
        memcpy(text + a->text_len, ps_vocab_text(&f->vocab, b), b->text_len);
        for (uint32_t i = 0; i < f->n; i++)
            again |= f->merges[i].left == l && f->merges[i].right == r;
        if (again)
            continue;
        id = ps_vocab_find_text(&f->vocab, text, len); /* several pairs may give one token */
        if (id == PS_VOCAB_NONE) {
            id = f->vocab.n_id;
            assert_true(ps_vocab_add_model(&f->vocab, text, len, id));
        }
        ps_bpe_add(&f->bpe, l, r, f->n, id);
        f->merges[f->n++] = (struct merge){l, r, id};
    }
    ps_bpe_seal(&f->bpe);
    f->ctx = ps_bpe_ctx_create(&f->bpe);
}

static void fixture_fini(struct fixture *f)
{
    ps_bpe_ctx_destroy(f->ctx);
    ps_bpe_fini(&f->bpe);
    ps_vocab_fini(&f->vocab);
}

/* The definition: apply the first merge of the list that applies anywhere, leftmost, again and again. */
static uint32_t naive(const struct fixture *f, const char *s, size_t n, uint32_t *out)
{
    uint32_t len = (uint32_t)n;

    for (size_t i = 0; i < n; i++)
        out[i] = (uint32_t)(s[i] - 'a');
    for (uint32_t k = 0; k < f->n; k++)
        for (uint32_t i = 0; i + 1 < len; i++) {
            if (out[i] != f->merges[k].left || out[i + 1] != f->merges[k].right)
                continue;
            out[i] = f->merges[k].id;
            memmove(out + i + 1, out + i + 2, (len - i - 2) * sizeof(out[0]));
            len--;
            k = UINT32_MAX; /* start over */
            break;
        }
    return len;
}

static void check_all_ways(struct fixture *f, const char *s, size_t n)
{
    uint32_t want[LONG_MAX], n_want = naive(f, s, n, want);
    struct ps_tok_ids ids = {NULL, 0, 0};

    for (int way = 0; way < 4; way++) {
        ids.n = 0;
        if (way == 0)
            ps_bpe_encode_heap(f->ctx, s, n, &ids);
        else if (way == 1 && n <= PIECE_MAX)
            ps_bpe_encode_array(f->ctx, s, n, &ids);
        else /* the second time from the cache */
            ps_bpe_encode(f->ctx, s, n, s + n, way > 1, &ids);
        assert_int_equal(ids.n, n_want);
        assert_memory_equal(ids.ids, want, n_want * sizeof(want[0]));
    }
    ps_tok_ids_fini(&ids);
}

static void heap_array_and_cache_equal_the_definition(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 40; seed++) {
        struct fixture f;
        struct ps_rng rng;

        fixture_init(&f, seed);
        ps_rng_seed(&rng, seed + 1000);
        for (int t = 0; t < 100; t++) {
            char s[LONG_MAX];
            size_t n = 1 + ps_rng_below(&rng, t < 90 ? PIECE_MAX : 300);
            uint64_t letters = 1 + ps_rng_below(&rng, 4);

            for (size_t i = 0; i < n; i++)
                s[i] = (char)('a' + ps_rng_below(&rng, letters));
            check_all_ways(&f, s, n);
        }
        fixture_fini(&f);
    }
}

static void cache_key_ends_where_the_piece_ends(void **state)
{
    struct ps_tok_ids a = {NULL, 0, 0}, b = {NULL, 0, 0};
    char text[64];
    struct fixture f;

    (void)state;
    fixture_init(&f, 5);
    for (size_t i = 0; i < sizeof(text); i++)
        text[i] = (char)('a' + i % 3);
    for (size_t n = 1; n <= 30; n++) {
        /* Once in the middle of a text and once at its very end. */
        a.n = b.n = 0;
        ps_bpe_encode(f.ctx, text, n, text + sizeof(text), true, &a);
        ps_bpe_encode(f.ctx, text, n, text + n, true, &b);
        assert_int_equal(a.n, b.n);
        assert_memory_equal(a.ids, b.ids, a.n * sizeof(a.ids[0]));
        b.n = 0;
        ps_bpe_encode(f.ctx, text, n, text + n, false, &b);
        assert_int_equal(a.n, b.n);
        assert_memory_equal(a.ids, b.ids, a.n * sizeof(a.ids[0]));
    }
    ps_tok_ids_fini(&a);
    ps_tok_ids_fini(&b);
    fixture_fini(&f);
}

static void unknown_bytes_vanish_or_become_unk(void **state)
{
    struct ps_tok_ids ids = {NULL, 0, 0};
    const char *text = "??";
    struct fixture f;

    (void)state;
    fixture_init(&f, 1);
    ps_bpe_encode(f.ctx, text, 2, text + 2, false, &ids);
    assert_int_equal(ids.n, 0);
    f.bpe.unk_id = 3;
    ps_bpe_encode(f.ctx, text, 2, text + 2, false, &ids);
    assert_int_equal(ids.n, 2);
    f.bpe.fuse_unk = true;
    ids.n = 0;
    ps_bpe_encode(f.ctx, text, 2, text + 2, false, &ids);
    assert_int_equal(ids.n, 1);
    ps_tok_ids_fini(&ids);
    fixture_fini(&f);
}

static void whole_piece_wins_when_merges_are_ignored(void **state)
{
    struct ps_tok_ids ids = {NULL, 0, 0};
    const char *text = "abcdabcdabcdabcdabcd";
    struct fixture f;

    (void)state;
    fixture_init(&f, 2);
    assert_true(ps_vocab_add_model(&f.vocab, text, 20, f.vocab.n_id));
    f.bpe.ignore_merges = true;
    ps_bpe_encode(f.ctx, text, 20, text + 20, false, &ids);
    assert_int_equal(ids.n, 1);
    assert_int_equal(ids.ids[0], f.vocab.n_id - 1);
    ps_tok_ids_fini(&ids);
    fixture_fini(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(heap_array_and_cache_equal_the_definition),
        cmocka_unit_test(cache_key_ends_where_the_piece_ends),
        cmocka_unit_test(unknown_bytes_vanish_or_become_unk),
        cmocka_unit_test(whole_piece_wins_when_merges_are_ignored),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
