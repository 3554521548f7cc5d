#include "common/net/conn.h"

#include <string.h>
#include <sys/socket.h>

/* ---- life ---- */

static const uint8_t allowed[] = {
    /* from: bits of what may follow */
    [PS_CONN_HEAD] = 1 << PS_CONN_BODY | 1 << PS_CONN_LINGER | 1 << PS_CONN_DEAD,
    [PS_CONN_BODY] =
        1 << PS_CONN_BUSY | 1 << PS_CONN_DRAIN | 1 << PS_CONN_LINGER | 1 << PS_CONN_DEAD,
    [PS_CONN_BUSY] = 1 << PS_CONN_HEAD | 1 << PS_CONN_LINGER | 1 << PS_CONN_DEAD,
    [PS_CONN_DRAIN] = 1 << PS_CONN_HEAD | 1 << PS_CONN_LINGER | 1 << PS_CONN_DEAD,
    [PS_CONN_LINGER] = 1 << PS_CONN_DEAD,
    [PS_CONN_DEAD] = 0,
};

void ps_conn_goto(struct ps_conn *c, enum ps_conn_state to)
{
    PS_ASSERT(allowed[c->state] & 1 << to);
    c->state = to;
    c->since_ms = c->progress_ms = ps_http_now_ms(c->srv);
    c->graced = false;
    if (to == PS_CONN_HEAD)
        c->scan = (struct ps_scan){0};
    if (to == PS_CONN_DRAIN)
        c->body_bytes = 0;
    if (to != PS_CONN_DEAD)
        ps_conn_arm(c);
}

void ps_conn_release(struct ps_conn *c)
{
    if (!c->closed || c->marked || c->on_resume)
        return;
    ps_buf_fini(&c->in);
    ps_buf_fini(&c->out);
    ps_buf_fini(&c->flight);
    ps_free(c);
}

static void on_closed(uv_handle_t *h)
{
    struct ps_conn *c = h->data;
    struct ps_http *s = c->srv;

    c->closed = true;
    ps_conn_release(c);
    ps_http_handle_closed(s);
}

void ps_conn_drop_req(struct ps_conn *c)
{
    struct ps_http_req *r = c->req;

    PS_ASSERT(r != NULL && !r->dead);
    r->dead = true;
    r->conn = NULL;
    r->next_dead = c->srv->dead_reqs;
    c->srv->dead_reqs = r;
    c->req = NULL;
    ps_conn_mark(c); /* the end of the turn frees it */
}

void ps_conn_lose_req(struct ps_conn *c)
{
    struct ps_http_req *r = c->req;

    if (r == NULL)
        return;
    ps_conn_drop_req(c);
    c->srv->on.on_gone(r, c->srv->ud);
    ps_turn_again(c->srv->loop); /* this may be after the tick, and the user has marked work */
}

void ps_conn_close(struct ps_conn *c, bool reset)
{
    struct ps_http *s = c->srv;
    uv_os_fd_t fd;

    if (c->state == PS_CONN_DEAD)
        return;
    if (reset && uv_fileno((uv_handle_t *)&c->tcp, &fd) == 0) {
        struct linger now = {.l_onoff = 1, .l_linger = 0};

        /* Can only fail for a socket that is no socket; the close is then an ordinary one. */
        (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    }
    ps_conn_goto(c, PS_CONN_DEAD);
    ps_wheel_disarm(&c->timer);
    ps_addr_drop(c);
    if (c->prev != NULL)
        c->prev->next = c->next;
    else
        s->conns = c->next;
    if (c->next != NULL)
        c->next->prev = c->prev;
    uv_close((uv_handle_t *)&c->tcp, on_closed);
    ps_conn_lose_req(c);
}

/* ---- requests ---- */

bool ps_conn_blocked(const struct ps_conn *c)
{
    /* A client that sends requests and reads no answers gets no further answers. */
    return c->state == PS_CONN_BUSY ||
           (c->state == PS_CONN_HEAD && ps_conn_pending(c) > c->srv->limits.out_soft_bytes);
}

static void begin_request(struct ps_conn *c, struct ps_http_req *r)
{
    struct ps_http *s = c->srv;
    bool go;

    c->had_request = true;
    r->conn = c;
    r->head.peer = c->peer;
    if (r->head.content_length == UINT64_MAX) {
        ps_body_init_chunked(&c->body, s->limits.body_bytes);
    } else if (r->head.content_length > s->limits.body_bytes) {
        ps_req_free(r);
        ps_conn_fault(c, PS_HTTP_BODY_TOO_LARGE);
        return;
    } else {
        ps_body_init_length(&c->body, r->head.content_length);
    }
    c->req = r;
    c->body_bytes = 0;
    ps_conn_goto(c, PS_CONN_BODY);
    go = s->on.on_head(r, &r->head, s->ud);
    PS_ASSERT(go == !r->dead); /* true: not answered yet; false: answered */
    if (go && r->head.expects_continue) {
        ps_buf_add_str(&c->out, "HTTP/1.1 100 Continue\r\n\r\n");
        ps_conn_mark(c);
    }
}

/* Reads a head from p; returns how much of it is used up. */
static size_t read_head(struct ps_conn *c, const char *p, size_t n)
{
    struct ps_http_req *r;
    enum ps_http_fault fault;
    size_t used;
    bool first = c->scan.pos == 0;
    int got = ps_scan_head(&c->scan, &c->srv->limits, p, n, &fault);

    if (got == PS_READ_MORE) {
        if (first) {
            c->since_ms = ps_http_now_ms(c->srv); /* the clock of a whole head starts */
            c->graced = false;
            ps_conn_arm(c);
        }
        return 0;
    }
    used = c->scan.pos;
    if (got == PS_READ_DONE)
        got = ps_req_parse(&r, p + c->scan.start, used - c->scan.start, c->scan.n_lines, &fault);
    if (got == PS_READ_FAULT)
        ps_conn_fault(c, fault);
    else
        begin_request(c, r);
    return used;
}

/* Reads or drains a body. False: no more can be done with this input. */
static bool read_body(struct ps_conn *c, const char *p, size_t n, size_t *used)
{
    struct ps_http *s = c->srv;
    bool drain = c->state == PS_CONN_DRAIN;
    enum ps_http_fault fault;
    size_t some = 0;
    int got = ps_body_feed(&c->body, p, n, &some, drain ? NULL : &c->req->body, &fault);

    *used += some;
    if (some > 0) {
        c->progress_ms = ps_http_now_ms(s);
        c->body_bytes += some;
    }
    if (got == PS_READ_FAULT && !drain) {
        ps_conn_fault(c, fault);
        return true;
    }
    /* Answered already: no second answer can be given, the connection ends. */
    if (got == PS_READ_FAULT || (drain && c->body_bytes > PS_DRAIN_BYTES)) {
        ps_conn_goto(c, PS_CONN_LINGER);
        ps_conn_mark(c);
        return true;
    }
    if (got == PS_READ_MORE)
        return false;
    if (drain) {
        ps_conn_goto(c, PS_CONN_HEAD);
    } else {
        struct ps_http_req *r = c->req;

        ps_conn_goto(c, PS_CONN_BUSY);
        s->on.on_body(r, r->body.data != NULL ? r->body.data : "", r->body.len, s->ud);
    }
    return true;
}

/* Goes as far as p allows; returns how much of it is used up. */
static size_t run(struct ps_conn *c, const char *p, size_t n)
{
    size_t used = 0;

    PS_ASSERT(!c->running);
    c->running = true;
    for (;;) {
        if (c->state == PS_CONN_LINGER || c->state == PS_CONN_DEAD) {
            c->discarded += n - used;
            used = n;
            break;
        }
        if (ps_conn_blocked(c) || c->doomed)
            break;
        if (c->state == PS_CONN_HEAD) {
            size_t some = used < n ? read_head(c, p + used, n - used) : 0;

            used += some;
            if (some == 0)
                break;
        } else if (!read_body(c, p + used, n - used, &used)) {
            break;
        }
    }
    c->running = false;
    return used;
}

/* ---- reading ---- */

static void on_alloc(uv_handle_t *h, size_t hint, uv_buf_t *out)
{
    struct ps_conn *c = h->data;
    size_t room = PS_READ_BYTES;

    (void)hint;
    if (ps_conn_blocked(c)) {
        PS_ASSERT(c->in.len < PS_PIPE_BYTES); /* else reading was stopped */
        room = PS_PIPE_BYTES - c->in.len;
    }
    /* One buffer for all connections: what is read is used or copied before the next read. */
    *out = uv_buf_init(c->srv->read_buf, (unsigned int)room);
}

static void stop_reading(struct ps_conn *c)
{
    if (!c->reading)
        return;
    c->reading = false;
    uv_read_stop((uv_stream_t *)&c->tcp);
    ps_conn_arm(c); /* from now on the timer looks for a client that goes away */
}

static bool may_read(const struct ps_conn *c)
{
    if (c->state == PS_CONN_DEAD)
        return false;
    if (c->state == PS_CONN_LINGER)
        return c->discarded <= c->srv->limits.linger_bytes;
    return !ps_conn_blocked(c) || c->in.len < PS_PIPE_BYTES;
}

/* After input was worked on. */
static void check_room(struct ps_conn *c)
{
    if (c->state == PS_CONN_DEAD)
        return;
    if (c->in.len == 0 && c->in.cap > 0)
        ps_buf_fini(&c->in); /* an idle connection holds no buffer */
    if (!may_read(c))
        stop_reading(c);
}

void ps_conn_hear_eof(struct ps_conn *c)
{
    c->eof = true;
    c->reading = false;
    /* Answers that are complete still go out; a request that is open, or half of one, is void. */
    if (c->req == NULL && ps_conn_pending(c) > 0) {
        if (c->state != PS_CONN_LINGER)
            ps_conn_goto(c, PS_CONN_LINGER);
        ps_conn_mark(c);
        return;
    }
    ps_conn_close(c, false);
}

static void on_read(uv_stream_t *h, ssize_t n, const uv_buf_t *buf)
{
    struct ps_conn *c = h->data;
    size_t len, used;

    if (n == 0 || c->state == PS_CONN_DEAD)
        return;
    if (n < 0) {
        if (n == UV_EOF)
            ps_conn_hear_eof(c);
        else
            ps_conn_close(c, false);
        return;
    }
    len = (size_t)n;
    if (c->in.len == 0) {
        used = run(c, buf->base, len);
        if (used < len)
            ps_buf_add(&c->in, buf->base + used, len - used);
    } else {
        ps_buf_add(&c->in, buf->base, len);
        used = run(c, c->in.data, c->in.len);
        ps_buf_consume(&c->in, used);
    }
    check_room(c);
}

static void start_reading(struct ps_conn *c)
{
    if (c->reading || c->eof)
        return;
    c->reading = true;
    if (uv_read_start((uv_stream_t *)&c->tcp, on_alloc, on_read) < 0)
        ps_conn_close(c, false);
}

void ps_conn_start(struct ps_conn *c)
{
    start_reading(c);
}

void ps_conn_resume(struct ps_conn *c)
{
    if (c->state == PS_CONN_DEAD)
        return;
    if (c->doomed) {
        ps_conn_close(c, true);
        return;
    }
    /* Also without input: a body of length 0 ends by itself. */
    ps_buf_consume(&c->in, run(c, c->in.data != NULL ? c->in.data : "", c->in.len));
    check_room(c);
    if (may_read(c))
        start_reading(c);
}
