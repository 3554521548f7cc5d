/*
 * http_tool [limit=value ..]: a server for tests of the transport; prints "port N" and serves until
 * SIGTERM or SIGINT.
 *
 *   /v1/models        "models"
 *   /hello            100 bytes
 *   /echo             the body
 *   /later?ms=N       "later" after N ms
 *   /stream?n=N&ms=M  N events, one each M ms, then [DONE]
 *   /auth             401 without an authorization header, before the body; else as /echo
 *   /stats            requests=R gone=G conns=C, where R counts heads of all requests but this kind
 */

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/net/http.h"
#include "common/net/loop.h"

enum { METHOD_NOT_ALLOWED = 405 };

struct tool {
    struct ps_loop *loop;
    struct ps_http *http;
    uint64_t n_requests, n_gone;
    struct job *finished; /* their timers are destroyed at the tick */
};

struct job { /* an answer that takes time */
    struct tool *tool;
    struct ps_http_req *req;
    struct ps_timer *timer;
    struct job *next;
    uint64_t n_left, n_sent;
    bool stream;
};

static uint64_t query_number(const char *query, const char *name, uint64_t otherwise)
{
    size_t n = strlen(name);

    for (const char *p = query; p != NULL; p = strchr(p, '&')) {
        p += *p == '&';
        if (strncmp(p, name, n) == 0 && p[n] == '=')
            return strtoull(p + n + 1, NULL, 10);
    }
    return otherwise;
}

static void finish(struct job *j)
{
    ps_timer_stop(j->timer);
    j->req = NULL;
    j->next = j->tool->finished;
    j->tool->finished = j;
}

static void on_tick(void *ud)
{
    struct tool *t = ud;

    while (t->finished != NULL) {
        struct job *j = t->finished;

        t->finished = j->next;
        ps_timer_destroy(j->timer);
        ps_free(j);
    }
}

static void on_step(void *ud)
{
    static const char done[] = "data: [DONE]\n\n";
    struct job *j = ud;
    char event[64];
    int n;

    if (!j->stream) {
        ps_http_reply(j->req, 200, "text/plain", "", "later", 5, false);
        finish(j);
        return;
    }
    if (!ps_http_begun(j->req))
        ps_http_begin(j->req, 200, "text/event-stream; charset=utf-8",
                      "cache-control: no-cache\r\nx-accel-buffering: no\r\n");
    if (j->n_left == 0) {
        ps_http_end(j->req, done, sizeof(done) - 1);
        finish(j);
        return;
    }
    j->n_left--;
    n = snprintf(event, sizeof(event), "data: {\"n\":%" PRIu64 "}\n\n", j->n_sent++);
    ps_http_write(j->req, event, (size_t)n);
}

static void begin_job(struct tool *t, struct ps_http_req *r, bool stream)
{
    const char *query = ps_http_head(r)->query;
    uint64_t ms = query_number(query, "ms", 1);
    struct job *j = ps_calloc(1, sizeof(*j));

    j->tool = t;
    j->req = r;
    j->stream = stream;
    j->n_left = query_number(query, "n", 3);
    j->timer = ps_timer_create(t->loop, on_step, j);
    ps_http_set_ud(r, j);
    ps_timer_start(j->timer, ms, ms > 0 ? ms : 1);
}

static bool on_head(struct ps_http_req *r, const struct ps_http_head *h, void *ud)
{
    struct tool *t = ud;

    if (strcmp(h->path, "/stats") != 0)
        t->n_requests++;
    if (h->path_bad) {
        ps_http_reply(r, 400, "text/plain", "", "path", 4, false);
        return false;
    }
    if (strcmp(h->method, "CONNECT") == 0 || strcmp(h->method, "TRACE") == 0) {
        ps_http_reply(r, METHOD_NOT_ALLOWED, "text/plain", "allow: GET\r\n", "", 0, false);
        return false;
    }
    if (strcmp(h->path, "/auth") == 0 && ps_http_header(r, "authorization") == NULL) {
        ps_http_reply(r, 401, "text/plain", "www-authenticate: Bearer realm=\"api\"\r\n", "key", 3,
                      false);
        return false;
    }
    return true;
}

static void on_body(struct ps_http_req *r, const char *body, size_t len, void *ud)
{
    struct tool *t = ud;
    const char *path = ps_http_head(r)->path;
    char text[128];

    if (strcmp(path, "/v1/models") == 0) {
        ps_http_reply(r, 200, "text/plain", "", "models", 6, false);
    } else if (strcmp(path, "/hello") == 0) {
        memset(text, 'h', 100);
        ps_http_reply(r, 200, "text/plain", "", text, 100, false);
    } else if (strcmp(path, "/echo") == 0 || strcmp(path, "/auth") == 0) {
        ps_http_reply(r, 200, "text/plain", "", body, len, false);
    } else if (strcmp(path, "/later") == 0) {
        begin_job(t, r, false);
    } else if (strcmp(path, "/stream") == 0) {
        begin_job(t, r, true);
    } else if (strcmp(path, "/stats") == 0) {
        int n = snprintf(text, sizeof(text), "requests=%" PRIu64 " gone=%" PRIu64 " conns=%" PRIu32,
                         t->n_requests, t->n_gone, ps_http_n_conns(t->http));

        ps_http_reply(r, 200, "text/plain", "", text, (size_t)n, false);
    } else {
        ps_http_reply(r, 404, "text/plain", "", "unknown", 7, false);
    }
}

static void on_gone(struct ps_http_req *r, void *ud)
{
    struct tool *t = ud;
    struct job *j = ps_http_ud(r);

    t->n_gone++;
    if (j != NULL)
        finish(j);
}

static void on_drained(struct ps_http_req *r, void *ud)
{
    (void)r; /* the jobs go by time */
    (void)ud;
}

static void on_fault(enum ps_http_fault f, uint16_t *out_status, struct ps_buf *body, void *ud)
{
    static const struct {
        uint16_t status;
        const char *code;
    } rows[] = {
        [PS_HTTP_BAD_REQUEST] = {400, "bad_http_request"},
        [PS_HTTP_URI_TOO_LONG] = {414, "uri_too_long"},
        [PS_HTTP_HEAD_TOO_LARGE] = {431, "headers_too_large"},
        [PS_HTTP_BODY_TOO_LARGE] = {413, "request_too_large"},
        [PS_HTTP_VERSION] = {505, "http_version_not_supported"},
        [PS_HTTP_TE_UNKNOWN] = {501, "not_implemented"},
        [PS_HTTP_EXPECT] = {417, "expectation_failed"},
        [PS_HTTP_TIMEOUT] = {408, "client_timeout"},
        [PS_HTTP_OVERLOAD] = {503, "overloaded"},
    };

    (void)ud;
    *out_status = rows[f].status;
    ps_buf_addf(body, "{\"code\":\"%s\"}", rows[f].code);
}

static bool set_limit(struct ps_http_limits *l, const char *arg)
{
    struct {
        const char *name;
        uint32_t *value;
    } rows[] = {
        {"n_conns", &l->n_conns},
        {"n_conns_per_addr", &l->n_conns_per_addr},
        {"first_byte_ms", &l->first_byte_ms},
        {"head_ms", &l->head_ms},
        {"body_base_ms", &l->body_base_ms},
        {"body_idle_ms", &l->body_idle_ms},
        {"idle_ms", &l->idle_ms},
    };
    const char *eq = strchr(arg, '=');

    for (size_t i = 0; eq != NULL && i < PS_ARRAY_LEN(rows); i++) {
        if (strlen(rows[i].name) == (size_t)(eq - arg) &&
            strncmp(arg, rows[i].name, (size_t)(eq - arg)) == 0) {
            *rows[i].value = (uint32_t)strtoul(eq + 1, NULL, 10);
            return true;
        }
    }
    return false;
}

static void on_signal(void *ud)
{
    ps_loop_stop(ud);
}

int main(int argc, char **argv)
{
    static const struct ps_http_handler handler = {.on_head = on_head,
                                                   .on_body = on_body,
                                                   .on_gone = on_gone,
                                                   .on_drained = on_drained,
                                                   .on_fault = on_fault};
    struct ps_http_limits limits;
    struct tool t = {0};
    uint16_t port;

    ps_http_limits_default(&limits);
    for (int i = 1; i < argc; i++) {
        if (!set_limit(&limits, argv[i])) {
            fprintf(stderr, "http_tool: no such limit: %s\n", argv[i]);
            return 2;
        }
    }
    if (ps_loop_create(&t.loop) < 0 || ps_loop_on_signal(t.loop, SIGTERM, on_signal, t.loop) < 0 ||
        ps_loop_on_signal(t.loop, SIGINT, on_signal, t.loop) < 0 ||
        ps_http_create(&t.http, t.loop, &limits, &handler, &t) < 0 ||
        ps_http_listen(t.http, "127.0.0.1", 0, false, &port) < 0) {
        fprintf(stderr, "http_tool: cannot listen (%s)\n", ps_fault_where());
        return 1;
    }
    ps_loop_on_tick(t.loop, on_tick, &t);
    printf("port %u\n", port);
    fflush(stdout);
    ps_loop_run(t.loop);
    ps_http_destroy(t.http);
    on_tick(&t);
    ps_loop_destroy(t.loop);
    return 0;
}
