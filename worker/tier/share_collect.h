#pragma once

/*
 * The collector: keeps the shared directory below its limit.
 *
 * One of all workers does it: the holder of the lease, a file made exclusively, whose time the holder
 * refreshes. A lease that is two minutes old is taken over; two that hold it for a moment do no harm,
 * because every deletion is a rename that only one of them wins, and the one whose name is no longer
 * in the file stops. A round looks at everything under the root, whoever wrote it:
 *
 *   tmp/      files of writers that died, an hour after their last write
 *   trash/    deleted ten minutes ago
 *   objects   unused for keep_us; then the longest unused until 15/16 of bytes_max are left. Empty
 *             directories of digests, after an hour
 *
 * Names that are not ours are left alone and not counted; what cannot be read is left out. What lies
 * in tmp and trash comes on top of bytes_max. Deleting an object makes those after it on its path
 * useless alone, and harmless: readers ask in ascending order and stop. Uses keep the order of ages
 * right (share_root.h).
 *
 * One thread. Memory is bounded: a round remembers the n_oldest oldest objects; when deleting these
 * is not enough, another round follows at once.
 */

#include "worker/tier/share_root.h"

struct wk_share_collect_conf {
    struct wk_share_root *root;
    uint64_t bytes_max; /* 0: no limit */
    uint64_t keep_us;   /* 0: for ever */
    uint32_t n_oldest;  /* 0: 4096 */
};

struct wk_share_collect_stats {            /* of the last round that came to its end */
    uint64_t n_rounds, n_objects, n_bytes; /* that are left */
    uint64_t n_unreadable;                 /* directories and files left out */
    uint64_t n_deleted, n_unlinked;        /* objects; files of tmp and trash. Since create */
};

struct wk_share_collect;

struct wk_share_collect *wk_share_collect_create(const struct wk_share_collect_conf *conf);
/* Gives the lease back; calls the file system. NULL is fine. */
void wk_share_collect_destroy(struct wk_share_collect *c);
/* Goes on with the round, or begins one, for about n_ops calls. False: the round is over, or
 * somebody else has the lease. */
bool wk_share_collect_run(struct wk_share_collect *c, uint32_t n_ops);
void wk_share_collect_stats(const struct wk_share_collect *c, struct wk_share_collect_stats *out);
