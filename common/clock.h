#pragma once

/*
 * Time, injectable: every module that waits or stamps gets a struct ps_clock.
 *
 * The real clock reads CLOCK_MONOTONIC (for durations) and CLOCK_REALTIME (for what users see). The
 * manual one is moved by a test or a simulation. Reading never blocks and is safe from any thread.
 */

#include "common/base.h"

struct ps_clock {
    uint64_t (*now_us)(const struct ps_clock *c);  /* monotonic, microseconds */
    uint64_t (*wall_us)(const struct ps_clock *c); /* since 1970, microseconds */
    _Atomic uint64_t manual_us;                    /* used by the manual clock only */
};

void ps_clock_real(struct ps_clock *c);
void ps_clock_manual(struct ps_clock *c, uint64_t start_us);
void ps_clock_advance(struct ps_clock *c, uint64_t us); /* manual only */

static inline uint64_t ps_now_us(const struct ps_clock *c)
{
    return c->now_us(c);
}
static inline uint64_t ps_wall_us(const struct ps_clock *c)
{
    return c->wall_us(c);
}
