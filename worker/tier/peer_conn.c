#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "common/log.h"
#include "common/rng.h"
#include "worker/tier/peers_internal.h"

enum {
    TOLD_AGAIN_US = 60 * 1000 * 1000, /* strangers must not fill the log */
    BODY_KEEP_BYTES = 64 * 1024,      /* a larger buffer is given back after its frame */
    OUT_MOVE_BYTES = 64 * 1024,
    KEEPALIVE_IDLE_S = 5,
    KEEPALIVE_STEP_S = 2,
    KEEPALIVE_PROBES = 3,
};

/* ---- state ---- */

static void wk_conn_goto(struct wk_conn *c, enum wk_conn_state to)
{
    static const bool may[WK_CONN_N_STATES][WK_CONN_N_STATES] = {
        [WK_CONN_DIAL] = {[WK_CONN_CHALLENGE] = true, [WK_CONN_DEAD] = true},
        [WK_CONN_CHALLENGE] = {[WK_CONN_PROOF] = true, [WK_CONN_DEAD] = true},
        [WK_CONN_PROOF] = {[WK_CONN_HELLO] = true, [WK_CONN_DEAD] = true},
        [WK_CONN_HELLO] = {[WK_CONN_READY] = true, [WK_CONN_DEAD] = true},
        [WK_CONN_READY] = {[WK_CONN_DEAD] = true},
    };

    PS_ASSERT(may[c->state][to]);
    c->state = to;
    ps_debug("peer connection", "address=%s dialled=%d state=%d", c->address, c->pull != NULL,
             (int)to);
}

static void expect_head(struct wk_conn *c)
{
    c->stage = WK_IN_HEAD;
    c->in_to = c->in_small;
    c->in_left = WK_PEER_HEAD_BYTES;
}

static void say_challenge(struct wk_conn *c)
{
    struct wk_peer_challenge own = {.version = WK_PEER_VERSION};
    uint8_t *nonce = c->nonces[c->pull != NULL ? 0 : 1];

    ps_random_bytes(nonce, WK_PEER_NONCE_BYTES);
    memcpy(own.nonce, nonce, sizeof(own.nonce));
    wk_peer_put_challenge(&c->out, &own);
}

void wk_conn_set_options(int fd)
{
    static const struct {
        int level, name, value;
    } opts[] = {
        {IPPROTO_TCP, TCP_NODELAY, 1},
        {SOL_SOCKET, SO_KEEPALIVE, 1},
        {IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_IDLE_S},
        {IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_STEP_S},
        {IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_PROBES},
    };

    /* A kernel without one of them is slower to notice a dead peer, no more. */
    for (size_t i = 0; i < PS_ARRAY_LEN(opts); i++)
        (void)setsockopt(fd, opts[i].level, opts[i].name, &opts[i].value, sizeof(opts[i].value));
}

struct wk_conn *wk_conn_create(struct wk_peers *p, struct wk_pull *pull, int fd,
                               const struct wk_peer_addr *a)
{
    struct wk_conn *c = ps_calloc(1, sizeof(*c));

    PS_ASSERT(p->n_conns < WK_PEER_CONNS_MAX);
    c->p = p;
    c->pull = pull;
    c->fd = fd;
    c->state = pull != NULL ? WK_CONN_DIAL : WK_CONN_CHALLENGE;
    c->since_us = wk_peers_now(p);
    (void)wk_peer_addr_text(a, c->address);
    expect_head(c);
    p->conn[p->n_conns++] = c;
    if (pull == NULL) {
        p->n_served++;
        say_challenge(c);
    }
    return c;
}

void wk_conn_destroy(struct wk_conn *c)
{
    PS_ASSERT(c->state == WK_CONN_DEAD);
    ps_buf_fini(&c->body);
    ps_buf_fini(&c->out);
    ps_free(c);
}

void wk_conn_cut(struct wk_conn *c, const char *why)
{
    if (c->state == WK_CONN_DEAD)
        return;
    wk_conn_goto(c, WK_CONN_DEAD);
    ps_close_fd(&c->fd);
    c->bulk_left = 0;
    if (c->pull != NULL) {
        c->pull->conn = NULL;
        wk_pull_lost(c->pull, why);
        return;
    }
    PS_ASSERT(c->p->n_served > 0);
    c->p->n_served--;
    wk_serve_lost(c);
}

void wk_conn_connected(struct wk_conn *c)
{
    wk_conn_goto(c, WK_CONN_CHALLENGE);
    say_challenge(c);
}

/* One try: the socket is empty this early, and a peer that does not hear why learns it from ours. */
void wk_conn_refuse(struct wk_conn *c, enum wk_peer_reason reason)
{
    uint64_t *told_us = &c->p->told_us[reason];
    const uint64_t now_us = wk_peers_now(c->p);

    if (c->pull == NULL && (*told_us == 0 || now_us - *told_us > TOLD_AGAIN_US)) {
        ps_warn("a peer was refused", "address=%s reason=%s", c->address,
                wk_peer_reason_text(reason));
        *told_us = now_us;
    }
    wk_peer_put_refuse(&c->out, reason);
    wk_conn_flush(c);
    wk_conn_cut(c, wk_peer_reason_text(reason));
}

/* ---- the handshake ---- */

/* Both nonces and the role are in it: a proof is of no use on another connection or the other way. */
static void make_proof(const struct wk_conn *c, bool of_dialler, uint8_t out[PS_SHA256_BYTES])
{
    static const char *const labels[2] = {"penstock kv peer, serving",
                                          "penstock kv peer, dialling"};
    struct ps_buf b = PS_BUF_INIT;

    ps_buf_add_str(&b, labels[of_dialler]);
    ps_buf_add_u32(&b, WK_PEER_VERSION);
    ps_buf_add(&b, c->nonces, sizeof(c->nonces));
    ps_hmac_sha256(c->p->secret, c->p->secret_bytes, b.data, b.len, out);
    ps_buf_fini(&b);
}

static void say_proof(struct wk_conn *c)
{
    uint8_t mac[PS_SHA256_BYTES];

    make_proof(c, c->pull != NULL, mac);
    wk_peer_put_proof(&c->out, mac);
}

static bool on_challenge(struct wk_conn *c, const uint8_t *body)
{
    struct wk_peer_challenge theirs;

    if (wk_peer_challenge_decode(body, c->head.body_bytes, &theirs) != WK_PEER_WIRE_OK)
        return false;
    if (theirs.version != WK_PEER_VERSION) {
        wk_conn_refuse(c, WK_PEER_R_VERSION);
        return true;
    }
    memcpy(c->nonces[c->pull != NULL ? 1 : 0], theirs.nonce, sizeof(theirs.nonce));
    /* Who dials proves first, so a stranger who dials learns nothing made with the secret. */
    if (c->pull != NULL)
        say_proof(c);
    wk_conn_goto(c, WK_CONN_PROOF);
    return true;
}

static bool on_proof(struct wk_conn *c, const uint8_t *body)
{
    uint8_t want[PS_SHA256_BYTES];

    PS_ASSERT(c->head.body_bytes == sizeof(want));
    make_proof(c, c->pull == NULL, want);
    if (!ps_equal_ct(want, body, sizeof(want))) {
        wk_conn_refuse(c, WK_PEER_R_SECRET);
        return true;
    }
    if (c->pull == NULL)
        say_proof(c);
    wk_peer_put_hello(&c->out, &c->p->conf.ident);
    wk_conn_goto(c, WK_CONN_HELLO);
    return true;
}

static bool on_hello(struct wk_conn *c, const uint8_t *body)
{
    struct wk_tier_ident theirs;

    if (wk_peer_hello_decode(body, c->head.body_bytes, &theirs) != WK_PEER_WIRE_OK)
        return false;
    if (wk_peer_ident_is_equal(&theirs, &c->p->conf.ident))
        wk_conn_goto(c, WK_CONN_READY);
    else
        wk_conn_refuse(c, WK_PEER_R_IDENT);
    return true;
}

static bool on_refuse(struct wk_conn *c, const uint8_t *body)
{
    enum wk_peer_reason reason;

    if (wk_peer_reason_decode(body, c->head.body_bytes, &reason) != WK_PEER_WIRE_OK)
        return false;
    wk_conn_cut(c, wk_peer_reason_text(reason));
    return true;
}

/* ---- reading ---- */

static bool is_expected(const struct wk_conn *c)
{
    const bool dialled = c->pull != NULL;

    switch (c->head.kind) {
    case WK_PEER_CHALLENGE:
        return c->state == WK_CONN_CHALLENGE;
    case WK_PEER_PROOF:
        return c->state == WK_CONN_PROOF;
    case WK_PEER_HELLO:
        return c->state == WK_CONN_HELLO;
    case WK_PEER_REFUSE:
        return true;
    case WK_PEER_FIND:
    case WK_PEER_GET:
        return c->state == WK_CONN_READY && !dialled;
    case WK_PEER_FOUND:
    case WK_PEER_GOT:
    case WK_PEER_PIECE:
        return c->state == WK_CONN_READY && dialled;
    case WK_PEER_N_KINDS:
        break;
    }
    return false;
}

static bool on_head(struct wk_conn *c)
{
    if (wk_peer_head_decode(c->in_small, c->p->conf.ident.page_tokens, &c->head) !=
            WK_PEER_WIRE_OK ||
        !is_expected(c))
        return false;
    if (c->head.kind == WK_PEER_PIECE) {
        c->stage = WK_IN_PIECE;
        c->in_to = c->in_small;
        c->in_left = WK_PEER_PIECE_HEAD_BYTES;
        return true;
    }
    c->stage = WK_IN_BODY;
    ps_buf_clear(&c->body);
    c->in_to = (uint8_t *)ps_buf_grow(&c->body, c->head.body_bytes);
    c->in_left = c->head.body_bytes;
    return true;
}

static bool on_body(struct wk_conn *c)
{
    const uint8_t *body = (const uint8_t *)c->body.data;
    bool ok = false;

    switch (c->head.kind) {
    case WK_PEER_CHALLENGE:
        ok = on_challenge(c, body);
        break;
    case WK_PEER_PROOF:
        ok = on_proof(c, body);
        break;
    case WK_PEER_HELLO:
        ok = on_hello(c, body);
        break;
    case WK_PEER_REFUSE:
        ok = on_refuse(c, body);
        break;
    case WK_PEER_FIND:
    case WK_PEER_GET:
        ok = wk_serve_ask(c, body);
        break;
    case WK_PEER_FOUND:
    case WK_PEER_GOT:
        ok = wk_pull_counted(c, body);
        break;
    case WK_PEER_PIECE:
    case WK_PEER_N_KINDS:
        break;
    }
    if (c->body.cap > BODY_KEEP_BYTES) {
        ps_buf_fini(&c->body);
        ps_buf_init(&c->body);
    }
    expect_head(c);
    return ok;
}

static bool on_piece(struct wk_conn *c)
{
    struct wk_peer_piece piece;

    if (wk_peer_piece_decode(c->in_small, &c->head, &piece) != WK_PEER_WIRE_OK)
        return false;
    c->in_to = wk_pull_piece(c, &piece);
    c->in_left = piece.n_bytes;
    c->stage = WK_IN_BULK;
    return c->in_to != NULL;
}

/* What was waited for is there. False: the peer breaks a rule. */
static bool advance(struct wk_conn *c)
{
    switch (c->stage) {
    case WK_IN_HEAD:
        return on_head(c);
    case WK_IN_BODY:
        return on_body(c);
    case WK_IN_PIECE:
        return on_piece(c);
    case WK_IN_BULK:
        expect_head(c);
        wk_pull_piece_end(c);
        break;
    }
    return true;
}

void wk_conn_read(struct wk_conn *c)
{
    uint32_t room = WK_PEER_TURN_BYTES;

    while (c->state != WK_CONN_DEAD && room > 0) {
        ssize_t n = recv(c->fd, c->in_to, ps_min_u32(c->in_left, room), 0);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0) {
            wk_conn_cut(c, "lost");
            return;
        }
        PS_ASSERT((uint32_t)n <= c->in_left);
        c->in_to += n;
        c->in_left -= (uint32_t)n;
        room -= (uint32_t)n;
        if (c->in_left == 0 && !advance(c)) {
            ps_warn("a peer broke a rule and was cut", "address=%s state=%d kind=%d", c->address,
                    (int)c->state, (int)c->head.kind);
            wk_conn_cut(c, "rules");
        }
    }
}

/* ---- writing ---- */

bool wk_conn_wants_out(const struct wk_conn *c)
{
    if (c->state == WK_CONN_DIAL || c->state == WK_CONN_DEAD)
        return false;
    if (c->out_at < c->out.len || c->bulk_left > 0 || c->sending != NULL)
        return true;
    for (uint32_t i = 0; i < WK_PEER_INFLIGHT; i++) {
        if (c->slot[i].state == WK_SLOT_ANSWERED)
            return true;
    }
    return false;
}

static void sent(struct wk_conn *c, size_t n)
{
    const size_t end = c->bulk_left > 0 ? c->out_lead : c->out.len;
    const size_t lead = ps_min_size(n, end - c->out_at);

    c->out_at += lead;
    n -= lead;
    if (n > 0) {
        PS_ASSERT(n <= c->bulk_left);
        c->bulk += n;
        c->bulk_left -= (uint32_t)n;
    }
    if (c->out_at == c->out.len) {
        ps_buf_clear(&c->out);
        c->out_at = c->out_lead = 0;
    } else if (c->out_at > OUT_MOVE_BYTES) {
        c->out_lead -= ps_min_size(c->out_lead, c->out_at);
        ps_buf_consume(&c->out, c->out_at);
        c->out_at = 0;
    }
}

void wk_conn_flush(struct wk_conn *c)
{
    uint32_t room = WK_PEER_TURN_BYTES;

    while (room > 0) {
        struct iovec iov[2];
        struct msghdr m = {.msg_iov = iov};
        size_t end = c->bulk_left > 0 ? c->out_lead : c->out.len;
        ssize_t n;

        if (c->out_at < end)
            iov[m.msg_iovlen++] = (struct iovec){c->out.data + c->out_at, end - c->out_at};
        if (c->bulk_left > 0)
            iov[m.msg_iovlen++] =
                (struct iovec){(void *)(uintptr_t)c->bulk, ps_min_u32(c->bulk_left, room)};
        if (m.msg_iovlen == 0) {
            if (c->pull != NULL || !wk_serve_next(c))
                return;
            continue;
        }
        n = sendmsg(c->fd, &m, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return;
        if (n < 0) {
            wk_conn_cut(c, "lost");
            return;
        }
        sent(c, (size_t)n);
        c->progress_us = wk_peers_now(c->p);
        room -= (uint32_t)ps_min_size((size_t)n, room);
    }
}

/* ---- time ---- */

uint64_t wk_conn_deadline(const struct wk_conn *c)
{
    if (c->state < WK_CONN_READY)
        return c->since_us + WK_PEER_HANDSHAKE_US;
    return wk_conn_wants_out(c) ? c->progress_us + WK_PEER_STALL_US : UINT64_MAX;
}

void wk_conn_expire(struct wk_conn *c, uint64_t now_us)
{
    /* With nothing to send the stall's clock stands at now. */
    if (!wk_conn_wants_out(c))
        c->progress_us = now_us;
    if (c->state != WK_CONN_DEAD && now_us >= wk_conn_deadline(c))
        wk_conn_cut(c, c->state < WK_CONN_READY ? "handshake" : "stalled");
}
