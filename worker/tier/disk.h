#pragma once

/*
 * T2: one preallocated file of slots per group on this host's disk, by direct I/O.
 *
 * A slot is a header of 4 KiB and the item's bytes, written in one go and never synced: a slot is its
 * own manifest, and a torn one fails its checksums. At start the headers are read in the background
 * and handed out page by page, parents before children. The store names slots; which are free it
 * knows from the tree. A slot that is reused is simply written over.
 */

#include "common/buf.h"
#include "worker/tier/tier.h"

struct ps_uring;

struct wk_tier_disk_conf {
    const char *path; /* of the first group's file; further groups add ".1" and so on */
    struct wk_tier_ident ident;
    uint32_t n_slot[4]; /* of each group; fewer when the disk is too small (see n_slot below) */
    uint32_t depth;     /* reads and writes at once; 0: 32 */
    /* NULL: io_uring, or threads where it is refused. Tests give a scripted one, whose files 0, 1, ..
     * are those of the groups, large enough; then there is no thread and pump drives it, the scan
     * too. It stays the caller's. */
    struct ps_uring *script;
    struct wk_tier_inbox *inbox;
    const struct ps_clock *clock; /* outlives even a tier whose close said E_BUSY */
};

/* Another process has the file, the path is no file, ...: WK_TIER_E_CONF, err says why. A file of
 * another model, format or version is started over (a log line says so). */
PS_MUST int wk_tier_disk_create(struct wk_tier **out, const struct wk_tier_disk_conf *conf,
                                struct ps_buf *err);
uint32_t wk_tier_disk_n_slot(const struct wk_tier *t, uint32_t group);

struct wk_disk_found { /* a slot that survived, on its way to the scheduler */
    struct wk_kv_key key;
    uint32_t slot;
    uint32_t ids[WK_KV_PAGE_TOKENS_MAX]; /* what key.ids points to */
};
enum { WK_DISK_SCAN_OK, WK_DISK_SCAN_E_NONE, WK_DISK_SCAN_E_OVER };
/* Scheduler side: the next survivor. Parents come before children; orphans and duplicates do not
 * come. E_NONE: not yet; E_OVER: that was all. Until E_OVER a slot not yet told must not be written:
 * wk_tier_disk_may_write tells (slots are told, or found empty, in no particular order). */
PS_MUST int wk_tier_disk_scan(struct wk_tier *t, struct wk_disk_found *out);
bool wk_tier_disk_may_write(const struct wk_tier *t, uint32_t group, uint32_t slot);
/* Everything on disk is void from now on, also after a restart (the file's generation rises). */
void wk_tier_disk_reset(struct wk_tier *t);
