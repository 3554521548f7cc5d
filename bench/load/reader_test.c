#include "bench/load/reader.h"

#include <stdio.h>

#include "bench/load/event.h"
#include "common/rng.h"
#include "common/test.h"

/* What came out of a reader: every event in brackets, then status, state and text. */
struct said {
    struct ps_buf out;
};

static void on_event(const char *data, size_t len, void *ud)
{
    struct said *s = ud;

    ps_buf_add_byte(&s->out, '[');
    if (len > 0)
        ps_buf_add(&s->out, data, len);
    ps_buf_add_byte(&s->out, ']');
}

/* Pushes text in pieces: all at once with seed 0, else cut at random. Returns push's last result. */
static int feed(struct bn_reader *r, const char *text, size_t len, uint64_t seed)
{
    struct ps_rng rng;
    size_t at = 0, n;
    int res = BN_READER_OK;

    ps_rng_seed(&rng, seed);
    while (at < len && res == BN_READER_OK) {
        n = seed == 0 ? len : ps_min_size(len - at, 1 + ps_rng_below(&rng, 9));
        res = bn_reader_push(r, text + at, n);
        at += n;
    }
    return res;
}

/* The same for every way of cutting. */
static void expect(const char *text, int want, enum bn_reader_state state, uint16_t status,
                   const char *events, const char *body)
{
    for (uint64_t seed = 0; seed < 200; seed++) {
        struct bn_reader r;
        struct said s = {PS_BUF_INIT};

        bn_reader_init(&r, on_event, &s);
        bn_reader_start(&r);
        assert_int_equal(feed(&r, text, strlen(text), seed), want);
        assert_int_equal(r.state, state);
        if (want == BN_READER_OK) {
            assert_int_equal(r.status, status);
            assert_string_equal(s.out.len > 0 ? s.out.data : "", events);
            assert_string_equal(r.text.len > 0 ? r.text.data : "", body);
        }
        bn_reader_fini(&r);
        ps_buf_fini(&s.out);
    }
}

#define CHUNKED \
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n" \
    "Transfer-Encoding: chunked\r\n\r\n"

static void events_come_whole_however_bytes_are_cut(void **state)
{
    (void)state;
    expect(CHUNKED "9\r\ndata: a\n\n\r\n12\r\ndata:b\n\ndata:  c\n\n\r\n0\r\n\r\n", BN_READER_OK,
           BN_READ_DONE, 200, "[a][b][ c]", "");
    /* An event over two chunks, an extension of the size, a trailer, CRLF and LF line ends. */
    expect(CHUNKED "4;x=y\r\ndata\r\nC\r\n: a\r\ndata: b\r\n4\r\n\r\n\r\n\r\n0\r\nx: y\r\n\r\n",
           BN_READER_OK, BN_READ_DONE, 200, "[a\nb]", "");
}

static void comments_blank_lines_and_other_fields_are_no_events(void **state)
{
    (void)state;
    expect("HTTP/1.1 200 OK\r\ncontent-length: 42\r\ncontent-type: text/event-stream\r\n\r\n"
           ": ping\n\n\nevent: x\nid: 1\n\ndata\n\ndata: y\n\n\n\n",
           BN_READER_OK, BN_READ_DONE, 200, "[y]", "");
}

static void other_bodies_are_kept_as_text(void **state)
{
    (void)state;
    expect("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 5\r\n\r\nhello", BN_READER_OK,
           BN_READ_DONE, 503, "", "hello");
    expect("HTTP/1.1 200 OK\r\n\r\nuntil the end", BN_READER_OK, BN_READ_CLOSE, 200, "",
           "until the end");
    expect("HTTP/1.1 204 No Content\r\n\r\n", BN_READER_OK, BN_READ_DONE, 204, "", "");
    expect("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404\r\ncontent-length: 0\r\n\r\n", BN_READER_OK,
           BN_READ_DONE, 404, "", "");
}

static void what_is_not_http_is_refused(void **state)
{
    static const char *const bad[] = {
        "HTTP/2 200 OK\r\n",
        "hello there, who are you\r\n",
        "HTTP/1.1 2x0 OK\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 1\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 9999999999999999\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nab",
        CHUNKED "x\r\n",
        CHUNKED "\r\n",
        CHUNKED "fffffffffffff\r\n",
        CHUNKED "1\r\nab\r\n",
        CHUNKED "0\r\n\r\nmore",
    };

    (void)state;
    for (size_t i = 0; i < PS_ARRAY_LEN(bad); i++)
        expect(bad[i], BN_READER_E_BAD, BN_READ_BAD, 0, "", "");
}

static void an_endless_head_is_refused(void **state)
{
    struct bn_reader r;
    struct said s = {PS_BUF_INIT};
    int res, n = 0;

    (void)state;
    bn_reader_init(&r, on_event, &s);
    bn_reader_start(&r);
    res = bn_reader_push(&r, "HTTP/1.1 200 OK\r\n", 17);
    for (; res == BN_READER_OK && n < BN_HEAD_MAX; n++)
        res = bn_reader_push(&r, "a: b\r\n", 6);
    assert_int_equal(res, BN_READER_E_BAD);
    bn_reader_start(&r);
    for (n = 0, res = BN_READER_OK; res == BN_READER_OK && n <= BN_HEAD_MAX; n++)
        res = bn_reader_push(&r, "H", 1);
    assert_int_equal(res, BN_READER_E_BAD);
    bn_reader_fini(&r);
    ps_buf_fini(&s.out);
}

static void the_next_answer_begins_afresh(void **state)
{
    static const char one[] = CHUNKED "a\r\ndata: cut\n\r\n0\r\n\r\n";
    static const char two[] =
        "HTTP/1.0 200 OK\r\ncontent-type: TEXT/EVENT-STREAM\r\n\r\ndata: x\n\n";
    struct bn_reader r;
    struct said s = {PS_BUF_INIT};

    (void)state;
    bn_reader_init(&r, on_event, &s);
    bn_reader_start(&r);
    assert_int_equal(feed(&r, one, strlen(one), 1), BN_READER_OK);
    assert_int_equal(r.state, BN_READ_DONE);
    assert_false(r.close);
    bn_reader_start(&r);
    assert_false(bn_reader_end(&r)); /* nothing came yet */
    assert_int_equal(feed(&r, two, strlen(two), 2), BN_READER_OK);
    assert_true(r.close);
    assert_true(bn_reader_end(&r));
    assert_string_equal(s.out.data, "[x]");
    bn_reader_fini(&r);
    ps_buf_fini(&s.out);
}

static void read_ok(const char *s, struct bn_event *e, uint32_t *ids, size_t n)
{
    assert_int_equal(bn_event_read(s, strlen(s), e, ids, n), BN_EVENT_OK);
}

static void an_event_tells_ids_end_usage_and_error(void **state)
{
    struct bn_event e;
    uint32_t ids[2];

    (void)state;
    read_ok("{\"id\":\"a\\\"b\",\"choices\":[{\"index\":0,\"text\":\"x\",\"logprobs\":null,"
            "\"finish_reason\":null,\"token_ids\":[1, 22 ,333],\"prompt_token_ids\":[9,9]}],"
            "\"usage\":null}",
            &e, ids, 2);
    assert_true(e.has_choice && e.has_text && !e.has_usage && !e.has_error);
    assert_int_equal(e.n_ids, 3);
    assert_int_equal(ids[1], 22);
    read_ok(" {\"choices\":[{\"finish_reason\":\"length\",\"text\":\"\"},{\"token_ids\":[1]}]} ",
            &e, ids, 2);
    assert_string_equal(e.finish, "length");
    assert_true(!e.has_text && e.n_ids == 0);
    read_ok("{\"choices\":[],\"usage\":{\"prompt_tokens\":12,\"completion_tokens\":34,"
            "\"total_tokens\":46,\"prompt_tokens_details\":{\"cached_tokens\":8}}}",
            &e, ids, 2);
    assert_true(e.has_usage && !e.has_choice);
    assert_int_equal(e.n_prompt, 12);
    assert_int_equal(e.n_completion, 34);
    assert_int_equal(e.n_cached, 8);
    read_ok(
        "{\"usage\":{\"prompt_tokens_details\":null},\"error\":{\"message\":\"no\",\"code\":1}}",
        &e, ids, 2);
    assert_true(e.has_error);
    assert_string_equal(e.error, "no");
    read_ok("{\"x\":{\"a\":[1,{\"b\":\"]}\"}]},\"y\":-1.5e3,\"z\":[]}", &e, ids, 2);
}

static void a_cut_event_is_refused_at_every_place(void **state)
{
    static const char whole[] =
        "{\"a\":[{\"b\":\"c\\\"\"}],\"choices\":[{\"text\":\"x\",\"token_ids\":[1,2],"
        "\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2,"
        "\"prompt_tokens_details\":{\"cached_tokens\":0}},\"error\":{\"message\":\"m\"}}";
    struct bn_event e;
    uint32_t ids[4];

    (void)state;
    read_ok(whole, &e, ids, 4);
    for (size_t n = 0; n + 1 < sizeof(whole); n++) {
        char *copy = ps_strndup(whole, n); /* ASan sees a read past its end */

        assert_int_equal(bn_event_read(copy, n, &e, ids, 4), BN_EVENT_E_BAD);
        ps_free(copy);
    }
    assert_int_equal(bn_event_read("{}x", 3, &e, ids, 4), BN_EVENT_E_BAD);
    assert_int_equal(bn_event_read("[1]", 3, &e, ids, 4), BN_EVENT_E_BAD);
    assert_int_equal(
        bn_event_read("{\"usage\":{\"prompt_tokens\":9999999999999999999}}", 46, &e, ids, 4),
        BN_EVENT_E_BAD);
}

static void damaged_events_are_read_within_their_bytes(void **state)
{
    static const char whole[] =
        "{\"choices\":[{\"text\":\"x\\u00e9\",\"token_ids\":[1,2]}],\"usage\":"
        "{\"prompt_tokens\":1},\"error\":null}";
    struct bn_event e;
    struct ps_rng rng;
    uint32_t ids[2];

    (void)state;
    ps_rng_seed(&rng, 7);
    for (int i = 0; i < 20000; i++) {
        char *copy = ps_strndup(whole, sizeof(whole) - 1);

        for (int k = 0; k < 3; k++)
            copy[ps_rng_below(&rng, sizeof(whole) - 1)] =
                "{}[]\",:\\0n \x80"[ps_rng_below(&rng, 12)];
        (void)!bn_event_read(copy, sizeof(whole) - 1, &e, ids, 2);
        ps_free(copy);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(events_come_whole_however_bytes_are_cut),
        cmocka_unit_test(comments_blank_lines_and_other_fields_are_no_events),
        cmocka_unit_test(other_bodies_are_kept_as_text),
        cmocka_unit_test(what_is_not_http_is_refused),
        cmocka_unit_test(an_endless_head_is_refused),
        cmocka_unit_test(the_next_answer_begins_afresh),
        cmocka_unit_test(an_event_tells_ids_end_usage_and_error),
        cmocka_unit_test(a_cut_event_is_refused_at_every_place),
        cmocka_unit_test(damaged_events_are_read_within_their_bytes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
