#pragma once

/*
 * Options of the front door, one table a sub-command.
 */

#include "common/conf.h"

struct cli_serve_conf {
    const char *model, *host, *served_name, *api_key_file;
    int64_t port, workers, threads, drain_timeout_s;
    bool insecure_no_auth;
    struct ps_conf_list router_args, worker_args;
};

static const struct ps_conf_opt cli_serve_opts[] = {
    {.name = "model",
     .type = PS_CONF_STR,
     .offset = offsetof(struct cli_serve_conf, model),
     .def = "",
     .help = "model directory; the bundled demo model when not given"},
    {.name = "served-model-name",
     .type = PS_CONF_STR,
     .offset = offsetof(struct cli_serve_conf, served_name),
     .def = "",
     .help = "name clients use; the directory's name when not given"},
    {.name = "workers",
     .type = PS_CONF_INT,
     .offset = offsetof(struct cli_serve_conf, workers),
     .def = "1",
     .min = 1,
     .max = 64,
     .help = "worker processes on this host"},
    {.name = "host",
     .type = PS_CONF_STR,
     .offset = offsetof(struct cli_serve_conf, host),
     .def = "127.0.0.1",
     .help = "address the router listens on"},
    {.name = "port",
     .type = PS_CONF_INT,
     .offset = offsetof(struct cli_serve_conf, port),
     .def = "8000",
     .min = 1,
     .max = 65535,
     .help = "HTTP port"},
    {.name = "threads",
     .type = PS_CONF_INT,
     .offset = offsetof(struct cli_serve_conf, threads),
     .def = "0",
     .min = 0,
     .max = 1024,
     .help = "compute threads of each worker; 0: the host's cores shared out"},
    {.name = "api-key-file",
     .type = PS_CONF_STR,
     .offset = offsetof(struct cli_serve_conf, api_key_file),
     .def = "",
     .help = "file of API keys, one a line; no keys: no authentication"},
    {.name = "insecure-no-auth",
     .type = PS_CONF_BOOL,
     .offset = offsetof(struct cli_serve_conf, insecure_no_auth),
     .def = "false",
     .help = "allow a public address without API keys"},
    {.name = "drain-timeout",
     .type = PS_CONF_INT,
     .offset = offsetof(struct cli_serve_conf, drain_timeout_s),
     .def = "30",
     .min = 0,
     .max = 86400,
     .unit = "s",
     .help = "how long Ctrl-C waits for running requests"},
    {.name = "router-arg",
     .type = PS_CONF_LIST,
     .offset = offsetof(struct cli_serve_conf, router_args),
     .def = "",
     .help = "passed on to penstock-router, for example --router-arg=--max-queue=64"},
    {.name = "worker-arg",
     .type = PS_CONF_LIST,
     .offset = offsetof(struct cli_serve_conf, worker_args),
     .def = "",
     .help = "passed on to every penstock-worker, for example --worker-arg=--kv-bytes=1GiB; "
             "{index} becomes its number"},
};

struct cli_chat_conf {
    const char *url, *model, *api_key, *system;
    int64_t max_tokens, seed;
    double temperature;
};

static const struct ps_conf_opt cli_chat_opts[] = {
    {.name = "url",
     .type = PS_CONF_STR,
     .offset = offsetof(struct cli_chat_conf, url),
     .def = "http://127.0.0.1:8000",
     .help = "where the router listens (http only)"},
    {.name = "model",
     .type = PS_CONF_STR,
     .offset = offsetof(struct cli_chat_conf, model),
     .def = "default",
     .help = "model to ask for"},
    {.name = "api-key",
     .type = PS_CONF_STR,
     .offset = offsetof(struct cli_chat_conf, api_key),
     .def = "",
     .help = "sent as a bearer token"},
    {.name = "system",
     .type = PS_CONF_STR,
     .offset = offsetof(struct cli_chat_conf, system),
     .def = "",
     .help = "system message"},
    {.name = "max-tokens",
     .type = PS_CONF_INT,
     .offset = offsetof(struct cli_chat_conf, max_tokens),
     .def = "512",
     .min = 1,
     .max = 1 << 20,
     .help = "longest answer"},
    {.name = "temperature",
     .type = PS_CONF_FLOAT,
     .offset = offsetof(struct cli_chat_conf, temperature),
     .def = "0",
     .min = 0,
     .max = 2,
     .help = "0: the most likely answer"},
    {.name = "seed",
     .type = PS_CONF_INT,
     .offset = offsetof(struct cli_chat_conf, seed),
     .def = "-1",
     .min = -1,
     .max = 9e15,
     .help = "same seed, same answer; -1: drawn by the router"},
};
