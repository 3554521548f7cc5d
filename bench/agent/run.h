#pragma once

/*
 * Runs sessions turn by turn over one client and tells cold turns from warm ones.
 *
 * A turn is cold when its session has none before it. Sessions whose next turn is due wait in order
 * of readiness while all streams are taken: `wait`. `ttft` and `e2e` count from sending.
 *
 * Avoidable are the prompt's tokens that were sent or received before: the session's history without
 * its newest tool output, or for a cold turn the group's system prompt once a turn of the group was
 * answered. Avoided are those that the usage calls cached, no more than were avoidable. All of it
 * cannot be reached: a cache keeps whole pages, and the last token of an answer was never computed.
 */

#include "bench/agent/answers.h"
#include "bench/agent/conf_def.h"
#include "bench/agent/session.h"
#include "bench/load/tally.h"

struct bn_turns {
    struct bn_sample ttft, wait, e2e;
    uint64_t n_prompt, n_cached, n_avoidable, n_avoided, n_output;
};

struct bn_agent_result {
    struct bn_turns cold, warm;
    struct bn_tally tally;
    uint64_t wall_us, cpu_us, n_history; /* n_history: tokens of all sessions at the end */
};

void bn_agent_result_init(struct bn_agent_result *r);
void bn_agent_result_fini(struct bn_agent_result *r);
/* answers may be NULL. 0, or what bn_client_said explains. */
PS_MUST int bn_agent_run(const struct bn_agent_conf *conf, struct bn_sessions *sessions,
                         struct bn_answers *answers, struct bn_agent_result *out);
