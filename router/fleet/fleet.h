#pragma once

/*
 * The fleet: workers that dialled in, their leases and loads, and the repair protocol of every attempt.
 *
 * A link thread owns the sockets and the attempts on the wire: acceptance, repeats, gaps, Resend,
 * Finished/FinAck, cancels, digests, OpenList, death. Loop threads see only clean facts: an attempt's
 * tokens in order without gaps or repeats, its end, or its loss. What to do about a loss (dispatch
 * again with the tokens so far) is the loop's business.
 *
 * Invariants
 *   F1 per attempt the loop sees ACCEPTED at most once, then TOKENS whose `first` equals the count so
 *      far, then exactly one of FINISHED, REJECTED, LOST; after a cancel it sees nothing more of it.
 *   F2 tokens of an attempt that is not current never reach a loop.
 *   F3 a worker silent for 300 ms is SUSPECT (no new placement), for 2 s DEAD (its attempts are LOST);
 *      the link thread's own stalls extend all leases by the same amount.
 *   F4 an event that does not fit the loop's ring is not applied; the protocol asks for it again.
 */

#include "common/base.h"
#include "common/buf.h"
#include "common/clock.h"
#include "common/ring.h"
#include "proto/load.h"
#include "proto/submit.h"

struct rt_fleet;

enum { RT_MAX_WORKERS = 1024, RT_MAX_LOOPS = 64 };

/* Request ids: loop in the top 8 bits, then 32 bits of generation, then 24 bits of slot. */
#define RT_REQ_ID(loop, gen, slot) \
    (((uint64_t)(loop) << 56) | ((uint64_t)(gen) << 24) | (uint64_t)(slot))
#define RT_REQ_LOOP(id) ((uint32_t)((id) >> 56))
#define RT_REQ_SLOT(id) ((uint32_t)((id)&0xffffff))

struct rt_fleet_conf {
    const char *bind_host;         /* where workers dial */
    uint16_t tok_port;             /* 0 picks one; rt_fleet_port tells */
    uint32_t n_loops, n_events;    /* ring sizes, power of two */
    const char *curve_secret_file; /* "" : NULL mechanism */
    const char *curve_allow_file;  /* lines "z85-public-key uid-hex"; mandatory with CURVE */
    bool insecure_public_bind;     /* a public bind without CURVE was asked for explicitly */
    const char *inject;            /* fault injection, "" none */
    /* [32]: a worker with another tokenizer is not let in; NULL: any */
    const uint8_t *tokenizer_digest;
};

enum rt_worker_state { RT_W_ABSENT, RT_W_LIVE, RT_W_SUSPECT, RT_W_DRAINING, RT_W_DEAD };

/* A copy of what is known about one worker slot. */
struct rt_worker {
    uint32_t slot;
    enum rt_worker_state state;
    uint64_t generation; /* changes with each incarnation in this slot */
    struct pb_worker_info info;
    struct pb_load load;
    int64_t resv_tok; /* tokens placed here and not yet covered by a beat, all loops */
    int32_t resv_req;
    uint64_t last_beat_us;
};

enum rt_event_kind {
    RT_EV_ACCEPTED,
    RT_EV_TOKENS,
    RT_EV_FINISHED,
    RT_EV_REJECTED,
    RT_EV_LOST,
    RT_EV_FLEET
};

struct rt_tokens { /* one allocation, freed by the loop with ps_free */
    uint32_t n;
    const uint32_t *ids;
    const struct pb_logprob *logprobs; /* NULL or [n] */
};

struct rt_event {
    enum rt_event_kind kind;
    uint64_t req;
    uint32_t attempt;
    uint32_t worker;          /* slot */
    uint32_t first;           /* TOKENS: index in the answer, earlier attempts' tokens included */
    struct rt_tokens *tokens; /* TOKENS: moved to the loop */
    enum pb_finish finish;    /* FINISHED */
    uint32_t n_total, matched_id, n_cached;
    uint32_t n_prompt_scores;
    struct pb_logprob
        *prompt_scores;    /* FINISHED: moved to the loop, ps_free; NULL when not wanted */
    enum pb_reject reject; /* REJECTED */
    uint32_t predicted_wait_ms;
    bool fault_kills; /* LOST: this attempt was running when its worker died (poison suspicion) */
};
/* FLEET: a worker joined, changed state or left; look at the view again. */

PS_MUST int rt_fleet_create(struct rt_fleet **out, const struct rt_fleet_conf *conf,
                            const struct ps_clock *clock, struct ps_buf *err);
PS_MUST int rt_fleet_start(struct rt_fleet *f);
uint16_t rt_fleet_port(const struct rt_fleet *f);
void rt_fleet_stop(struct rt_fleet *f); /* Bye to all, joins the thread */
void rt_fleet_destroy(struct rt_fleet *f);

/* View: any thread, lock-free copies. Returns false for a slot that never held a worker. */
uint32_t rt_fleet_n_slots(const struct rt_fleet *f); /* slots ever used */
bool rt_fleet_worker(const struct rt_fleet *f, uint32_t slot, struct rt_worker *out);
/* What the tiers of its KV store did; not in struct rt_worker, which placement copies often. */
bool rt_fleet_kv(const struct rt_fleet *f, uint32_t slot, struct pb_kv_load *out);
/* Shared counters: add at placement, taken back by the link thread when a beat covers the dispatch. */
int64_t rt_fleet_reserve(struct rt_fleet *f, uint32_t slot,
                         int64_t n_tok); /* returns the old value */
void rt_fleet_unreserve(struct rt_fleet *f, uint32_t slot, int64_t n_tok);

/* Loop side; loop is the caller's index. wake is rung when events arrive. */
void rt_fleet_attach(struct rt_fleet *f, uint32_t loop, struct ps_wake *wake); /* before start */
enum {
    RT_FLEET_OK,
    RT_FLEET_E_FULL, /* the ring to the link thread is full: try on a later tick; nothing was taken */
};
/* move_s is taken on OK. resv_tok is what rt_fleet_reserve was called with for it. */
PS_MUST int rt_fleet_submit(struct rt_fleet *f, uint32_t loop, uint32_t worker,
                            struct pb_submit *move_s, int64_t resv_tok);
PS_MUST int rt_fleet_cancel(struct rt_fleet *f, uint32_t loop, uint64_t req, uint32_t attempt);
bool rt_fleet_poll(struct rt_fleet *f, uint32_t loop, struct rt_event *out);
/* Admin: drain one worker (it takes nothing new; what runs finishes). */
PS_MUST int rt_fleet_drain(struct rt_fleet *f, uint32_t loop, uint32_t worker, bool on);
/* Admin: the worker forgets its prefix cache. */
PS_MUST int rt_fleet_flush(struct rt_fleet *f, uint32_t loop, uint32_t worker);
