#pragma once

/*
 * The inside of the worker's link. Everything here belongs to the I/O thread, except the two rings,
 * the published load and the atomics of struct wk_link.
 *
 *   dial    one router address: socket, epoch, timers
 *   route   what one router incarnation gave us: its attempts and the window of its dispatch numbers
 *   att     one attempt, from Submit until its end is acknowledged
 *
 * Life of a dial (the only writer is wk_dial_goto):
 *
 *   IDLE -> DIAL -> HELLO -> JOINED
 *    ^       |        |        |
 *    +-------+--------+--------+   lost, no Welcome in time, Who, Bye
 *
 * IDLE waits for retry_us without a socket; DIAL has a socket and nothing sent; HELLO repeats Hello.
 *
 * Life of an attempt:
 *
 *   NEW -> OPEN -> ENDED -> freed
 *     \____________/
 *
 * NEW waits for the scheduler's ring, OPEN has a handle there, ENDED waits for FinAck. An abandoned
 * attempt has no route: nobody asks for it any more, it only waits for the scheduler to let go.
 */

#include <pthread.h>
#include <stdatomic.h>

#include "common/buf.h"
#include "common/map.h"
#include "common/mq/inject.h"
#include "common/mq/mq.h"
#include "common/rng.h"
#include "common/seqlock.h"
#include "proto/msg.h"
#include "proto/window.h"
#include "worker/link.h"

enum {
    WK_DIALS_MAX = 64,
    WK_ID_BYTES = 20, /* uid, incarnation, nonce */
    WK_HELLO_FULL_US = 50000,
    WK_HELLO_REPEAT_US = 200000,
    WK_HELLO_GIVE_UP_US = 1000000,
    WK_DIAL_GIVE_UP_US = 2000000, /* no connection at all */
    WK_BACKOFF_MIN_US = 200000,
    WK_BACKOFF_MAX_US = 2000000,
    WK_SILENCE_US = 3000000, /* then a router's attempts are cancelled */
    WK_SILENCE_BEATS = 30,   /* the same where beats are slower */
    WK_END_REPEAT_US = 250000,
    WK_END_KEEP_US = 30000000,
    WK_SCAN_US = 10000,
    WK_STALL_US = 100000,
    WK_BEAT_MS = 100,
    WK_TOKENS_BYTES = 1 << 20, /* of one Tokens message, about */
    WK_TOKENS_ROW = 4096,      /* tokens in one row */
    WK_RECV_MAX = 20000,       /* messages of one turn */
};

#define WK_NO_HANDLE UINT32_MAX

enum wk_att_state { WK_ATT_NEW, WK_ATT_OPEN, WK_ATT_ENDED };
enum wk_dial_state { WK_DIAL_IDLE, WK_DIAL_DIAL, WK_DIAL_HELLO, WK_DIAL_JOINED };

struct wk_att {
    struct wk_att *next, *prev; /* of its route */
    struct wk_att *todo_next;
    struct wk_route *route; /* NULL: abandoned */
    enum wk_att_state state;
    bool in_todo, cancel_wanted, cancel_pushed;
    uint64_t req, dispatch_seq;
    uint32_t attempt, handle;
    struct pb_submit *submit; /* NEW only */

    uint32_t base;   /* tokens of earlier attempts */
    uint32_t n, cap; /* tokens here */
    uint32_t n_sent; /* of these; Resend and OpenList set it back */
    uint32_t *ids;
    struct pb_logprob **logprobs; /* NULL until the first one */

    bool rejected, end_sent;
    enum pb_reject reject;
    uint32_t predicted_wait_ms;
    enum pb_finish finish;
    uint32_t matched_id, n_cached, n_prompt_scores;
    struct pb_logprob *prompt_scores;
    uint64_t end_next_us, expire_us;
};

struct wk_route {
    uint64_t rinc; /* 0: no router yet */
    struct pb_window window;
    struct ps_map by_req; /* request -> struct wk_att */
    struct wk_att *first;
    uint32_t n_att;
    uint32_t admin_id; /* last one done */
};

struct wk_dial {
    char *endpoint;
    bool listed; /* the resolver still names it */
    enum wk_dial_state state;
    struct ps_mq_sock *sock;
    struct wk_route *route;
    uint32_t nonce, epoch, seq_out;
    uint64_t opened_us, hello_next_us, first_hello_us, retry_us, backoff_us;
    uint64_t heard_us; /* last valid frame of this router */
    uint64_t beat_next_us;
    uint64_t shadow_rinc; /* the router behind this address is joined through another one */
    uint32_t interval_ms;
    bool want_open_list;
};

struct wk_published { /* by the scheduler, once a tick */
    struct pb_load load;
    uint64_t tick;
};

struct wk_resolve; /* link_resolve.c */

struct wk_link {
    struct pb_worker_info info;
    struct pb_limits limits;
    uint32_t n_handles;
    const struct ps_clock *clock;
    struct ps_wake *sched_wake;
    struct ps_wake wake;
    struct ps_ring *in_ring, *out_ring;
    _Atomic uint64_t published_ver, published[PS_SEQ_WORDS(struct wk_published)];
    _Atomic uint64_t kv_ver, kv[PS_SEQ_WORDS(struct pb_kv_load)]; /* by the scheduler */
    _Atomic bool stop, draining;
    _Atomic uint32_t n_joined, n_atts; /* n_atts: with a route, i.e. somebody may still ask */

    pthread_t thread;
    bool started;
    struct ps_mq *mq;
    struct ps_mq_set *set;
    struct ps_mq_keys keys;
    struct ps_inject *inject_out, *inject_in;
    struct wk_resolve *resolve;
    struct ps_rng rng;
    uint64_t now_us, scan_next_us;

    struct wk_dial *dials[WK_DIALS_MAX];
    uint32_t n_dials, nonce;

    struct wk_att **handles; /* [n_handles] */
    uint32_t *free_handles, n_free_handles;
    uint32_t n_atts_all, n_atts_max;
    struct wk_att *todo_first, **todo_last; /* needs a push to the scheduler */
    enum wk_in_kind admin_todo[16];
    uint32_t n_admin_todo;
    bool flush_due; /* something unsent: the next scan tries again */
    bool drained;

    struct ps_buf buf;
    struct pb_tokens_builder tokens;
    struct { /* rows of the Tokens message being built */
        struct wk_att *att;
        uint32_t n_sent;
    } * commits;
    uint32_t n_commits, commits_cap;
    int send_result;
};

/* link_dial.c */
struct wk_dial *wk_dial_create(struct wk_link *l, const char *endpoint);
void wk_dial_destroy(struct wk_link *l, struct wk_dial *d);
void wk_dial_close(struct wk_link *l, struct wk_dial *d, uint64_t retry_in_us, int linger_ms);
void wk_dial_timers(struct wk_link *l, struct wk_dial *d);
void wk_dial_extend(struct wk_link *l, uint64_t gap_us); /* our own stall: nobody else's silence */
void wk_dial_on_welcome(struct wk_link *l, struct wk_dial *d, const struct pb_msg *m);
void wk_dial_on_who(struct wk_link *l, struct wk_dial *d, uint32_t echo_epoch);
struct pb_head wk_dial_head(const struct wk_link *l, const struct wk_dial *d, enum pb_kind kind);
/* Sends l->buf on d; counts the frame. PS_MQ_OK proves nothing. */
int wk_dial_send(struct wk_link *l, struct wk_dial *d);
int wk_dial_send_msg(struct wk_link *l, struct wk_dial *d, struct pb_msg *m, enum pb_kind kind);
void wk_dial_send_bye(struct wk_link *l, struct wk_dial *d);
void wk_dial_deliver(void *ud, uint64_t tag, const uint8_t *id, size_t id_len, const uint8_t *data,
                     size_t len); /* ps_inject_fn of the way out */
struct wk_dial *wk_dial_by_nonce(struct wk_link *l, uint64_t nonce);

/* link_attempt.c */
void wk_att_free(struct wk_link *l, struct wk_att *a);
void wk_att_abandon(struct wk_link *l,
                    struct wk_att *a); /* frees it, or the scheduler's end will */
void wk_route_abandon(struct wk_link *l, struct wk_route *r);
void wk_route_cancel(struct wk_link *l, struct wk_route *r); /* own decision: still answered for */
void wk_att_on_submit(struct wk_link *l, struct wk_dial *d, struct pb_submit *move_s);
void wk_att_on_cancel(struct wk_link *l, struct wk_dial *d, const struct pb_attempt *c);
void wk_att_on_resend(struct wk_link *l, struct wk_dial *d, const struct pb_attempt *c);
void wk_att_on_finack(struct wk_link *l, struct wk_dial *d, const struct pb_attempt *c);
void wk_att_push_todo(struct wk_link *l);

/* link_out.c */
void wk_out_take(struct wk_link *l);                    /* everything the scheduler pushed */
void wk_out_flush(struct wk_link *l);                   /* unsent tokens of all routes */
void wk_out_scan(struct wk_link *l, struct wk_dial *d); /* ends due, expiries */
void wk_out_beat(struct wk_link *l, struct wk_dial *d);
void wk_out_open_list(struct wk_link *l, struct wk_dial *d);

/* link_resolve.c: a thread of its own, because getaddrinfo blocks for as long as it likes. */
enum { WK_RESOLVE_OK, WK_RESOLVE_E_BAD }; /* an address is not tcp://host:port */
PS_MUST int wk_resolve_create(struct wk_resolve **out, const char *const *routers,
                              uint32_t n_routers, struct ps_wake *wake);
void wk_resolve_destroy(struct wk_resolve *r);
/* True when there is a new list: endpoints [*n], each to be freed, the array too. Incomplete: some name
 * had no answer, so absence from the list means nothing. */
bool wk_resolve_take(struct wk_resolve *r, char ***out, uint32_t *out_n, bool *out_complete);
