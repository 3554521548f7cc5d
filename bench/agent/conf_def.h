#pragma once

/*
 * Options of penstock-agent.
 */

#include "common/conf.h"

struct bn_agent_conf {
    struct ps_conf_list targets;
    const char *model, *api_key, *json, *state, *resume, *answers;
    int64_t vocab, id_min, seed, sessions, groups, system, first, tool, answer, turns, concurrency;
    double think_s, timeout_s, temperature;
    bool compare;
};

#define BN_OPT(flag, kind, member, ...) \
    { \
        .name = (flag), .type = (kind), .offset = offsetof(struct bn_agent_conf, member), \
        __VA_ARGS__ \
    }

/* clang-format off */
static const struct ps_conf_opt bn_agent_opts[] = {
    BN_OPT("target", PS_CONF_LIST, targets, .def = "127.0.0.1:8000", .help = "HOST:PORT, numeric or localhost; repeated: requests go to them in turn"),
    BN_OPT("model", PS_CONF_STR, model, .def = "default", .help = "model to ask for"),
    BN_OPT("api-key", PS_CONF_STR, api_key, .def = "", .help = "sent as a bearer token"),
    BN_OPT("vocab", PS_CONF_INT, vocab, .def = "0", .min = 0, .max = 1 << 24, .help = "size of the model's vocabulary; needed"),
    BN_OPT("id-min", PS_CONF_INT, id_min, .def = "3", .min = 0, .max = 1 << 24, .help = "smallest token id that is drawn"),
    BN_OPT("seed", PS_CONF_INT, seed, .def = "1", .min = 0, .max = 9e15, .help = "of prompts, tool outputs and think times"),
    BN_OPT("sessions", PS_CONF_INT, sessions, .def = "16", .min = 1, .max = 1 << 16, .help = "sessions, interleaved"),
    BN_OPT("groups", PS_CONF_INT, groups, .def = "1", .min = 1, .max = 1 << 16, .help = "system prompts; sessions take them in turn"),
    BN_OPT("system-tokens", PS_CONF_INT, system, .def = "1024", .min = 0, .max = 1 << 24, .help = "length of a system prompt"),
    BN_OPT("first-tokens", PS_CONF_INT, first, .def = "7168", .min = 1, .max = 1 << 24, .help = "a session's own first prompt, after the system prompt"),
    BN_OPT("tool-tokens", PS_CONF_INT, tool, .def = "256", .min = 1, .max = 1 << 20, .help = "tool output that follows each answer"),
    BN_OPT("answer-tokens", PS_CONF_INT, answer, .def = "32", .min = 1, .max = 1 << 20, .help = "length of an answer"),
    BN_OPT("turns", PS_CONF_INT, turns, .def = "3", .min = 1, .max = 1 << 16, .help = "turns of each session in this run"),
    BN_OPT("think", PS_CONF_FLOAT, think_s, .def = "0", .min = 0, .max = 3600, .unit = "s", .help = "mean time between an answer and the next turn, exponential"),
    BN_OPT("concurrency", PS_CONF_INT, concurrency, .def = "4", .min = 1, .max = 1 << 16, .help = "turns that run at once; others wait in order of readiness, and that counts"),
    BN_OPT("temperature", PS_CONF_FLOAT, temperature, .def = "0", .min = 0, .max = 2, .help = "0: the most likely token; else each turn has a seed of its own"),
    BN_OPT("timeout", PS_CONF_FLOAT, timeout_s, .def = "600", .min = 0.1, .max = 86400, .unit = "s", .help = "longest time of one turn"),
    BN_OPT("state", PS_CONF_STR, state, .def = "", .help = "file that gets the sessions at the end"),
    BN_OPT("resume", PS_CONF_STR, resume, .def = "", .help = "file of an earlier run whose sessions go on; same seed, sessions and lengths"),
    BN_OPT("answers", PS_CONF_STR, answers, .def = "", .help = "file that gets every turn's answer as token ids"),
    BN_OPT("compare", PS_CONF_BOOL, compare, .def = "false", .help = "compares two files of --answers, given as arguments, instead of running"),
    BN_OPT("json", PS_CONF_STR, json, .def = "", .help = "file that gets the result"),
};
/* clang-format on */
#undef BN_OPT
