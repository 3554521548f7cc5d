#pragma once

/*
 * What the kinds of ring have in common. Only files of this directory include it.
 */

#include "common/uring/uring.h"

struct ps_uring_verbs {
    const char *name;
    void (*submit)(struct ps_uring *u, const struct ps_uring_op *op); /* there is room */
    uint32_t (*wait)(struct ps_uring *u, uint32_t wait_ms, struct ps_uring_done *out, uint32_t n);
    void (*poke)(struct ps_uring *u);
    void (*free)(struct ps_uring *u); /* nothing is busy */
};

struct ps_uring { /* first member of every kind */
    const struct ps_uring_verbs *verbs;
    uint32_t depth, n_busy;
};

PS_MUST int ps_uring_threads_create(struct ps_uring **out, uint32_t depth);
uint64_t ps_uring_now_ms(void); /* monotonic */
