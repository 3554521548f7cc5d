#pragma once

/*
 * ZeroMQ sockets as the wire uses them: one ROUTER that workers dial, one DEALER per link and epoch.
 *
 * A socket belongs to one thread; nothing here blocks but ps_mq_wait and ps_mq_destroy. Messages are
 * one part (plus the routing id at the ROUTER); anything else is discarded and told as E_BAD.
 *
 * Invariants
 *   Q1 no ZMTP heartbeats: they abort the process in libzmq 4.3 when a peer dies while we lag.
 *   Q2 a DEALER makes one connection in its life (no reconnect): a new link is a new socket, so that
 *      nothing queued for a dead peer reaches its successor and ids never mix.
 *   Q3 a monitor is read in every wait round, and ended in the order stop, socket, PAIR: one that is
 *      not read, or closed otherwise, freezes the library's I/O thread.
 *   Q4 a send that succeeded proves nothing; E_FULL and E_GONE are hints. The protocol heals.
 */

#include "common/base.h"

enum {
    PS_MQ_ID_MAX = 32,
    PS_MQ_KEY_CHARS = 41, /* Z85 of 32 bytes and the NUL */
    PS_MQ_USER_CHARS = 17,
};

enum {
    PS_MQ_OK,
    PS_MQ_E_AGAIN,   /* nothing to receive */
    PS_MQ_E_FULL,    /* cannot send now: a timer or a state sends it again */
    PS_MQ_E_GONE,    /* ROUTER: no connection has this id */
    PS_MQ_E_BAD,     /* a message of another shape was discarded */
    PS_MQ_E_SOCKETS, /* out of sockets or descriptors: fatal for this link only */
    PS_MQ_E_CONFIG,  /* bad address, port in use, bad key: text in err */
};

struct ps_mq;      /* context */
struct ps_mq_sock; /* ROUTER or DEALER */
struct ps_mq_set;  /* what a thread waits for */

struct ps_mq_keys { /* CURVE, Z85; on = false is the NULL mechanism */
    bool on;
    char pub[PS_MQ_KEY_CHARS], sec[PS_MQ_KEY_CHARS];
    char server[PS_MQ_KEY_CHARS]; /* DEALER: the router's public key */
};

struct ps_mq_msg {
    uint8_t id[PS_MQ_ID_MAX]; /* ROUTER: who sent it */
    size_t id_len;
    const uint8_t *data; /* valid until the next receive on this socket */
    size_t len;
    char user_id[PS_MQ_USER_CHARS]; /* what ZAP said at the handshake, "" without CURVE */
};

/* Raises RLIMIT_NOFILE to its hard limit; -EMFILE when even that is below need. */
PS_MUST int ps_mq_raise_nofile(uint64_t need);
bool ps_mq_host_is_loopback(const char *host);

PS_MUST int ps_mq_create(struct ps_mq **out, uint32_t n_sockets_max);
void ps_mq_destroy(struct ps_mq *q); /* every socket is closed before; NULL is fine */
void *ps_mq_raw(struct ps_mq *q);    /* the library's context, for common/mq only */

/* err_size >= 160 */
PS_MUST int ps_mq_router_open(struct ps_mq_sock **out, struct ps_mq *q,
                              const struct ps_mq_keys *keys, const char *host, uint16_t port,
                              uint16_t *out_port, char *err, size_t err_size);
PS_MUST int ps_mq_dealer_open(struct ps_mq_sock **out, struct ps_mq *q,
                              const struct ps_mq_keys *keys, const char *endpoint,
                              const uint8_t *id, size_t id_len);
void ps_mq_close(struct ps_mq_sock *s, int linger_ms); /* NULL is fine */

PS_MUST int ps_mq_send(struct ps_mq_sock *s, const uint8_t *id, size_t id_len, const uint8_t *data,
                       size_t len);
PS_MUST int ps_mq_recv(struct ps_mq_sock *s, struct ps_mq_msg *out);
bool ps_mq_lost(struct ps_mq_sock *s); /* DEALER: its one connection ended or could not be made */

PS_MUST int ps_mq_set_create(struct ps_mq_set **out);
void ps_mq_set_destroy(struct ps_mq_set *t);
void ps_mq_set_clear(struct ps_mq_set *t);
void ps_mq_set_add_fd(struct ps_mq_set *t, int fd);
void ps_mq_set_add(struct ps_mq_set *t, struct ps_mq_sock *s, bool for_send);
/* Returns when something may be ready or the time is over; the caller tries everything. */
void ps_mq_wait(struct ps_mq_set *t, uint32_t timeout_ms);
