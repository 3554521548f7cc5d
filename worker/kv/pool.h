#pragma once

/*
 * KV pool: hands out items (pages) of an arena by number and counts their holders.
 *
 * The arena is cut into slabs of up to 8 MiB (more when one item is larger). A slab serves one group at a time and returns to the
 * common stock when its last item is free, so there is no fixed ratio between groups. slab_bytes is
 * a multiple of every group's item_bytes, so that an item's number is its byte offset in the arena
 * divided by item_bytes, whatever its neighbours hold.
 *
 * Items of which the caller says that they are idle (it would drop them when asked) make slabs loose: a
 * slab is loose when nothing in it is in use, that is, all is free or idle.
 *
 * Owned by the scheduler thread; no call blocks or allocates after create.
 *
 * Invariants
 *   1 an item is free exactly when its count of holders is 0; it is on a free list then and only then.
 *   2 a slab belongs to a group exactly while it has an item that is not free.
 *   3 n_free(g) = free items of g's slabs + items that the unowned slabs could hold.
 *   4 an idle item has exactly one holder; n_reclaim(g) = items of g that the loose slabs of other
 *     groups could hold.
 */

#include "worker/kv/layout.h"

enum {
    WK_KV_OK,
    WK_KV_E_FULL, /* no free item: evict, wait or suspend; nothing has changed */
};

struct wk_kv_pool;

/* n_items of group 0 size the arena; at least 1. The layout is copied. */
struct wk_kv_pool *wk_kv_pool_create(const struct wk_kv_layout *l, uint32_t n_items);
/* The same with slabs of at most slab_bytes, or as many as whole items of every group take: tests
 * give a small arena many slabs. */
struct wk_kv_pool *wk_kv_pool_create_slabs(const struct wk_kv_layout *l, uint32_t n_items,
                                           uint64_t slab_bytes);
void wk_kv_pool_destroy(struct wk_kv_pool *p); /* NULL is fine */
PS_MUST int wk_kv_pool_take(struct wk_kv_pool *p, uint32_t group,
                            uint32_t *out_item);                            /* one holder */
void wk_kv_pool_share(struct wk_kv_pool *p, uint32_t group, uint32_t item); /* one more */
void wk_kv_pool_drop(struct wk_kv_pool *p, uint32_t group, uint32_t item);
uint32_t wk_kv_pool_holders(const struct wk_kv_pool *p, uint32_t group, uint32_t item);
uint32_t wk_kv_pool_n_free(const struct wk_kv_pool *p, uint32_t group);
uint32_t wk_kv_pool_n_total(const struct wk_kv_pool *p, uint32_t group);
/* The only holder would drop the item when asked, or would not any more (before share and drop). */
void wk_kv_pool_set_idle(struct wk_kv_pool *p, uint32_t group, uint32_t item, bool idle);
bool wk_kv_pool_is_idle(const struct wk_kv_pool *p, uint32_t group, uint32_t item);
/* What dropping every idle item of the other groups would add to n_free(group). */
uint32_t wk_kv_pool_n_reclaim(const struct wk_kv_pool *p, uint32_t group);
uint64_t wk_kv_pool_slab_bytes(const struct wk_kv_pool *p);
uint32_t wk_kv_pool_slab_items(const struct wk_kv_pool *p, uint32_t group); /* of a whole slab */
