#pragma once

/*
 * The step interface: plan -> enqueue -> poll -> commit.
 *
 * The scheduler builds a plan (plain data: one memory block that can be copied to ranks, logged and
 * replayed), enqueues it and later polls its result. exec_dev runs the model on one device in its own
 * thread; other executors stand behind the same table.
 *
 * Invariants
 *   P1 commit, in ticket order, is the only place that advances length, publishes blocks, emits, frees.
 *   P2 an item freed at commit t is reusable when every enqueued ticket that names it is done.
 *   P3 a row found finished at commit N is a zombie in N+1: its output is dropped, its pages still owned.
 *   P4 plans carry bounds, the slot holds the truth.
 *   P5 an executor never decides.
 *   P6 after a fault nothing else is called.
 */

#include "common/base.h"
#include "proto/submit.h"

enum {
    WK_EXEC_OK,
    WK_EXEC_E_FULL /* enqueue: depth reached */,
    WK_EXEC_E_NONE /* poll: nothing done */
};

enum wk_row_flag {
    WK_ROW_TOK_FROM_SLOT = 1, /* decode: the input token is the slot's last sampled one */
    WK_ROW_NO_KV_WRITE = 2,   /* the row's KV is in its page already */
    WK_ROW_LAST_CHUNK = 4,    /* the last position's logits are wanted: samples one token */
    WK_ROW_LOGPROBS = 8,      /* the sampled token's log-probabilities are wanted (samp.n_top) */
    WK_ROW_PROMPT_SCORES =
        16, /* every position's next token (given in `next`) is scored with samp.n_prompt_top */
    WK_ROW_FIRST = 32, /* a sequence begins in this slot, or comes back: nothing it holds counts */
};

/*
 * A model whose layout has a group 1 keeps a state beside rows: an item of that group that a row brings
 * from pos_lo to pos_hi. A row that begins at position 0 begins with no state, whatever its item holds;
 * one that begins elsewhere finds the state of pos_lo there, since the step before or a copy put it
 * there.
 */
struct wk_row {
    uint32_t slot; /* device row: position and last token of one sequence */
    uint16_t n_q, n_draft;
    uint32_t tok_off; /* first token in the plan's token array */
    uint32_t flags;
    uint32_t pos_lo; /* absolute position of the first query */
    uint32_t pos_hi; /* bound of the length after this step */
    uint32_t samp;   /* index into the plan's wk_samp array */
    uint32_t state;  /* item of group 1; WK_ROW_NO_STATE: the layout has none */
};
#define WK_ROW_NO_STATE UINT32_MAX

struct wk_samp {               /* plain data; offsets count uint32_t from the plan's pool */
    struct pb_sampling p;      /* seed is the choice's own */
    uint32_t pos;              /* absolute position of the token to sample */
    uint32_t bias_off, n_bias; /* ids, then the same number of floats */
    uint32_t ban_off, n_ban;
    uint32_t hist_off, n_hist, n_hist_prompt; /* only when a penalty is on */
    /* PROMPT_SCORES: the next id of each of the row's positions (none for a LAST_CHUNK's last) */
    uint32_t next_off;
};

enum wk_copy_when { WK_COPY_BEFORE, WK_COPY_AFTER }; /* the rows of the step */

/*
 * Group 0, before: tail copy-on-write, the first n_tok tokens of a page. Group 1: a whole item, the
 * state of position n_tok; before: a snapshot becomes a row's state; after: a row's state is kept.
 */
struct wk_copy {
    uint32_t group, src, dst, n_tok;
    uint32_t when; /* enum wk_copy_when */
};

struct wk_plan {
    uint64_t ticket; /* rises by one */
    uint32_t bytes;  /* of the whole block */
    uint32_t n_row, n_tok, n_tok_max, n_loop;
    uint16_t bucket, kind;
    uint32_t table_stride; /* pages per row */
    /* Byte offsets in the block. */
    uint32_t rows_off, toks_off, table_off, samp_off, copy_off, pool_off;
    uint32_t n_samp, n_copy, n_pool;
};

struct wk_row_out {
    uint32_t slot, flags;            /* flags of the row */
    uint32_t token;                  /* LAST_CHUNK */
    uint32_t fault;                  /* 1: numerical */
    struct pb_logprob logprob;       /* LOGPROBS */
    const struct pb_logprob *scores; /* PROMPT_SCORES: [n_q]; valid until the next poll */
    uint32_t n_scores;
};

struct wk_done {
    uint64_t ticket;
    uint32_t n_row;
    const struct wk_row_out *row; /* plan order; valid until the next poll */
    uint32_t step_us;             /* device time */
    int fault;                    /* negative errno: P6 */
};

struct wk_exec;

struct wk_exec_ops {
    int (*enqueue)(struct wk_exec *e, const struct wk_plan *p); /* copies; never blocks */
    int (*poll)(struct wk_exec *e, struct wk_done *out);        /* ticket order */
    int (*wake_fd)(struct wk_exec *e); /* readable when a poll would succeed; poll clears it */
    /* Moves one item between the KV arena and host memory, and returns when it has. Called from the
     * mover's thread, beside steps: no step in flight writes the item, nor reads one being filled. */
    int (*kv_read)(struct wk_exec *e, uint32_t group, uint32_t item, void *host);
    int (*kv_write)(struct wk_exec *e, uint32_t group, uint32_t item, const void *host);
    void (*destroy)(struct wk_exec *e);
};

struct wk_exec { /* first member of every executor */
    const struct wk_exec_ops *ops;
    uint32_t depth; /* steps in flight: 1 on cpu */
    uint32_t n_slots;
    uint32_t n_pages; /* items of group 0 the arena holds */
};

/* Views into a plan. */
static inline struct wk_row *wk_plan_rows(const struct wk_plan *p)
{
    return (struct wk_row *)(void *)((char *)(uintptr_t)p + p->rows_off);
}
static inline uint32_t *wk_plan_toks(const struct wk_plan *p)
{
    return (uint32_t *)(void *)((char *)(uintptr_t)p + p->toks_off);
}
static inline uint32_t *wk_plan_table(const struct wk_plan *p)
{
    return (uint32_t *)(void *)((char *)(uintptr_t)p + p->table_off);
}
static inline struct wk_samp *wk_plan_samps(const struct wk_plan *p)
{
    return (struct wk_samp *)(void *)((char *)(uintptr_t)p + p->samp_off);
}
static inline struct wk_copy *wk_plan_copies(const struct wk_plan *p)
{
    return (struct wk_copy *)(void *)((char *)(uintptr_t)p + p->copy_off);
}
static inline uint32_t *wk_plan_pool(const struct wk_plan *p)
{
    return (uint32_t *)(void *)((char *)(uintptr_t)p + p->pool_off);
}

/* Builds a plan in one growing block; reused from step to step. worker/exec/plan.c */
struct wk_plan_builder;
struct wk_plan_builder *wk_plan_builder_create(void);
void wk_plan_builder_destroy(struct wk_plan_builder *b);
void wk_plan_begin(struct wk_plan_builder *b, uint64_t ticket);
/* Adds a row; its n_q tokens are copied, its n_pages page numbers by wk_plan_end: until then they stay
 * where they are. Returns the row's index. */
uint32_t wk_plan_add_row(struct wk_plan_builder *b, const struct wk_row *row, const uint32_t *toks,
                         const uint32_t *pages, uint32_t n_pages);
uint32_t wk_plan_add_samp(struct wk_plan_builder *b, const struct wk_samp *s);
uint32_t wk_plan_add_pool(struct wk_plan_builder *b, const void *words,
                          uint32_t n_words); /* offset */
void wk_plan_add_copy(struct wk_plan_builder *b, const struct wk_copy *c);
const struct wk_plan *wk_plan_end(struct wk_plan_builder *b); /* valid until the next begin */
