#include "common/clock.h"

#include <stdatomic.h>
#include <time.h>

static uint64_t read_us(clockid_t id)
{
    struct timespec ts;

    PS_ASSERT(clock_gettime(id, &ts) == 0);
    return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

static uint64_t real_now(const struct ps_clock *c)
{
    (void)c;
    return read_us(CLOCK_MONOTONIC);
}

static uint64_t real_wall(const struct ps_clock *c)
{
    (void)c;
    return read_us(CLOCK_REALTIME);
}

static uint64_t manual_now(const struct ps_clock *c)
{
    return atomic_load(&c->manual_us);
}

void ps_clock_real(struct ps_clock *c)
{
    c->now_us = real_now;
    c->wall_us = real_wall;
    atomic_init(&c->manual_us, 0);
}

void ps_clock_manual(struct ps_clock *c, uint64_t start_us)
{
    c->now_us = manual_now;
    c->wall_us = manual_now;
    atomic_init(&c->manual_us, start_us);
}

void ps_clock_advance(struct ps_clock *c, uint64_t us)
{
    PS_ASSERT(c->now_us == manual_now);
    atomic_fetch_add(&c->manual_us, us);
}
