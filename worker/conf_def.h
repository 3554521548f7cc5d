#pragma once

/*
 * The worker's options: one table for flags, environment, file, help, docs/config.md and the chart.
 */

#include "common/conf.h"

struct wk_conf {
    const char *model, *served_name, *isa, *kv_bytes, *curve_secret_file, *curve_server_key_file,
        *inject, *uid, *uid_file, *kv_host_bytes, *kv_disk, *kv_disk_bytes, *kv_share,
        *kv_share_bytes, *kv_peer_listen, *kv_peer_secret_file, *inject_disk_hang,
        *inject_share_hang, *sim_cost, *sim_calibrate, *trace;
    struct ps_conf_list routers, kv_peers;
    int64_t threads, workers_on_host, max_seqs, max_waiting, chunk, itl_target_ms, growth_reserve,
        max_model_len, drain_timeout_s, sim_item_bytes, trace_max;
    double sim_eos;
    int32_t device, log_level, kv_format, sim_time;
    bool self_bench;
};

enum wk_device { WK_DEVICE_CPU, WK_DEVICE_REF, WK_DEVICE_SIM };
enum wk_sim_time { WK_SIM_TIME_REAL, WK_SIM_TIME_FAST };

#define WK_OPT(flag, kind, member, ...) \
    { \
        .name = (flag), .type = (kind), .offset = offsetof(struct wk_conf, member), __VA_ARGS__ \
    }

/* clang-format off */
static const struct ps_conf_opt wk_conf_opts[] = {
    WK_OPT("model", PS_CONF_STR, model, .def = "", .help = "model directory (config.json, tokenizer.json, safetensors)"),
    WK_OPT("served-model-name", PS_CONF_STR, served_name, .def = "", .help = "name told to routers; the directory's name when not given"),
    WK_OPT("router", PS_CONF_LIST, routers, .def = "tcp://127.0.0.1:7070", .help = "router to dial, tcp://host:port; may be repeated, all addresses of a name are dialled"),
    WK_OPT("device", PS_CONF_ENUM, device, .def = "cpu", .choices = "cpu|ref|sim", .help = "cpu: the fast kernels; ref: scalar code that defines every operator's order; sim: no model runs, steps take the time of a cost model and answers are made up (only config.json and tokenizer.json are read)"),
    WK_OPT("threads", PS_CONF_INT, threads, .def = "0", .min = 0, .max = 1024, .help = "compute threads; 0: the cores this process may use, less one for I/O, shared out among the host's workers"),
    WK_OPT("workers-on-host", PS_CONF_INT, workers_on_host, .def = "1", .min = 1, .max = 1024, .help = "workers that share this host's cores and memory"),
    WK_OPT("isa", PS_CONF_STR, isa, .def = "", .help = "instruction set: scalar, avx2, avx512, amx; the best one when not given; all give the same bits"),
    WK_OPT("kv-bytes", PS_CONF_STR, kv_bytes, .def = "", .help = "memory for KV pages, for example 512M or 4GiB; default: a quarter of what is available, but no more than all rows can use"),
    WK_OPT("kv-host-bytes", PS_CONF_STR, kv_host_bytes, .def = "", .help = "memory for the second KV tier, pages that the first has no room for; default: none, or an eighth of what is available when a disk, a shared directory or peers are given, which need it"),
    WK_OPT("kv-disk", PS_CONF_STR, kv_disk, .def = "", .help = "file for the third KV tier on this host's own disk; made when absent, survives restarts; one worker a file"),
    WK_OPT("kv-disk-bytes", PS_CONF_STR, kv_disk_bytes, .def = "16GiB", .help = "size of that file"),
    WK_OPT("kv-share", PS_CONF_STR, kv_share, .def = "", .help = "directory for the fourth KV tier, shared by many workers (any file system)"),
    WK_OPT("kv-share-bytes", PS_CONF_STR, kv_share_bytes, .def = "", .help = "what all workers together keep there, least recently used deleted first; no limit when not given"),
    WK_OPT("kv-format", PS_CONF_ENUM, kv_format, .def = "raw", .choices = "raw|fp8|tq4", .help = "how KV pages are stored below the first tier; fp8 halves them, tq4 quarters them, both change what is generated"),
    WK_OPT("kv-peer-listen", PS_CONF_STR, kv_peer_listen, .def = "", .help = "host:port on which other workers may fetch KV pages; port 0: any"),
    WK_OPT("kv-peer", PS_CONF_LIST, kv_peers, .def = "", .help = "host:port of a worker to ask for KV pages before computing them; may be repeated, up to 8"),
    WK_OPT("kv-peer-secret-file", PS_CONF_STR, kv_peer_secret_file, .def = "", .help = "secret that peers must share; without it only loopback addresses are used"),
    WK_OPT("max-seqs", PS_CONF_INT, max_seqs, .alias = "max-num-seqs", .def = "64", .min = 1, .max = 4096, .help = "sequences that run at once"),
    WK_OPT("max-waiting", PS_CONF_INT, max_waiting, .def = "1024", .min = 0, .max = 1 << 18, .help = "requests that may wait here beyond those; more are sent elsewhere"),
    WK_OPT("chunk", PS_CONF_INT, chunk, .alias = "max-num-batched-tokens", .def = "256", .min = 16, .max = 16384, .unit = "tokens", .help = "prompt tokens computed in one step, beside all decode rows"),
    WK_OPT("itl-target", PS_CONF_INT, itl_target_ms, .def = "50", .min = 0, .max = 60000, .unit = "ms", .help = "time between two tokens that steps are kept under by computing fewer prompt tokens than --chunk (never below 16); 0: always --chunk"),
    WK_OPT("growth-reserve", PS_CONF_INT, growth_reserve, .def = "256", .min = 16, .max = 1 << 24, .unit = "tokens", .help = "growth that admission keeps room for in every running sequence; larger: fewer suspensions, smaller batches"),
    WK_OPT("max-model-len", PS_CONF_INT, max_model_len, .def = "0", .min = 0, .max = 1 << 24, .unit = "tokens", .help = "context limit; 0: the model's own"),
    WK_OPT("drain-timeout", PS_CONF_INT, drain_timeout_s, .def = "300", .min = 0, .max = 86400, .unit = "s", .help = "after SIGTERM running sequences get this long; then routers move them"),
    WK_OPT("curve-secret-file", PS_CONF_STR, curve_secret_file, .def = "", .help = "this worker's CURVE secret key (Z85); encrypts its channel"),
    WK_OPT("curve-server-key-file", PS_CONF_STR, curve_server_key_file, .def = "", .help = "the routers' public CURVE key; needed with CURVE"),
    WK_OPT("uid", PS_CONF_STR, uid, .def = "", .help = "identity in hex, up to 16 digits; drawn at start when not given"),
    WK_OPT("uid-file", PS_CONF_STR, uid_file, .def = "", .help = "file that keeps the identity over restarts; made when absent"),
    WK_OPT("log-level", PS_CONF_ENUM, log_level, .def = "info", .choices = "error|warn|info|debug", .help = "least urgent line that is written"),
    WK_OPT("sim-cost", PS_CONF_STR, sim_cost, .def = "", .help = "device sim: what a step takes, in microseconds: h200 (default), cpu, or terms that change it, such as cpu,base=7000,row=20,prefill=25,kv=0.04,pair=0"),
    WK_OPT("sim-calibrate", PS_CONF_STR, sim_calibrate, .def = "", .help = "device sim: fits those terms to the steps of a trace that a worker wrote with --trace"),
    WK_OPT("sim-time", PS_CONF_ENUM, sim_time, .def = "real", .choices = "real|fast", .help = "device sim: real: steps take their time; fast: they take none"),
    WK_OPT("sim-item-bytes", PS_CONF_INT, sim_item_bytes, .def = "4096", .min = 4096, .max = 1 << 24, .unit = "bytes", .help = "device sim: size of a KV page of 16 tokens, a multiple of 4096"),
    WK_OPT("sim-eos", PS_CONF_FLOAT, sim_eos, .def = "0", .min = 0, .max = 1, .help = "device sim: probability that a token ends its answer; 0: answers run to max_tokens"),
    WK_OPT("trace", PS_CONF_STR, trace, .def = "", .help = "writes each step and each request's phases to this file, as Chrome trace events (Perfetto opens it)"),
    WK_OPT("trace-max", PS_CONF_INT, trace_max, .def = "256", .min = 1, .max = 1 << 20, .unit = "MiB", .help = "size at which the trace stops"),
    WK_OPT("self-bench", PS_CONF_BOOL, self_bench, .def = "false", .help = "measures what scheduler and cache cost this host, prints a table and leaves; needs no model"),
    WK_OPT("inject-disk-hang", PS_CONF_STR, inject_disk_hang, .def = "", .help = "testing: AT:FOR in seconds after the start, the KV disk hangs; FOR 0: for ever"),
    WK_OPT("inject-share-hang", PS_CONF_STR, inject_share_hang, .def = "", .help = "testing: the same for the shared KV directory"),
    WK_OPT("inject", PS_CONF_STR, inject, .def = "", .help = "testing: damages the channel, e.g. seed=7,drop=0.01,dup=0.01"),
};
/* clang-format on */
#undef WK_OPT
