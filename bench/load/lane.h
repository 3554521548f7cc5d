#pragma once

/*
 * Runs a plan: each lane is a thread with a client of its own; what they measured is added up.
 *
 * Closed loop: a lane sends the next request when one of its streams ends. Open loop: each request
 * when it is due; its times count from then, so a late client cannot flatter the server. A request
 * that is due while all streams are taken waits, and that counts too.
 */

#include "bench/load/client.h"
#include "bench/load/plan.h"
#include "bench/load/sample.h"
#include "bench/load/tally.h"

struct bn_result {
    struct bn_sample ttft, gap, tpot, e2e, late; /* of calls without error; gap: between events */
    uint64_t n_ok, n_good;                       /* good: within both objectives */
    uint64_t n_prompt, n_output, n_cached;
    struct bn_tally tally;
    uint64_t wall_us, cpu_us;
    uint64_t cpu_us_max; /* of the busiest lane */
};

void bn_result_init(struct bn_result *r);
void bn_result_fini(struct bn_result *r);
/* One of BN_CLIENT_E_* or a negative errno when the run could not start or broke off. warm: the
 * warm-up instead of the plan. */
PS_MUST int bn_lanes_run(const struct bn_plan *plan, bool warm, struct bn_result *out);
