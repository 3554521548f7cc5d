#pragma once

/*
 * The KV store: the prefix tree, its tiers, and what moves between them.
 *
 *   T0 (device)  --clean-->  T1 (host arena)  --clean-->  T2 (disk slots), T3 (shared directory)
 *   T0  <--fill--  T1  <--raise--  T2, T3, peers
 *
 * Cleaning is write-behind: full pages that were used twice, or that pressure will soon evict, are
 * copied down while they stay where they are, so that eviction is forgetting and never moves a byte.
 * Fetching brings a path up for an admitted sequence, page by page, as far as that is cheaper than
 * computing it; sequences that want the same page share its move. Probing asks T3 and the peers
 * about what the tree does not know, while the request still waits.
 *
 * Scheduler thread; no verb blocks. Bytes are moved by the tiers' threads.
 *
 * Invariants
 *   S1 no page is read by a step before its fetch ended well: a node is READY or its row waits.
 *   S2 bytes reach T0 only out of T1, verified: a hung disk or directory never holds an item of T0.
 *   S3 a move names cells by io (tree.h), so none of its copies is evicted under it.
 *   S4 a fetch that fails, is late, or is wanted by nobody ends as if the copy had never been there;
 *      a copy that failed its verification is erased and counted.
 *   S5 fetches go before cleaning; per tick the store does a bounded amount of work.
 *   S6 a tier from which nothing can be read, or that is slower than computing for 60 s, is given up
 *      for a minute, then for two, up to an hour: one log line each.
 */

#include "worker/exec/exec.h"
#include "worker/kv/format.h"
#include "worker/kv/tree.h"

enum { WK_STORE_PEERS_MAX = 8 };

struct wk_store_conf {
    const struct wk_kv_layout *layout;
    const struct ps_clock *clock;
    struct ps_wake *wake; /* rung when moves end; NULL in tests */
    struct wk_exec *exec; /* kv_read, kv_write; stays the caller's */
    uint64_t space_id, arith_id;
    uint32_t stride_tokens;
    enum wk_kv_codec codec; /* of everything below T0 */
    uint64_t t1_bytes;      /* 0: T0 alone, whatever follows */
    const char *t2_path;    /* "": none; a file, made when absent */
    uint64_t t2_bytes;
    const char *t3_path;      /* "": none; a directory */
    uint64_t t3_bytes;        /* the collector keeps the directory below it; 0: no limit */
    const char *peer_listen;  /* "": serve nobody; "host:port", port 0: any */
    const char *const *peers; /* "host:port" of workers to ask */
    uint32_t n_peers;
    const char *peer_secret_file;  /* "": only loopback peers are allowed */
    const char *t2_hang, *t3_hang; /* tests of whole processes: see tier_hang.h; NULL or "": no */
    /* Tests: tiers are driven by wk_store_pump, over a disk and a file system that do as told. */
    bool no_threads;
    uint64_t slab_bytes; /* of the pools, see pool.h; 0: theirs */
    struct ps_uring *t2_script;
    const struct wk_fs *t3_fs;
};

struct wk_store;

PS_MUST int wk_store_create(struct wk_store **out, const struct wk_store_conf *conf,
                            struct ps_buf *err);
/* A store of T0 alone, which cannot fail. */
struct wk_store *wk_store_create_t0(const struct wk_kv_layout *layout, const struct ps_clock *clock,
                                    struct wk_exec *exec);
/* Writes down what is only in T0 and T1, for at most flush_ms; then closes the tiers. */
void wk_store_destroy(struct wk_store *s, uint32_t flush_ms); /* NULL is fine */

struct wk_kv_tree *wk_store_tree(const struct wk_store *s);
struct wk_kv_pool *wk_store_pool(struct wk_store *s); /* of T0 */

/* Reaps finished moves, starts queued ones, cleans. Call once a tick. True: there is more to do
 * at once (nothing rings for it). */
bool wk_store_tick(struct wk_store *s);
void wk_store_set_prefill_rate(struct wk_store *s, double tok_per_s); /* 0: not known yet */

/* ---- probing ---- */

struct wk_probe; /* a question on its way */
/* NULL: nobody to ask, or not worth it. hashes[n_ids / page_tokens]. */
struct wk_probe *wk_store_probe(struct wk_store *s, uint64_t seed, const uint32_t *ids,
                                uint32_t n_ids, const uint64_t *hashes);
bool wk_store_probe_is_over(const struct wk_probe *p);           /* answered, or too late */
void wk_store_probe_end(struct wk_store *s, struct wk_probe *p); /* NULL is fine */

/* ---- fetching ---- */

/* Is there a group of snapshots? Then a path is worth what can be restored: its nodes are brought up
 * together with the snapshot at the end of the last one, out of T1 to T3. Peers lend rows alone. */
bool wk_store_has_state(const struct wk_store *s);
/* How many of a matched path's nodes are worth having: nodes[0..n_hot) for nothing, and further ones
 * while moving them is expected to end before computing them would. With snapshots: 0, or a number of
 * nodes of which the last one has a snapshot, and all of that together is worth it. */
uint32_t wk_store_worth(struct wk_store *s, const uint32_t *nodes, const struct wk_kv_match *m);
/* T0 items that bringing nodes[from..to) up takes, and those that stop being idle. */
uint32_t wk_store_need(const struct wk_store *s, const uint32_t *nodes, uint32_t from, uint32_t to);
/* Pins nodes[0..n) and starts to bring up what is not READY. The caller has made sure of the room. */
void wk_store_attach(struct wk_store *s, const uint32_t *nodes, uint32_t n);
/* Starts to bring the node's snapshot, which is COLD, up into an item of T0 that the caller has taken.
 * The node is pinned; the fetch ends with its last pin, or by itself. */
void wk_store_attach_snapshot(struct wk_store *s, uint32_t node, uint32_t item);
/* Begins queued moves at once: after attaching, when the turn's tick has passed. */
void wk_store_start(struct wk_store *s);
/* Rows of the node's page were computed and published: it may be copied down some day. */
void wk_store_published(struct wk_store *s, uint32_t node);
void wk_store_published_snapshot(struct wk_store *s, uint32_t node);
/* A request begins with this path (tree's touch); what is used again is copied down soon. */
void wk_store_touch(struct wk_store *s, const uint32_t *nodes, uint32_t n);
enum wk_store_state { WK_STORE_READY, WK_STORE_MOVING, WK_STORE_GONE };
enum wk_store_state wk_store_state(const struct wk_store *s, uint32_t node); /* of its rows */
enum wk_store_state wk_store_snapshot_state(const struct wk_store *s, uint32_t node);
/* When the moves that nodes[0..n) wait for are late and should be given up. */
uint64_t wk_store_deadline(const struct wk_store *s, const uint32_t *nodes, uint32_t n);
/* Unpins, deepest first; a move that nobody waits for any more is not begun, one that has begun ends in
 * T1, where the next one finds it. */
void wk_store_detach(struct wk_store *s, const uint32_t *nodes, uint32_t n);

/* A row's fetch has ended, after it waited so long: counted. */
enum wk_store_fetch { WK_STORE_FETCHED, WK_STORE_FETCH_LATE, WK_STORE_FETCH_FAILED };
void wk_store_fetch_ended(struct wk_store *s, enum wk_store_fetch how, uint64_t wait_us);

/* ---- the rest ---- */

void wk_store_flush(
    struct wk_store *s); /* forgets everything, also on disk; not the shared directory */

struct wk_store_stats { /* totals since start */
    uint64_t n_fetch, n_fetch_late,
        n_fetch_failed;                     /* paths attached with moves; given up; failed */
    uint64_t fetched_tokens[WK_KV_N_TIERS]; /* brought to T0 from there */
    uint64_t useful_bytes[WK_KV_N_TIERS];   /* of what was read there, what reached T0 */
    uint64_t cleaned_pages[WK_KV_N_TIERS];  /* written there */
    uint64_t n_bad[WK_KV_N_TIERS], n_fault[WK_KV_N_TIERS], n_full[WK_KV_N_TIERS];
    uint64_t read_bytes[WK_KV_N_TIERS], write_bytes[WK_KV_N_TIERS];
    uint64_t n_probe, n_probe_late, probe_found_tokens;
    uint64_t fetch_wait_us; /* sum over rows, from attach until all is READY or given up */
    uint32_t n_moving, n_queued[WK_KV_N_TIERS];
    double read_bytes_per_s[WK_KV_N_TIERS], write_bytes_per_s[WK_KV_N_TIERS];
    bool is_there[WK_KV_N_TIERS], is_open[WK_KV_N_TIERS]; /* not open: given up, or not there */
};
void wk_store_stats(const struct wk_store *s, struct wk_store_stats *out);
const struct wk_announce *wk_store_announce(const struct wk_store *s);
bool wk_store_is_moving(const struct wk_store *s); /* anything; it ends by itself */
/* Tests, with no_threads: lets the tiers do up to n ios; returns how many ended. */
uint32_t wk_store_pump(struct wk_store *s, uint32_t n);
void wk_store_check(const struct wk_store *s); /* every invariant; aborts */
/* "host:port" it listens on for peers; "" when it does not. */
const char *wk_store_peer_address(const struct wk_store *s);
