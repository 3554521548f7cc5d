#include "common/mq/mq.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include <zmq.h>

#include "common/mq/zap.h"

enum {
    HWM = 256,               /* messages per peer and direction; granularity is half of it */
    SOCKET_BYTES = 64 << 10, /* kernel buffers: larger ones hide a stalled peer */
    BACKLOG = 4096,
    HANDSHAKE_MS = 3000, /* slow strangers are cut; the library's default holds them 30 s */
    MAXRT_MS = 5000,
    FRAME_MAX = 64 << 20,
    OPT_ZAP_ENFORCE_DOMAIN = 93, /* in the library, not in every packaged header */
};

struct ps_mq {
    void *ctx;
    _Atomic uint32_t n_monitors; /* unique names */
};

struct ps_mq_sock {
    void *sock, *monitor; /* monitor: DEALER only */
    bool is_router, lost;
    zmq_msg_t last; /* keeps the data of the last receive */
};

struct ps_mq_set {
    zmq_pollitem_t *items;
    uint32_t n, cap;
};

int ps_mq_raise_nofile(uint64_t need)
{
    struct rlimit lim;

    if (getrlimit(RLIMIT_NOFILE, &lim) < 0)
        return PS_FAULT(-errno);
    if (lim.rlim_cur < lim.rlim_max) {
        lim.rlim_cur = lim.rlim_max;
        if (setrlimit(RLIMIT_NOFILE, &lim) < 0)
            return PS_FAULT(-errno);
    }
    return lim.rlim_cur >= need ? 0 : PS_FAULT(-EMFILE);
}

bool ps_mq_host_is_loopback(const char *host)
{
    return strncmp(host, "127.", 4) == 0 || strcmp(host, "localhost") == 0 ||
           strcmp(host, "::1") == 0 || strcmp(host, "[::1]") == 0;
}

int ps_mq_create(struct ps_mq **out, uint32_t n_sockets_max)
{
    struct ps_mq *q = ps_calloc(1, sizeof(*q));

    q->ctx = zmq_ctx_new();
    if (q->ctx == NULL || zmq_ctx_set(q->ctx, ZMQ_MAX_SOCKETS, (int)n_sockets_max) < 0 ||
        zmq_ctx_set(q->ctx, ZMQ_BLOCKY, 0) < 0) {
        int e = errno;

        ps_mq_destroy(q);
        return PS_FAULT(e > 0 ? -e : -EIO);
    }
    *out = q;
    return 0;
}

void ps_mq_destroy(struct ps_mq *q)
{
    if (q == NULL)
        return;
    if (q->ctx != NULL) {
        while (zmq_ctx_term(q->ctx) < 0 && errno == EINTR)
            continue; /* ends by itself: only a signal interrupts it */
    }
    ps_free(q);
}

void *ps_mq_raw(struct ps_mq *q)
{
    return q->ctx;
}

static bool set_int(void *sock, int opt, int v)
{
    return zmq_setsockopt(sock, opt, &v, sizeof(v)) == 0;
}

/* What both kinds share. */
static bool set_common(void *sock)
{
    int64_t max = FRAME_MAX;

    return set_int(sock, ZMQ_LINGER, 0) && set_int(sock, ZMQ_SNDHWM, HWM) &&
           set_int(sock, ZMQ_RCVHWM, HWM) && set_int(sock, ZMQ_SNDBUF, SOCKET_BYTES) &&
           set_int(sock, ZMQ_RCVBUF, SOCKET_BYTES) &&
           set_int(sock, ZMQ_HANDSHAKE_IVL, HANDSHAKE_MS) &&
           set_int(sock, ZMQ_TCP_MAXRT, MAXRT_MS) && set_int(sock, ZMQ_TCP_KEEPALIVE, 1) &&
           set_int(sock, ZMQ_TCP_KEEPALIVE_IDLE, 5) && set_int(sock, ZMQ_TCP_KEEPALIVE_INTVL, 2) &&
           set_int(sock, ZMQ_TCP_KEEPALIVE_CNT, 3) &&
           zmq_setsockopt(sock, ZMQ_MAXMSGSIZE, &max, sizeof(max)) == 0;
}

static bool set_router_keys(void *sock, const struct ps_mq_keys *k)
{
    return set_int(sock, ZMQ_CURVE_SERVER, 1) &&
           zmq_setsockopt(sock, ZMQ_CURVE_SECRETKEY, k->sec, PS_MQ_KEY_CHARS) == 0 &&
           zmq_setsockopt(sock, ZMQ_ZAP_DOMAIN, PS_ZAP_DOMAIN, strlen(PS_ZAP_DOMAIN)) == 0 &&
           set_int(sock, OPT_ZAP_ENFORCE_DOMAIN, 1);
}

static bool set_dealer_keys(void *sock, const struct ps_mq_keys *k)
{
    return zmq_setsockopt(sock, ZMQ_CURVE_SERVERKEY, k->server, PS_MQ_KEY_CHARS) == 0 &&
           zmq_setsockopt(sock, ZMQ_CURVE_PUBLICKEY, k->pub, PS_MQ_KEY_CHARS) == 0 &&
           zmq_setsockopt(sock, ZMQ_CURVE_SECRETKEY, k->sec, PS_MQ_KEY_CHARS) == 0;
}

static struct ps_mq_sock *wrap(void *sock, bool is_router)
{
    struct ps_mq_sock *s = ps_calloc(1, sizeof(*s));

    s->sock = sock;
    s->is_router = is_router;
    zmq_msg_init(&s->last);
    return s;
}

/* The port that was bound, from "tcp://host:port". */
static uint16_t bound_port(void *sock)
{
    char text[128] = "";
    size_t len = sizeof(text);
    const char *colon;
    unsigned long port = 0;

    if (zmq_getsockopt(sock, ZMQ_LAST_ENDPOINT, text, &len) < 0)
        return 0;
    colon = strrchr(text, ':');
    for (const char *p = colon != NULL ? colon + 1 : ""; *p >= '0' && *p <= '9'; p++)
        port = port * 10 + (unsigned long)(*p - '0');
    return port <= UINT16_MAX ? (uint16_t)port : 0;
}

int ps_mq_router_open(struct ps_mq_sock **out, struct ps_mq *q, const struct ps_mq_keys *keys,
                      const char *host, uint16_t port, uint16_t *out_port, char *err,
                      size_t err_size)
{
    bool v6 = strchr(host, ':') != NULL;
    char endpoint[300], port_text[8] = "*";
    void *sock = zmq_socket(q->ctx, ZMQ_ROUTER);

    PS_ASSERT(err_size >= 160);
    if (sock == NULL)
        return PS_MQ_E_SOCKETS;
    if (port != 0)
        snprintf(port_text, sizeof(port_text), "%u", port);
    snprintf(endpoint, sizeof(endpoint), v6 && host[0] != '[' ? "tcp://[%s]:%s" : "tcp://%s:%s",
             host, port_text);
    if (!set_common(sock) || !set_int(sock, ZMQ_ROUTER_MANDATORY, 1) ||
        !set_int(sock, ZMQ_BACKLOG, BACKLOG) || (v6 && !set_int(sock, ZMQ_IPV6, 1)) ||
        (keys->on && !set_router_keys(sock, keys)) || zmq_bind(sock, endpoint) < 0) {
        snprintf(err, err_size, "cannot bind %.100s: %s", endpoint, zmq_strerror(errno));
        zmq_close(sock);
        return PS_MQ_E_CONFIG;
    }
    *out_port = bound_port(sock);
    *out = wrap(sock, true);
    return PS_MQ_OK;
}

/* The monitor is attached before the connect, so that a refused connection is seen. */
static void *attach_monitor(struct ps_mq *q, void *sock)
{
    char name[48];
    void *pair;

    snprintf(name, sizeof(name), "inproc://ps-monitor-%u", atomic_fetch_add(&q->n_monitors, 1));
    if (zmq_socket_monitor(
            sock, name,
            ZMQ_EVENT_DISCONNECTED | ZMQ_EVENT_CLOSED | ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL |
                ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL | ZMQ_EVENT_HANDSHAKE_FAILED_AUTH) < 0)
        return NULL;
    pair = zmq_socket(q->ctx, ZMQ_PAIR);
    if (pair == NULL || !set_int(pair, ZMQ_LINGER, 0) || zmq_connect(pair, name) < 0) {
        zmq_socket_monitor(sock, NULL, 0);
        if (pair != NULL)
            zmq_close(pair);
        return NULL;
    }
    return pair;
}

int ps_mq_dealer_open(struct ps_mq_sock **out, struct ps_mq *q, const struct ps_mq_keys *keys,
                      const char *endpoint, const uint8_t *id, size_t id_len)
{
    void *sock = zmq_socket(q->ctx, ZMQ_DEALER);
    struct ps_mq_sock *s;

    PS_ASSERT(id_len > 0 && id_len <= PS_MQ_ID_MAX);
    if (sock == NULL)
        return PS_MQ_E_SOCKETS;
    s = wrap(sock, false);
    if (!set_common(sock) || !set_int(sock, ZMQ_IMMEDIATE, 1) ||
        !set_int(sock, ZMQ_RECONNECT_IVL, -1) ||
        (strchr(endpoint, '[') != NULL && !set_int(sock, ZMQ_IPV6, 1)) ||
        zmq_setsockopt(sock, ZMQ_ROUTING_ID, id, id_len) < 0 ||
        (keys->on && !set_dealer_keys(sock, keys))) {
        ps_mq_close(s, 0);
        return PS_MQ_E_CONFIG;
    }
    s->monitor = attach_monitor(q, sock);
    if (s->monitor == NULL) {
        ps_mq_close(s, 0);
        return PS_MQ_E_SOCKETS;
    }
    if (zmq_connect(sock, endpoint) < 0) {
        ps_mq_close(s, 0);
        return PS_MQ_E_CONFIG;
    }
    *out = s;
    return PS_MQ_OK;
}

void ps_mq_close(struct ps_mq_sock *s, int linger_ms)
{
    if (s == NULL)
        return;
    zmq_msg_close(&s->last);
    set_int(s->sock, ZMQ_LINGER, linger_ms);
    if (s->monitor != NULL)
        zmq_socket_monitor(s->sock, NULL, 0);
    zmq_close(s->sock);
    if (s->monitor != NULL)
        zmq_close(s->monitor);
    ps_free(s);
}

static int send_error(void)
{
    switch (errno) {
    case EAGAIN:
    case EINTR:
        return PS_MQ_E_FULL;
    case EHOSTUNREACH:
        return PS_MQ_E_GONE;
    default:
        return PS_FAULT(errno > 0 ? -errno : -EIO);
    }
}

int ps_mq_send(struct ps_mq_sock *s, const uint8_t *id, size_t id_len, const uint8_t *data,
               size_t len)
{
    PS_ASSERT(len <= FRAME_MAX && s->is_router == (id_len > 0));
    /* Only the first part reports an error; after it the second always goes. */
    if (s->is_router && zmq_send(s->sock, id, id_len, ZMQ_DONTWAIT | ZMQ_SNDMORE) < 0)
        return send_error();
    if (zmq_send(s->sock, data, len, ZMQ_DONTWAIT) < 0)
        return send_error();
    return PS_MQ_OK;
}

/* One part into s->last; E_AGAIN, a fault, or OK. */
static int recv_part(struct ps_mq_sock *s)
{
    zmq_msg_close(&s->last);
    zmq_msg_init(&s->last);
    for (int tries = 0; tries < 16; tries++) {
        if (zmq_msg_recv(&s->last, s->sock, ZMQ_DONTWAIT) >= 0)
            return PS_MQ_OK;
        if (errno == EAGAIN)
            return PS_MQ_E_AGAIN;
        if (errno != EINTR)
            return PS_FAULT(errno > 0 ? -errno : -EIO);
    }
    return PS_MQ_E_AGAIN;
}

/* The parts of one message arrive together, so the rest of it is there. */
static int discard_rest(struct ps_mq_sock *s)
{
    while (zmq_msg_more(&s->last)) {
        int r = recv_part(s);

        if (r != PS_MQ_OK)
            return r;
    }
    return PS_MQ_E_BAD;
}

int ps_mq_recv(struct ps_mq_sock *s, struct ps_mq_msg *out)
{
    const char *user;
    size_t id_len = 0;
    int r = recv_part(s);

    if (r != PS_MQ_OK)
        return r;
    if (s->is_router) {
        id_len = zmq_msg_size(&s->last);
        if (id_len > PS_MQ_ID_MAX || !zmq_msg_more(&s->last))
            return discard_rest(s);
        memcpy(out->id, zmq_msg_data(&s->last), id_len);
        r = recv_part(s);
        if (r != PS_MQ_OK)
            return r;
    }
    if (zmq_msg_more(&s->last))
        return discard_rest(s);
    out->id_len = id_len;
    out->data = zmq_msg_data(&s->last);
    out->len = zmq_msg_size(&s->last);
    user = s->is_router ? zmq_msg_gets(&s->last, "User-Id") : NULL;
    snprintf(out->user_id, sizeof(out->user_id), "%.16s", user != NULL ? user : "");
    return PS_MQ_OK;
}

bool ps_mq_lost(struct ps_mq_sock *s)
{
    PS_ASSERT(s->monitor != NULL);
    for (;;) { /* bounded: a DEALER that does not reconnect makes a handful of events */
        zmq_msg_t part;
        int more;

        zmq_msg_init(&part);
        if (zmq_msg_recv(&part, s->monitor, ZMQ_DONTWAIT) < 0) {
            zmq_msg_close(&part);
            return s->lost;
        }
        more = zmq_msg_more(&part);
        zmq_msg_close(&part);
        if (more)
            s->lost = true; /* the first part is an event of our mask: each of them is the end */
    }
}

int ps_mq_set_create(struct ps_mq_set **out)
{
    *out = ps_calloc(1, sizeof(**out));
    return 0;
}

void ps_mq_set_destroy(struct ps_mq_set *t)
{
    if (t == NULL)
        return;
    ps_free(t->items);
    ps_free(t);
}

void ps_mq_set_clear(struct ps_mq_set *t)
{
    t->n = 0;
}

static void add_item(struct ps_mq_set *t, void *sock, int fd, short events)
{
    if (t->n == t->cap) {
        t->cap = t->cap > 0 ? 2 * t->cap : 16;
        t->items = ps_realloc(t->items, t->cap * sizeof(t->items[0]));
    }
    t->items[t->n++] = (zmq_pollitem_t){.socket = sock, .fd = fd, .events = events};
}

void ps_mq_set_add_fd(struct ps_mq_set *t, int fd)
{
    add_item(t, NULL, fd, ZMQ_POLLIN);
}

void ps_mq_set_add(struct ps_mq_set *t, struct ps_mq_sock *s, bool for_send)
{
    add_item(t, s->sock, 0, (short)(for_send ? ZMQ_POLLIN | ZMQ_POLLOUT : ZMQ_POLLIN));
    if (s->monitor != NULL)
        add_item(t, s->monitor, 0, ZMQ_POLLIN);
}

void ps_mq_wait(struct ps_mq_set *t, uint32_t timeout_ms)
{
    (void)zmq_poll(t->items, (int)t->n, (long)timeout_ms); /* an error is an early return */
}
