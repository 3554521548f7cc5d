#pragma once

/*
 * A world around the scheduler, for its tests: an executor whose "model" is a hash of the exact token
 * prefix it reads back through the pages it is given, and a link that keeps what comes out. Wrong page
 * tables, missing copies, stale pages, early frees and wrong sampling data all show up as wrong tokens.
 * Plans run as late as possible, when their result is polled: the worst case for pages that were let
 * go too early.
 */

#include "common/test.h"
#include "worker/kv/layout.h"
#include "worker/sched/state.h"

enum {
    PT = 16,
    PAGES_MAX = 128,
    SLOTS_MAX = 12,
    VOCAB = 61,
    EOS = 3,
    IDS_MAX = 2048,
    REQS_MAX = 64,
    NOTHING = -1,
};

struct fake_exec {
    struct wk_exec base;
    uint32_t content[PAGES_MAX][PT];
    uint32_t last[SLOTS_MAX];
    struct wk_plan *plans[2];
    uint32_t first, n, chunk;
    struct wk_row_out outs[SLOTS_MAX];
    struct pb_logprob *scores;
    int fault;
    bool poll_open;    /* the next poll may find a step done */
    uint64_t nan_seed; /* rows with this seed fail once they reach nan_from */
    uint32_t nan_from;
    uint64_t n_copies, n_no_write, n_from_slot, n_prompt_toks;
    uint32_t fixed_us, row_us, tok_us; /* what a step takes: once, a decode row, a prompt token */
    uint32_t step_us;                  /* of the last one */
};

struct fake_link {
    struct wk_in in[512];
    uint32_t n_in, next_in;
    struct ps_rng *full; /* now and then the ring is full */
    struct req *reqs;
    uint32_t n_drained, n_step_ends;
    struct pb_load load;
};

struct req {
    struct pb_submit *s; /* kept copy */
    uint32_t got[IDS_MAX], n_got;
    float logprob[IDS_MAX];
    int finish, reject; /* NOTHING until answered */
    uint32_t matched, n_cached, n_scores, predicted_wait_ms;
    struct pb_logprob *scores;
    bool cancelled;
    uint32_t n_step_ends_seen;
};

struct world {
    struct ps_clock clock;
    struct fake_exec exec;
    struct fake_link link;
    struct wk_kv_layout layout;
    struct wk_sched_conf conf;
    struct wk_sched *s;
    struct req reqs[REQS_MAX];
    uint32_t n_reqs, pool_tokens;
    void (*watch)(struct world *w, void *ud); /* after each tick; NULL: nobody */
    void *watch_ud;
};

void world_open(struct world *w, uint32_t n_pages, uint32_t n_slots, uint32_t depth, uint32_t chunk,
                uint32_t reserve, uint32_t context);
void world_reopen(struct world *w); /* after conf was changed; nothing has been submitted yet */
void world_close(struct world *w);

struct pb_submit *plain_request(uint32_t n_prompt, uint32_t max_tokens);
struct pb_submit *copy_request(const struct pb_submit *s);
uint32_t world_submit(struct world *w, struct pb_submit *move_s); /* returns the handle */
void world_send(struct world *w, enum wk_in_kind kind, uint32_t h);
void world_tick(struct world *w, bool step_done);
void world_run(struct world *w); /* until idle */

/* The answer of a run that nobody shares, from the definition alone. */
uint32_t solo_run(const struct pb_submit *s, uint32_t context, uint32_t pool_tokens, uint32_t *out,
                  int *out_finish);
/* Equal to the solo run; a cancelled one to a part of it. */
void world_check(const struct world *w, uint32_t h);
void world_check_idle(struct world *w); /* nobody is here and no page is held */
