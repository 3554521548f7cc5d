#pragma once

/*
 * What survived in T2's file: headers come in as the disk gives them and go out parents first.
 *
 * The tier's thread reads (next, take, finish); the scheduler asks (pop, may_write, stop). An entry
 * is told when it begins a path, or once its parent was told: in any group, because a snapshot and
 * rows are copies of one page. Until then it waits, and when all headers are in, whoever still waits
 * has lost its path and is forgotten. Of two slots with one item the first is told.
 *
 * Invariants
 *   1 what is told has a digest that its parent, ids and seed really give, at the position where its
 *     parent ended: a header that is intact but made elsewhere starts no path.
 *   2 a slot may be written once its item was popped, or is known to be none.
 */

#include "worker/tier/disk.h"

struct wk_disk_scan;

/* n_slot 0 in a group: nothing to read there. */
struct wk_disk_scan *wk_disk_scan_create(uint64_t space_id, const uint32_t *n_slot,
                                         uint32_t n_group);
void wk_disk_scan_destroy(struct wk_disk_scan *s);              /* NULL is fine */
void wk_disk_scan_skip(struct wk_disk_scan *s, uint32_t group); /* before anything else: empty */

/* ---- tier's thread ---- */

/* The next header to read; false: no more. */
bool wk_disk_scan_next(struct wk_disk_scan *s, uint32_t *out_group, uint32_t *out_slot);
/* What was read there; NULL: no item of ours. True: there is something new to pop. */
bool wk_disk_scan_take(struct wk_disk_scan *s, uint32_t group, uint32_t slot,
                       const struct wk_kv_key *key);
void wk_disk_scan_finish(struct wk_disk_scan *s); /* all that next gave was taken; once is enough */

/* ---- scheduler ---- */

PS_MUST int wk_disk_scan_pop(struct wk_disk_scan *s, struct wk_disk_found *out);
bool wk_disk_scan_may_write(const struct wk_disk_scan *s, uint32_t group, uint32_t slot);
void wk_disk_scan_stop(struct wk_disk_scan *s); /* nothing survived after all */
