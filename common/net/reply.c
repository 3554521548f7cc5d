#include "common/net/conn.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* IANA's words: some clients decide by them whether to try again. */
static const struct {
    uint16_t status;
    const char *reason;
} reasons[] = {
    {200, "OK"},
    {201, "Created"},
    {202, "Accepted"},
    {204, "No Content"},
    {304, "Not Modified"},
    {400, "Bad Request"},
    {401, "Unauthorized"},
    {402, "Payment Required"},
    {403, "Forbidden"},
    {404, "Not Found"},
    {405, "Method Not Allowed"},
    {406, "Not Acceptable"},
    {408, "Request Timeout"},
    {409, "Conflict"},
    {410, "Gone"},
    {411, "Length Required"},
    {413, "Content Too Large"},
    {414, "URI Too Long"},
    {415, "Unsupported Media Type"},
    {417, "Expectation Failed"},
    {421, "Misdirected Request"},
    {422, "Unprocessable Content"},
    {429, "Too Many Requests"},
    {431, "Request Header Fields Too Large"},
    {500, "Internal Server Error"},
    {501, "Not Implemented"},
    {502, "Bad Gateway"},
    {503, "Service Unavailable"},
    {504, "Gateway Timeout"},
    {505, "HTTP Version Not Supported"},
};

static const char *reason_of(uint16_t status)
{
    for (size_t i = 0; i < PS_ARRAY_LEN(reasons); i++)
        if (reasons[i].status == status)
            return reasons[i].reason;
    return "Unknown"; /* 529 of one API family is in no registry */
}

enum { LENGTH_CHUNKED = -1, LENGTH_NONE = -2 };

struct answer {
    uint16_t status;
    const char *type;  /* NULL: no content-type */
    const char *extra; /* whole header lines */
    int64_t length;    /* or LENGTH_CHUNKED, LENGTH_NONE: ends with the connection */
    bool close, http10;
};

static void put_head(struct ps_conn *c, const struct answer *a)
{
    struct ps_buf *o = &c->out;
    size_t n_extra = strlen(a->extra);

    PS_ASSERT(a->status >= 200 && a->status <= 599);
    PS_ASSERT(n_extra == 0 || (n_extra > 2 && memcmp(a->extra + n_extra - 2, "\r\n", 2) == 0));
    ps_buf_addf(o, "HTTP/1.1 %u %s\r\n", a->status, reason_of(a->status));
    if (a->type != NULL)
        ps_buf_addf(o, "content-type: %s\r\n", a->type);
    ps_buf_add(o, a->extra, n_extra);
    if (a->length == LENGTH_CHUNKED)
        ps_buf_add_str(o, "transfer-encoding: chunked\r\n");
    else if (a->length >= 0 && a->status != 204)
        ps_buf_addf(o, "content-length: %" PRId64 "\r\n", a->length);
    ps_buf_addf(o, "date: %s\r\n", ps_http_date(c->srv));
    if (a->close)
        ps_buf_add_str(o, "connection: close\r\n");
    else if (a->http10)
        ps_buf_add_str(o, "connection: keep-alive\r\n");
    ps_buf_add_str(o, "\r\n");
}

/* Whether the connection can go on after an answer that is given now. */
static bool may_keep(const struct ps_conn *c, const struct ps_http_req *r, bool close)
{
    if (!r->keep || close || c->srv->closing || c->doomed)
        return false;
    if (c->state == PS_CONN_BUSY)
        return true;
    /* The body is not read. A client that waits for 100 may send it or not: no telling what is next. */
    return !r->head.expects_continue &&
           (r->head.content_length == UINT64_MAX || r->head.content_length <= PS_DRAIN_BYTES);
}

static struct ps_conn *open_conn(struct ps_http_req *r)
{
    PS_ASSERT(!r->dead && r->conn != NULL && r->conn->req == r);
    return r->conn;
}

/* The last byte of the answer is queued. */
static void finish(struct ps_conn *c)
{
    ps_conn_drop_req(c);
    if (!c->keep)
        ps_conn_goto(c, PS_CONN_LINGER);
    else
        ps_conn_goto(c, c->state == PS_CONN_BUSY ? PS_CONN_HEAD : PS_CONN_DRAIN);
    ps_conn_mark(c);
    if (!c->running)
        ps_http_mark_resume(c);
}

void ps_http_reply(struct ps_http_req *r, uint16_t status, const char *content_type,
                   const char *extra_headers, const void *body, size_t len, bool close)
{
    struct ps_conn *c = open_conn(r);
    struct answer a = {.status = status,
                       .type = content_type,
                       .extra = extra_headers,
                       .length = (int64_t)len,
                       .http10 = r->head.http10};

    PS_ASSERT(!r->begun && (status != 204 || len == 0));
    c->keep = may_keep(c, r, close);
    a.close = !c->keep;
    if (!c->doomed) {
        put_head(c, &a);
        if (!r->head.is_head)
            ps_buf_add(&c->out, body, len);
    }
    finish(c);
}

void ps_http_begin(struct ps_http_req *r, uint16_t status, const char *content_type,
                   const char *extra_headers)
{
    struct ps_conn *c = open_conn(r);
    struct answer a = {.status = status,
                       .type = content_type,
                       .extra = extra_headers,
                       .length = r->head.http10 ? LENGTH_NONE : LENGTH_CHUNKED,
                       .http10 = r->head.http10};

    PS_ASSERT(!r->begun);
    r->begun = true;
    r->chunked = !r->head.http10;
    c->keep = may_keep(c, r, r->head.http10);
    a.close = !c->keep;
    if (c->doomed)
        return;
    put_head(c, &a);
    ps_conn_mark(c);
}

/* One chunk. False: the client reads too slowly and is given up. */
static bool put_chunk(struct ps_conn *c, const struct ps_http_req *r, const void *p, size_t len)
{
    const struct ps_http_limits *l = &c->srv->limits;
    enum { FRAME_BYTES = 32 }; /* more than the size line, its end and the last chunk need */
    size_t pending = ps_conn_pending(c);
    char line[24];
    int n;

    if (len == 0 || r->head.is_head || c->doomed)
        return !c->doomed;
    /* With nothing unsent any length goes: what one write brings is the user's to bound, as in a reply. */
    if (pending > 0 && pending + len + FRAME_BYTES > l->out_hard_bytes) {
        c->doomed = true; /* on_gone comes in the next turn, never from inside this call */
        ps_http_mark_resume(c);
        return false;
    }
    if (pending + len > l->out_soft_bytes)
        c->over_soft = true;
    if (!r->chunked) {
        ps_buf_add(&c->out, p, len);
        return true;
    }
    n = snprintf(line, sizeof(line), "%zx\r\n", len);
    ps_buf_add(&c->out, line, (size_t)n);
    ps_buf_add(&c->out, p, len);
    ps_buf_add(&c->out, "\r\n", 2);
    return true;
}

void ps_http_write(struct ps_http_req *r, const void *p, size_t len)
{
    struct ps_conn *c = open_conn(r);

    PS_ASSERT(r->begun);
    if (put_chunk(c, r, p, len))
        ps_conn_mark(c);
}

void ps_http_end(struct ps_http_req *r, const void *p, size_t len)
{
    struct ps_conn *c = open_conn(r);

    PS_ASSERT(r->begun);
    if (put_chunk(c, r, p, len) && r->chunked && !r->head.is_head)
        ps_buf_add_str(&c->out, "0\r\n\r\n");
    finish(c);
}

void ps_http_abort(struct ps_http_req *r)
{
    struct ps_conn *c = open_conn(r);

    ps_conn_drop_req(c);
    ps_conn_close(c, true);
}

size_t ps_http_pending(const struct ps_http_req *r)
{
    return r->conn != NULL ? ps_conn_pending(r->conn) : 0;
}

bool ps_http_begun(const struct ps_http_req *r)
{
    return r->begun;
}

void ps_conn_fault(struct ps_conn *c, enum ps_http_fault f)
{
    struct ps_http *s = c->srv;
    struct ps_buf body = PS_BUF_INIT, extra = PS_BUF_INIT;
    struct answer a = {.status = 400, .type = "application/json", .extra = "", .close = true};
    bool begun = c->req != NULL && c->req->begun;

    ps_conn_lose_req(c);
    if (c->state == PS_CONN_DEAD)
        return;
    if (begun) { /* an answer was begun before the body was read: no second one into the middle of it */
        ps_conn_close(c, true);
        return;
    }
    s->on.on_fault(f, &a.status, &body, s->ud);
    if (s->on.on_fault_headers != NULL)
        s->on.on_fault_headers(&extra, s->ud);
    if (extra.len > 0)
        a.extra = extra.data;
    a.length = (int64_t)body.len;
    put_head(c, &a);
    ps_buf_add(&c->out, body.data, body.len);
    ps_buf_fini(&body);
    ps_buf_fini(&extra);
    ps_conn_goto(c, PS_CONN_LINGER);
    ps_conn_mark(c);
}
