#pragma once

/*
 * Hash map from uint64_t to uint64_t (or a pointer), open addressing, linear probing.
 *
 * Owned by one thread. Key 0 is allowed. Deletion shifts entries back, so there are no tombstones
 * and load stays below 3/4; it doubles when needed. Keys that an adversary may choose are hashed
 * with XXH3 and a per-process seed given at init.
 */

#include "common/base.h"

struct ps_map {
    struct ps_map_slot *slots;
    uint32_t n, cap; /* cap: power of two or 0 */
    uint64_t seed;
};

struct ps_map_slot {
    uint64_t key, value;
    bool used;
};

void ps_map_init(struct ps_map *m, uint64_t seed);
void ps_map_fini(struct ps_map *m);
void ps_map_put(struct ps_map *m, uint64_t key, uint64_t value); /* replaces */
bool ps_map_get(const struct ps_map *m, uint64_t key, uint64_t *out_value);
bool ps_map_del(struct ps_map *m, uint64_t key); /* false: was not there */
void ps_map_clear(struct ps_map *m);

static inline void *ps_map_get_ptr(const struct ps_map *m, uint64_t key)
{
    uint64_t v;

    return ps_map_get(m, key, &v) ? (void *)(uintptr_t)v : NULL;
}
