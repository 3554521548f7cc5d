#pragma once

/*
 * How a worker fares, as its beats tell it: what placement needs at every beat, and what the tiers of
 * its KV store did, for people to look at.
 *
 * Plain structs, bounded: a worker has at most PB_MAX_KV_GROUPS groups and PB_KV_N_TIERS tiers.
 * Totals count since the worker started.
 *
 * Invariants
 *   1 of a decoded group or tier no part is larger than the whole (pages of T3 and peers: not known, 0).
 *   2 decoded tiers are in the order of enum pb_kv_tier_id, each at most once.
 */

#include "common/base.h"

enum { PB_MAX_KV_GROUPS = 4 };

enum pb_kv_tier_id { PB_KV_T0, PB_KV_T1, PB_KV_T2, PB_KV_T3, PB_KV_PEER, PB_KV_N_TIERS };

/* Items of one group of the layout in T0: pages of rows, or snapshots. */
struct pb_kv_group {
    uint64_t n_total, n_free, n_evictable, n_pinned;
    uint64_t n_growth;    /* what admitted requests may still take, see admission */
    uint64_t n_suspended; /* requests that gave theirs back */
};

struct pb_load {
    uint32_t n_running, n_waiting, n_suspended;
    uint32_t n_group;
    struct pb_kv_group group[PB_MAX_KV_GROUPS]; /* [0]: rows; all 0 before the first beat */
    uint64_t n_prefill_pending;                 /* tokens waiting for prefill */
    uint64_t prompt_tokens, generated_tokens;
    uint64_t cached_tokens;   /* prompt tokens found in the cache */
    uint64_t followed_tokens; /* of these, waited for while another request computed them */
    uint64_t resume_tokens;   /* computed again, after a suspension */
    uint64_t n_preempted, n_finished;
    uint64_t rss_bytes;
    uint32_t step_us_mean, prefill_tok_per_s;
    uint32_t busy_ms; /* the scheduler expects no tick for this long (busy_until) */
};

struct pb_kv_tier {
    enum pb_kv_tier_id id;
    bool is_open;                           /* false: it was given up */
    uint64_t pages, free_pages, idle_pages; /* of rows; idle ones go when room is needed */
    uint64_t queued_moves;                  /* in flight or waiting */
    uint64_t fetched_tokens;                /* brought to T0 from here */
    uint64_t cleaned_pages;                 /* copied to here */
    uint64_t evicted_pages, lost_pages;     /* lost: it was the last copy */
    uint64_t read_bytes, useful_bytes;      /* useful: of these, what reached T0 */
    uint64_t write_bytes;
    uint64_t read_bytes_per_s, write_bytes_per_s; /* means while it moves */
    uint64_t n_bad, n_fault, n_full; /* wrong payloads, failed parts, parts without space */
};

struct pb_kv_load {
    uint32_t n_tier;
    struct pb_kv_tier tier[PB_KV_N_TIERS];
    uint64_t n_fetch, n_fetch_late,
        n_fetch_failed;     /* requests that fetched; gave up; found it gone */
    uint64_t fetch_wait_us; /* of requests, for their pages */
    uint64_t n_probe, n_probe_late, probe_found_tokens;
};
