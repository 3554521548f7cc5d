#pragma once

/*
 * The inside of the disk tier, for disk.c (verbs, life) and disk_run.c (what its thread
 * does) alone.
 *
 * One thread owns the ring, the queues and the acts (operations of the ring). The scheduler's thread
 * meets it at `lock`: it leaves new jobs there and takes nothing back; ended ios go to the inbox.
 *
 *   submit -> incoming -> queue (by lane) -> acts, one a part -> inbox
 *
 * A part is one act, whatever its size: header and payload in one preadv or pwritev. Acts come in
 * this order: superblocks of a reset (alone), urgent ios, reads, writes, headers of the scan.
 */

#include <pthread.h>

#include "common/uring/uring.h"
#include "worker/tier/disk_file.h"
#include "worker/tier/disk_scan.h"

enum {
    WK_DISK_GROUPS_MAX = 4,
    WK_DISK_QUEUE_MAX = 256, /* ios queued or running */
    WK_DISK_REAP_MAX = 32,
};

enum { WK_DISK_URGENT, WK_DISK_READ, WK_DISK_WRITE, WK_DISK_N_LANES };

struct wk_disk_job { /* an io in here */
    struct wk_disk_job *next;
    struct wk_tier_io *io;
    uint64_t epoch; /* at submit: what was submitted before a reset must not survive it */
    uint32_t n_begun, n_ended;
};

struct wk_disk_list {
    struct wk_disk_job *first, *last;
};

/*
 * OPEN -> CLOSING (close was called) -> FINISHED (all is back)
 *                                    -> ABANDONED (it was not in time)
 */
enum wk_disk_state { WK_DISK_OPEN, WK_DISK_CLOSING, WK_DISK_FINISHED, WK_DISK_ABANDONED };

struct wk_disk_act;

struct wk_disk {
    struct wk_tier t;
    struct wk_tier_disk_conf conf;
    char *path; /* conf's, kept */
    struct wk_disk_file files[WK_DISK_GROUPS_MAX];
    struct wk_disk_scan *scan;
    struct ps_uring *ring;
    pthread_t thread;

    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t has_news;
    enum wk_disk_state state;
    bool is_started, is_failed;
    int start_error;
    struct wk_disk_list incoming;
    struct wk_disk_job *free_jobs;
    uint64_t epoch; /* resets so far */

    /* the tier's thread */
    struct wk_disk_list queues[WK_DISK_N_LANES];
    struct wk_disk_act *acts, *free_acts;
    uint32_t n_acts, n_busy, n_scan, n_files;
    uint64_t lazy_bytes, epoch_seen;
    bool super_due[WK_DISK_GROUPS_MAX];
    uint32_t n_super, super_tries;
    bool is_scan_over, is_scan_news, is_broken;
    uint64_t n_moves; /* anything that happened: pump ends when it stands still */
    struct wk_disk_job *jobs;
};

/* Both before the thread begins, and after it has ended. */
void wk_disk_make_acts(struct wk_disk *d);
void wk_disk_free_acts(struct wk_disk *d);
void wk_disk_list_push(struct wk_disk_list *l, struct wk_disk_job *j);
/* Begins what can begin, waits for one or more acts, at most n_reap, and ends them. Returns how many
 * ios came back. */
uint32_t wk_disk_round(struct wk_disk *d, uint32_t n_reap);
/* Closed with nothing left to give back, or abandoned. */
bool wk_disk_is_over(struct wk_disk *d);
