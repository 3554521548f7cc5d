#pragma once

/*
 * What the store's files share: store.c (life, tick), store_fetch.c (up), store_clean.c (down),
 * store_probe.c (asking T3 and peers), store_serve.c (lending to peers), store_move.c (ios).
 *
 * A move is one io with the nodes it is for. Its nodes' cells are held by io from begin to end.
 *
 *   fetch of a node:  NONE -> QUEUED -> RAISING -> FILLQ -> FILLING -> NONE
 *                              (T2, T3, peer -> T1)   (T1 -> T0)
 *
 * COPYING: T0 -> T1, while it stays READY. A cell that nobody waits for any more loses its item of T0
 * at once unless it is FILLING; a raise that has begun goes on and ends in T1.
 */

#include "common/map.h"
#include "worker/kv/store.h"
#include "worker/tier/tier.h"

enum wk_fetch {
    WK_FETCH_NONE,
    WK_FETCH_QUEUED,
    WK_FETCH_RAISING,
    WK_FETCH_FILLQ,
    WK_FETCH_FILLING,
    WK_FETCH_COPYING,
};

enum wk_move_kind {
    WK_MOVE_FILL,  /* T1 -> T0 */
    WK_MOVE_COPY,  /* T0 -> T1 */
    WK_MOVE_RAISE, /* T2, T3, peer -> T1 */
    WK_MOVE_WRITE, /* T1 -> T2, T3 */
    WK_MOVE_ERASE,
};

struct wk_move {
    struct wk_tier_io io;
    struct wk_tier_part part[WK_TIER_PARTS_MAX];
    enum wk_move_kind kind;
    enum wk_kv_tier tier; /* the one below T1 that it uses; T0 for FILL and COPY */
    uint32_t lane;        /* index of the lane it runs in */
    uint32_t cell[WK_TIER_PARTS_MAX];
    uint32_t t1[WK_TIER_PARTS_MAX]; /* slots of T1 taken for it (COPY, RAISE) */
    uint32_t t2[WK_TIER_PARTS_MAX]; /* slots of T2 taken for it (WRITE) */
    struct wk_move *next;
};

/* A cell of the tree as one number. */
static inline uint32_t wk_cell(uint32_t node, uint32_t group)
{
    return node * WK_KV_N_GROUPS_MAX + group;
}
static inline uint32_t wk_cell_node(uint32_t cell)
{
    return cell / WK_KV_N_GROUPS_MAX;
}
static inline uint32_t wk_cell_group(uint32_t cell)
{
    return cell % WK_KV_N_GROUPS_MAX;
}

struct wk_cells { /* first in, first out; entries may be stale: the reader checks the cell */
    uint32_t *items;
    uint32_t head, n, cap; /* cap: power of two */
    uint32_t n_max;        /* then the oldest are forgotten */
};

struct wk_lane {            /* what the store knows of one tier */
    struct wk_tier *tier;   /* NULL: not there */
    bool is_off;            /* given up: it is only asked to end what it began (S6) */
    uint64_t off_until_us;  /* then it is tried again */
    uint32_t n_off;         /* times it was given up since something was read from it */
    struct wk_cells raise;  /* cells to fetch from it (T1's lane: to fill) */
    struct wk_cells dirty;  /* cells to copy to it when the tier above runs short, oldest first */
    struct wk_cells again;  /* cells used a second time: to copy to it soon */
    uint32_t n_flying;      /* moves in flight */
    uint32_t n_urgent;      /* of these, fetches */
    uint64_t flying_bytes;  /* of fetches, in flight or queued */
    uint64_t oldest_us;     /* begin of the oldest fetch in flight; 0: none */
    uint64_t slow_since_us; /* slower than computing since; 0: not */
    uint64_t sampled_us;    /* when its speed was last seen, or believed to be better again */
    uint64_t no_write_until_us; /* it said that it is full */
    uint32_t n_faults_in_row;
    uint32_t n_owed;              /* questions that nobody waits for any more, not answered yet */
    double read_rate, write_rate; /* bytes per second, moving means */
    double latency_us;
};

enum { WK_STORE_LANES = WK_KV_PEER + WK_STORE_PEERS_MAX };

struct wk_store {
    struct wk_store_conf conf;
    struct wk_kv_layout t1_layout;
    struct wk_kv_format *format;
    struct wk_kv_pool *t0, *t1;
    struct wk_kv_tree *tree;
    struct wk_announce *announce;
    uint8_t *arena; /* T1 */
    size_t arena_bytes;
    bool arena_leaks; /* a tier kept buffers */
    uint32_t page_tokens;
    struct wk_tier_inbox inbox, asks;
    struct wk_lane lane[WK_STORE_LANES]; /* by enum wk_kv_tier; PEER + i: peer i. T0: the copier */
    struct wk_tier *disk;                /* T2 itself, whatever stands before it in its lane */
    struct wk_peers *peers;
    struct ps_map scanned; /* word of a digest -> node, while T2 is read */
    bool scanning;         /* T2 still tells what survived */
    bool closing;          /* everything is to be written down */
    uint8_t *fetch;        /* [cells] enum wk_fetch */
    uint8_t *writing;      /* [cells] 1 << tier, for T2 and T3: on its way there */
    uint8_t *origin;       /* [cells] enum wk_kv_tier its fetch began at; while fetch is not NONE */
    struct wk_move *moves, *free_moves;
    uint32_t n_moving;
    uint64_t n_ended;           /* moves since start: who waits sees whether something goes on */
    struct wk_serving *serving; /* asks of peers, being answered or sent */
    uint32_t n_probes;          /* on their way, abandoned ones included */
    double prefill_tok_per_s;
    struct wk_store_stats stats;
};

/* store_move.c */
struct wk_move *wk_move_new(struct wk_store *s, enum wk_move_kind kind, enum wk_kv_tier tier);
void wk_move_free(struct wk_store *s, struct wk_move *m);
void wk_move_add(struct wk_store *s, struct wk_move *m, uint32_t cell, uint32_t t1);
bool wk_move_start(struct wk_store *s, struct wk_move *m, uint32_t lane);     /* false: refused */
void wk_move_let_go(struct wk_store *s, const struct wk_move *m, uint32_t i); /* of its i-th cell */
uint8_t *wk_store_t1_buf(struct wk_store *s, uint32_t group, uint32_t slot);
uint32_t wk_store_item_bytes(const struct wk_store *s, uint32_t group); /* below T0 */
/* Bytes of pages per second that computing them would give: what a tier must beat. 0: not known. */
double wk_store_compute_rate(const struct wk_store *s);
bool wk_lane_is_open(const struct wk_store *s, uint32_t lane);
void wk_move_end(struct wk_store *s,
                 struct wk_move *m); /* its io came back: counts, rates, tier's health */
void wk_store_lane_off(struct wk_store *s, uint32_t lane, const char *why); /* for a while */
void wk_store_lanes_on(struct wk_store *s);            /* those whose while is over */
void wk_lane_retry(struct wk_store *s, uint32_t lane); /* a slow one gets another chance */

void wk_cells_init(struct wk_cells *q, uint32_t n_max);
void wk_cells_fini(struct wk_cells *q);
void wk_cells_push(struct wk_cells *q, uint32_t cell);
bool wk_cells_peek(const struct wk_cells *q, uint32_t *out);
void wk_cells_pop(struct wk_cells *q);

/* store_fetch.c */
void wk_fetch_tick(struct wk_store *s);
void wk_fetch_raised(struct wk_store *s, struct wk_move *m);
void wk_fetch_filled(struct wk_store *s, struct wk_move *m);
void wk_fetch_erased(struct wk_store *s, struct wk_move *m);
void wk_fetch_overtaken(struct wk_store *s, uint32_t cell); /* the page was computed meanwhile */
void wk_fetch_end_all(struct wk_store *s); /* at the end: what was asked for and not begun */
void wk_fetch_to_t1(struct wk_store *s,
                    uint32_t cell); /* out of T0 or T2, if it is not on its way */

/* store_clean.c */
void wk_clean_tick(struct wk_store *s);
bool wk_clean_copy_now(struct wk_store *s, uint32_t cell); /* T0 -> T1 at once, if it can */
void wk_clean_copied(struct wk_store *s, struct wk_move *m);
void wk_clean_written(struct wk_store *s, struct wk_move *m);
void wk_clean_new_t1(struct wk_store *s, uint32_t cell); /* the cell got a copy in T1 */
void wk_clean_everything(struct wk_store *s); /* before the end: whatever has no copy below */

/* store_probe.c, store_serve.c */
void wk_probe_answered(struct wk_store *s, struct wk_tier_io *io);
void wk_serve_tick(struct wk_store *s);
void wk_serve_end(struct wk_store *s);
