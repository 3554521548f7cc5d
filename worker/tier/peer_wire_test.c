#include "common/rng.h"
#include "worker/tier/peer_world.h"

static struct wk_tier_ident two_groups(void)
{
    struct wk_tier_ident ident = ident_of(8192);

    ident.n_group = 2;
    ident.item_bytes[1] = 4096;
    return ident;
}

static int head_of(const struct ps_buf *b, struct wk_peer_head *h)
{
    return wk_peer_head_decode((const uint8_t *)b->data, TOKENS, h);
}

static void a_question_comes_out_as_it_went_in(void **state)
{
    const struct wk_tier_ident ident = two_groups();
    struct question *q = question_create(WK_TIER_GET, 3, 5, 4096);
    struct ps_buf b = PS_BUF_INIT;
    struct wk_peer_ask *ask;
    struct wk_peer_head h;

    (void)state;
    for (uint32_t i = 0; i < 5; i++) {
        q->part[i].key.group = 1;
        q->part[i].key.n_tok = i + 1;
    }
    q->io.urgent = true;
    wk_peer_put_ask(&b, 77, &q->io);
    assert_int_equal(head_of(&b, &h), WK_PEER_WIRE_OK);
    assert_int_equal(h.kind, WK_PEER_GET);
    assert_int_equal(h.id, 77);
    assert_int_equal(h.body_bytes + WK_PEER_HEAD_BYTES, b.len);
    assert_int_equal(
        wk_peer_ask_decode((const uint8_t *)b.data + WK_PEER_HEAD_BYTES, &h, &ident, &ask),
        WK_PEER_WIRE_OK);
    assert_true(ask->wants_bytes && ask->io.urgent && !ask->is_over);
    assert_int_equal(ask->io.op, WK_TIER_GET);
    assert_int_equal(ask->io.n_part, 5);
    for (uint32_t i = 0; i < 5; i++) {
        const struct wk_kv_key *got = &ask->io.part[i].key, *want = &q->part[i].key;

        assert_memory_equal(got->digest, want->digest, sizeof(want->digest));
        assert_memory_equal(got->parent, want->parent, sizeof(want->parent));
        assert_int_equal(got->seed, want->seed);
        assert_int_equal(got->hash, want->hash);
        assert_int_equal(got->group, 1);
        assert_int_equal(got->first_pos, want->first_pos);
        assert_int_equal(got->n_tok, i + 1);
        assert_memory_equal(got->ids, want->ids, (i + 1) * sizeof(*want->ids));
    }
    wk_peers_ask_free(ask);
    question_destroy(q);
    ps_buf_fini(&b);
}

/* One broken field each, in a question that is right otherwise. */
static void a_question_that_breaks_a_rule_is_bad(void **state)
{
    static const struct {
        uint32_t at, value; /* a word of the body */
    } breaks[] = {
        {0, 0},           {0, 4},   {0, 2},   {0, 17},       {0, UINT32_MAX},
        {4, 1},           {88, 1},  {96, 17}, {96, 0},       {96, UINT32_MAX},
        {92, UINT32_MAX}, {100, 1}, {184, 1}, {96 + 96, 15}, {188, 0},
    };
    const struct wk_tier_ident ident = ident_of(8192);
    struct question *q = question_create(WK_TIER_FIND, 0, 3, 0);
    struct ps_buf b = PS_BUF_INIT;
    struct wk_peer_ask *ask;
    struct wk_peer_head h;

    (void)state;
    for (size_t i = 0; i < PS_ARRAY_LEN(breaks); i++) {
        ps_buf_clear(&b);
        wk_peer_put_ask(&b, 1, &q->io);
        assert_int_equal(head_of(&b, &h), WK_PEER_WIRE_OK);
        memcpy(b.data + WK_PEER_HEAD_BYTES + breaks[i].at, &breaks[i].value, 4);
        assert_int_equal(
            wk_peer_ask_decode((const uint8_t *)b.data + WK_PEER_HEAD_BYTES, &h, &ident, &ask),
            WK_PEER_WIRE_E_BAD);
    }
    ps_buf_clear(&b);
    q->part[1].key.n_tok = TOKENS + 1; /* with all its ids, but no page is that long */
    wk_peer_put_ask(&b, 1, &q->io);
    assert_int_equal(head_of(&b, &h), WK_PEER_WIRE_OK);
    assert_int_equal(
        wk_peer_ask_decode((const uint8_t *)b.data + WK_PEER_HEAD_BYTES, &h, &ident, &ask),
        WK_PEER_WIRE_E_BAD);
    question_destroy(q);
    ps_buf_fini(&b);
}

static void a_head_has_the_size_of_its_kind(void **state)
{
    const uint32_t key = WK_PEER_KEY_BYTES + 4 * TOKENS;
    static const uint32_t least[] = {40, 32, 60, 4, 9, 4, 9, 4, 17};
    const uint32_t most[] = {
        40, 32, 60, 4, 8 + WK_TIER_FIND_MAX * key, 4, 8 + 16 * key, 4, 16 + WK_PEER_PIECE_BYTES};
    struct ps_buf b = PS_BUF_INIT;
    struct wk_peer_head h;

    (void)state;
    for (uint32_t kind = 0; kind < 12; kind++) {
        for (uint32_t i = 0; i < 4; i++) {
            bool known = kind >= 1 && kind <= 9;
            uint32_t n = !known   ? 4
                         : i == 0 ? least[kind - 1] - 1
                         : i == 1 ? least[kind - 1]
                         : i == 2 ? most[kind - 1]
                                  : most[kind - 1] + 1;

            ps_buf_clear(&b);
            wk_peer_put_count(&b, WK_PEER_GOT, 0, 0);
            b.data[4] = (char)kind;
            memcpy(b.data + 8, &n, 4);
            assert_int_equal(head_of(&b, &h),
                             known && (i == 1 || i == 2) ? WK_PEER_WIRE_OK : WK_PEER_WIRE_E_BAD);
        }
    }
    ps_buf_fini(&b);
}

static void a_head_with_a_strange_bit_is_bad(void **state)
{
    struct ps_buf b = PS_BUF_INIT;
    struct wk_peer_head h;

    (void)state;
    wk_peer_put_count(&b, WK_PEER_FOUND, 9, 1);
    for (uint32_t bit = 0; bit < 12 * 8; bit++) {
        b.data[bit / 8] = (char)(b.data[bit / 8] ^ 1 << bit % 8);
        /* Another kind of the same size is another frame. */
        if (head_of(&b, &h) == WK_PEER_WIRE_OK)
            assert_true(h.kind == WK_PEER_GOT && bit / 8 == 4);
        b.data[bit / 8] = (char)(b.data[bit / 8] ^ 1 << bit % 8);
    }
    assert_int_equal(head_of(&b, &h), WK_PEER_WIRE_OK);
    ps_buf_fini(&b);
}

static void idents_differ_in_any_field(void **state)
{
    const struct wk_tier_ident ident = two_groups();
    struct wk_tier_ident got;
    struct ps_buf b = PS_BUF_INIT;
    uint8_t *body;

    (void)state;
    wk_peer_put_hello(&b, &ident);
    body = (uint8_t *)b.data + WK_PEER_HEAD_BYTES;
    for (uint32_t i = 0; i < 60; i += 4) {
        body[i] ^= 1;
        assert_int_equal(wk_peer_hello_decode(body, 60, &got), WK_PEER_WIRE_OK);
        /* The sizes of groups that are not there mean nothing. */
        assert_int_equal(wk_peer_ident_is_equal(&got, &ident), i == 44 || i == 48);
        body[i] ^= 1;
    }
    assert_int_equal(wk_peer_hello_decode(body, 60, &got), WK_PEER_WIRE_OK);
    assert_true(wk_peer_ident_is_equal(&got, &ident));
    ps_buf_fini(&b);
}

/* ---- mutations ---- */

static void put_any(struct ps_buf *b, struct ps_rng *r, struct question *q)
{
    const struct wk_tier_ident ident = two_groups();
    struct wk_peer_challenge c = {.version = 1};
    struct wk_peer_piece piece = {.part = 3, .n_bytes = 40, .sum = 5};

    switch (ps_rng_below(r, 8)) {
    case 0:
        wk_peer_put_challenge(b, &c);
        break;
    case 1:
        wk_peer_put_hello(b, &ident);
        break;
    case 2:
        wk_peer_put_refuse(b, WK_PEER_R_BUSY);
        break;
    case 3:
        wk_peer_put_count(b, WK_PEER_GOT, 2, 3);
        break;
    case 4:
        wk_peer_put_piece(b, 2, &piece);
        (void)ps_buf_grow(b, piece.n_bytes);
        break;
    default:
        q->io.op = ps_rng_below(r, 2) == 0 ? WK_TIER_GET : WK_TIER_FIND;
        q->io.n_part = 1 + (uint32_t)ps_rng_below(r, 4);
        wk_peer_put_ask(b, 9, &q->io);
        break;
    }
}

static void check_ask(const struct wk_peer_ask *ask, const struct wk_tier_ident *ident)
{
    uint64_t sum = 0;

    assert_true(ask->io.n_part > 0 && ask->io.n_part <= WK_TIER_FIND_MAX);
    for (uint32_t i = 0; i < ask->io.n_part; i++) {
        const struct wk_kv_key *k = &ask->io.part[i].key;

        assert_true(k->group < ident->n_group && k->n_tok > 0 && k->n_tok <= ident->page_tokens);
        for (uint32_t j = 0; j < k->n_tok; j++)
            sum += k->ids[j]; /* all of them are ours to read */
    }
    assert_true(sum < UINT64_MAX);
}

/* Body in memory of exactly its size, so that a sanitizer sees the first byte outside. */
static bool decode_any(const uint8_t *frame, size_t n, const struct wk_tier_ident *ident)
{
    struct wk_peer_ask *ask = NULL;
    struct wk_peer_challenge c;
    struct wk_tier_ident other;
    enum wk_peer_reason reason;
    struct wk_peer_piece piece;
    struct wk_peer_head h;
    uint32_t count;
    uint8_t *body;
    int r = WK_PEER_WIRE_E_BAD;

    if (n < WK_PEER_HEAD_BYTES || wk_peer_head_decode(frame, TOKENS, &h) != WK_PEER_WIRE_OK ||
        h.body_bytes > n - WK_PEER_HEAD_BYTES)
        return false;
    body = ps_alloc(h.body_bytes);
    memcpy(body, frame + WK_PEER_HEAD_BYTES, h.body_bytes);
    if (h.kind == WK_PEER_CHALLENGE)
        r = wk_peer_challenge_decode(body, h.body_bytes, &c);
    else if (h.kind == WK_PEER_HELLO)
        r = wk_peer_hello_decode(body, h.body_bytes, &other);
    else if (h.kind == WK_PEER_REFUSE)
        r = wk_peer_reason_decode(body, h.body_bytes, &reason);
    else if (h.kind == WK_PEER_FOUND || h.kind == WK_PEER_GOT)
        r = wk_peer_count_decode(body, h.body_bytes, &count);
    else if (h.kind == WK_PEER_PIECE)
        r = wk_peer_piece_decode(body, &h, &piece);
    else if (h.kind == WK_PEER_FIND || h.kind == WK_PEER_GET)
        r = wk_peer_ask_decode(body, &h, ident, &ask);
    if (ask != NULL) {
        check_ask(ask, ident);
        wk_peers_ask_free(ask);
    }
    ps_free(body);
    return r == WK_PEER_WIRE_OK;
}

static void mutated_frames_are_decoded_or_refused(void **state)
{
    const struct wk_tier_ident ident = two_groups();
    struct question *q = question_create(WK_TIER_FIND, 0, 4, 0);
    struct ps_buf b = PS_BUF_INIT;
    uint32_t n_ok = 0, n_bad = 0;
    struct ps_rng r;

    (void)state;
    ps_rng_seed(&r, 1);
    for (uint32_t i = 0; i < 120000; i++) {
        ps_buf_clear(&b);
        put_any(&b, &r, q);
        for (uint64_t n = ps_rng_below(&r, 4); n > 0; n--) {
            size_t at = ps_rng_below(&r, 3) == 0 ? ps_rng_below(&r, 32) : ps_rng_below(&r, b.len);

            if (ps_rng_below(&r, 4) == 0)
                b.data[at] = (char)(b.data[at] ^ 1 << ps_rng_below(&r, 8));
            else
                b.data[at] = (char)ps_rng_u64(&r);
        }
        if (ps_rng_below(&r, 8) == 0)
            ps_buf_truncate(&b, ps_rng_below(&r, b.len));
        if (decode_any((const uint8_t *)b.data, b.len, &ident))
            n_ok++;
        else
            n_bad++;
    }
    assert_true(n_ok > 20000 && n_bad > 20000); /* both ways were gone */
    question_destroy(q);
    ps_buf_fini(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_question_comes_out_as_it_went_in),
        cmocka_unit_test(a_question_that_breaks_a_rule_is_bad),
        cmocka_unit_test(a_head_has_the_size_of_its_kind),
        cmocka_unit_test(a_head_with_a_strange_bit_is_bad),
        cmocka_unit_test(idents_differ_in_any_field),
        cmocka_unit_test(mutated_frames_are_decoded_or_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
