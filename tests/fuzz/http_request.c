/*
 * http_request [FILE..] | http_request -n N SEED: feeds bytes to the HTTP reader, without sockets.
 *
 * Whatever the bytes are, the reader must come to the same understanding of them read at once, byte by
 * byte, and cut in two; and it must stop at the first doubt. With libFuzzer the engine brings main();
 * else this program replays files, or makes N mutations of its own requests.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/net/parse_drive.h"
#include "common/rng.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { INPUT_BYTES_MAX = 4096 };

static uint64_t n_understood; /* inputs without a fault; a run without any tests nothing */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *p = (const char *)data;
    struct ps_http_limits l;
    struct ps_buf whole = PS_BUF_INIT, other = PS_BUF_INIT;

    if (size == 0 || size > INPUT_BYTES_MAX)
        return 0;
    ps_http_limits_default(&l);
    l.target_bytes = 200;
    l.header_bytes = 300;
    l.head_bytes = 1000;
    l.n_headers = 12;
    l.body_bytes = 500;
    drive_cut(&l, p, size, 0, &whole);
    drive_bytes(&l, p, size, &other);
    PS_ASSERT(other.len == whole.len && memcmp(other.data, whole.data, whole.len) == 0);
    drive_cut(&l, p, size, data[size / 2] % size, &other);
    PS_ASSERT(other.len == whole.len && memcmp(other.data, whole.data, whole.len) == 0);
    if (whole.len > 0 && memmem(whole.data, whole.len, "FAULT ", 6) == NULL)
        n_understood++;
    ps_buf_fini(&whole);
    ps_buf_fini(&other);
    return 0;
}

#ifndef PS_FUZZ_ENGINE

static const char *const seeds[] = {
    "GET /v1//models/?a=b HTTP/1.1\r\nhost: a:80\r\nuser-agent: x\r\n\r\n",
    "POST /v1/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhelloGET / "
    "HTTP/1.1\r\nhost: a\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: "
    "chunked\r\n\r\n5;a=\"b\"\r\nhello\r\n00a\r\n0123456789\r\n0\r\nt: v\r\n\r\n",
    "GET http://a.example/p%20q HTTP/1.1\r\nhost: [::1]:8\r\nconnection: close, x\r\n\r\n",
    "HEAD /a/../b HTTP/1.0\r\nconnection: keep-alive\r\n\r\n",
    "POST /p HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\nabc\r\nGET /n "
    "HTTP/1.1\r\nhost: a\r\n\r\n",
    "OPTIONS * HTTP/1.1\r\nhost: a\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
};

static const char *const words[] = {
    "\r\n",
    "\n",
    "\r",
    "\r\n ",
    "\t",
    " ",
    ":",
    ";",
    ",",
    "0",
    "ffffffffffffffff",
    "0x",
    "+",
    "%2e%2e/",
    "%00",
    "\x80",
    "@",
    "#",
    "host: b\r\n",
    "content-length: 5\r\n",
    "transfer-encoding: chunked\r\n",
    "transfer-encoding: gzip, chunked\r\n",
    "chunked",
    "expect: x\r\n",
    "HTTP/1.1",
    "HTTP/2.0",
    "0\r\n\r\n",
};

struct text {
    char p[INPUT_BYTES_MAX];
    size_t n;
};

static void insert(struct text *t, size_t at, const char *p, size_t n)
{
    if (n > sizeof(t->p) - t->n)
        return;
    memmove(t->p + at + n, t->p + at, t->n - at);
    memcpy(t->p + at, p, n);
    t->n += n;
}

static void mutate(struct text *t, struct ps_rng *rng)
{
    size_t at = ps_rng_below(rng, t->n + 1);
    const char *other = words[ps_rng_below(rng, PS_ARRAY_LEN(words))];
    size_t n;

    switch (ps_rng_below(rng, 5)) {
    case 0: /* one byte becomes any other */
        if (at < t->n)
            t->p[at] = (char)ps_rng_below(rng, 256);
        return;
    case 1: /* a piece is lost */
        n = ps_rng_below(rng, 8) + 1;
        if (n > t->n - at)
            return;
        memmove(t->p + at, t->p + at + n, t->n - at - n);
        t->n -= n;
        return;
    case 2: /* the rest is that of another request */
        other = seeds[ps_rng_below(rng, PS_ARRAY_LEN(seeds))];
        n = ps_rng_below(rng, strlen(other));
        t->n = at;
        insert(t, at, other + n, strlen(other) - n);
        return;
    default: /* a word that means something somewhere */
        insert(t, at, other, strlen(other));
        return;
    }
}

static void run_mutations(uint64_t n, uint64_t seed)
{
    struct ps_rng rng;

    ps_rng_seed(&rng, seed);
    for (uint64_t i = 0; i < n; i++) {
        const char *from = seeds[ps_rng_below(&rng, PS_ARRAY_LEN(seeds))];
        struct text t = {.n = strlen(from)};

        memcpy(t.p, from, t.n);
        for (uint64_t k = ps_rng_below(&rng, 4); k > 0; k--)
            mutate(&t, &rng);
        LLVMFuzzerTestOneInput((const uint8_t *)t.p, t.n);
    }
    printf("%llu inputs, %llu understood\n", (unsigned long long)n,
           (unsigned long long)n_understood);
    PS_ASSERT(n_understood > n / 10);
}

static int replay(const char *path)
{
    uint8_t data[INPUT_BYTES_MAX];
    FILE *f = fopen(path, "rb");
    size_t n;

    if (f == NULL) {
        fprintf(stderr, "http_request: cannot open %s\n", path);
        return 1;
    }
    n = fread(data, 1, sizeof(data), f);
    fclose(f);
    return LLVMFuzzerTestOneInput(data, n);
}

int main(int argc, char **argv)
{
    int r = 0;

    if (argc == 4 && strcmp(argv[1], "-n") == 0) {
        run_mutations(strtoull(argv[2], NULL, 10), strtoull(argv[3], NULL, 10));
        return 0;
    }
    for (int i = 1; i < argc; i++)
        r |= replay(argv[i]);
    return r;
}

#endif
