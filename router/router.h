#pragma once

/*
 * The router's shared facts and its per-thread context.
 *
 * struct rt_router is filled by main before threads start and never changes afterwards, except behind
 * its own modules' interfaces (fleet, keys, metrics). struct rt_loop is one loop thread: its event loop,
 * its HTTP server, its generations. Nothing else is shared on the request path.
 */

#include <pthread.h>

#include "common/base.h"
#include "common/clock.h"
#include "common/model/config.h"
#include "common/net/http.h"
#include "common/net/loop.h"
#include "common/text/template.h"
#include "common/text/tokenizer.h"
#include "router/fail.h"
#include "router/fleet/fleet.h"

struct rt_conf;    /* router/conf_def.h */
struct rt_keys;    /* router/keys.h */
struct rt_metrics; /* router/stats.h */
struct rt_gens;    /* router/dispatch.c: this loop's generations and queue */
struct rt_text;    /* router/request/text.h: the pool for long texts */
struct rt_api;     /* router/api/api.h: this loop's open requests */

struct rt_model {         /* what is served; one per router */
    const char *name;     /* served name */
    const char **aliases; /* patterns with '*' */
    uint32_t n_aliases;
    const char *dir;
    struct ps_model_config conf;
    struct ps_tok *tok;
    struct ps_tmpl *tmpl; /* NULL: no chat template (E44) */
    uint32_t context;     /* min(model, --max-model-len) */
    uint32_t eos[PS_MAX_EOS + 1];
    uint32_t n_eos; /* config, generation_config and tokenizer */
    uint64_t created_s;
};

/* Shutting down: still accepting (load balancers are slow), refusing new work, cutting what is left. */
enum rt_drain { RT_DRAIN_NO, RT_DRAIN_GRACE, RT_DRAIN_REFUSE, RT_DRAIN_CUT };

struct rt_router {
    const struct rt_conf *conf;
    const struct ps_clock *clock;
    struct rt_model model;
    struct rt_fleet *fleet;
    struct rt_keys *keys;
    struct rt_metrics *metrics;
    struct rt_text *text;
    struct rt_loop **loops;
    uint32_t n_loops;
    uint64_t start_us;
    uint64_t incarnation;
    uint8_t cluster_secret[32]; /* tenant salts; from a file that persists */
    _Atomic uint32_t draining;  /* enum rt_drain; only rises */
};

struct rt_loop {
    struct rt_router *router;
    uint32_t index;
    struct ps_loop *loop;
    struct ps_http *http;
    struct ps_wake wake; /* rung by the fleet's link thread and the text pool */
    struct rt_gens *gens;
    struct rt_api *api;
    struct ps_tok_ctx *tok_ctx;
    struct ps_timer *care;     /* housekeeping: drain stages, liveness */
    uint32_t drain_seen;       /* the stage this loop has carried out */
    _Atomic uint64_t alive_us; /* when this loop last turned: /live looks at it */
    pthread_t thread;
    bool started;
};

/* router/api/api.c: the handler that is given to ps_http_create with ud = struct rt_loop. */
extern const struct ps_http_handler rt_api_handler;
void rt_api_init(struct rt_loop *l);
void rt_api_tick(struct rt_loop *l); /* once a turn, after rt_gens_tick: writes what it brought */
void rt_api_fini(struct rt_loop *l); /* after the HTTP server is gone */
/* router/dispatch.c: per-loop generations. tick: once a turn, drains fleet events, places, expires. */
void rt_gens_init(struct rt_loop *l);
void rt_gens_fini(struct rt_loop *l);
void rt_gens_tick(struct rt_loop *l);
uint32_t rt_gens_n_running(const struct rt_loop *l); /* any thread: gauges */
uint32_t rt_gens_n_queued(const struct rt_loop *l);
/* What is still open gets `f` (drain timeout). */
void rt_gens_fail_all(struct rt_loop *l, const struct rt_fail *f);
