#pragma once

/*
 * Making, running and ending one loop thread.
 *
 * create and destroy belong to main, before the thread starts and after it was joined; everything in
 * between belongs to the loop's thread. A loop stops by itself once the router drains and its work is
 * done (or cut).
 */

#include "router/router.h"

PS_MUST int rt_loop_create(struct rt_loop **out, struct rt_router *r, uint32_t index,
                           struct ps_buf *err);
PS_MUST int rt_loop_start(struct rt_loop *l);
void rt_loop_join(struct rt_loop *l);
void rt_loop_destroy(struct rt_loop *l); /* NULL is fine */
