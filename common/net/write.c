#include "common/net/conn.h"

#include <sys/socket.h>

size_t ps_conn_pending(const struct ps_conn *c)
{
    size_t n = c->out.len;

    if (c->writing)
        n += uv_stream_get_write_queue_size((const uv_stream_t *)&c->tcp);
    return n;
}

void ps_conn_mark(struct ps_conn *c)
{
    if (c->marked)
        return;
    c->marked = true;
    c->next_mark = c->srv->marked;
    c->srv->marked = c;
}

static void give_back(struct ps_buf *b)
{
    if (b->cap > PS_KEEP_CAP)
        ps_buf_fini(b);
    else
        ps_buf_clear(b);
}

static void on_write(uv_write_t *w, int status)
{
    struct ps_conn *c = w->data;

    c->writing = false;
    if (c->state == PS_CONN_DEAD)
        return;
    if (status < 0) {
        ps_conn_close(c, false);
        return;
    }
    give_back(&c->flight);
    ps_conn_mark(c);
}

/* Hands the kernel what it takes and libuv the rest. False: the connection broke. */
static bool push(struct ps_conn *c)
{
    uv_stream_t *stream = (uv_stream_t *)&c->tcp;
    uv_buf_t buf = uv_buf_init(c->out.data, (unsigned int)c->out.len);
    struct ps_buf empty;
    int r = uv_try_write(stream, &buf, 1);

    if (r == UV_EAGAIN)
        r = 0;
    if (r < 0)
        return false;
    if ((size_t)r == c->out.len) {
        give_back(&c->out);
        return true;
    }
    empty = c->flight;
    c->flight = c->out;
    c->out = empty;
    buf = uv_buf_init(c->flight.data + r, (unsigned int)(c->flight.len - (size_t)r));
    c->write.data = c;
    if (uv_write(&c->write, stream, &buf, 1, on_write) < 0)
        return false;
    c->writing = true;
    c->stall_ms = ps_http_now_ms(c->srv);
    c->stall_bytes = uv_stream_get_write_queue_size(stream);
    return true;
}

/* Nothing is left to write. */
static void drained(struct ps_conn *c)
{
    struct ps_http *s = c->srv;
    uv_os_fd_t fd;

    if (c->over_soft) {
        c->over_soft = false;
        if (c->req != NULL) {
            s->on.on_drained(c->req, s->ud);
            ps_turn_again(s->loop); /* the tick of this turn is over */
        }
    }
    if (c->close_after || (c->state == PS_CONN_LINGER && c->eof)) {
        ps_conn_close(c, false);
        return;
    }
    if (c->state == PS_CONN_LINGER && !c->fin) {
        c->fin = true;
        c->since_ms = ps_http_now_ms(s); /* the client has linger_ms to read and close */
        if (uv_fileno((uv_handle_t *)&c->tcp, &fd) < 0 || shutdown(fd, SHUT_WR) < 0)
            ps_conn_close(c, false); /* not connected any more */
    }
}

void ps_conn_flush(struct ps_conn *c)
{
    if (c->state == PS_CONN_DEAD || c->doomed)
        return;
    if (!c->writing && c->out.len > 0 && !push(c)) {
        ps_conn_close(c, false);
        return;
    }
    if (ps_conn_pending(c) == 0)
        drained(c);
    if (c->state == PS_CONN_DEAD)
        return;
    if (c->state == PS_CONN_HEAD && c->in.len > 0 && !ps_conn_blocked(c))
        ps_http_mark_resume(c); /* it waited for output to go */
    ps_conn_arm(c);
}
