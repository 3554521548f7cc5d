#pragma once

/*
 * Order of eviction: which of the idle items of one tier goes first.
 *
 * Holds ids (nodes of the tree) that could be evicted, in two segments, each least recently used
 * first. What was never used after it was made is fresh and goes first; what was is protected, as long
 * as the protected are at most a third of the tier's room: their oldest then become the youngest of
 * the fresh. Ghosts of what was lost lately tell that something which is made again was worth keeping.
 * That kept most on the traces (bench/results has the comparison). Arrays are sized at create;
 * scheduler thread.
 *
 * Invariant: of two ids of one path pushed deepest first with uses not rising along the path, the
 * deeper one goes first.
 */

#include "common/base.h"

#define WK_ORDER_NONE UINT32_MAX

struct wk_order;

/* n_ids < WK_ORDER_NONE; n_room: items of the tier. */
struct wk_order *wk_order_create(uint32_t n_ids, uint32_t n_room);
void wk_order_destroy(struct wk_order *o); /* NULL is fine */
/* The id becomes evictable, as the most recently used of its kind. n_uses: how often its content was
 * used after it was made; 0: never again. */
void wk_order_push(struct wk_order *o, uint32_t id, uint32_t n_uses);
void wk_order_remove(struct wk_order *o, uint32_t id); /* in use again, or gone; held or not */
/* Not to be evicted for a moment, say while it is copied: unseen until released, but the id keeps
 * its place, because being copied is no use of it. */
void wk_order_hold(struct wk_order *o, uint32_t id);
void wk_order_release(struct wk_order *o, uint32_t id);
bool wk_order_has(const struct wk_order *o, uint32_t id); /* evictable: not when held */
bool wk_order_is_held(const struct wk_order *o, uint32_t id);
uint32_t wk_order_n(const struct wk_order *o); /* without the held */
/* Who goes first, and who after that one: the cleaner looks ahead with it. WK_ORDER_NONE: nobody.
 * Steps over held ids, which are as few as moves under way. */
uint32_t wk_order_first(const struct wk_order *o);
uint32_t wk_order_next(const struct wk_order *o, uint32_t id);
/* What has this key was evicted and is nowhere else. */
void wk_order_remember(struct wk_order *o, uint64_t key);
/* It was, and since then no more than the tier's room. */
bool wk_order_is_ghost(const struct wk_order *o, uint64_t key);
