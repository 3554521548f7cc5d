#pragma once

/*
 * What the rest of common/net needs of a loop and nobody outside may see: the libuv loop, and hooks
 * around the tick.
 *
 * One turn, in this order, before the loop blocks: every hook's before (continue what waits), the
 * user's tick, every hook's after (write what was queued). Hook callbacks run on the loop's thread.
 */

#include <uv.h>

#include "common/net/loop.h"

struct ps_turn {
    ps_loop_fn before, after;
    ps_loop_fn coarse; /* every PS_COARSE_MS, for timers that need no precision */
    void *ud;
    struct ps_turn *next;
};

enum { PS_COARSE_MS = 50 };

uv_loop_t *ps_loop_uv(struct ps_loop *l);
void ps_turn_add(struct ps_loop *l, struct ps_turn *t);
void ps_turn_remove(struct ps_loop *l, struct ps_turn *t);
/* The loop does not block at the end of this turn: something was left for the next one. */
void ps_turn_again(struct ps_loop *l);
