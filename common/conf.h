#pragma once

/*
 * Configuration from one table: flag, environment name, file key, --help, --check-config,
 * --dump-config and docs/config.md all come from the same rows.
 *
 * A program lists its options once (router/conf_def.h, worker/conf_def.h, deploy/cli/conf_def.h) and
 * reads plain struct members afterwards. Precedence: flag > environment (PENSTOCK_ROUTER_PORT for
 * flag --port of the program "router") > file (--config FILE, lines `key = value`, # comments) >
 * default. Parsing happens once, before threads start; a bad value names the option, the place it
 * came from and the allowed range.
 */

#include "common/base.h"
#include "common/buf.h"

enum ps_conf_type {
    PS_CONF_BOOL,  /* bool;  --x, --no-x, --x=true|false */
    PS_CONF_INT,   /* int64_t in [min, max] */
    PS_CONF_FLOAT, /* double in [min, max] */
    PS_CONF_STR,   /* const char *, "" when unset */
    PS_CONF_LIST,  /* struct ps_conf_list; the flag may be repeated, env and file split at ',' */
    PS_CONF_ENUM,  /* int32_t: index into choices "a|b|c" */
};

struct ps_conf_list {
    const char **items;
    uint32_t n;
};

struct ps_conf_opt {
    const char *name;  /* flag name without dashes, e.g. "max-queue" */
    const char *alias; /* another accepted flag name (for example vLLM's), or NULL */
    enum ps_conf_type type;
    size_t offset;       /* into the program's conf struct */
    const char *def;     /* default as text */
    double min, max;     /* INT, FLOAT; both 0: any */
    const char *choices; /* ENUM */
    const char *unit;    /* "ms", "bytes", NULL */
    const char *help;    /* one line */
};

struct ps_conf_table {
    const char *prog;  /* "router": names the environment variables */
    const char *usage; /* e.g. "penstock-router [options]" */
    const char *about; /* one or two sentences for --help */
    const struct ps_conf_opt *opts;
    uint32_t n_opts;
};

enum {
    PS_CONF_OK,
    PS_CONF_E_BAD, /* message in err */
    PS_CONF_E_DONE, /* --help, --version, --check-config, --dump-config was answered on stdout: exit 0 */
};

/*
 * Fills *conf (the struct the offsets point into); strings live until exit. rest (may be NULL)
 * receives arguments that are not options. check (may be NULL) is called last with conf and writes a
 * message into err when values exclude each other.
 */
PS_MUST int ps_conf_load(const struct ps_conf_table *t, int argc, char **argv, void *conf,
                         struct ps_conf_list *rest,
                         bool (*check)(const void *conf, struct ps_buf *err), struct ps_buf *err);
void ps_conf_write_help(const struct ps_conf_table *t, struct ps_buf *out);
void ps_conf_write_markdown(const struct ps_conf_table *t, struct ps_buf *out); /* docs/config.md */
const char *ps_version(void);
const char *ps_commit(void); /* short git commit of the build, "unknown" outside a checkout */
