#pragma once

/*
 * For tests: a server with a few paths, and a client on the same thread that turns the server's loop
 * while it waits. Every wait is bounded by WAIT_MS.
 */

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "common/net/conn.h"
#include "common/net/loop.h"
#include "common/test.h"

enum { WAIT_MS = 20000 }; /* for a machine that does much else */

struct world {
    struct ps_loop *loop;
    struct ps_http *http;
    uint16_t port;
    struct ps_http_req *held[16]; /* requests to /later and /stream, in order */
    uint32_t n_held, n_heads, n_bodies, n_gone, n_drained, n_faults;
    struct ps_buf got; /* what a client read last */
};

/* ---- the server's side ---- */

static inline bool on_head(struct ps_http_req *r, const struct ps_http_head *h, void *ud)
{
    struct world *w = ud;

    w->n_heads++;
    if (strcmp(h->path, "/refuse") == 0) {
        ps_http_reply(r, 401, "text/plain", "x-a: b\r\n", "no", 2, false);
        assert_string_equal(h->path, "/refuse"); /* still readable in this turn */
        return false;
    }
    return true;
}

static inline void on_body(struct ps_http_req *r, const char *body, size_t len, void *ud)
{
    static char big[300 * 1000];
    struct world *w = ud;
    const char *path = ps_http_head(r)->path;

    w->n_bodies++;
    if (strcmp(path, "/echo") == 0) {
        ps_http_reply(r, 200, "text/plain", "", body, len, false);
    } else if (strcmp(path, "/big") == 0) {
        ps_http_reply(r, 200, "text/plain", "", big, sizeof(big), false);
    } else if (strcmp(path, "/close") == 0) {
        ps_http_reply(r, 200, "text/plain", "", "bye", 3, true);
    } else if (strcmp(path, "/later") == 0 || strcmp(path, "/stream") == 0) {
        assert_true(w->n_held < PS_ARRAY_LEN(w->held));
        ps_http_set_ud(r, w);
        w->held[w->n_held++] = r;
    } else {
        ps_http_reply(r, 200, "text/plain", "", path, strlen(path), false);
    }
}

static inline void on_gone(struct ps_http_req *r, void *ud)
{
    struct world *w = ud;

    w->n_gone++;
    if (w->n_held > 0 && r == w->held[w->n_held - 1])
        assert_ptr_equal(ps_http_ud(r), w);
}

static inline void on_drained(struct ps_http_req *r, void *ud)
{
    struct world *w = ud;

    assert_int_equal(ps_http_pending(r), 0);
    w->n_drained++;
}

static inline void on_fault(enum ps_http_fault f, uint16_t *out_status, struct ps_buf *body,
                            void *ud)
{
    static const uint16_t status[] = {
        [PS_HTTP_BAD_REQUEST] = 400,    [PS_HTTP_URI_TOO_LONG] = 414,
        [PS_HTTP_HEAD_TOO_LARGE] = 431, [PS_HTTP_BODY_TOO_LARGE] = 413,
        [PS_HTTP_VERSION] = 505,        [PS_HTTP_TE_UNKNOWN] = 501,
        [PS_HTTP_EXPECT] = 417,         [PS_HTTP_TIMEOUT] = 408,
        [PS_HTTP_OVERLOAD] = 503,
    };
    struct world *w = ud;

    w->n_faults++;
    *out_status = status[f];
    ps_buf_add_str(body, "{}");
}

static inline void on_fault_headers(struct ps_buf *lines, void *ud)
{
    (void)ud;
    ps_buf_add_str(lines, "x-request-id: f\r\n");
}

PS_UNUSED static const struct ps_http_handler handler = {
    .on_head = on_head,
    .on_body = on_body,
    .on_gone = on_gone,
    .on_drained = on_drained,
    .on_fault = on_fault,
    .on_fault_headers = on_fault_headers,
};

static inline struct ps_http_limits small_limits(void)
{
    struct ps_http_limits l;

    ps_http_limits_default(&l);
    l.body_bytes = 100 * 1000;
    l.out_soft_bytes = 256 * 1024;
    l.out_hard_bytes = 16 * 1024 * 1024;
    return l;
}

static inline void open_world(struct world *w, const struct ps_http_limits *l)
{
    *w = (struct world){0};
    assert_int_equal(ps_loop_create(&w->loop), 0);
    assert_int_equal(ps_http_create(&w->http, w->loop, l, &handler, w), 0);
    assert_int_equal(ps_http_listen(w->http, "127.0.0.1", 0, false, &w->port), 0);
}

static inline void close_world(struct world *w)
{
    ps_http_destroy(w->http);
    ps_loop_destroy(w->loop);
    ps_buf_fini(&w->got);
}

/* ---- the client's side ---- */

static inline uint64_t clock_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static inline void turn(struct world *w)
{
    uv_run(ps_loop_uv(w->loop), UV_RUN_NOWAIT);
}

/* Turns the loop until cond is true; fails when it does not become so. */
#define UNTIL(w, cond) \
    do { \
        uint64_t until_ = clock_ms() + WAIT_MS; \
        while (!(cond)) { \
            assert_true(clock_ms() < until_); \
            turn(w); \
        } \
    } while (0)

static inline int dial_with(struct world *w, int rcvbuf_bytes)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(w->port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    if (rcvbuf_bytes > 0)
        assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &rcvbuf_bytes, sizeof(rcvbuf_bytes)),
                         0);
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    return fd;
}

static inline int dial(struct world *w)
{
    return dial_with(w, 0);
}

static inline void send_str(int fd, const char *s)
{
    assert_int_equal(send(fd, s, strlen(s), MSG_NOSIGNAL), (ssize_t)strlen(s));
}

enum end { OPEN, EOF_SEEN, RESET };

/* Reads what is there into w->got. */
static inline enum end sip(struct world *w, int fd)
{
    char buf[65536];
    ssize_t n;

    turn(w);
    n = recv(fd, buf, sizeof(buf), MSG_DONTWAIT);
    if (n > 0)
        ps_buf_add(&w->got, buf, (size_t)n);
    if (n == 0)
        return EOF_SEEN;
    return n < 0 && errno == ECONNRESET ? RESET : OPEN;
}

/* Until the text ends with tail. */
static const char *hear(struct world *w, int fd, const char *tail)
{
    uint64_t until = clock_ms() + WAIT_MS;
    size_t n = strlen(tail);

    ps_buf_clear(&w->got);
    ps_buf_reserve(&w->got, 1);
    w->got.data[0] = '\0';
    while (w->got.len < n || strcmp(w->got.data + w->got.len - n, tail) != 0) {
        if (clock_ms() >= until || sip(w, fd) != OPEN)
            fail_msg("wanted ...%s, got %s", tail, w->got.data);
    }
    return w->got.data;
}

static inline enum end hear_end(struct world *w, int fd)
{
    uint64_t until = clock_ms() + WAIT_MS;
    enum end e;

    ps_buf_clear(&w->got);
    ps_buf_reserve(&w->got, 1);
    while ((e = sip(w, fd)) == OPEN)
        assert_true(clock_ms() < until);
    return e;
}

static inline void hang_up(struct world *w, int fd)
{
    close(fd);
    UNTIL(w, w->http->conns == NULL);
    assert_int_equal(ps_http_n_conns(w->http), 0);
}

static inline uint32_t n_of(const char *s, const char *what)
{
    uint32_t n = 0;

    for (const char *p = strstr(s, what); p != NULL; p = strstr(p + 1, what))
        n++;
    return n;
}

static inline void cut_date(char *s)
{
    char *p;

    while ((p = strstr(s, "date: ")) != NULL) {
        char *e = strstr(p, "\r\n") + 2;

        memmove(p, e, strlen(e) + 1);
    }
}

#define H "host: a\r\n"
