#pragma once

/*
 * For unit tests of the peers: one side of the protocol by hand, so that it can break its rules.
 */

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "worker/tier/peer_world.h"

static inline uint16_t address_port(const char *address)
{
    return (uint16_t)strtoul(strrchr(address, ':') + 1, NULL, 10);
}

static inline struct sockaddr_in loopback(uint16_t port)
{
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static inline int raw_dial(const char *address)
{
    struct sockaddr_in a = loopback(address_port(address));
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), few_bytes = 65536, one = 1;

    assert_true(fd >= 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &few_bytes, sizeof(few_bytes)), 0);
    assert_int_equal(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)), 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
    return fd;
}

/* Nobody listens there, and nobody else will. */
static inline int raw_bind(char address[32])
{
    struct sockaddr_in a = loopback(0);
    socklen_t len = sizeof(a);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
    snprintf(address, 32, "127.0.0.1:%u", ntohs(a.sin_port));
    return fd;
}

static inline int raw_listen(char address[32])
{
    int fd = raw_bind(address);

    assert_int_equal(listen(fd, 8), 0);
    return fd;
}

static inline int raw_accept(struct world *w, int listener)
{
    int fd = -1;

    for (uint32_t i = 0; fd < 0 && i < TURNS_MAX; i++) {
        world_turn(w);
        fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    }
    assert_true(fd >= 0);
    return fd;
}

static inline void raw_send(int fd, struct ps_buf *b)
{
    assert_int_equal(send(fd, b->data, b->len, MSG_NOSIGNAL), (ssize_t)b->len);
    ps_buf_clear(b);
}

/* False: the other side has closed. */
static inline bool raw_recv(struct world *w, int fd, void *to, size_t n)
{
    uint8_t *at = to;
    ssize_t got = -1;

    for (uint32_t i = 0; n > 0 && i < TURNS_MAX; i++) {
        got = recv(fd, at, n, 0);
        if (got == 0 || (got < 0 && errno != EAGAIN))
            return false;
        if (got > 0) {
            at += got;
            n -= (size_t)got;
        } else {
            world_turn(w);
        }
    }
    assert_int_equal(n, 0);
    return true;
}

/* The next frame; false: closed. body has room for every body but that of a piece. */
static inline bool raw_frame(struct world *w, int fd, struct wk_peer_head *h, uint8_t *body)
{
    uint8_t head[WK_PEER_HEAD_BYTES];

    if (!raw_recv(w, fd, head, sizeof(head)))
        return false;
    assert_int_equal(wk_peer_head_decode(head, TOKENS, h), WK_PEER_WIRE_OK);
    return raw_recv(w, fd, body, h->body_bytes);
}

static inline bool raw_is_closed(struct world *w, int fd)
{
    uint8_t scrap[4096];
    ssize_t n = -1;

    for (uint32_t i = 0; i < TURNS_MAX; i++) {
        n = recv(fd, scrap, sizeof(scrap), 0);
        if (n == 0 || (n < 0 && errno != EAGAIN))
            return true;
        world_turn(w);
    }
    return false;
}

static inline void raw_proof(bool of_dialler, uint8_t nonces[2][WK_PEER_NONCE_BYTES],
                             const char *secret, struct ps_buf *out)
{
    struct ps_buf b = PS_BUF_INIT;
    uint8_t mac[PS_SHA256_BYTES];

    ps_buf_add_str(&b, of_dialler ? "penstock kv peer, dialling" : "penstock kv peer, serving");
    ps_buf_add_u32(&b, WK_PEER_VERSION);
    ps_buf_add(&b, nonces, (size_t)2 * WK_PEER_NONCE_BYTES);
    ps_hmac_sha256(secret, strlen(secret), b.data, b.len, mac);
    wk_peer_put_proof(out, mac);
    ps_buf_fini(&b);
}

/* Says everything that is needed until READY. */
static inline void raw_handshake(struct world *w, int fd, bool dials, uint32_t item_bytes)
{
    struct wk_peer_challenge own = {.version = WK_PEER_VERSION}, theirs;
    const struct wk_tier_ident ident = ident_of(item_bytes);
    uint8_t nonces[2][WK_PEER_NONCE_BYTES] = {{0}}, body[256];
    struct ps_buf b = PS_BUF_INIT;
    struct wk_peer_head h;

    wk_peer_put_challenge(&b, &own);
    raw_send(fd, &b);
    assert_true(raw_frame(w, fd, &h, body));
    assert_int_equal(wk_peer_challenge_decode(body, h.body_bytes, &theirs), WK_PEER_WIRE_OK);
    memcpy(nonces[dials ? 1 : 0], theirs.nonce, sizeof(theirs.nonce));
    if (!dials)
        assert_true(raw_frame(w, fd, &h, body)); /* its proof, which we believe */
    raw_proof(dials, nonces, "", &b);
    raw_send(fd, &b);
    if (dials)
        assert_true(raw_frame(w, fd, &h, body));
    wk_peer_put_hello(&b, &ident);
    raw_send(fd, &b);
    assert_true(raw_frame(w, fd, &h, body));
    assert_int_equal(h.kind, WK_PEER_HELLO);
    ps_buf_fini(&b);
}
