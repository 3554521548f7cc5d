#pragma once

/*
 * Object pool: fixed-size objects from one slab made at start.
 *
 * Owned by one thread. take and give never call malloc. A free object is poisoned (0xA5), and give
 * asserts that the object came from here and is not free already. An object's index is stable and
 * may travel on a wire together with a generation.
 */

#include "common/base.h"

struct ps_pool;

struct ps_pool *ps_pool_create(uint32_t n_obj, size_t obj_bytes);
void ps_pool_destroy(struct ps_pool *p); /* NULL is fine */
void *ps_pool_take(struct ps_pool *p);   /* zeroed; NULL when all are out */
void ps_pool_give(struct ps_pool *p, void *obj);
uint32_t ps_pool_index(const struct ps_pool *p, const void *obj);
void *ps_pool_at(struct ps_pool *p, uint32_t index); /* NULL when that object is free */
uint32_t ps_pool_n_out(const struct ps_pool *p);
