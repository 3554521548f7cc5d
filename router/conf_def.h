#pragma once

/*
 * The router's options: one table for flags, environment, file, help, docs/config.md and the chart.
 */

#include "common/conf.h"

struct rt_conf {
    const char *model, *served_name, *host, *worker_host, *api_key_file, *cluster_secret_file,
        *curve_secret_file, *curve_allow_file, *inject;
    struct ps_conf_list aliases, api_keys, allowed_hosts, cors_origins;
    int64_t port, worker_port, loops, max_queue, max_queue_bytes, queue_timeout_s,
        request_timeout_s, move_wait_s, max_moves, max_model_len, max_n, max_logprobs,
        max_body_bytes, max_conns, max_conns_per_addr, header_flush_s, sse_keepalive_s,
        drain_grace_s, drain_timeout_s, min_ready_workers, write_stall_s, idle_s;
    bool insecure_no_auth, insecure_worker_bind, metrics_auth, strict_params;
    int32_t log_level, overflow, sse_keepalive, generation_config;
};

enum rt_overflow { RT_OVERFLOW_ERROR, RT_OVERFLOW_CLAMP };
enum rt_keepalive { RT_KEEPALIVE_NEWLINE, RT_KEEPALIVE_COMMENT, RT_KEEPALIVE_OFF };
enum rt_gen_config { RT_GEN_CONFIG_MODEL, RT_GEN_CONFIG_NONE };

#define RT_OPT(flag, kind, member, ...) \
    { \
        .name = (flag), .type = (kind), .offset = offsetof(struct rt_conf, member), __VA_ARGS__ \
    }

/* clang-format off */
static const struct ps_conf_opt rt_conf_opts[] = {
    RT_OPT("model", PS_CONF_STR, model, .def = "", .help = "model directory (configuration, tokenizer, chat template)"),
    RT_OPT("served-model-name", PS_CONF_STR, served_name, .def = "", .help = "name clients use; the directory's name when not given"),
    RT_OPT("model-alias", PS_CONF_LIST, aliases, .def = "", .help = "another name for the model; * matches anything"),
    RT_OPT("host", PS_CONF_STR, host, .def = "127.0.0.1", .help = "address of the HTTP listener"),
    RT_OPT("port", PS_CONF_INT, port, .def = "8000", .min = 0, .max = 65535, .help = "HTTP port; 0 picks one"),
    RT_OPT("worker-host", PS_CONF_STR, worker_host, .def = "127.0.0.1", .help = "address where workers dial in"),
    RT_OPT("worker-port", PS_CONF_INT, worker_port, .def = "7070", .min = 0, .max = 65535, .help = "port where workers dial in; 0 picks one"),
    RT_OPT("loops", PS_CONF_INT, loops, .def = "1", .min = 1, .max = 64, .help = "loop threads; each has its own listener on the port"),
    RT_OPT("api-key", PS_CONF_LIST, api_keys, .def = "", .help = "accepted API key; better in a file"),
    RT_OPT("api-key-file", PS_CONF_STR, api_key_file, .def = "", .help = "file of keys: key[,name=..][,tenant=..][,admin], one a line; read again when it changes"),
    RT_OPT("insecure-no-auth", PS_CONF_BOOL, insecure_no_auth, .def = "false", .help = "allow a public address without API keys"),
    RT_OPT("metrics-auth", PS_CONF_BOOL, metrics_auth, .def = "false", .help = "GET /metrics needs a key too"),
    RT_OPT("allowed-hosts", PS_CONF_LIST, allowed_hosts, .def = "", .help = "more Host names accepted when no keys are configured"),
    RT_OPT("cors-origins", PS_CONF_LIST, cors_origins, .def = "", .help = "origins that browsers may call from; default: any with keys, localhost without"),
    RT_OPT("cluster-secret-file", PS_CONF_STR, cluster_secret_file, .def = "", .help = "32 or more random bytes that persist; separates tenants' cache entries"),
    RT_OPT("curve-secret-file", PS_CONF_STR, curve_secret_file, .def = "", .help = "the router's CURVE secret key (Z85); encrypts the workers' channel"),
    RT_OPT("curve-allow-file", PS_CONF_STR, curve_allow_file, .def = "", .help = "workers' public keys, lines 'z85-key uid-hex'; needed with CURVE"),
    RT_OPT("insecure-worker-bind", PS_CONF_BOOL, insecure_worker_bind, .def = "false", .help = "allow a public worker address without CURVE"),
    RT_OPT("max-queue", PS_CONF_INT, max_queue, .def = "4096", .min = 1, .max = 1 << 22, .help = "generations that may wait for a worker"),
    RT_OPT("max-queue-bytes", PS_CONF_INT, max_queue_bytes, .def = "1073741824", .min = 1 << 20, .max = 1e15, .unit = "bytes", .help = "prompt bytes that may wait"),
    RT_OPT("queue-timeout", PS_CONF_INT, queue_timeout_s, .def = "60", .min = 1, .max = 86400, .unit = "s", .help = "longest wait in the queue"),
    RT_OPT("request-timeout", PS_CONF_INT, request_timeout_s, .def = "0", .min = 0, .max = 86400, .unit = "s", .help = "longest wait for the first token; 0: no limit"),
    RT_OPT("move-wait", PS_CONF_INT, move_wait_s, .def = "10", .min = 0, .max = 3600, .unit = "s", .help = "how long a stream that lost its worker waits for another one"),
    RT_OPT("max-moves", PS_CONF_INT, max_moves, .def = "3", .min = 0, .max = 100, .help = "times a generation may lose its worker"),
    RT_OPT("max-model-len", PS_CONF_INT, max_model_len, .def = "0", .min = 0, .max = 1 << 24, .unit = "tokens", .help = "context limit; 0: the model's own"),
    RT_OPT("max-n", PS_CONF_INT, max_n, .def = "16", .min = 1, .max = 128, .help = "choices a request may ask for"),
    RT_OPT("max-logprobs", PS_CONF_INT, max_logprobs, .def = "20", .min = 0, .max = 20, .help = "alternatives a token may be asked for"),
    RT_OPT("max-tokens-overflow", PS_CONF_ENUM, overflow, .def = "error", .choices = "error|clamp", .help = "what prompt + max_tokens beyond the context means"),
    RT_OPT("generation-config", PS_CONF_ENUM, generation_config, .def = "model", .choices = "model|none", .help = "whether generation_config.json gives sampling defaults"),
    RT_OPT("strict-params", PS_CONF_BOOL, strict_params, .def = "false", .help = "refuse unknown request fields instead of ignoring them"),
    RT_OPT("max-body-bytes", PS_CONF_INT, max_body_bytes, .def = "67108864", .min = 1024, .max = 1 << 30, .unit = "bytes", .help = "largest request body"),
    RT_OPT("max-conns", PS_CONF_INT, max_conns, .def = "20000", .min = 1, .max = 1 << 20, .help = "open client connections"),
    RT_OPT("max-conns-per-addr", PS_CONF_INT, max_conns_per_addr, .def = "4096", .min = 0, .max = 1 << 20, .help = "the same, from one address; 0: no limit"),
    RT_OPT("write-stall", PS_CONF_INT, write_stall_s, .def = "60", .min = 1, .max = 3600, .unit = "s", .help = "a client that takes nothing for this long is cut"),
    RT_OPT("keepalive-idle", PS_CONF_INT, idle_s, .def = "75", .min = 1, .max = 3600, .unit = "s", .help = "an idle connection is closed after this"),
    RT_OPT("header-flush-after", PS_CONF_INT, header_flush_s, .def = "10", .min = 1, .max = 3600, .unit = "s", .help = "a stream's head is sent at the first token or after this"),
    RT_OPT("sse-keepalive", PS_CONF_ENUM, sse_keepalive, .def = "newline", .choices = "newline|comment|off", .help = "what a silent stream sends"),
    RT_OPT("sse-keepalive-interval", PS_CONF_INT, sse_keepalive_s, .def = "15", .min = 1, .max = 3600, .unit = "s", .help = "after how much silence"),
    RT_OPT("min-ready-workers", PS_CONF_INT, min_ready_workers, .def = "1", .min = 0, .max = 1024, .help = "live workers that /ready needs"),
    RT_OPT("drain-grace", PS_CONF_INT, drain_grace_s, .def = "5", .min = 0, .max = 3600, .unit = "s", .help = "after SIGTERM new requests are still accepted this long"),
    RT_OPT("drain-timeout", PS_CONF_INT, drain_timeout_s, .def = "300", .min = 0, .max = 86400, .unit = "s", .help = "after SIGTERM running requests get this long"),
    RT_OPT("log-level", PS_CONF_ENUM, log_level, .def = "info", .choices = "error|warn|info|debug", .help = "least urgent line that is written"),
    RT_OPT("inject", PS_CONF_STR, inject, .def = "", .help = "testing: damages the workers' channel, e.g. seed=7,drop=0.01,dup=0.01"),
};
/* clang-format on */
#undef RT_OPT
