#pragma once

/*
 * The worker's options: one table for flags, environment, file, help, docs/config.md and the chart.
 */

#include "common/conf.h"

struct wk_conf {
    const char *model, *served_name, *isa, *kv_bytes, *curve_secret_file, *curve_server_key_file,
        *inject, *uid, *uid_file;
    struct ps_conf_list routers;
    int64_t threads, workers_on_host, max_seqs, max_waiting, chunk, growth_reserve, max_model_len,
        drain_timeout_s;
    int32_t device, log_level;
};

enum wk_device { WK_DEVICE_CPU, WK_DEVICE_REF };

#define WK_OPT(flag, kind, member, ...) \
    { \
        .name = (flag), .type = (kind), .offset = offsetof(struct wk_conf, member), __VA_ARGS__ \
    }

/* clang-format off */
static const struct ps_conf_opt wk_conf_opts[] = {
    WK_OPT("model", PS_CONF_STR, model, .def = "", .help = "model directory (config.json, tokenizer.json, safetensors)"),
    WK_OPT("served-model-name", PS_CONF_STR, served_name, .def = "", .help = "name told to routers; the directory's name when not given"),
    WK_OPT("router", PS_CONF_LIST, routers, .def = "tcp://127.0.0.1:7070", .help = "router to dial, tcp://host:port; may be repeated, all addresses of a name are dialled"),
    WK_OPT("device", PS_CONF_ENUM, device, .def = "cpu", .choices = "cpu|ref", .help = "cpu: the fast kernels; ref: scalar code that defines every operator's order"),
    WK_OPT("threads", PS_CONF_INT, threads, .def = "0", .min = 0, .max = 1024, .help = "compute threads; 0: the cores this process may use, less one for I/O, shared out among the host's workers"),
    WK_OPT("workers-on-host", PS_CONF_INT, workers_on_host, .def = "1", .min = 1, .max = 1024, .help = "workers that share this host's cores and memory"),
    WK_OPT("isa", PS_CONF_STR, isa, .def = "", .help = "instruction set: scalar, avx2, avx512, amx; the best one when not given; all give the same bits"),
    WK_OPT("kv-bytes", PS_CONF_STR, kv_bytes, .def = "", .help = "memory for KV pages, for example 512M or 4GiB; default: a quarter of what is available, but no more than all rows can use"),
    WK_OPT("max-seqs", PS_CONF_INT, max_seqs, .alias = "max-num-seqs", .def = "64", .min = 1, .max = 4096, .help = "sequences that run at once"),
    WK_OPT("max-waiting", PS_CONF_INT, max_waiting, .def = "1024", .min = 0, .max = 1 << 18, .help = "requests that may wait here beyond those; more are sent elsewhere"),
    WK_OPT("chunk", PS_CONF_INT, chunk, .alias = "max-num-batched-tokens", .def = "256", .min = 16, .max = 16384, .unit = "tokens", .help = "prompt tokens computed in one step, beside all decode rows"),
    WK_OPT("growth-reserve", PS_CONF_INT, growth_reserve, .def = "256", .min = 16, .max = 1 << 24, .unit = "tokens", .help = "growth that admission keeps room for in every running sequence; larger: fewer suspensions, smaller batches"),
    WK_OPT("max-model-len", PS_CONF_INT, max_model_len, .def = "0", .min = 0, .max = 1 << 24, .unit = "tokens", .help = "context limit; 0: the model's own"),
    WK_OPT("drain-timeout", PS_CONF_INT, drain_timeout_s, .def = "300", .min = 0, .max = 86400, .unit = "s", .help = "after SIGTERM running sequences get this long; then routers move them"),
    WK_OPT("curve-secret-file", PS_CONF_STR, curve_secret_file, .def = "", .help = "this worker's CURVE secret key (Z85); encrypts its channel"),
    WK_OPT("curve-server-key-file", PS_CONF_STR, curve_server_key_file, .def = "", .help = "the routers' public CURVE key; needed with CURVE"),
    WK_OPT("uid", PS_CONF_STR, uid, .def = "", .help = "identity in hex, up to 16 digits; drawn at start when not given"),
    WK_OPT("uid-file", PS_CONF_STR, uid_file, .def = "", .help = "file that keeps the identity over restarts; made when absent"),
    WK_OPT("log-level", PS_CONF_ENUM, log_level, .def = "info", .choices = "error|warn|info|debug", .help = "least urgent line that is written"),
    WK_OPT("inject", PS_CONF_STR, inject, .def = "", .help = "testing: damages the channel, e.g. seed=7,drop=0.01,dup=0.01"),
};
/* clang-format on */
#undef WK_OPT
