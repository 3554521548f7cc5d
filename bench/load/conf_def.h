#pragma once

/*
 * Options of penstock-load.
 */

#include "common/conf.h"

struct bn_load_conf {
    struct ps_conf_list targets;
    const char *model, *api_key, *trace, *json, *prompt, *output;
    int64_t vocab, id_min, seed, concurrency, threads, requests, warmup, groups, prefix,
        trace_shrink;
    double rate, speed, duration_s, timeout_s, temperature, slo_ttft_ms, slo_tpot_ms;
    bool token_ids;
    int32_t lengths;
};

enum bn_lengths { BN_LENGTHS_UNIFORM, BN_LENGTHS_LOG };

#define BN_OPT(flag, kind, member, ...) \
    { \
        .name = (flag), .type = (kind), .offset = offsetof(struct bn_load_conf, member), \
        __VA_ARGS__ \
    }

/* clang-format off */
static const struct ps_conf_opt bn_load_opts[] = {
    BN_OPT("target", PS_CONF_LIST, targets, .def = "127.0.0.1:8000", .help = "HOST:PORT, numeric or localhost; repeated: requests go to them in turn"),
    BN_OPT("model", PS_CONF_STR, model, .def = "default", .help = "model to ask for"),
    BN_OPT("api-key", PS_CONF_STR, api_key, .def = "", .help = "sent as a bearer token"),
    BN_OPT("vocab", PS_CONF_INT, vocab, .def = "0", .min = 0, .max = 1 << 24, .help = "size of the model's vocabulary; needed"),
    BN_OPT("id-min", PS_CONF_INT, id_min, .def = "3", .min = 0, .max = 1 << 24, .help = "smallest token id that is drawn"),
    BN_OPT("seed", PS_CONF_INT, seed, .def = "1", .min = 0, .max = 9e15, .help = "of prompts, lengths and arrivals"),
    BN_OPT("requests", PS_CONF_INT, requests, .def = "0", .min = 0, .max = 1 << 22, .help = "requests to send; 0: all of the trace, or until --duration"),
    BN_OPT("duration", PS_CONF_FLOAT, duration_s, .def = "0", .min = 0, .max = 86400, .unit = "s", .help = "no request is sent after this; those that run are awaited; 0: no limit"),
    BN_OPT("concurrency", PS_CONF_INT, concurrency, .def = "16", .min = 1, .max = 1 << 16, .help = "closed loop: requests at once; open loop: the most of them"),
    BN_OPT("rate", PS_CONF_FLOAT, rate, .def = "0", .min = 0, .max = 1e6, .unit = "requests/s", .help = "open loop: Poisson arrivals; 0: closed loop"),
    BN_OPT("trace", PS_CONF_STR, trace, .def = "", .help = "open loop: arrivals, lengths and shared prefixes of a Mooncake trace"),
    BN_OPT("trace-speed", PS_CONF_FLOAT, speed, .def = "1", .min = 1e-6, .max = 1e6, .help = "how many times faster than recorded"),
    BN_OPT("trace-shrink", PS_CONF_INT, trace_shrink, .def = "1", .min = 1, .max = 512, .help = "divides the trace's lengths; a power of two"),
    BN_OPT("prompt-tokens", PS_CONF_STR, prompt, .def = "512", .help = "length of a prompt, or MIN-MAX; the shared prefix is a part of it"),
    BN_OPT("output-tokens", PS_CONF_STR, output, .def = "64", .help = "length of an answer, or MIN-MAX"),
    BN_OPT("lengths", PS_CONF_ENUM, lengths, .def = "uniform", .choices = "uniform|log", .help = "how lengths are drawn between MIN and MAX"),
    BN_OPT("prefix-groups", PS_CONF_INT, groups, .def = "1", .min = 1, .max = 1 << 22, .help = "shared prefixes; requests take them in turn"),
    BN_OPT("prefix-tokens", PS_CONF_INT, prefix, .def = "0", .min = 0, .max = 1 << 24, .help = "tokens of a shared prefix"),
    BN_OPT("warmup", PS_CONF_INT, warmup, .def = "0", .min = 0, .max = 1 << 20, .help = "requests sent before, with prompts of their own; not counted"),
    BN_OPT("temperature", PS_CONF_FLOAT, temperature, .def = "0", .min = 0, .max = 2, .help = "0: the most likely token"),
    BN_OPT("token-ids", PS_CONF_BOOL, token_ids, .def = "true", .help = "asks for token ids, so that each token is an event and is counted"),
    BN_OPT("threads", PS_CONF_INT, threads, .def = "1", .min = 1, .max = 64, .help = "client threads; one does for thousands of streams"),
    BN_OPT("timeout", PS_CONF_FLOAT, timeout_s, .def = "600", .min = 0.1, .max = 86400, .unit = "s", .help = "longest time of one request"),
    BN_OPT("slo-ttft", PS_CONF_FLOAT, slo_ttft_ms, .def = "1000", .min = 0, .max = 1e9, .unit = "ms", .help = "goodput: longest time to the first token"),
    BN_OPT("slo-tpot", PS_CONF_FLOAT, slo_tpot_ms, .def = "50", .min = 0, .max = 1e9, .unit = "ms", .help = "goodput: longest mean time of a further token"),
    BN_OPT("json", PS_CONF_STR, json, .def = "", .help = "file that gets the result"),
};
/* clang-format on */
#undef BN_OPT
