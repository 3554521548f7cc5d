#include "common/net/conn.h"

#include <poll.h>

#define NEVER UINT64_MAX

/*
 * When something is wrong if nothing happens until then.
 *
 * A minimum rate is asked of a body after body_base_ms: every body_min_bytes_per_s received bytes buy
 * one more second, so that a declared length alone buys nothing.
 */
static uint64_t state_due(const struct ps_conn *c)
{
    const struct ps_http_limits *l = &c->srv->limits;
    uint64_t rate;

    switch (c->state) {
    case PS_CONN_HEAD:
        if (c->scan.pos > 0)
            return c->since_ms + l->head_ms;
        if (ps_conn_pending(c) > 0)
            return NEVER;
        return c->since_ms + (c->had_request ? l->idle_ms : l->first_byte_ms);
    case PS_CONN_BODY:
    case PS_CONN_DRAIN:
        rate = ps_max_u32(l->body_min_bytes_per_s, 1);
        return ps_min_u64(c->progress_ms + l->body_idle_ms,
                          c->since_ms + l->body_base_ms + c->body_bytes * 1000 / rate);
    case PS_CONN_LINGER:
        return ps_conn_pending(c) > 0 ? NEVER : c->since_ms + l->linger_ms;
    default:
        return NEVER;
    }
}

static uint64_t stall_due(const struct ps_conn *c)
{
    return c->writing ? c->stall_ms + c->srv->limits.write_stall_ms : NEVER;
}

void ps_conn_arm(struct ps_conn *c)
{
    uint64_t due = ps_min_u64(state_due(c), stall_due(c));

    /* While nothing is read libuv reports no end of the connection: look for it now and then. */
    if (!c->reading && !c->eof)
        due = ps_min_u64(due, ps_http_now_ms(c->srv) + PS_COARSE_MS);
    if (due == NEVER)
        ps_wheel_disarm(&c->timer);
    else
        ps_wheel_arm(&c->srv->wheel, &c->timer, due);
}

/* What poll() sees now: of events, and errors. */
static int look(struct ps_conn *c, short events)
{
    struct pollfd p = {.events = events};

    if (uv_fileno((uv_handle_t *)&c->tcp, &p.fd) < 0 || poll(&p, 1, 0) <= 0)
        return 0;
    return p.revents;
}

static void look_for_eof(struct ps_conn *c)
{
    int seen = c->reading || c->eof ? 0 : look(c, POLLRDHUP);

    if (seen == 0)
        return;
    if (seen & (POLLERR | POLLHUP))
        ps_conn_close(c, false);
    else
        ps_conn_hear_eof(c);
}

static void expire(struct ps_conn *c)
{
    switch (c->state) {
    case PS_CONN_HEAD:
        if (c->scan.pos > 0)
            ps_conn_fault(c, PS_HTTP_TIMEOUT);
        else
            ps_conn_close(c, false);
        return;
    case PS_CONN_BODY:
        ps_conn_fault(c, PS_HTTP_TIMEOUT);
        return;
    default: /* answered: whoever does not read or close now is cut */
        ps_conn_close(c, true);
        return;
    }
}

void ps_conn_on_timer(struct ps_wheel_node *n, void *ud)
{
    struct ps_conn *c = PS_CONTAINER(n, struct ps_conn, timer);
    uint64_t now = ps_http_now_ms(c->srv);

    (void)ud;
    look_for_eof(c);
    if (c->state == PS_CONN_DEAD)
        return;
    if (now >= stall_due(c)) {
        size_t left = uv_stream_get_write_queue_size((uv_stream_t *)&c->tcp);

        if (left >= c->stall_bytes) {
            ps_conn_close(c, true);
            return;
        }
        c->stall_bytes = left; /* it moves: a new term begins, so a dead peer is cut within two */
        c->stall_ms = now;
    }
    if (now >= state_due(c)) {
        /* Timers run before sockets are read: after a long turn of ours the input may be there. */
        if (!c->graced && c->reading && look(c, POLLIN) != 0) {
            c->graced = true;
            ps_wheel_arm(&c->srv->wheel, &c->timer, now + PS_COARSE_MS);
            return;
        }
        expire(c);
    }
    if (c->state != PS_CONN_DEAD)
        ps_conn_arm(c);
}
