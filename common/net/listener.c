#include "common/net/conn.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

enum {
    BACKLOG = 4096, /* the kernel cuts it to net.core.somaxconn */
    KEEPALIVE_IDLE_S = 60,
    KEEPALIVE_STEP_S = 10,
    KEEPALIVE_PROBES = 6,
    USER_TIMEOUT_MS = 60 * 1000, /* data the peer's machine does not acknowledge */
};

/* ---- addresses ---- */

/* IPv4 as itself, IPv6 by its /64, which is what one client has to itself. */
static uint64_t addr_key(const struct sockaddr_storage *a)
{
    const struct sockaddr_in6 *v6 = (const void *)a;
    const struct sockaddr_in *v4 = (const void *)a;
    static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    const uint64_t v4_mark = UINT64_C(0xffff)
                             << 32; /* below 2000::/3, so no global IPv6 net has it */
    uint32_t host;
    uint64_t key = 0;

    if (a->ss_family == AF_INET)
        return v4_mark | ntohl(v4->sin_addr.s_addr);
    if (memcmp(v6->sin6_addr.s6_addr, mapped, sizeof(mapped)) == 0) {
        memcpy(&host, v6->sin6_addr.s6_addr + sizeof(mapped), sizeof(host));
        return v4_mark | ntohl(host);
    }
    for (int i = 0; i < 8; i++)
        key = key << 8 | v6->sin6_addr.s6_addr[i];
    return key;
}

static uint32_t addr_count(const struct ps_http *s, uint64_t key)
{
    uint64_t n = 0;

    return ps_map_get(&s->addrs, key, &n) ? (uint32_t)n : 0;
}

void ps_addr_drop(struct ps_conn *c)
{
    struct ps_http *s = c->srv;
    uint32_t n;

    if (c->refused) {
        s->n_refused--;
        return;
    }
    s->n_conns--;
    n = addr_count(s, c->addr_key);
    PS_ASSERT(n > 0);
    if (n == 1)
        (void)ps_map_del(&s->addrs, c->addr_key);
    else
        ps_map_put(&s->addrs, c->addr_key, n - 1);
}

/* ---- accept ---- */

static bool over_limit(const struct ps_http *s, uint64_t key)
{
    const struct ps_http_limits *l = &s->limits;

    return s->n_conns >= l->n_conns ||
           (l->n_conns_per_addr > 0 && addr_count(s, key) >= l->n_conns_per_addr);
}

static void count(struct ps_conn *c)
{
    struct ps_http *s = c->srv;

    c->refused = over_limit(s, c->addr_key);
    if (c->refused) {
        s->n_refused++;
        return;
    }
    s->n_conns++;
    ps_map_put(&s->addrs, c->addr_key, addr_count(s, c->addr_key) + 1);
}

static void on_connection(uv_stream_t *h, int status)
{
    struct ps_listener *l = h->data;
    struct ps_http *s = l->srv;
    struct ps_conn *c;
    struct sockaddr_storage a = {0};
    int len = sizeof(a);

    if (status < 0)
        return; /* the client left, or no descriptor was to be had: libuv goes on accepting */
    c = ps_calloc(1, sizeof(*c));
    c->srv = s;
    PS_ASSERT(uv_tcp_init(ps_loop_uv(s->loop), &c->tcp) == 0);
    c->tcp.data = c;
    s->n_handles++;
    c->next = s->conns;
    if (s->conns != NULL)
        s->conns->prev = c;
    s->conns = c;
    c->since_ms = ps_http_now_ms(s);
    if (uv_accept(h, (uv_stream_t *)&c->tcp) < 0 ||
        uv_tcp_getpeername(&c->tcp, (struct sockaddr *)&a, &len) < 0 ||
        uv_ip_name((struct sockaddr *)&a, c->peer, sizeof(c->peer)) < 0) {
        c->refused = true;
        s->n_refused++;
        ps_conn_close(c, false);
        return;
    }
    c->addr_key = addr_key(&a);
    count(c);
    if (c->refused && s->n_refused > PS_REFUSED_MAX) {
        ps_conn_close(c, true);
        return;
    }
    ps_conn_start(c);
    if (c->state == PS_CONN_DEAD)
        return;
    if (c->refused)
        ps_conn_fault(c, PS_HTTP_OVERLOAD);
    else
        ps_conn_arm(c);
}

/* ---- listen ---- */

static int set_int(int fd, int level, int name, int value)
{
    return setsockopt(fd, level, name, &value, sizeof(value)) < 0 ? -errno : 0;
}

/* Accepted sockets inherit these on Linux, which saves five calls for each of them. */
static int set_options(int fd, bool reuse_port)
{
    int r = set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1);

    if (r == 0)
        r = set_int(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    if (r == 0)
        r = set_int(fd, IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_IDLE_S);
    if (r == 0)
        r = set_int(fd, IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_STEP_S);
    if (r == 0)
        r = set_int(fd, IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_PROBES);
    if (r == 0)
        r = set_int(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, USER_TIMEOUT_MS);
    if (r == 0 && reuse_port)
        r = set_int(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    return r;
}

/* Blocks in the resolver when host is a name; listening happens at start. */
static int resolve(const char *host, uint16_t port, struct sockaddr_storage *out)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *found;
    char service[8];

    snprintf(service, sizeof(service), "%u", port);
    if (getaddrinfo(host, service, &hints, &found) != 0)
        return -EADDRNOTAVAIL;
    *out = (struct sockaddr_storage){0};
    memcpy(out, found->ai_addr, found->ai_addrlen);
    freeaddrinfo(found);
    return 0;
}

static int open_socket(struct ps_listener *l, const struct sockaddr_storage *a, bool reuse_port,
                       uint16_t *out_port)
{
    struct sockaddr_storage bound = {0};
    int len = sizeof(bound);
    uv_os_fd_t fd = -1;
    int r = uv_fileno((uv_handle_t *)&l->tcp, &fd);

    if (r == 0)
        r = set_options(fd, reuse_port);
    if (r == 0)
        r = uv_tcp_bind(&l->tcp, (const struct sockaddr *)a, 0);
    if (r == 0)
        r = uv_listen((uv_stream_t *)&l->tcp, BACKLOG, on_connection);
    if (r == 0)
        r = uv_tcp_getsockname(&l->tcp, (struct sockaddr *)&bound, &len);
    if (r == 0)
        *out_port = ntohs(bound.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&bound)->sin6_port
                                                      : ((struct sockaddr_in *)&bound)->sin_port);
    return r;
}

static void on_listener_closed(uv_handle_t *h)
{
    struct ps_listener *l = h->data;
    struct ps_http *s = l->srv;

    ps_free(l);
    ps_http_handle_closed(s);
}

void ps_listener_close(struct ps_listener *l)
{
    uv_close((uv_handle_t *)&l->tcp, on_listener_closed);
}

int ps_http_listen(struct ps_http *s, const char *host, uint16_t port, bool reuse_port,
                   uint16_t *out_port)
{
    struct ps_listener *l;
    struct sockaddr_storage a;
    int r = resolve(host, port, &a);

    if (r < 0)
        return PS_FAULT(r);
    l = ps_calloc(1, sizeof(*l));
    l->srv = s;
    r = uv_tcp_init_ex(ps_loop_uv(s->loop), &l->tcp, a.ss_family);
    if (r < 0) {
        ps_free(l);
        return PS_FAULT(r);
    }
    l->tcp.data = l;
    s->n_handles++;
    r = open_socket(l, &a, reuse_port, out_port);
    if (r < 0) {
        ps_listener_close(l);
        return PS_FAULT(r);
    }
    l->next = s->listeners;
    s->listeners = l;
    return 0;
}
