#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "common/rng.h"
#include "proto/msg_internal.h"

static struct pb_head head(uint8_t kind)
{
    return (struct pb_head){.kind = kind, .epoch = 3, .seq = 11, .rinc = 1234567, .winc = 7654321};
}

static struct pb_submit *sample_submit(void)
{
    struct pb_submit *s = pb_submit_create(30, 3, 2, 1);

    s->req = 0x0100000000000005ULL;
    s->attempt = 4;
    s->dispatch_seq = 1ULL << 40;
    s->space_id = 77;
    s->n_prompt = 25;
    s->n_done = 5;
    s->max_tokens = PB_NO_LIMIT;
    s->priority = -3;
    for (uint32_t i = 0; i < 30; i++)
        s->ids[i] = i * 1000003u;
    s->stop_ids[2] = 8;
    s->bias[1] = -1.5f;
    s->cuts[0] = 16;
    s->samp.temperature = 0.7f;
    s->samp.top_k = -1;
    s->samp.seed = UINT64_MAX;
    s->samp.n_top = 5;
    return s;
}

/* Every number another one, so that a mixed-up field shows; two groups and three of the tiers. */
static void sample_load(struct pb_beat *b)
{
    struct pb_load *l = &b->load;
    struct pb_kv_load *k = &b->kv;

    *l = (struct pb_load){.n_running = 1,
                          .n_waiting = 2,
                          .n_suspended = 3,
                          .n_group = 2,
                          .group = {{1ULL << 40, 4, 5, 6, 7, 8}, {100, 9, 10, 11, 12, 13}},
                          .n_prefill_pending = 14,
                          .prompt_tokens = 15,
                          .generated_tokens = 16,
                          .cached_tokens = 17,
                          .followed_tokens = 18,
                          .resume_tokens = 19,
                          .n_preempted = 20,
                          .n_finished = 21,
                          .rss_bytes = 22,
                          .step_us_mean = 23,
                          .prefill_tok_per_s = 24,
                          .busy_ms = 25};
    *k = (struct pb_kv_load){3, {{0}}, 26, 27, 28, 29, 30, 31, 32};
    for (uint64_t i = 0; i < 3; i++) {
        uint64_t n = 100 * (i + 1);

        k->tier[i] = (struct pb_kv_tier){(enum pb_kv_tier_id)(i + i / 2),
                                         i != 1,
                                         n + 50,
                                         n + 1,
                                         n + 2,
                                         n + 3,
                                         n + 4,
                                         n + 5,
                                         n + 6,
                                         n + 7,
                                         n + 8,
                                         n + 9,
                                         n + 10,
                                         n + 11,
                                         n + 12,
                                         n + 13,
                                         n + 14,
                                         n + 15};
    }
}

static struct pb_logprob sample_logprob(uint32_t i)
{
    struct pb_logprob lp = {.logprob = -0.5f * (float)i, .rank = i, .n_top = i % (PB_MAX_TOP + 1)};

    for (uint32_t k = 0; k < lp.n_top; k++) {
        lp.top[k].id = 100 * i + k;
        lp.top[k].logprob = -(float)k;
    }
    return lp;
}

static void encode_tokens(struct ps_buf *b)
{
    struct pb_tokens_builder t;
    struct pb_logprob lps[30], *ptrs[30];
    struct pb_head h = head(PB_TOKENS);
    uint32_t ids[30];

    for (uint32_t i = 0; i < 30; i++) {
        ids[i] = 7 * i;
        lps[i] = sample_logprob(i);
        ptrs[i] = &lps[i];
    }
    pb_tokens_builder_init(&t);
    pb_tokens_add(&t, 5, 1, 0, 1, ids, NULL);
    pb_tokens_add(&t, 6, 2, 17, 30, ids, ptrs);
    pb_tokens_add(&t, 7, 3, 9, 2, ids + 4, ptrs + 4);
    pb_tokens_encode(b, &h, &t);
    pb_tokens_builder_fini(&t);
}

static void encode_finished(struct ps_buf *b)
{
    struct pb_logprob lps[6];
    struct pb_head h = head(PB_FINISHED);
    struct pb_finished f = {.req = 9,
                            .attempt = 2,
                            .reason = PB_FIN_LENGTH,
                            .n_total = 40,
                            .n_cached = 16,
                            .n_prompt_scores = 6};

    for (uint32_t i = 0; i < 6; i++)
        lps[i] = sample_logprob(i);
    pb_finished_encode(b, &h, &f, lps);
}

static void encode_open_list(struct ps_buf *b)
{
    struct pb_head h = head(PB_OPENLIST);
    struct pb_open_row rows[2] = {{1, 2, 3, 4, false}, {5, 6, 7, 8, true}};

    pb_open_list_encode(b, &h, 6, rows, 2);
}

/* One frame of each kind, in order; returns how many. */
static uint32_t encode_all(struct ps_buf out[32])
{
    static const uint8_t kinds[] = {PB_HELLO,  PB_WELCOME, PB_WHO,         PB_BYE,      PB_BEAT,
                                    PB_ACCEPT, PB_REJECT,  PB_FINACK,      PB_CANCEL,   PB_RESEND,
                                    PB_ADMIN,  PB_SUBMIT,  PB_ADMIN_REPLY, PB_OPENQUERY};
    uint32_t n = 0;

    for (size_t i = 0; i < PS_ARRAY_LEN(kinds); i++) {
        struct pb_msg m;

        memset(&m, 0, sizeof(m));
        m.head = head(kinds[i]);
        if (kinds[i] == PB_HELLO) {
            m.hello.nonce = 5;
            m.hello.info = (struct pb_worker_info){.uid = 1,
                                                   .incarnation = 2,
                                                   .context = 4096,
                                                   .n_vocab = 300,
                                                   .model = "demo",
                                                   .dtype = "f32"};
        } else if (kinds[i] == PB_REJECT) {
            m.refusal = (struct pb_refusal){8, 2, PB_REJ_TOO_LONG, 120};
        } else if (kinds[i] == PB_ADMIN) {
            m.admin = (struct pb_admin){4, PB_ADMIN_DRAIN};
        } else if (kinds[i] == PB_SUBMIT) {
            m.submit = sample_submit();
        } else if (kinds[i] == PB_BEAT) {
            m.beat = (struct pb_beat){.interval_ms = 100,
                                      .applied = 9,
                                      .n_open = 3,
                                      .digest_id = UINT64_MAX,
                                      .tick = 1,
                                      .draining = true};
            sample_load(&m.beat);
        } else if (kinds[i] == PB_CANCEL || kinds[i] == PB_RESEND || kinds[i] == PB_ACCEPT) {
            m.attempt = (struct pb_attempt){1ULL << 63, 3, 1ULL << 33, 12};
        }
        ps_buf_init(&out[n]);
        pb_msg_encode(&out[n++], &m);
        pb_msg_fini(&m);
    }
    for (uint32_t i = 0; i < 3; i++)
        ps_buf_init(&out[n + i]);
    encode_tokens(&out[n++]);
    encode_finished(&out[n++]);
    encode_open_list(&out[n++]);
    return n;
}

/* Reads everything that a receiver would; the sum keeps the compiler honest. */
static uint64_t use(struct pb_msg *m)
{
    struct pb_logprob lps[64];
    uint64_t sum = 0;

    if (m->head.kind == PB_TOKENS) {
        struct pb_tokens t = m->tokens;
        struct pb_token_row row;

        while (pb_tokens_next(&t, &row)) {
            sum += row.req + pb_load_u32(row.ids + 4 * (row.n - 1));
            if (row.has_logprobs && row.n <= 64)
                assert_true(pb_logprobs_read(&row.logprobs, lps, row.n));
        }
    } else if (m->head.kind == PB_FINISHED && m->finished.n_prompt_scores <= 64) {
        assert_true(pb_logprobs_read(&m->finished.scores, lps, m->finished.n_prompt_scores));
    } else if (m->head.kind == PB_OPENLIST) {
        struct pb_open_list l = m->open_list;
        struct pb_open_row row;

        while (pb_open_next(&l, &row))
            sum += row.req;
    } else if (m->head.kind == PB_SUBMIT) {
        for (uint32_t i = 0; i < m->submit->n_prompt + m->submit->n_done; i++)
            sum += m->submit->ids[i];
    }
    return sum;
}

/* A copy in memory of exactly that size, so that a sanitizer sees one byte too many. */
static int decode_exact(const void *data, size_t len, uint64_t *sum)
{
    uint8_t *copy = ps_alloc(len);
    struct pb_msg m;
    int r;

    memcpy(copy, data, len);
    r = pb_msg_decode(copy, len, &m);
    if (r == PB_MSG_OK) {
        *sum += use(&m);
        pb_msg_fini(&m);
    }
    ps_free(copy);
    return r;
}

static void every_kind_decodes_and_no_cut_passes_as_whole(void **state)
{
    struct ps_buf frames[32];
    uint32_t n = encode_all(frames);
    uint64_t sum = 0;

    (void)state;
    for (uint32_t i = 0; i < n; i++) {
        assert_int_equal(decode_exact(frames[i].data, frames[i].len, &sum), PB_MSG_OK);
        for (size_t cut = 0; cut < frames[i].len; cut++)
            assert_int_equal(decode_exact(frames[i].data, cut, &sum), PB_MSG_E_BAD);
        ps_buf_add_byte(&frames[i], 0); /* one byte too many is not whole either */
        assert_int_equal(decode_exact(frames[i].data, frames[i].len, &sum), PB_MSG_E_BAD);
        ps_buf_fini(&frames[i]);
    }
}

/* Lying lengths and bit rot: any outcome but a fault. */
static void corrupted_frames_never_read_outside(void **state)
{
    struct ps_buf frames[32];
    uint32_t n = encode_all(frames);
    struct ps_rng rng;
    uint64_t sum = 0;

    (void)state;
    ps_rng_seed(&rng, 3);
    for (uint32_t round = 0; round < 30000; round++) {
        struct ps_buf *f = &frames[ps_rng_below(&rng, n)];
        size_t at = (size_t)ps_rng_below(&rng, f->len);
        char was = f->data[at];

        f->data[at] = (char)ps_rng_u64(&rng);
        (void)decode_exact(f->data, f->len, &sum);
        f->data[at] = was;
    }
    for (uint32_t i = 0; i < n; i++)
        ps_buf_fini(&frames[i]);
}

static void submit_comes_back_equal(void **state)
{
    struct pb_submit *s = sample_submit();
    struct pb_msg m = {.head = head(PB_SUBMIT), .submit = s}, got;
    struct ps_buf b = PS_BUF_INIT;

    (void)state;
    pb_msg_encode(&b, &m);
    assert_int_equal(pb_msg_decode((uint8_t *)b.data, b.len, &got), PB_MSG_OK);
    assert_true(got.submit->req == s->req && got.submit->dispatch_seq == s->dispatch_seq);
    assert_int_equal(got.submit->attempt, s->attempt);
    assert_int_equal(got.submit->max_tokens, s->max_tokens);
    assert_int_equal(got.submit->priority, s->priority);
    assert_memory_equal(got.submit->ids, s->ids, 30 * 4);
    assert_memory_equal(got.submit->stop_ids, s->stop_ids, 3 * 4);
    assert_memory_equal(got.submit->bias, s->bias, 2 * 4);
    assert_int_equal(got.submit->cuts[0], 16);
    assert_memory_equal(&got.submit->samp, &s->samp, sizeof(s->samp));
    pb_msg_fini(&got);
    pb_msg_fini(&m);
    ps_buf_fini(&b);
}

static void token_rows_keep_ids_and_logprobs(void **state)
{
    struct ps_buf b = PS_BUF_INIT;
    struct pb_token_row row;
    struct pb_logprob lps[30];
    struct pb_msg m;

    (void)state;
    encode_tokens(&b);
    assert_int_equal(pb_msg_decode((uint8_t *)b.data, b.len, &m), PB_MSG_OK);
    assert_true(pb_tokens_next(&m.tokens, &row));
    assert_true(row.req == 5 && row.n == 1 && !row.has_logprobs);
    assert_true(pb_tokens_next(&m.tokens, &row));
    assert_true(row.req == 6 && row.first == 17 && row.n == 30 && row.has_logprobs);
    assert_true(pb_logprobs_read(&row.logprobs, lps, 30));
    for (uint32_t i = 0; i < 30; i++) {
        struct pb_logprob want = sample_logprob(i);

        assert_int_equal(pb_load_u32(row.ids + 4 * (size_t)i), 7 * i);
        assert_true(lps[i].logprob >= want.logprob && lps[i].logprob <= want.logprob);
        assert_int_equal(lps[i].n_top, want.n_top);
        assert_memory_equal(lps[i].top, want.top, want.n_top * sizeof(want.top[0]));
    }
    assert_true(pb_tokens_next(&m.tokens, &row));
    assert_true(row.req == 7 && row.n == 2);
    assert_true(pb_logprobs_read(&row.logprobs, lps, 2) && lps[1].rank == 5);
    assert_false(pb_tokens_next(&m.tokens, &row));
    ps_buf_fini(&b);
}

static int beat_through_the_wire(const struct pb_beat *b, struct pb_beat *out)
{
    struct pb_msg m = {.head = head(PB_BEAT), .beat = *b}, got;
    struct ps_buf buf = PS_BUF_INIT;
    int r;

    pb_msg_encode(&buf, &m);
    r = pb_msg_decode((uint8_t *)buf.data, buf.len, &got);
    if (r == PB_MSG_OK)
        *out = got.beat;
    ps_buf_fini(&buf);
    return r;
}

static void a_beats_load_comes_back_equal(void **state)
{
    struct pb_beat b, got;

    (void)state;
    memset(&b, 0, sizeof(b));
    sample_load(&b);
    assert_int_equal(beat_through_the_wire(&b, &got), PB_MSG_OK);
    assert_memory_equal(&got.load.group, &b.load.group, sizeof(b.load.group));
    for (uint32_t i = 0; i < PB_KV_N_TIERS; i++) {
        const struct pb_kv_tier *t = &got.kv.tier[i], *want = &b.kv.tier[i];

        assert_int_equal(t->id, want->id);
        assert_int_equal(t->is_open, want->is_open);
        assert_memory_equal(&t->pages, &want->pages,
                            sizeof(*t) - offsetof(struct pb_kv_tier, pages));
    }
    assert_memory_equal(&got.load.n_prefill_pending, &b.load.n_prefill_pending,
                        offsetof(struct pb_load, busy_ms) -
                            offsetof(struct pb_load, n_prefill_pending));
    assert_true(got.load.n_running == 1 && got.load.n_waiting == 2 && got.load.n_suspended == 3);
    assert_true(got.load.n_group == 2 && got.load.busy_ms == 25 && got.kv.n_tier == 3);
    assert_memory_equal(&got.kv.n_fetch, &b.kv.n_fetch,
                        sizeof(b.kv) - offsetof(struct pb_kv_load, n_fetch));
}

static void the_largest_beat_is_less_than_2_kib(void **state)
{
    struct pb_msg m = {.head = head(PB_BEAT)};
    struct ps_buf b = PS_BUF_INIT;

    (void)state;
    memset(&m.beat, 0xff, sizeof(m.beat));
    m.beat.draining = m.beat.drained = true;
    m.beat.load.n_group = PB_MAX_KV_GROUPS;
    m.beat.kv.n_tier = PB_KV_N_TIERS;
    for (uint32_t i = 0; i < PB_KV_N_TIERS; i++) {
        m.beat.kv.tier[i].id = (enum pb_kv_tier_id)i;
        m.beat.kv.tier[i].is_open = true;
    }
    pb_msg_encode(&b, &m);
    assert_in_range(b.len, 1000, 2047);
    ps_buf_fini(&b);
}

static void parts_larger_than_the_whole_are_refused(void **state)
{
    struct pb_beat good, b, got;

    (void)state;
    memset(&good, 0, sizeof(good));
    sample_load(&good);
    assert_int_equal(beat_through_the_wire(&good, &got), PB_MSG_OK);
#define REFUSED(what) \
    do { \
        b = good; \
        what; \
        assert_int_equal(beat_through_the_wire(&b, &got), PB_MSG_E_BAD); \
    } while (0)
    REFUSED(b.load.group[1].n_free = 101);
    REFUSED(b.load.group[1].n_evictable = 101);
    REFUSED(b.load.group[1].n_pinned = UINT64_MAX);
    REFUSED(b.kv.tier[0].free_pages = 151);
    REFUSED(b.kv.tier[2].idle_pages = 351);
    REFUSED(b.kv.tier[2].id = PB_KV_N_TIERS);
    REFUSED(b.kv.tier[1].id = PB_KV_T0); /* twice */
    REFUSED(b.kv.tier[0].id = PB_KV_T3); /* out of order */
#undef REFUSED
}

/* More rows than there can be: protobuf concatenates the parts of a message that comes twice. */
static void more_groups_or_tiers_than_there_can_be_are_refused(void **state)
{
    struct pb_msg m = {.head = head(PB_BEAT)}, got;
    struct ps_buf one = PS_BUF_INIT, twice = PS_BUF_INIT;
    size_t at;

    (void)state;
    for (uint32_t what = 0; what < 2; what++) {
        memset(&m.beat, 0, sizeof(m.beat));
        if (what == 0)
            m.beat.load.n_group = 3;
        for (uint32_t i = 0; what == 1 && i < PB_KV_N_TIERS; i++)
            m.beat.kv.tier[m.beat.kv.n_tier++].id = (enum pb_kv_tier_id)i;
        ps_buf_clear(&one);
        ps_buf_clear(&twice);
        pb_msg_encode(&one, &m);
        at = pb_frame_begin(&twice, &m.head);
        for (uint32_t i = 0; i < 2; i++)
            ps_buf_add(&twice, one.data + PB_HEAD_BYTES, one.len - PB_HEAD_BYTES);
        pb_frame_end_head(&twice, at);
        assert_int_equal(pb_msg_decode((uint8_t *)one.data, one.len, &got), PB_MSG_OK);
        assert_int_equal(pb_msg_decode((uint8_t *)twice.data, twice.len, &got), PB_MSG_E_BAD);
    }
    ps_buf_fini(&one);
    ps_buf_fini(&twice);
}

static void hello_with_control_characters_is_refused(void **state)
{
    struct pb_msg m = {.head = head(PB_HELLO)}, got;
    struct ps_buf b = PS_BUF_INIT;

    (void)state;
    m.hello.nonce = 1;
    m.hello.info = (struct pb_worker_info){.uid = 1, .incarnation = 2, .context = 4, .n_vocab = 3};
    snprintf(m.hello.info.model, sizeof(m.hello.info.model), "a\nlevel=error");
    pb_msg_encode(&b, &m);
    assert_int_equal(pb_msg_decode((uint8_t *)b.data, b.len, &got), PB_MSG_E_BAD);
    ps_buf_fini(&b);
}

static void unpacking_stops_at_its_memory_cap(void **state)
{
    ProtobufCAllocator a;
    struct pb_cap cap;
    void *p;

    (void)state;
    pb_cap_init(&a, &cap, 100);
    p = a.alloc(a.allocator_data, 800);
    assert_non_null(p);
    a.free(a.allocator_data, p);
    assert_null(a.alloc(a.allocator_data, (64 << 10) + 1)); /* what was freed is not given back */
    p = a.alloc(a.allocator_data, 64 << 10);
    assert_non_null(p);
    a.free(a.allocator_data, p);
    assert_null(a.alloc(a.allocator_data, 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_decodes_and_no_cut_passes_as_whole),
        cmocka_unit_test(corrupted_frames_never_read_outside),
        cmocka_unit_test(submit_comes_back_equal),
        cmocka_unit_test(token_rows_keep_ids_and_logprobs),
        cmocka_unit_test(a_beats_load_comes_back_equal),
        cmocka_unit_test(the_largest_beat_is_less_than_2_kib),
        cmocka_unit_test(parts_larger_than_the_whole_are_refused),
        cmocka_unit_test(more_groups_or_tiers_than_there_can_be_are_refused),
        cmocka_unit_test(hello_with_control_characters_is_refused),
        cmocka_unit_test(unpacking_stops_at_its_memory_cap),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
