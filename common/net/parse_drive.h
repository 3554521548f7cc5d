#pragma once

/*
 * For tests and the fuzzer: reads a byte string as a connection would, cut into pieces, and writes
 * down what it was understood to be. Two cuts of one string must give the same text.
 */

#include <inttypes.h>
#include <string.h>

#include "common/net/parse.h"

struct drive {
    struct ps_http_limits limits;
    struct ps_scan scan;
    struct ps_body body;
    struct ps_http_req *req; /* its body is being read */
    struct ps_buf in;
    struct ps_buf *log;
    bool ended;
};

static inline void drive_log_req(struct drive *d)
{
    const struct ps_http_head *h = &d->req->head;

    ps_buf_addf(d->log, "%s target=%s path=%s%s query=%s %s%s", h->method, h->target, h->path,
                h->path_bad ? "(bad)" : "", h->query, h->http10 ? "1.0 " : "",
                d->req->keep ? "keep" : "close");
    for (uint32_t i = 0; i < d->req->n_headers; i++)
        ps_buf_addf(d->log, " [%s=%s]", d->req->headers[i].name, d->req->headers[i].value);
    ps_buf_add_str(d->log, " body=");
}

static inline void drive_fault(struct drive *d, enum ps_http_fault f)
{
    ps_buf_addf(d->log, "FAULT %d\n", (int)f);
    d->ended = true;
}

static inline bool drive_head(struct drive *d, const char *p, size_t n, size_t *used)
{
    enum ps_http_fault f = PS_HTTP_OVERLOAD;
    int r;

    if (n == 0)
        return false;
    r = ps_scan_head(&d->scan, &d->limits, p, n, &f);
    if (r == PS_READ_MORE)
        return false;
    if (r == PS_READ_DONE)
        r = ps_req_parse(&d->req, p + d->scan.start, d->scan.pos - d->scan.start, d->scan.n_lines,
                         &f);
    if (r == PS_READ_FAULT) {
        drive_fault(d, f);
        return false;
    }
    *used += d->scan.pos;
    d->scan = (struct ps_scan){0};
    drive_log_req(d);
    if (d->req->head.content_length == UINT64_MAX) {
        ps_body_init_chunked(&d->body, d->limits.body_bytes);
        return true;
    }
    if (d->req->head.content_length > d->limits.body_bytes) {
        drive_fault(d, PS_HTTP_BODY_TOO_LARGE);
        return false;
    }
    ps_body_init_length(&d->body, d->req->head.content_length);
    return true;
}

static inline bool drive_body(struct drive *d, const char *p, size_t n, size_t *used)
{
    enum ps_http_fault f = PS_HTTP_OVERLOAD;
    size_t some = 0;
    int r = ps_body_feed(&d->body, p, n, &some, &d->req->body, &f);

    *used += some;
    if (r == PS_READ_FAULT)
        drive_fault(d, f);
    if (r != PS_READ_DONE)
        return false;
    ps_buf_addf(d->log, "%zu:", d->req->body.len);
    ps_buf_add(d->log, d->req->body.data, d->req->body.len);
    ps_buf_add_byte(d->log, '\n');
    ps_req_free(d->req);
    d->req = NULL;
    return true;
}

static inline void drive_feed(struct drive *d, const char *p, size_t n)
{
    size_t used = 0;
    bool go = true;

    ps_buf_add(&d->in, p, n);
    while (go && !d->ended)
        go = d->req == NULL ? drive_head(d, d->in.data + used, d->in.len - used, &used)
                            : drive_body(d, d->in.data + used, d->in.len - used, &used);
    ps_buf_consume(&d->in, used);
}

static inline void drive_end(struct drive *d)
{
    if (!d->ended && (d->req != NULL || d->in.len > 0))
        ps_buf_add_str(d->log, "MORE\n");
    ps_req_free(d->req);
    ps_buf_fini(&d->in);
}

static inline struct drive drive_begin(const struct ps_http_limits *l, struct ps_buf *log)
{
    struct drive d = {.limits = *l, .log = log};

    ps_buf_clear(log);
    ps_buf_reserve(log, 1); /* text even when nothing is written */
    return d;
}

/* Cut at one place; at == 0 or n: whole. */
static inline void drive_cut(const struct ps_http_limits *l, const char *p, size_t n, size_t at,
                             struct ps_buf *log)
{
    struct drive d = drive_begin(l, log);

    if (at > 0)
        drive_feed(&d, p, at);
    drive_feed(&d, p + at, n - at);
    drive_end(&d);
}

static inline void drive_bytes(const struct ps_http_limits *l, const char *p, size_t n,
                               struct ps_buf *log)
{
    struct drive d = drive_begin(l, log);

    for (size_t i = 0; i < n; i++)
        drive_feed(&d, p + i, 1);
    drive_end(&d);
}
