#pragma once

/*
 * What a load run sends: request number i has a length, a prefix, a time and ids that follow from the
 * options and i alone. So a run can be repeated, whatever the order in which answers come.
 *
 * Immutable after create; read from any thread.
 */

#include "bench/load/conf_def.h"
#include "bench/load/prompt.h"
#include "bench/load/trace.h"
#include "common/base.h"
#include "common/buf.h"

enum {
    BN_PLAN_OK,
    BN_PLAN_E_BAD, /* err says why */
};

enum { BN_LENGTH_MAX = 1 << 24 };

struct bn_range {
    uint32_t min, max;
};

struct bn_plan {
    const struct bn_load_conf *conf;
    struct bn_vocab vocab;
    struct bn_range prompt, output;
    struct bn_trace trace; /* n_items 0: none */
    uint64_t *due_us;      /* open loop: when each is due, ascending; NULL: closed loop */
    uint64_t n;            /* requests; UINT64_MAX: until the duration is over */
};

struct bn_shape {
    uint32_t n_prompt, n_output;
};

PS_MUST int bn_plan_create(struct bn_plan **out, const struct bn_load_conf *conf,
                           struct ps_buf *err);
void bn_plan_destroy(struct bn_plan *p); /* NULL is fine */
void bn_plan_shape(const struct bn_plan *p, uint64_t i, struct bn_shape *out);
/* The prompt of request i: shape.n_prompt ids. A warm-up's prompt shares nothing with any other. */
void bn_plan_ids(const struct bn_plan *p, uint64_t i, bool warm, uint32_t *out);
/* "N" or "MIN-MAX", from 1 to BN_LENGTH_MAX. */
PS_MUST bool bn_range_read(const char *s, struct bn_range *out);
