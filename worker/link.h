#pragma once

/*
 * The worker's side of the wire: one I/O thread that dials every router and speaks the repair protocol.
 *
 * The scheduler talks to it by two rings and never blocks: it pops wk_in (work to start or cancel) and
 * pushes wk_out (tokens, ends). The link keeps each attempt's tokens until FinAck or 30 s, so a lost
 * message costs a Resend and never the scheduler's time.
 *
 * Invariants
 *   L1 for one handle the scheduler sees OPEN once, then at most one CANCEL; after it pushed FINISHED
 *      or REJECTED for a handle, the handle is dead for both sides.
 *   L2 every opened handle gets exactly one FINISHED or REJECTED from the scheduler, also after CANCEL.
 *   L3 attempts of a router that was silent for 3 s are cancelled (their pages stay cached).
 *   L4 a Submit seen before (dispatch_seq window) is answered again and never opened again.
 */

#include "common/base.h"
#include "common/clock.h"
#include "common/ring.h"
#include "proto/load.h"
#include "proto/submit.h"

struct wk_link;

struct wk_link_conf {
    const char **
        routers; /* "tcp://host:port" (tok port); names are resolved again every few seconds, all addresses */
    uint32_t n_routers;
    struct pb_worker_info info;
    uint32_t n_attempts_max; /* open attempts over all routers; more are rejected PB_REJ_FULL */
    const char *curve_secret_file, *curve_server_key_file; /* "" : NULL mechanism */
    /* fault injection at the application's edge, "" none: see common/mq/inject.h */
    const char *inject;
};

enum wk_in_kind { WK_IN_OPEN, WK_IN_CANCEL, WK_IN_DRAIN, WK_IN_UNDRAIN, WK_IN_FLUSH };

struct wk_in {
    enum wk_in_kind kind;
    uint32_t handle;          /* OPEN, CANCEL: small index, reused only after FINISHED/REJECTED */
    struct pb_submit *submit; /* OPEN: moved to the scheduler, checked already */
};

enum wk_out_kind {
    WK_OUT_TOKEN,
    WK_OUT_FINISHED,
    WK_OUT_REJECTED,
    WK_OUT_STEP_END,
    WK_OUT_DRAINED
};

struct wk_out {
    enum wk_out_kind kind;
    uint32_t handle;
    uint32_t token;             /* TOKEN */
    struct pb_logprob *logprob; /* TOKEN: moved to the link, NULL when not wanted */
    enum pb_finish finish;      /* FINISHED */
    enum pb_reject reject;      /* REJECTED */
    uint32_t predicted_wait_ms; /* REJECTED: until a first token here; 0: unknown, or never */
    uint32_t matched_id;        /* FINISHED by EOS or stop id */
    uint32_t n_cached;          /* FINISHED: prompt tokens found in the cache */
    uint32_t n_prompt_scores;   /* FINISHED with n_prompt_top >= 0: n_prompt, entry 0 unused */
    struct pb_logprob *prompt_scores; /* moved; ps_free */
};
/* STEP_END: everything of this step has been pushed; the link sends one Tokens message per router. */

/* What the scheduler sees of a link: the real one, or a stand-in for tests and measurements. */
struct wk_port {
    void *ud;
    /* Never blocks; false: nothing there. */
    bool (*pop)(void *ud, struct wk_in *out);
    /* False when the ring is full: the scheduler keeps the event and tries again next tick (it pauses
     * new steps meanwhile). The ring holds several steps' worth, so this means that the I/O thread is
     * stuck. */
    bool (*push)(void *ud, const struct wk_out *o);
    /* Once a tick: what beats tell. tick is a counter that moves while the scheduler lives. */
    void (*set_load)(void *ud, const struct pb_load *load, uint64_t tick);
    /* A few times a second: what the KV store's tiers did. NULL: nobody is told. */
    void (*set_kv)(void *ud, const struct pb_kv_load *kv);
};

PS_MUST int wk_link_create(struct wk_link **out, const struct wk_link_conf *conf,
                           const struct ps_clock *clock, struct ps_wake *sched_wake);
PS_MUST int wk_link_start(struct wk_link *l);   /* starts the thread */
struct wk_port wk_link_port(struct wk_link *l); /* the scheduler's side */
/* Told in beats, so that routers place nothing new here (a worker that leaves by itself). */
void wk_link_set_draining(struct wk_link *l, bool on);
/* True once every router has acknowledged or forgotten every attempt (drain), or timeout. */
bool wk_link_idle(struct wk_link *l);
uint32_t wk_link_n_joined(struct wk_link *l); /* routers that said Welcome */
void wk_link_stop(struct wk_link *l);         /* sends Bye, joins the thread */
void wk_link_destroy(struct wk_link *l);      /* NULL is fine */
