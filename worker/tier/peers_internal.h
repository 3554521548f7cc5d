#pragma once

/*
 * The inside of the peers: everything here belongs to their thread (or to who pumps), except the
 * two inboxes, closing and stop.
 *
 *   conn    a socket: frames in, frames and item bytes out, the handshake (peer_conn.c)
 *   serve   what others ask of us: a conn that was accepted (peer_serve.c)
 *   pull    what we ask of others: a tier with its jobs and at most one conn (peer.c)
 *
 * Life of a connection (the only writer is wk_conn_goto):
 *
 *   DIAL -> CHALLENGE -> PROOF -> HELLO -> READY -> DEAD
 *     \_________\__________\________\_______________/   lost, refused, late, cut
 *
 * DIAL waits for connect; the three after it wait for the other side's frame of that name. Accepted
 * ones begin with CHALLENGE. A DEAD one has no descriptor and is freed at the end of the turn.
 *
 * The secret keeps strangers and misconfigured workers out. It does not encrypt, and does not help
 * against somebody who can change packets on their way.
 */

#include <pthread.h>

#include "worker/tier/peer_name.h"
#include "worker/tier/peer_wire.h"

enum {
    WK_PEER_SERVED_MAX = 64, /* connections of others */
    WK_PEER_TIERS_MAX = 64,
    WK_PEER_CONNS_MAX = WK_PEER_SERVED_MAX + WK_PEER_TIERS_MAX,
    /* Requests with the store, also of connections that are gone since. */
    WK_PEER_ASKS_MAX = WK_PEER_SERVED_MAX * WK_PEER_INFLIGHT,
    WK_PEER_SECRET_MAX = 4096,
    WK_PEER_DEPTH = 32,
    WK_PEER_JOBS = WK_PEER_DEPTH + WK_PEER_INFLIGHT, /* with those given back before their answer */
    WK_PEER_HANDSHAKE_US = 2000000,
    WK_PEER_IO_US = 5000000,    /* an io that says no deadline itself, from when it was taken */
    WK_PEER_STALL_US = 5000000, /* bytes to send and nobody takes any */
    WK_PEER_BACKOFF_MIN_US = 100000,
    WK_PEER_BACKOFF_MAX_US = 5000000,
    WK_PEER_TURN_BYTES = 4 << 20,  /* one connection moves this much, then the next has its turn */
    WK_PEER_OUT_BYTES = 64 * 1024, /* answers that the other side does not read */
};

enum wk_conn_state {
    WK_CONN_DIAL,
    WK_CONN_CHALLENGE,
    WK_CONN_PROOF,
    WK_CONN_HELLO,
    WK_CONN_READY,
    WK_CONN_DEAD,
    WK_CONN_N_STATES
};

enum wk_conn_stage { WK_IN_HEAD, WK_IN_BODY, WK_IN_PIECE, WK_IN_BULK };

enum wk_slot_state { WK_SLOT_FREE, WK_SLOT_ASKED, WK_SLOT_ANSWERED };

struct wk_slot { /* one request that we serve */
    enum wk_slot_state state;
    struct wk_peer_ask *ask;
    uint32_t id;
    uint64_t order; /* of the answers: the oldest is sent first */
    uint32_t part, off;
    uint64_t sum;
};

struct wk_conn {
    struct wk_peers *p;
    struct wk_pull *pull; /* NULL: they dialled us */
    int fd;
    enum wk_conn_state state;
    uint64_t since_us, progress_us;         /* made; last time that bytes left, or had to */
    uint8_t nonces[2][WK_PEER_NONCE_BYTES]; /* the dialler's, the server's */
    char address[WK_PEER_ADDR_TEXT];

    enum wk_conn_stage stage;
    uint8_t *in_to; /* the next in_left bytes go there */
    uint32_t in_left;
    uint8_t in_small[WK_PEER_HEAD_BYTES];
    struct wk_peer_head head;
    struct ps_buf body;

    /* out[out_at, out_lead), then bulk, then the rest of out: what is added while an item's bytes
     * are on their way must not come between them. */
    struct ps_buf out;
    size_t out_at, out_lead;
    const uint8_t *bulk;
    uint32_t bulk_left;

    struct wk_slot slot[WK_PEER_INFLIGHT];
    struct wk_slot *sending;
};

enum wk_job_state { WK_JOB_FREE, WK_JOB_QUEUED, WK_JOB_RUNNING };

struct wk_job { /* one io of ours */
    enum wk_job_state state;
    struct wk_tier_io *io; /* NULL: a FIND that was given back; its answer is swallowed */
    bool is_find, has_got;
    uint32_t id, n_part, n_found, part, off;
    uint64_t order, sum;
    uint64_t give_up_us; /* then the connection is closed */
};

struct wk_pull { /* a tier that is a peer */
    struct wk_tier t;
    struct wk_peers *p;
    struct wk_peer_name *name;
    char *address;
    _Atomic uint32_t n_out; /* submitted and not posted yet */

    bool is_listed;
    struct wk_conn *conn;
    struct wk_job job[WK_PEER_JOBS];
    uint32_t next_id;
    uint64_t backoff_us, dial_us; /* the last pause; not before then */
    const char *told;             /* the trouble that was logged last */

    struct wk_tier_io bye;   /* submitted by close */
    bool is_closed, is_left; /* under closing: bye was seen; nobody waits for it any more */
};

struct wk_peers {
    struct wk_peers_conf conf;
    uint8_t secret[WK_PEER_SECRET_MAX];
    size_t secret_bytes;
    char address[WK_PEER_ADDR_TEXT];
    int listen_fd;
    uint64_t accept_us; /* not before then: descriptors ran out */
    struct ps_wake wake;
    struct wk_tier_inbox todo, answers; /* ios of tiers; asks that the store has looked at */
    pthread_t thread;
    bool has_thread;
    _Atomic bool stop;
    pthread_mutex_t closing;
    pthread_cond_t closed;

    struct wk_conn *conn[WK_PEER_CONNS_MAX];
    uint32_t n_conns, n_served, n_asks;
    struct wk_pull *pull[WK_PEER_TIERS_MAX];
    _Atomic uint32_t n_tiers; /* made and not destroyed */
    uint32_t n_pulls;
    uint64_t order, n_posted;
    uint64_t told_us[WK_PEER_N_REASONS]; /* when a refusal was logged */
};

static inline uint64_t wk_peers_now(const struct wk_peers *p)
{
    return ps_now_us(p->conf.clock);
}

/* conn */
struct wk_conn *wk_conn_create(struct wk_peers *p, struct wk_pull *pull, int fd,
                               const struct wk_peer_addr *a);
void wk_conn_cut(struct wk_conn *c, const char *why); /* -> DEAD; what it held goes back */
void wk_conn_refuse(struct wk_conn *c, enum wk_peer_reason reason);
void wk_conn_connected(struct wk_conn *c); /* DIAL -> CHALLENGE */
void wk_conn_read(struct wk_conn *c);
void wk_conn_flush(struct wk_conn *c);
bool wk_conn_wants_out(const struct wk_conn *c);
uint64_t
wk_conn_deadline(const struct wk_conn *c); /* of the handshake and of a stall; UINT64_MAX */
void wk_conn_expire(struct wk_conn *c, uint64_t now_us);
void wk_conn_destroy(struct wk_conn *c);
void wk_conn_set_options(int fd);

/* serve; false: cut it */
PS_MUST bool wk_serve_ask(struct wk_conn *c, const uint8_t *body);
void wk_serve_answered(struct wk_peers *p, struct wk_peer_ask *ask);
bool wk_serve_next(struct wk_conn *c); /* queues what is to be sent next; false: nothing is */
void wk_serve_lost(struct wk_conn *c);

/* pull; false, NULL: cut it */
PS_MUST bool wk_pull_counted(struct wk_conn *c, const uint8_t *body);
PS_MUST uint8_t *wk_pull_piece(struct wk_conn *c, const struct wk_peer_piece *piece);
void wk_pull_piece_end(struct wk_conn *c);
void wk_pull_lost(struct wk_pull *l, const char *why); /* its connection, or no way to get one */
void wk_pull_take(struct wk_tier_io *io);              /* submitted, or bye */
void wk_pull_turn(struct wk_pull *l, uint64_t now_us);
uint64_t wk_pull_deadline(const struct wk_pull *l);
bool wk_pull_is_polling(const struct wk_pull *l); /* waits for a name: nothing rings */
void wk_pull_destroy(struct wk_pull *l);

/* peers */
void wk_peers_take(struct wk_peers *p); /* both inboxes */
uint32_t wk_peers_turn(struct wk_peers *p, uint32_t wait_ms);
