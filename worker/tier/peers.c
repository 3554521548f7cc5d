#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/log.h"
#include "worker/tier/peers_internal.h"

enum {
    IDLE_WAIT_MS = 1000,
    NAME_WAIT_MS = 10, /* a lookup that is under way rings nobody */
    ACCEPT_BURST = 16,
    ACCEPT_PAUSE_US = 100000, /* no descriptors: the waiting connection would wake us at once */
    BACKLOG = 64,
    WAKE = 0, /* places in the poll set */
    LISTENER = 1,
    FIRST_CONN = 2,
};

/* ---- what other threads hand in ---- */

void wk_peers_take(struct wk_peers *p)
{
    struct wk_tier_io *io;

    while ((io = wk_tier_take(&p->todo)) != NULL)
        wk_pull_take(io);
    while ((io = wk_tier_take(&p->answers)) != NULL)
        wk_serve_answered(p, PS_CONTAINER(io, struct wk_peer_ask, io));
}

/* ---- accepting ---- */

/* Strangers hold a place for two seconds at most, and none when it is needed. */
static bool make_room(struct wk_peers *p)
{
    struct wk_conn *oldest = NULL;

    if (p->n_served < WK_PEER_SERVED_MAX)
        return p->n_conns < WK_PEER_CONNS_MAX;
    for (uint32_t i = 0; i < p->n_conns; i++) {
        struct wk_conn *c = p->conn[i];

        if (c->pull == NULL && c->state < WK_CONN_READY &&
            (oldest == NULL || c->since_us < oldest->since_us))
            oldest = c;
    }
    if (oldest != NULL)
        wk_conn_cut(oldest, "busy");
    return oldest != NULL && p->n_conns < WK_PEER_CONNS_MAX;
}

static void send_away(int fd)
{
    struct ps_buf b = PS_BUF_INIT;

    wk_peer_put_refuse(&b, WK_PEER_R_BUSY);
    (void)send(fd, b.data, b.len, MSG_NOSIGNAL);
    ps_buf_fini(&b);
    ps_close_fd(&fd);
}

static void accept_some(struct wk_peers *p, uint64_t now_us)
{
    for (uint32_t i = 0; i < ACCEPT_BURST; i++) {
        struct wk_peer_addr a = {.len = sizeof(a.sa)};
        int fd =
            accept4(p->listen_fd, (struct sockaddr *)&a.sa, &a.len, SOCK_NONBLOCK | SOCK_CLOEXEC);

        if (fd < 0) {
            if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
                p->accept_us = now_us + ACCEPT_PAUSE_US;
            return;
        }
        if (!make_room(p)) {
            send_away(fd);
            continue;
        }
        wk_conn_set_options(fd);
        (void)wk_conn_create(p, NULL, fd, &a);
    }
}

/* ---- a turn ---- */

static void advance(struct wk_peers *p)
{
    const uint64_t now_us = wk_peers_now(p);

    wk_peers_take(p);
    for (uint32_t i = 0; i < p->n_pulls; i++)
        wk_pull_turn(p->pull[i], now_us);
    for (uint32_t i = 0; i < p->n_conns; i++) {
        wk_conn_expire(p->conn[i], now_us);
        if (wk_conn_wants_out(p->conn[i]))
            wk_conn_flush(p->conn[i]);
    }
}

static void sweep(struct wk_peers *p)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < p->n_conns; i++) {
        if (p->conn[i]->state == WK_CONN_DEAD)
            wk_conn_destroy(p->conn[i]);
        else
            p->conn[n++] = p->conn[i];
    }
    p->n_conns = n;
}

static int wait_of(const struct wk_peers *p, uint32_t wait_ms)
{
    const uint64_t now_us = wk_peers_now(p);
    uint64_t first_us = now_us + (uint64_t)wait_ms * 1000;

    if (p->accept_us > now_us)
        first_us = ps_min_u64(first_us, p->accept_us);
    for (uint32_t i = 0; i < p->n_conns; i++)
        first_us = ps_min_u64(first_us, wk_conn_deadline(p->conn[i]));
    for (uint32_t i = 0; i < p->n_pulls; i++) {
        first_us = ps_min_u64(first_us, wk_pull_deadline(p->pull[i]));
        if (wk_pull_is_polling(p->pull[i]))
            first_us = ps_min_u64(first_us, now_us + NAME_WAIT_MS * 1000);
    }
    return first_us <= now_us ? 0 : (int)ps_div_up_u64(first_us - now_us, 1000);
}

static void on_event(struct wk_conn *c, short events)
{
    int e = 0;
    socklen_t len = sizeof(e);

    if (c->state == WK_CONN_DIAL) {
        if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &e, &len) < 0 || e != 0)
            wk_conn_cut(c, "connect");
        else
            wk_conn_connected(c);
        return;
    }
    if (c->state != WK_CONN_DEAD && (events & (POLLIN | POLLHUP | POLLERR)) != 0)
        wk_conn_read(c);
    if (wk_conn_wants_out(c))
        wk_conn_flush(c);
}

uint32_t wk_peers_turn(struct wk_peers *p, uint32_t wait_ms)
{
    struct pollfd set[FIRST_CONN + WK_PEER_CONNS_MAX];
    const uint64_t n_before = p->n_posted;
    uint32_t n_conns;
    bool may_accept;

    ps_wake_arm(&p->wake); /* what is rung from here on ends the poll below */
    advance(p);
    sweep(p);
    n_conns = p->n_conns; /* accepting adds more */
    may_accept = p->listen_fd >= 0 && wk_peers_now(p) >= p->accept_us;
    set[WAKE] = (struct pollfd){.fd = p->wake.fd, .events = POLLIN};
    set[LISTENER] = (struct pollfd){.fd = may_accept ? p->listen_fd : -1, .events = POLLIN};
    for (uint32_t i = 0; i < n_conns; i++) {
        const struct wk_conn *c = p->conn[i];
        const bool is_out = c->state == WK_CONN_DIAL || wk_conn_wants_out(c);

        set[FIRST_CONN + i] = (struct pollfd){
            .fd = c->fd,
            .events = (short)((c->state == WK_CONN_DIAL ? 0 : POLLIN) | (is_out ? POLLOUT : 0))};
    }
    if (p->n_posted != n_before)
        wait_ms = 0;
    if (poll(set, FIRST_CONN + n_conns, wait_of(p, wait_ms)) <= 0) {
        ps_wake_clear(&p->wake); /* EINTR or nothing: the next turn looks at the clock */
        return (uint32_t)(p->n_posted - n_before);
    }
    ps_wake_clear(&p->wake);
    for (uint32_t i = 0; i < n_conns; i++) {
        if (set[FIRST_CONN + i].revents != 0)
            on_event(p->conn[i], set[FIRST_CONN + i].revents);
    }
    if (set[LISTENER].revents != 0)
        accept_some(p, wk_peers_now(p));
    return (uint32_t)(p->n_posted - n_before);
}

uint32_t wk_peers_pump(struct wk_peers *p, uint32_t wait_ms)
{
    PS_ASSERT(!p->has_thread);
    return wk_peers_turn(p, wait_ms);
}

static void *peers_main(void *ud)
{
    struct wk_peers *p = ud;

    while (!atomic_load(&p->stop))
        (void)wk_peers_turn(p, IDLE_WAIT_MS);
    return NULL;
}

/* ---- create ---- */

static int read_secret(struct wk_peers *p, const char *path, struct ps_buf *err)
{
    uint8_t more;
    ssize_t n;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0) {
        ps_buf_addf(err, "peer secret file %s: %s", path, strerror(errno));
        return WK_TIER_E_CONF;
    }
    do {
        n = read(fd, p->secret + p->secret_bytes, sizeof(p->secret) - p->secret_bytes);
        p->secret_bytes += n > 0 ? (size_t)n : 0;
    } while (n > 0 && p->secret_bytes < sizeof(p->secret));
    if (n > 0)
        n = read(fd, &more, 1) == 0 ? 0 : -1;
    ps_close_fd(&fd);
    if (n < 0 || p->secret_bytes == 0) {
        ps_buf_addf(err, "peer secret file %s: not a file of 1 to %d bytes", path,
                    WK_PEER_SECRET_MAX);
        return WK_TIER_E_CONF;
    }
    return WK_TIER_OK;
}

static int listen_at(struct wk_peers *p, const struct wk_peer_addr *a)
{
    struct wk_peer_addr bound = {.len = sizeof(bound.sa)};
    int one = 1;

    p->listen_fd = socket(a->sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (p->listen_fd < 0 ||
        setsockopt(p->listen_fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) < 0 ||
        bind(p->listen_fd, (const struct sockaddr *)&a->sa, a->len) < 0 ||
        listen(p->listen_fd, BACKLOG) < 0 ||
        getsockname(p->listen_fd, (struct sockaddr *)&bound.sa, &bound.len) < 0)
        return -errno;
    (void)wk_peer_addr_text(&bound, p->address);
    return 0;
}

static int open_listener(struct wk_peers *p, struct ps_buf *err)
{
    struct wk_peer_name *name = NULL;
    struct wk_peer_addr a;
    int r = wk_peer_name_create(&name, p->conf.listen);

    if (r == WK_PEER_NAME_OK)
        r = wk_peer_name_listen(name, &a);
    wk_peer_name_destroy(name);
    if (r != WK_PEER_NAME_OK) {
        ps_buf_addf(err, "peer listen address %s: not host:port of this host", p->conf.listen);
        return WK_TIER_E_CONF;
    }
    if (p->secret_bytes == 0 && !wk_peer_addr_is_loopback(&a)) {
        ps_buf_addf(err, "peer listen address %s: without a secret file only loopback is served",
                    p->conf.listen);
        return WK_TIER_E_CONF;
    }
    r = listen_at(p, &a);
    if (r < 0) {
        ps_buf_addf(err, "peer listen address %s: %s", p->conf.listen, strerror(-r));
        return WK_TIER_E_CONF;
    }
    return WK_TIER_OK;
}

static void init_closed(struct wk_peers *p)
{
    pthread_condattr_t attr;

    pthread_mutex_init(&p->closing, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&p->closed, &attr);
    pthread_condattr_destroy(&attr);
}

static void check_ident(const struct wk_tier_ident *ident)
{
    PS_ASSERT(ident->n_group > 0 && ident->n_group <= PS_ARRAY_LEN(ident->item_bytes));
    PS_ASSERT(ident->page_tokens > 0 && ident->page_tokens <= WK_PEER_PAGE_TOKENS_MAX);
    for (uint32_t i = 0; i < ident->n_group; i++)
        PS_ASSERT(ident->item_bytes[i] > 0);
}

int wk_peers_create(struct wk_peers **out, const struct wk_peers_conf *conf, struct ps_buf *err)
{
    struct wk_peers *p;
    int r;

    check_ident(&conf->ident);
    PS_ASSERT(conf->asks != NULL && conf->inbox != NULL);
    p = ps_calloc(1, sizeof(*p));
    p->conf = *conf;
    p->listen_fd = -1;
    p->wake.fd = -1;
    wk_tier_inbox_init(&p->todo, &p->wake);
    wk_tier_inbox_init(&p->answers, &p->wake);
    init_closed(p);
    r = ps_wake_init(&p->wake);
    if (r == 0 && conf->secret_file[0] != '\0')
        r = read_secret(p, conf->secret_file, err);
    if (r == 0 && conf->listen[0] != '\0')
        r = open_listener(p, err);
    p->conf.listen = p->conf.secret_file = NULL; /* the caller's strings */
    if (r == 0 && !conf->no_thread) {
        r = pthread_create(&p->thread, NULL, peers_main, p);
        if (r != 0)
            r = PS_FAULT(-r);
        p->has_thread = r == 0;
    }
    if (r != 0) {
        wk_peers_destroy(p);
        return r;
    }
    *out = p;
    return WK_TIER_OK;
}

/* What the store has not taken yet it never sees; what is over it does. */
static void clear_asks(struct wk_peers *p)
{
    struct wk_tier_io *io, *over = NULL, **end = &over;

    while ((io = wk_tier_take(p->conf.asks)) != NULL) {
        struct wk_peer_ask *ask = PS_CONTAINER(io, struct wk_peer_ask, io);

        if (ask->is_over) {
            *end = io;
            end = &io->next;
        } else {
            p->n_asks--;
            wk_peers_ask_free(ask);
        }
    }
    while ((io = over) != NULL) {
        over = io->next;
        wk_tier_post(p->conf.asks, io);
    }
}

const char *wk_peers_address(const struct wk_peers *p)
{
    return p->address;
}

void wk_peers_destroy(struct wk_peers *p)
{
    if (p == NULL)
        return;
    if (p->has_thread) {
        atomic_store(&p->stop, true);
        ps_wake_ring(&p->wake);
        pthread_join(p->thread, NULL);
    }
    wk_peers_take(p);
    PS_ASSERT(atomic_load(&p->n_tiers) == 0);
    for (uint32_t i = 0; i < p->n_conns; i++)
        wk_conn_cut(p->conn[i], "closed");
    sweep(p);
    clear_asks(p);
    ps_close_fd(&p->listen_fd);
    ps_wake_fini(&p->wake);
    wk_tier_inbox_fini(&p->todo);
    wk_tier_inbox_fini(&p->answers);
    pthread_mutex_destroy(&p->closing);
    pthread_cond_destroy(&p->closed);
    explicit_bzero(p->secret, sizeof(p->secret));
    ps_free(p);
}
