#pragma once

/*
 * A tier: a place that keeps copies of KV items beside T1, the host arena in the middle.
 *
 *     T0 device memory  <->  T1 host arena  <->  T2 file of slots (this host's disk)
 *                                           <->  T3 shared directory
 *                                           <->  other workers
 *
 * Every move has a buffer of T1 on one side, so a tier sees nothing but host buffers. The store
 * (store.h) decides on the scheduler's thread what moves; a tier does the moving in threads of its
 * own and says when it is done. An item is described by a wk_kv_key whatever holds it; a tier that
 * outlives the process writes the key beside the bytes and compares it, and a checksum of the bytes,
 * before it reports WK_TIER_DONE.
 *
 * Invariants
 *   1 every verb returns at once; only threads of the tier wait for a device.
 *   2 a submitted io comes back through the inbox exactly once, whatever happens; until then the
 *     io, its keys and its buffers belong to the tier. Also after a cancel, which is a request.
 *   3 a GET that is DONE filled the buffer with exactly the bytes that were PUT under an equal key.
 *   4 the queue is bounded; urgent ios (somebody waits) overtake all others that have not begun.
 *   5 close never waits longer than it is told; what is still in flight then keeps its buffers for
 *     ever, and close says so.
 */

#include <pthread.h>

#include "common/clock.h"
#include "common/hash.h"
#include "common/ring.h"

enum wk_kv_tier { WK_KV_T0, WK_KV_T1, WK_KV_T2, WK_KV_T3, WK_KV_PEER, WK_KV_N_TIERS };

enum { WK_KV_PAGE_TOKENS_MAX = 256 };

struct wk_kv_key {                   /* what an item is, wherever it is */
    uint8_t digest[PS_SHA256_BYTES]; /* chain over the whole prefix up to the item's last token */
    uint8_t parent[PS_SHA256_BYTES]; /* the chain before its first token */
    uint64_t seed, hash;             /* chain seed; chained block hash at its end */
    uint32_t group;                  /* of the layout */
    uint32_t first_pos, n_tok;       /* positions [first_pos, first_pos + n_tok) */
    const uint32_t *ids;             /* [n_tok]; outlives the io */
};

enum wk_tier_op {
    WK_TIER_GET,   /* tier -> buf */
    WK_TIER_PUT,   /* buf -> tier */
    WK_TIER_FIND,  /* which of the keys are there: no buffers; T3 and peers only */
    WK_TIER_ERASE, /* what the tier holds under the key (and slot) is wrong: never find it again */
};

enum wk_tier_status {
    WK_TIER_PENDING,
    WK_TIER_DONE,
    WK_TIER_MISS,      /* it is not there (any more) */
    WK_TIER_BAD,       /* it is there and failed its verification */
    WK_TIER_FAULT,     /* the device failed: EIO, timeout, connection lost */
    WK_TIER_FULL,      /* PUT: no space */
    WK_TIER_CANCELLED, /* not begun, or given up */
};

enum { WK_TIER_PARTS_MAX = 16, WK_TIER_FIND_MAX = 1024 };

struct wk_tier_part {
    struct wk_kv_key key;
    uint8_t *buf;  /* 4 KiB aligned, item bytes of the group; NULL for FIND and ERASE */
    uint32_t slot; /* T0: item number; T2: slot number; else unused */
    enum wk_tier_status status;
};

struct wk_tier_io {
    enum wk_tier_op op;
    bool urgent;
    /* Parts follow each other on one path, ascending, all of one group. GET and PUT: at most
     * WK_TIER_PARTS_MAX; T3 moves whole runs (its part_run), n_part == the run. FIND: the keys of
     * pages (peers) or of the last page of each run (T3), at most WK_TIER_FIND_MAX. */
    uint32_t n_part;
    struct wk_tier_part *part;
    uint32_t n_found; /* FIND: leading parts that are there; of snapshots each part tells */
    uint64_t begin_us, end_us; /* when the tier began, and ended; for its rate */
    uint64_t deadline_us;      /* 0: none. After it the tier should give up by itself */
    void *ud;                  /* the store's */
    struct wk_tier *tier;      /* set by submit */
    struct wk_tier_io *next;   /* of whoever holds it: a tier's queue, the inbox */
    _Atomic bool cancelled;    /* set by cancel, read by the tier's threads */
};

enum {
    WK_TIER_OK,
    WK_TIER_E_FULL,   /* submit: the queue is full; nothing has changed */
    WK_TIER_E_CLOSED, /* submit: the tier has given up (its log line said why) */
    WK_TIER_E_BUSY,   /* close: threads still use buffers; T1 must stay mapped */
    WK_TIER_E_CONF,   /* create: the path or file cannot be used; err says why */
};

struct wk_tier;

struct wk_tier_ops {
    PS_MUST int (*submit)(struct wk_tier *t, struct wk_tier_io *io);
    void (*cancel)(struct wk_tier *t, struct wk_tier_io *io); /* a hint; it still comes back */
    /* Only for tiers made without threads (tests): does queued work in the calling thread, at most
     * n ios; returns how many it finished. */
    uint32_t (*pump)(struct wk_tier *t, uint32_t n);
    PS_MUST int (*close)(struct wk_tier *t, uint32_t wait_ms); /* OK: destroyed. E_BUSY */
};

/* Finished ios on their way to the scheduler; any thread posts, one takes. */
struct wk_tier_inbox {
    pthread_mutex_t lock;
    struct wk_tier_io *first, *last;
    struct ps_wake *wake; /* NULL: nobody sleeps (tests) */
};

void wk_tier_inbox_init(struct wk_tier_inbox *b, struct ps_wake *wake);
void wk_tier_inbox_fini(struct wk_tier_inbox *b); /* empty */
void wk_tier_post(struct wk_tier_inbox *b, struct wk_tier_io *io);
struct wk_tier_io *wk_tier_take(struct wk_tier_inbox *b); /* NULL: none */

struct wk_tier { /* first member of every tier */
    const struct wk_tier_ops *ops;
    const char *name; /* "t2": in logs and metrics */
    struct wk_tier_inbox *inbox;
    const struct ps_clock *clock;
    uint32_t part_run; /* pages that move as one: T3's objects; 1 elsewhere */
    uint32_t depth;    /* ios that may be queued or running */
    /* Measured when it was opened, 0 when unknown; the store keeps its own means from there. */
    double read_bytes_per_s, write_bytes_per_s, latency_us;
};

/* What every tier that outlives the process must agree on before bytes are compared. */
struct wk_tier_ident {
    uint64_t space_id, arith_id, layout_id;
    uint32_t codec; /* enum wk_kv_codec of the stored bytes */
    uint32_t n_group;
    uint32_t page_tokens;
    uint32_t item_bytes[4]; /* of each group as stored, 4 KiB multiples */
    uint32_t rank, n_ranks;
};

/* The chain that names items, pure: the empty path under a seed, which is the parent of first pages,
 * and one page further. */
void wk_kv_root_digest(uint64_t space_id, uint64_t seed, uint8_t out[PS_SHA256_BYTES]);
void wk_kv_digest(const uint8_t parent[PS_SHA256_BYTES], const uint32_t *ids, uint32_t n_ids,
                  uint8_t out[PS_SHA256_BYTES]);
