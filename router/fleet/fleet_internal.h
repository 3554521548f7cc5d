#pragma once

/*
 * The inside of the fleet. Everything belongs to the link thread except the rings, the views and what
 * a loop keeps for itself (struct rt_loop_side).
 *
 *   rt_peer   one worker slot: identity, link epoch, lease, cancels that still wait for an answer
 *   rt_att    one attempt of one request, from the loop's submit until its end was told
 *
 * Life of an attempt: SENT (Submit repeats) -> ACCEPTED -> told its end and freed. A lost, refused or
 * finished attempt whose event did not fit the loop's ring stays, away from its peer, until it fits.
 *
 * Life of a peer (the only writer is rt_peer_goto):
 *
 *   ABSENT -> LIVE <-> SUSPECT -> DEAD
 *     ^        |  ^       |        |
 *     |        v  |       |        |    Bye: back to ABSENT; Hello: back to LIVE
 *     |     DRAINING <----+        |
 *     +--------+-------------------+
 */

#include <pthread.h>
#include <stdatomic.h>

#include "common/buf.h"
#include "common/map.h"
#include "common/metric.h"
#include "common/mq/inject.h"
#include "common/mq/mq.h"
#include "common/mq/zap.h"
#include "common/seqlock.h"
#include "proto/msg.h"
#include "router/fleet/fleet.h"

enum {
    RT_ID_BYTES = 20, /* uid, incarnation, nonce */
    RT_BEAT_MS = 100,
    RT_BEATS_PER_WORKER = 4, /* interval = workers / 4 ms: 11 us a beat stay below 5 % of a core */
    RT_SUSPECT_US = 300000,
    RT_SUSPECT_BEATS = 3,
    RT_DEAD_US = 2000000,
    RT_DEAD_BEATS = 20,
    RT_UNREACHABLE_US = 500000, /* above two Hello repeats, below the silence rule */
    RT_HANG_US = 10000000,
    RT_HANG_STEPS = 20,
    RT_SLOT_KEEP_US = 60000000, /* a dead worker's slot is kept for its return */
    RT_STALL_US = 100000,
    RT_SCAN_US = 10000,
    RT_RESEND_MIN_US = 20000,
    RT_RESEND_REPEAT_US = 100000,
    RT_QUERY_MIN_US = 150000,
    RT_WHO_MIN_US = 100000,
    RT_WHO_SLOTS = 256,
    RT_SUBMIT_TRIES = 4,
    RT_ADMIN_TRIES = 3,
    RT_ADMIN_REPEAT_US = 250000,
    RT_CANCELS_A_BEAT = 64,
    RT_CANCELS_MAX = 65536,
    RT_RECV_MAX = 20000,
    RT_EV_CANCEL_DONE = 100, /* from the link thread to rt_fleet_poll; no loop sees it */
};

struct rt_cancel {              /* an attempt that its worker may still run and nobody wants */
    uint64_t req, dispatch_seq; /* dispatch_seq 0: not known */
    uint32_t attempt;
};

struct rt_cancels {
    struct rt_cancel *list;
    uint32_t n, cap, cursor;
    struct ps_map index; /* digest of (req, attempt) -> position */
};

struct rt_att {
    struct rt_att *next, *prev;           /* of its peer */
    struct rt_att *attn_next, *attn_prev; /* needs a look at each scan */
    bool in_attn;
    struct rt_peer *peer; /* NULL: left its worker, only its end is to be told */
    uint32_t loop, slot, worker;
    uint64_t req, dispatch_seq;
    uint32_t attempt;

    struct pb_submit *submit; /* until accepted */
    bool holds_resv;
    int64_t resv_tok;
    bool accepted, accept_told;
    uint32_t accept_epoch, accept_seq; /* the frame that said so: older lists do not judge it */
    uint32_t tries;
    uint64_t next_us; /* Submit again */
    uint32_t list_stamp;

    uint32_t n_have; /* tokens of the answer, those of earlier attempts included */
    bool gap;
    uint64_t resend_next_us;

    enum { RT_END_NONE, RT_END_FINISHED, RT_END_REJECTED, RT_END_LOST } end;
    struct pb_finished fin; /* scores: not used, see below */
    struct pb_logprob *prompt_scores;
    enum pb_reject reject;
    uint32_t predicted_wait_ms;
    bool fault_kills;
};

struct rt_peer {
    uint32_t slot;
    enum rt_worker_state state;
    uint64_t generation;
    struct pb_worker_info info;
    struct pb_load load;
    struct pb_kv_load kv;
    uint8_t id[RT_ID_BYTES]; /* of the newest Hello */
    uint32_t nonce, epoch;   /* epoch 0: no link */
    uint32_t seq_out, beat_seq;
    uint64_t heard_us, beat_next_us, unreachable_us;
    uint64_t dispatch_seq;
    struct rt_att *first;
    uint32_t n_att, n_accepted;
    struct rt_cancels cancels;
    uint64_t tick, tick_us; /* when the scheduler's tick last moved, or had nothing to do */
    bool hung;
    bool says_draining, drain_wanted, drained_logged;
    bool need_list;
    uint32_t n_mismatch, list_stamp;
    uint64_t query_us;
    struct {
        uint32_t id, tries;
        enum pb_admin_op op;
        uint64_t next_us;
    } admin;
};

struct rt_view { /* shared: written by the link thread, read and reserved on by loops */
    _Alignas(128) _Atomic uint64_t ver;
    _Atomic uint64_t words[PS_SEQ_WORDS(struct rt_worker)];
    /* Apart: placement reads the words of every worker, people these. */
    _Atomic uint64_t kv_ver, kv_words[PS_SEQ_WORDS(struct pb_kv_load)];
    _Alignas(128) _Atomic int64_t resv_tok;
    _Atomic int32_t resv_req;
};

enum rt_cmd_kind { RT_CMD_SUBMIT, RT_CMD_CANCEL, RT_CMD_ADMIN };

struct rt_cmd {
    enum rt_cmd_kind kind;
    uint32_t worker, attempt;
    uint64_t req;
    struct pb_submit *submit;
    int64_t resv_tok;
    enum pb_admin_op op;
};

struct rt_done { /* a cancel that is through, waiting for room */
    uint64_t req;
    uint32_t attempt;
};

struct rt_loop_side {
    struct ps_ring *cmds, *events;
    struct ps_wake *wake;
    /* link thread */
    struct rt_att **by_slot;
    uint32_t n_slots;
    bool rung, fleet_changed;
    struct rt_done *done;
    uint32_t n_done, done_cap;
    /* the loop itself */
    struct ps_map cancelled; /* request -> attempt: events still in the ring are not for it */
};

struct rt_fleet {
    uint8_t tokenizer_digest[32];
    bool checks_tokenizer;
    uint64_t rinc;
    uint32_t n_loops, n_events;
    const struct ps_clock *clock;
    struct ps_wake wake;
    struct rt_loop_side loops[RT_MAX_LOOPS];
    struct rt_view *views; /* [RT_MAX_WORKERS] */
    _Atomic uint32_t n_slots;
    _Atomic bool stop;

    pthread_t thread;
    bool started;
    struct ps_mq *mq;
    struct ps_mq_sock *sock;
    struct ps_mq_set *set;
    struct ps_zap *zap;
    struct ps_mq_keys keys;
    uint16_t port;
    struct ps_inject *inject_out, *inject_in;
    uint64_t now_us, scan_next_us;
    uint32_t epoch;
    uint64_t generation;
    struct rt_peer *peers[RT_MAX_WORKERS];
    struct ps_map by_uid; /* uid -> slot */
    uint32_t n_linked;
    struct rt_att *attn_first;
    struct ps_buf buf;
    int send_result;
    uint64_t who_us[RT_WHO_SLOTS];
    struct {
        struct ps_counter *stale, *bad, *resends, *lost, *mismatches, *queries;
    } count;
};

/* link.c: the thread, and what every sender needs */
void *rt_link_main(void *ud);
/* Sends f->buf to the peer; GONE is noted for its lease. PS_MQ_OK proves nothing. */
int rt_link_send(struct rt_fleet *f, struct rt_peer *p);
int rt_link_send_msg(struct rt_fleet *f, struct rt_peer *p, struct pb_msg *m, enum pb_kind kind);
void rt_link_send_attempt(struct rt_fleet *f, struct rt_peer *p, enum pb_kind kind, uint64_t req,
                          uint32_t attempt, uint64_t dispatch_seq, uint32_t from);

/* peer.c: join, lease, beats */
void rt_peer_destroy(struct rt_fleet *f, struct rt_peer *p);
void rt_peer_on_hello(struct rt_fleet *f, const uint8_t id[RT_ID_BYTES], const struct pb_hello *h);
void rt_peer_on_bye(struct rt_fleet *f, struct rt_peer *p);
void rt_peer_on_beat(struct rt_fleet *f, struct rt_peer *p, const struct pb_msg *m);
void rt_peer_on_admin_reply(struct rt_peer *p, uint32_t id);
void rt_peer_admin(struct rt_fleet *f, struct rt_peer *p, enum pb_admin_op op);
void rt_peer_scan(struct rt_fleet *f, struct rt_peer *p);
void rt_peer_extend(struct rt_fleet *f, uint64_t gap_us);
uint32_t rt_peer_interval_ms(const struct rt_fleet *f);

/* repair.c: open lists, digests, cancels that wait for an answer */
void rt_cancel_add(struct rt_fleet *f, struct rt_peer *p, uint64_t req, uint32_t attempt,
                   uint64_t dispatch_seq);
void rt_cancel_del(struct rt_peer *p, uint64_t req, uint32_t attempt);
void rt_cancel_clear(struct rt_peer *p);
void rt_cancel_send_some(struct rt_fleet *f, struct rt_peer *p);
void rt_repair_on_list(struct rt_fleet *f, struct rt_peer *p, struct pb_msg *m);
void rt_repair_on_digest(struct rt_fleet *f, struct rt_peer *p, const struct pb_msg *m);

/* attempt.c */
struct rt_att *rt_att_find(struct rt_fleet *f, uint64_t req);
/* The attempt if it is current and runs on p, else NULL. */
struct rt_att *rt_att_current(struct rt_fleet *f, const struct rt_peer *p, uint64_t req,
                              uint32_t attempt);
void rt_att_submit(struct rt_fleet *f, uint32_t loop, struct rt_cmd *c);
void rt_att_cancel(struct rt_fleet *f, uint32_t loop, uint64_t req, uint32_t attempt);
void rt_att_free(struct rt_fleet *f, struct rt_att *a);
void rt_att_accept(struct rt_fleet *f, struct rt_att *a, uint32_t frame_seq);
void rt_att_lost(struct rt_fleet *f, struct rt_att *a, bool fault_kills, bool cancel);
void rt_att_ask_again(struct rt_fleet *f, struct rt_att *a);
void rt_att_on_reject(struct rt_fleet *f, struct rt_peer *p, const struct pb_refusal *r);
void rt_att_on_finished(struct rt_fleet *f, struct rt_peer *p, struct pb_msg *m);
void rt_att_on_tokens(struct rt_fleet *f, struct rt_peer *p, struct pb_msg *m);
void rt_att_covered(struct rt_fleet *f, struct rt_peer *p, uint64_t applied, uint32_t frame_seq);
void rt_att_scan(struct rt_fleet *f);
void rt_att_extend(struct rt_fleet *f, uint64_t gap_us);

/* view.c */
void rt_view_publish(struct rt_fleet *f, const struct rt_peer *p, bool changed);
void rt_view_flush(
    struct rt_fleet *f); /* FLEET events and cancels done, as far as rings have room */
bool rt_view_tell(struct rt_fleet *f, uint32_t loop, const struct rt_event *e); /* false: full */
