#pragma once

/*
 * exec_sim: runs no model. A step takes the time that a cost model says, and the "keys and values" of
 * a page are the digest of the exact tokens before and in it.
 *
 * So everything around the forward pass is real: scheduler, cache, tiers, wire. What a row reads is
 * checked at every step: when a sequence begins in a slot, every page of its table is walked (tokens,
 * chain, stamps); from then on the digest of every page is compared with what the slot has seen. A
 * page that was replaced, overwritten, half filled or let go too early is a fault of the step (-EIO),
 * with one line that names it. A sampled token is a function of the digest of its exact prefix, the
 * seed and the position, so a wrong prefix cannot give the right answer. Penalties and biases do not
 * change it.
 *
 * With state_bytes it stands for a family that keeps a state beside rows: an item of group 1 holds a
 * position and the running digest of all tokens before it, brought forward token by token, and every
 * row compares it with what its slot has read and written: a state that was not restored, is stale,
 * torn, kept a token late or let go too early is a fault as well.
 *
 * No thread: enqueue computes the finish time on the clock, poll runs the step once the clock is
 * there, which is also the worst case for pages that are let go too early. Scheduler thread, but for
 * kv_read and kv_write (exec.h).
 */

#include "common/clock.h"
#include "worker/exec/cost.h"
#include "worker/exec/exec.h"
#include "worker/kv/layout.h"

enum { WK_SIM_PAGE_TOKENS = 16, WK_SIM_ITEM_BYTES_MIN = 4096 };

struct wk_sim_vocab {
    uint32_t n_ids;      /* ids below it are sampled */
    const uint32_t *eos; /* never drawn by chance, but with this probability at each position */
    uint32_t n_eos;
    double p_eos;
};

struct wk_exec_sim_conf {
    const struct ps_clock *clock;
    bool with_timer; /* the clock is the real one: wake_fd becomes readable when a step is due */
    uint32_t depth, n_slots;
    uint64_t kv_bytes;         /* budget of the arena: address space, touched as pages fill */
    uint32_t item_bytes;       /* of layout group 0 */
    uint32_t state_bytes;      /* of layout group 1; 0: there is none */
    struct wk_sim_vocab vocab; /* eos outlives the executor */
    struct wk_cost cost;       /* all 0: steps take no time */
};

PS_MUST int wk_exec_sim_create(struct wk_exec **out, const struct wk_exec_sim_conf *conf,
                               struct ps_buf *err);
/* When the oldest step in flight is done; UINT64_MAX: none is. */
uint64_t wk_exec_sim_next_due(const struct wk_exec *e);

/* One group of attention rows whose items have exactly item_bytes, a multiple of 4 KiB. */
void wk_exec_sim_layout(struct wk_kv_layout *l, uint32_t item_bytes);
/* The same and a group of snapshots of exactly state_bytes, a multiple of 8 KiB: half ring, half state. */
void wk_exec_sim_layout_state(struct wk_kv_layout *l, uint32_t item_bytes, uint32_t state_bytes);

/* The definition, for oracles: digest of a prefix, and the token that follows it. */
uint64_t wk_exec_sim_digest(const uint32_t *ids, uint32_t n);
uint32_t wk_exec_sim_token(const struct wk_sim_vocab *v, uint64_t digest,
                           const struct pb_sampling *p, uint32_t pos, const uint32_t *ban,
                           uint32_t n_ban);
/* log-probability of a token after a prefix */
float wk_exec_sim_logprob(uint64_t digest, uint32_t token);
