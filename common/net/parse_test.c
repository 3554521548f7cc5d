#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <llhttp.h>

#include "common/net/parse_drive.h"
#include "common/rng.h"
#include "common/test.h"

#define H   "host: a\r\n"
#define END "\r\n"

static struct ps_http_limits limits_for_tests(void)
{
    struct ps_http_limits l;

    ps_http_limits_default(&l);
    l.target_bytes = 100;
    l.header_bytes = 200;
    l.head_bytes = 600;
    l.n_headers = 5;
    l.body_bytes = 1000;
    return l;
}

/* ---- what is accepted and what it means ---- */

static const struct {
    const char *bytes, *want;
} accepted[] = {
    {"GET / HTTP/1.1\r\n" H END, "GET target=/ path=/ query= keep [host=a] body=0:\n"},
    {"\r\nGET / HTTP/1.1\r\n" H END, "GET target=/ path=/ query= keep [host=a] body=0:\n"},
    {"GET / HTTP/1.0\r\n\r\n", "GET target=/ path=/ query= 1.0 close body=0:\n"},
    {"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n",
     "GET target=/ path=/ query= 1.0 keep [connection=Keep-Alive] body=0:\n"},
    {"GET / HTTP/1.1\r\n" H "connection: close\r\n\r\n",
     "GET target=/ path=/ query= close [host=a] [connection=close] body=0:\n"},
    {"GET /v1//models/?a=b&c=%20 HTTP/1.1\r\nHOST:a:80\r\nX-A:   b \t\r\n\r\n",
     "GET target=/v1//models/?a=b&c=%20 path=/v1/models query=a=b&c=%20 keep [host=a:80] [x-a=b] "
     "body=0:\n"},
    {"GET http://x.example:80/p?q HTTP/1.1\r\n" H END,
     "GET target=/p?q path=/p query=q keep [host=a] body=0:\n"},
    {"GET http://x.example HTTP/1.1\r\n" H END,
     "GET target=/ path=/ query= keep [host=a] body=0:\n"},
    {"GET /a/../b HTTP/1.1\r\n" H END,
     "GET target=/a/../b path=(bad) query= keep [host=a] body=0:\n"},
    {"GET /a HTTP/1.1\r\n" H "x-tab: a\tb\r\nx-empty:\r\n\r\n",
     "GET target=/a path=/a query= keep [host=a] [x-tab=a\tb] [x-empty=] body=0:\n"},
    {"OPTIONS * HTTP/1.1\r\n" H END, "OPTIONS target=* path=* query= keep [host=a] body=0:\n"},
    {"CONNECT a.example:443 HTTP/1.1\r\n" H END,
     "CONNECT target=a.example:443 path=a.example:443 query= keep [host=a] body=0:\n"},
    {"TRACE / HTTP/1.1\r\n" H END, "TRACE target=/ path=/ query= keep [host=a] body=0:\n"},
    {"GET /a HTTP/1.1\r\n" H "connection: upgrade\r\nupgrade: websocket\r\n\r\n",
     "GET target=/a path=/a query= keep [host=a] [connection=upgrade] [upgrade=websocket] "
     "body=0:\n"},
    {"POST /p HTTP/1.1\r\n" H "content-length: 5\r\n\r\nhello",
     "POST target=/p path=/p query= keep [host=a] [content-length=5] body=5:hello\n"},
    {"POST /p HTTP/1.1\r\n" H "content-length: 0\r\n\r\n",
     "POST target=/p path=/p query= keep [host=a] [content-length=0] body=0:\n"},
    {"POST /p HTTP/1.1\r\n" H "Transfer-Encoding: Chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
     "POST target=/p path=/p query= keep [host=a] [transfer-encoding=Chunked] body=5:hello\n"},
    {"POST /p HTTP/1.1\r\n" H "transfer-encoding:chunked\r\n\r\n"
     "00A;x=\"1\";y\r\n0123456789\r\n1\r\nz\r\n0;last\r\nx-t: 1\r\ny:\r\n\r\n",
     "POST target=/p path=/p query= keep [host=a] [transfer-encoding=chunked] "
     "body=11:0123456789z\n"},
    {"GET /1 HTTP/1.1\r\n" H END "\r\nGET /2 HTTP/1.1\r\n" H END,
     "GET target=/1 path=/1 query= keep [host=a] body=0:\n"
     "GET target=/2 path=/2 query= keep [host=a] body=0:\n"},
    {"GET /1 HTTP/1.1\r\n" H END "GET /2 HTTP/1.1\r\n" H,
     "GET target=/1 path=/1 query= keep [host=a] body=0:\nMORE\n"},
    {"POST /p HTTP/1.1\r\n" H "content-length: 5\r\nexpect: 100-Continue\r\n\r\nhello",
     "POST target=/p path=/p query= keep [host=a] [content-length=5] [expect=100-Continue] "
     "body=5:hello\n"},
    {"GET / HTTP/1.0\r\nexpect: foo\r\n\r\n",
     "GET target=/ path=/ query= 1.0 close [expect=foo] body=0:\n"},
};

static void well_formed_requests_mean_what_they_say(void **state)
{
    struct ps_http_limits l = limits_for_tests();
    struct ps_buf log = PS_BUF_INIT;

    (void)state;
    for (size_t i = 0; i < PS_ARRAY_LEN(accepted); i++) {
        drive_cut(&l, accepted[i].bytes, strlen(accepted[i].bytes), 0, &log);
        assert_string_equal(log.data, accepted[i].want);
    }
    ps_buf_fini(&log);
}

/* ---- what is refused, and how ---- */

#define POST    "POST / HTTP/1.1\r\n" H
#define CHUNKED POST "transfer-encoding: chunked\r\n\r\n"
/* A second request behind each of them must never be seen: the log ends with the fault. */
#define SMUGGLED "GET /smuggled HTTP/1.1\r\n" H END

static const struct {
    enum ps_http_fault want;
    const char *bytes;
    size_t len; /* 0: strlen */
} refused[] = {
    {PS_HTTP_BAD_REQUEST, "\r\n\r\nGET / HTTP/1.1\r\n" H END, 0},
    {PS_HTTP_BAD_REQUEST, " GET / HTTP/1.1\r\n" H END, 0},
    {PS_HTTP_BAD_REQUEST, "get / HTTP/1.1\r\n" H END, 0},
    {PS_HTTP_BAD_REQUEST, "FOO / HTTP/1.1\r\n" H END, 0},
    {PS_HTTP_BAD_REQUEST, "GET /\r\n\r\n", 0},
    {PS_HTTP_BAD_REQUEST, "GET  / HTTP/1.1\r\n" H END, 0},
    {PS_HTTP_BAD_REQUEST, "GET / HTTP/1.1 \r\n" H END, 0},
    {PS_HTTP_BAD_REQUEST, "GET / HTTP/11\r\n" H END, 0},
    {PS_HTTP_BAD_REQUEST, "GET / http/1.1\r\n" H END, 0},
    {PS_HTTP_BAD_REQUEST, "GET /\t HTTP/1.1\r\n" H END, 0},
    {PS_HTTP_BAD_REQUEST, "GET /\xc3\xa9 HTTP/1.1\r\n" H END, 0},
    {PS_HTTP_BAD_REQUEST, "GET /a@b HTTP/1.1\r\n" H END, 0},
    {PS_HTTP_BAD_REQUEST, "GET /a#b HTTP/1.1\r\n" H END, 0},
    {PS_HTTP_BAD_REQUEST, "GET http://u@h/ HTTP/1.1\r\n" H END, 0},
    {PS_HTTP_BAD_REQUEST, "GET http:///p HTTP/1.1\r\n" H END, 0},
    {PS_HTTP_BAD_REQUEST, "GET ftp://h/ HTTP/1.1\r\n" H END, 0},
    {PS_HTTP_BAD_REQUEST, "GET models HTTP/1.1\r\n" H END, 0},
    {PS_HTTP_VERSION, "GET / HTTP/2.0\r\n", 0},
    {PS_HTTP_VERSION, "GET / HTTP/3.0\r\n" H END, 0},
    {PS_HTTP_VERSION, "GET / HTTP/1.2\r\n" H END, 0},
    {PS_HTTP_VERSION, "GET / HTTP/0.9\r\n" H END, 0},
    {PS_HTTP_VERSION, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 0},
    {PS_HTTP_BAD_REQUEST, "GET / HTTP/1.1\r\n\r\n", 0}, /* no host */
    {PS_HTTP_BAD_REQUEST, "GET / HTTP/1.1\r\n" H H END, 0},
    {PS_HTTP_BAD_REQUEST, "GET / HTTP/1.1\r\nhost:\r\n\r\n", 0},
    {PS_HTTP_BAD_REQUEST, "GET / HTTP/1.1\r\nhost: a/b\r\n\r\n", 0},
    {PS_HTTP_BAD_REQUEST, "GET / HTTP/1.0\r\nhost: a b\r\n\r\n", 0},
    {PS_HTTP_BAD_REQUEST, "GET / HTTP/1.1\r\nhost : a\r\n\r\n", 0},
    {PS_HTTP_BAD_REQUEST, "GET / HTTP/1.1\r\n" H "x-a\r\n\r\n", 0},
    {PS_HTTP_BAD_REQUEST, "GET / HTTP/1.1\r\n" H ": b\r\n\r\n", 0},
    {PS_HTTP_BAD_REQUEST, "GET / HTTP/1.1\r\n" H "x a: b\r\n\r\n", 0},
    {PS_HTTP_BAD_REQUEST, "GET / HTTP/1.1\r\n" H "x-a: b\r\n c\r\n\r\n", 0},
    {PS_HTTP_BAD_REQUEST, "GET / HTTP/1.1\r\n" H "x-a: b\r\n\tc\r\n\r\n", 0},
    {PS_HTTP_BAD_REQUEST, "GET / HTTP/1.1\r\n x-a: b\r\n" H END, 0},
    {PS_HTTP_BAD_REQUEST, "GET / HTTP/1.1\r\n" H "x-a: b\n\r\n", 0},
    {PS_HTTP_BAD_REQUEST, "GET / HTTP/1.1\n", 0},
    {PS_HTTP_BAD_REQUEST, "GET / HTTP/1.1\r\n" H "x-a: b\rc\r\n\r\n", 0},
    {PS_HTTP_BAD_REQUEST, "GET / HTTP/1.1\r\n" H "x-a:\rtransfer-encoding: chunked\r\n\r\n", 0},
    {PS_HTTP_BAD_REQUEST, "GET / HTTP/1.1\r\n" H "x-\xe9: a\r\n\r\n", 0},
    {PS_HTTP_BAD_REQUEST, "GET /\xe9 HTTP/1.1\r\n" H "\r\n", 0},
    {PS_HTTP_BAD_REQUEST, "GET / HTTP/1.1\r\n" H "x-a: \x01\r\n\r\n", 0},
    {PS_HTTP_BAD_REQUEST, "GET / HTTP/1.1\r\n" H "x-a: \x7f\r\n\r\n", 0},
    {PS_HTTP_BAD_REQUEST, "GET / HTTP/1.1\r\n" H "x\0a: b\r\n\r\n", 36},
    {PS_HTTP_BAD_REQUEST, "GET / HTTP/1.1\r\n" H "xa: \0\r\n\r\n", 34},
    {PS_HTTP_BAD_REQUEST, POST "content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n" SMUGGLED,
     0},
    {PS_HTTP_BAD_REQUEST, POST "transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n" SMUGGLED,
     0},
    {PS_HTTP_BAD_REQUEST, POST "content-length: 5\r\ntransfer-encoding: gzip\r\n\r\n" SMUGGLED, 0},
    {PS_HTTP_BAD_REQUEST, POST "content-length: 5\r\ncontent-length: 5\r\n\r\nhello" SMUGGLED, 0},
    {PS_HTTP_BAD_REQUEST, POST "content-length: 5\r\ncontent-length: 6\r\n\r\nhello" SMUGGLED, 0},
    {PS_HTTP_BAD_REQUEST, POST "content-length: 5, 5\r\n\r\nhello" SMUGGLED, 0},
    {PS_HTTP_BAD_REQUEST, POST "content-length: +5\r\n\r\nhello" SMUGGLED, 0},
    {PS_HTTP_BAD_REQUEST, POST "content-length: -5\r\n\r\nhello" SMUGGLED, 0},
    {PS_HTTP_BAD_REQUEST, POST "content-length: 0x5\r\n\r\nhello" SMUGGLED, 0},
    {PS_HTTP_BAD_REQUEST, POST "content-length: 5 5\r\n\r\nhello" SMUGGLED, 0},
    {PS_HTTP_BAD_REQUEST, POST "content-length:\r\n\r\n" SMUGGLED, 0},
    {PS_HTTP_BAD_REQUEST, POST "content-length: 9007199254740993\r\n\r\n" SMUGGLED, 0},
    {PS_HTTP_BAD_REQUEST, POST "content-length: 18446744073709551621\r\n\r\nhello" SMUGGLED, 0},
    {PS_HTTP_BODY_TOO_LARGE, POST "content-length: 1001\r\n\r\n", 0},
    {PS_HTTP_TE_UNKNOWN, POST "transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n" SMUGGLED, 0},
    {PS_HTTP_TE_UNKNOWN, POST "transfer-encoding: gzip\r\n\r\n" SMUGGLED, 0},
    {PS_HTTP_TE_UNKNOWN, POST "transfer-encoding: identity\r\n\r\n" SMUGGLED, 0},
    {PS_HTTP_TE_UNKNOWN, POST "transfer-encoding: chunked, gzip\r\n\r\n" SMUGGLED, 0},
    {PS_HTTP_TE_UNKNOWN,
     POST "transfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n" SMUGGLED, 0},
    {PS_HTTP_BAD_REQUEST, POST "transfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n" SMUGGLED, 0},
    {PS_HTTP_BAD_REQUEST,
     POST "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n" SMUGGLED, 0},
    {PS_HTTP_BAD_REQUEST, POST "transfer-encoding: xchunked\r\n\r\n0\r\n\r\n" SMUGGLED, 0},
    {PS_HTTP_BAD_REQUEST, POST "transfer-encoding: chunked;q=1\r\n\r\n0\r\n\r\n" SMUGGLED, 0},
    {PS_HTTP_BAD_REQUEST, POST "transfer-encoding: \"chunked\"\r\n\r\n0\r\n\r\n" SMUGGLED, 0},
    {PS_HTTP_BAD_REQUEST, POST "transfer-encoding: chunked \r\n\r\n0\r\n\r\n" SMUGGLED, 0},
    {PS_HTTP_BAD_REQUEST, POST "transfer-encoding: chunked\t\r\n\r\n0\r\n\r\n" SMUGGLED, 0},
    {PS_HTTP_BAD_REQUEST, POST "transfer-encoding:\tchunked\r\n\r\n0\r\n\r\n" SMUGGLED, 0},
    {PS_HTTP_BAD_REQUEST, POST "transfer-encoding: ,chunked\r\n\r\n0\r\n\r\n" SMUGGLED, 0},
    {PS_HTTP_BAD_REQUEST, POST "transfer-encoding:\r\n\r\n0\r\n\r\n" SMUGGLED, 0},
    {PS_HTTP_BAD_REQUEST, POST "transfer-encoding : chunked\r\n\r\n0\r\n\r\n" SMUGGLED, 0},
    {PS_HTTP_BAD_REQUEST, POST "transfer-encoding:\r\n chunked\r\n\r\n0\r\n\r\n" SMUGGLED, 0},
    {PS_HTTP_BAD_REQUEST,
     "POST / HTTP/1.0\r\n" H "transfer-encoding: chunked\r\n\r\n0\r\n\r\n" SMUGGLED, 0},
    {PS_HTTP_EXPECT, POST "expect: foo\r\ncontent-length: 5\r\n\r\nhello" SMUGGLED, 0},
    {PS_HTTP_EXPECT, POST "expect: 100-continue, foo\r\n\r\n" SMUGGLED, 0},
};

static const struct {
    enum ps_http_fault want;
    const char *bytes;
} bad_chunks[] = {
    {PS_HTTP_BAD_REQUEST, "0x5\r\nhello\r\n0\r\n\r\n"},
    {PS_HTTP_BAD_REQUEST, "+5\r\nhello\r\n0\r\n\r\n"},
    {PS_HTTP_BAD_REQUEST, "-5\r\nhello\r\n0\r\n\r\n"},
    {PS_HTTP_BAD_REQUEST, " 5\r\nhello\r\n0\r\n\r\n"},
    {PS_HTTP_BAD_REQUEST, "5 ;x\r\nhello\r\n0\r\n\r\n"},
    {PS_HTTP_BAD_REQUEST, "5 \r\nhello\r\n0\r\n\r\n"},
    {PS_HTTP_BAD_REQUEST, "5;x y\r\nhello\r\n0\r\n\r\n"},
    {PS_HTTP_BAD_REQUEST, "5;x\ny\r\nhello\r\n0\r\n\r\n"},
    {PS_HTTP_BAD_REQUEST, "5\nhello\r\n0\r\n\r\n"},
    {PS_HTTP_BAD_REQUEST, "5\r\nhello0\r\n\r\n"},
    {PS_HTTP_BAD_REQUEST, "5\r\nhello\n0\r\n\r\n"},
    {PS_HTTP_BAD_REQUEST, "5\r\nhello\rX0\r\n\r\n"},
    {PS_HTTP_BAD_REQUEST, "\r\n"},
    {PS_HTTP_BAD_REQUEST, ";x\r\n"},
    {PS_HTTP_BAD_REQUEST, "0\r\n x: y\r\n\r\n"},
    {PS_HTTP_BAD_REQUEST, "0\r\nx: y\r\n z\r\n\r\n"},
    {PS_HTTP_BAD_REQUEST, "0\r\nx y: z\r\n\r\n"},
    {PS_HTTP_BAD_REQUEST, "0\r\nx\r\n\r\n"},
    {PS_HTTP_BAD_REQUEST, "0\r\nx: y\n\r\n"},
    {PS_HTTP_BAD_REQUEST, "0\r\n\rX"},
    {PS_HTTP_BAD_REQUEST, "0000000000000000000000000000000000000000000000000000000000000000000"},
    {PS_HTTP_BODY_TOO_LARGE, "3E9\r\n"},
    {PS_HTTP_BODY_TOO_LARGE, "FFFFFFFFFFFFFFFFFFFFF\r\n"},
    {PS_HTTP_BODY_TOO_LARGE, "10000000000000005\r\nhello\r\n"},
};

static void expect_fault(const char *bytes, size_t len, enum ps_http_fault want)
{
    struct ps_http_limits l = limits_for_tests();
    struct ps_buf log = PS_BUF_INIT;
    char tail[16];

    drive_cut(&l, bytes, len, 0, &log);
    snprintf(tail, sizeof(tail), "FAULT %d\n", (int)want);
    if (log.len < strlen(tail) || strcmp(log.data + log.len - strlen(tail), tail) != 0)
        print_error("%s\nwas read as %s", bytes, log.data);
    assert_true(log.len >= strlen(tail));
    assert_string_equal(log.data + log.len - strlen(tail), tail);
    assert_null(strstr(log.data, "smuggled"));
    ps_buf_fini(&log);
}

static void doubtful_requests_are_refused_and_nothing_behind_them_is_read(void **state)
{
    char text[256];

    (void)state;
    for (size_t i = 0; i < PS_ARRAY_LEN(refused); i++)
        expect_fault(refused[i].bytes,
                     refused[i].len > 0 ? refused[i].len : strlen(refused[i].bytes),
                     refused[i].want);
    for (size_t i = 0; i < PS_ARRAY_LEN(bad_chunks); i++) {
        snprintf(text, sizeof(text), "%s%s%s", CHUNKED, bad_chunks[i].bytes, SMUGGLED);
        expect_fault(text, strlen(text), bad_chunks[i].want);
    }
}

/* ---- limits ---- */

static void add_times(struct ps_buf *b, char c, size_t n)
{
    memset(ps_buf_grow(b, n), c, n);
}

static void limits_hold_to_the_byte(void **state)
{
    struct ps_http_limits l = limits_for_tests();
    struct ps_buf b = PS_BUF_INIT, log = PS_BUF_INIT;

    (void)state;
    for (size_t over = 0; over < 2; over++) {
        const char *head_fault = over ? "FAULT 2\n" : "body=0:\n";

        ps_buf_clear(&b); /* "GET /xx HTTP/1.1" of 100 bytes */
        ps_buf_add_str(&b, "GET /");
        add_times(&b, 'x', l.target_bytes - strlen("GET / HTTP/1.1") + over);
        ps_buf_add_str(&b, " HTTP/1.1\r\n" H END);
        drive_cut(&l, b.data, b.len, 0, &log);
        assert_non_null(strstr(log.data, over ? "FAULT 1\n" : "body=0:\n"));

        ps_buf_clear(&b); /* one header line of 200 bytes */
        ps_buf_add_str(&b, "GET / HTTP/1.1\r\n" H "x:");
        add_times(&b, 'x', l.header_bytes - 2 + over);
        ps_buf_add_str(&b, "\r\n\r\n");
        drive_cut(&l, b.data, b.len, 0, &log);
        assert_non_null(strstr(log.data, head_fault));

        ps_buf_clear(&b); /* five headers */
        ps_buf_add_str(&b, "GET / HTTP/1.1\r\n" H "a:\r\nb:\r\nc:\r\nd:\r\n");
        ps_buf_add_str(&b, over ? "e:\r\n\r\n" : "\r\n");
        drive_cut(&l, b.data, b.len, 0, &log);
        assert_non_null(strstr(log.data, head_fault));

        ps_buf_clear(&b); /* a head of 600 bytes */
        ps_buf_add_str(&b, "GET / HTTP/1.1\r\n" H);
        for (int i = 0; i < 3; i++) {
            ps_buf_add_str(&b, "x:");
            add_times(&b, 'x', 180);
            ps_buf_add_str(&b, "\r\n");
        }
        ps_buf_add_str(&b, "y:");
        add_times(&b, 'y', l.head_bytes - b.len - 4 + over);
        ps_buf_add_str(&b, "\r\n\r\n");
        drive_cut(&l, b.data, b.len, 0, &log);
        assert_non_null(strstr(log.data, head_fault));

        ps_buf_clear(&b); /* 64 digits of a chunk size */
        ps_buf_add_str(&b, CHUNKED);
        add_times(&b, '0', 63 + over);
        ps_buf_add_str(&b, "1\r\nx\r\n0\r\n\r\n");
        drive_cut(&l, b.data, b.len, 0, &log);
        assert_non_null(strstr(log.data, over ? "FAULT 0\n" : "body=1:x\n"));

        ps_buf_clear(&b); /* 256 bytes of extension */
        ps_buf_add_str(&b, CHUNKED "1;");
        add_times(&b, 'e', 256 + over);
        ps_buf_add_str(&b, "\r\nx\r\n0\r\n\r\n");
        drive_cut(&l, b.data, b.len, 0, &log);
        assert_non_null(strstr(log.data, over ? "FAULT 0\n" : "body=1:x\n"));

        ps_buf_clear(&b); /* 4096 bytes of trailers, the last empty line included */
        ps_buf_add_str(&b, CHUNKED "0\r\nt:");
        add_times(&b, 't', 4096 - 2 - 4 + over);
        ps_buf_add_str(&b, "\r\n\r\n");
        drive_cut(&l, b.data, b.len, 0, &log);
        assert_non_null(strstr(log.data, over ? "FAULT 0\n" : "body=0:\n"));

        ps_buf_clear(&b); /* a chunked body of 1000 bytes in three chunks */
        ps_buf_add_str(&b, CHUNKED "1F4\r\n");
        add_times(&b, 'b', 500);
        ps_buf_add_str(&b, "\r\n1F3\r\n");
        add_times(&b, 'b', 499);
        ps_buf_add_str(&b, over ? "\r\n2\r\nbb\r\n0\r\n\r\n" : "\r\n1\r\nb\r\n0\r\n\r\n");
        drive_cut(&l, b.data, b.len, 0, &log);
        assert_non_null(strstr(log.data, over ? "FAULT 3\n" : "body=1000:"));
    }
    ps_buf_fini(&b);
    ps_buf_fini(&log);
}

/* ---- cuts ---- */

static void expect_same_for_every_cut(const char *bytes, size_t len)
{
    struct ps_http_limits l = limits_for_tests();
    struct ps_buf whole = PS_BUF_INIT, cut = PS_BUF_INIT;

    drive_cut(&l, bytes, len, 0, &whole);
    for (size_t at = 1; at < len; at++) {
        drive_cut(&l, bytes, len, at, &cut);
        assert_string_equal(cut.data, whole.data);
    }
    drive_bytes(&l, bytes, len, &cut);
    assert_string_equal(cut.data, whole.data);
    ps_buf_fini(&whole);
    ps_buf_fini(&cut);
}

static void every_cut_of_a_request_means_the_same(void **state)
{
    char text[256];

    (void)state;
    for (size_t i = 0; i < PS_ARRAY_LEN(accepted); i++)
        expect_same_for_every_cut(accepted[i].bytes, strlen(accepted[i].bytes));
    for (size_t i = 0; i < PS_ARRAY_LEN(refused); i++)
        expect_same_for_every_cut(refused[i].bytes,
                                  refused[i].len > 0 ? refused[i].len : strlen(refused[i].bytes));
    for (size_t i = 0; i < PS_ARRAY_LEN(bad_chunks); i++) {
        snprintf(text, sizeof(text), "%s%s", CHUNKED, bad_chunks[i].bytes);
        expect_same_for_every_cut(text, strlen(text));
    }
}

/* ---- chunks against llhttp ---- */

struct second { /* what llhttp makes of the same message */
    struct ps_buf body;
    bool complete;
};

static int second_body(llhttp_t *ll, const char *at, size_t n)
{
    struct second *s = ll->data;

    if (!s->complete)
        ps_buf_add(&s->body, at, n);
    return 0;
}

static int second_complete(llhttp_t *ll)
{
    struct second *s = ll->data;

    s->complete = true;
    return HPE_PAUSED;
}

static void chunks_accepted_here_are_accepted_by_llhttp_with_the_same_bytes(void **state)
{
    static const char alphabet[] = "0123456789abcdefA;=\"x \t:\r\n\r\n";
    static const char seed_body[] = "4;a=b\r\nwiki\r\n005\r\npedia\r\n0\r\nt: v\r\n\r\n";
    static const llhttp_settings_t set = {.on_body = second_body,
                                          .on_message_complete = second_complete};
    const size_t n_head = strlen(CHUNKED);
    uint32_t n_accepted = 0;
    struct ps_rng rng;

    (void)state;
    ps_rng_seed(&rng, 7);
    for (uint32_t i = 0; i < 60000; i++) {
        char text[256] = CHUNKED;
        size_t len = n_head + strlen(seed_body), used = 0;
        struct ps_buf body = PS_BUF_INIT;
        struct ps_body reader;
        enum ps_http_fault fault;

        memcpy(text + n_head, seed_body, strlen(seed_body) + 1);
        for (uint64_t k = ps_rng_below(&rng, 3); k < 3; k++)
            text[n_head + ps_rng_below(&rng, strlen(seed_body))] =
                alphabet[ps_rng_below(&rng, sizeof(alphabet) - 1)];
        ps_body_init_chunked(&reader, 1000);
        if (ps_body_feed(&reader, text + n_head, len - n_head, &used, &body, &fault) ==
            PS_READ_DONE) {
            struct second s = {.body = PS_BUF_INIT};
            llhttp_t ll;

            n_accepted++;
            llhttp_init(&ll, HTTP_REQUEST, &set);
            ll.data = &s;
            if (llhttp_execute(&ll, text, len) != HPE_PAUSED)
                print_error("refused by llhttp (%s): %s", llhttp_get_error_reason(&ll),
                            text + n_head);
            assert_true(s.complete);
            assert_int_equal(llhttp_get_error_pos(&ll) - text, n_head + used);
            assert_int_equal(s.body.len, body.len);
            if (body.len > 0)
                assert_memory_equal(s.body.data, body.data, body.len);
            ps_buf_fini(&s.body);
        }
        ps_buf_fini(&body);
    }
    assert_true(n_accepted > 1000); /* the comparison compared something */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(well_formed_requests_mean_what_they_say),
        cmocka_unit_test(doubtful_requests_are_refused_and_nothing_behind_them_is_read),
        cmocka_unit_test(limits_hold_to_the_byte),
        cmocka_unit_test(every_cut_of_a_request_means_the_same),
        cmocka_unit_test(chunks_accepted_here_are_accepted_by_llhttp_with_the_same_bytes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
