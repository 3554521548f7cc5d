#pragma once

/*
 * T3: a directory that many workers share, on any file system.
 *
 * An object is a run of 256 tokens (or one snapshot): a file named by its digest under
 * space_id/arith_id/first two hex/next two/, written beside and renamed, never changed, deleted by
 * renaming into trash/ and unlinked later. Whoever reads one compares tokens, parent and checksums
 * with what it wants. Any call may hang for ever: the threads here are never waited for.
 *
 * n_threads make the calls of ios, one more those of the collector and of noting uses; a timer thread
 * makes none, so that it never hangs. Who ends an io:
 *   queued, deadline passed     the timer (without threads: the next pump): CANCELLED
 *   queued, cancelled           cancel itself: CANCELLED
 *   running                     its thread alone, when the call it is in returns: it owns the buffers.
 *                               It looks at cancel and deadline between calls: CANCELLED
 * While every thread is in an io that began 10 s ago, or such ios hold more than 256 MiB, submit says
 * E_CLOSED: the tier is off, with one log line, until calls return.
 * After close has said E_BUSY, threads that return touch neither ios nor the inbox; the last one
 * frees the tier. fs and clock must live on.
 */

#include "common/buf.h"
#include "worker/tier/tier.h"

struct wk_fs; /* the file system calls it makes; NULL in conf: the real ones */

struct wk_tier_share_conf {
    const char *path; /* exists; what is missing below it is made */
    struct wk_tier_ident ident;
    uint64_t bytes_max; /* collector's limit for all objects below path; 0: none */
    uint64_t keep_us;   /* an object unused for this long may go; 0: only the limit counts */
    uint32_t n_threads; /* up to 4; 0: driven by pump */
    const struct wk_fs *fs;
    struct wk_tier_inbox *inbox;
    const struct ps_clock *clock;
};

/* WK_TIER_E_CONF: err says why. With threads, a directory that does not answer in 10 s is one. */
PS_MUST int wk_tier_share_create(struct wk_tier **out, const struct wk_tier_share_conf *conf,
                                 struct ps_buf *err);
/* One round of the collector, as far as about `n_ops` file operations go; false: the round is over.
 * Only for tiers made without threads. Safe when several processes do it at once. */
bool wk_tier_share_collect(struct wk_tier *t, uint32_t n_ops);
