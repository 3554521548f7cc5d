/*
 * penstock-router: HTTP in front, workers behind.
 */

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/log.h"
#include "common/mq/mq.h"
#include "common/rng.h"
#include "router/conf_def.h"
#include "router/keys.h"
#include "router/loop.h"
#include "router/request/text.h"
#include "router/stats.h"

enum { EVENTS_PER_LOOP = 1 << 15, CARE_INTERVAL_S = 1, KEYS_INTERVAL_S = 5 };

static bool check_conf(const void *p, struct ps_buf *err)
{
    const struct rt_conf *c = p;

    if (c->model[0] == '\0') {
        ps_buf_add_str(err, "--model: a model directory is needed");
        return false;
    }
    if (!ps_mq_host_is_loopback(c->host) && c->api_keys.n == 0 && c->api_key_file[0] == '\0' &&
        !c->insecure_no_auth) {
        ps_buf_addf(
            err,
            "--host: '%s' is public and no API keys are configured; give --api-key-file, or say "
            "--insecure-no-auth",
            c->host);
        return false;
    }
    if (c->curve_secret_file[0] != '\0' && c->curve_allow_file[0] == '\0') {
        ps_buf_add_str(
            err,
            "--curve-allow-file: CURVE without a list of allowed workers authenticates nobody");
        return false;
    }
    return true;
}

static void add_eos(struct rt_model *m, uint32_t id)
{
    uint32_t i;

    for (i = 0; i < m->n_eos; i++) {
        if (m->eos[i] == id)
            return;
    }
    if (m->n_eos < PS_ARRAY_LEN(m->eos))
        m->eos[m->n_eos++] = id;
}

static const char *name_of(const struct rt_conf *c)
{
    char path[PATH_MAX];

    if (c->served_name[0] != '\0')
        return c->served_name;
    return ps_strdup(realpath(c->model, path) != NULL ? basename(path) : "model");
}

static bool load_model(struct rt_router *r, struct ps_buf *err)
{
    const struct rt_conf *c = r->conf;
    struct rt_model *m = &r->model;
    uint32_t i, id;
    int rc;

    m->dir = c->model;
    m->name = name_of(c);
    m->aliases = c->aliases.items;
    m->n_aliases = c->aliases.n;
    m->created_s = ps_wall_us(r->clock) / 1000000;
    if (ps_model_config_load(&m->conf, m->dir, err) != PS_MODEL_OK ||
        ps_tok_load(&m->tok, m->dir, err) != PS_TOK_OK)
        return false;
    rc = ps_tmpl_load(&m->tmpl, m->dir, err);
    if (rc != PS_TMPL_OK && rc != PS_TMPL_E_NONE)
        return false;
    if (rc == PS_TMPL_E_NONE)
        ps_warn("the model has no chat template: chat requests are refused", "");
    m->context = m->conf.max_pos;
    if (c->max_model_len > 0)
        m->context = ps_min_u32(m->context, (uint32_t)c->max_model_len);
    for (i = 0; i < m->conf.n_eos; i++)
        add_eos(m, m->conf.eos[i]);
    if (ps_tok_eos_id(m->tok, &id))
        add_eos(m, id);
    return true;
}

static bool load_secret(struct rt_router *r, struct ps_buf *err)
{
    const char *path = r->conf->cluster_secret_file;
    PS_AUTO(ps_close_fd) int fd = -1;

    ps_random_bytes(r->cluster_secret, sizeof(r->cluster_secret));
    if (path[0] == '\0')
        return true; /* salts then differ after a restart: caches start cold, nothing leaks */
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || read(fd, r->cluster_secret, sizeof(r->cluster_secret)) !=
                      (ssize_t)sizeof(r->cluster_secret)) {
        ps_buf_add_str(err, "--cluster-secret-file: cannot be read, or is shorter than 32 bytes");
        return false;
    }
    return true;
}

static bool make_fleet(struct rt_router *r, struct ps_buf *err)
{
    const struct rt_conf *c = r->conf;
    uint8_t digest[32];
    const struct rt_fleet_conf fc = {.bind_host = c->worker_host,
                                     .tok_port = (uint16_t)c->worker_port,
                                     .n_loops = r->n_loops,
                                     .n_events = EVENTS_PER_LOOP,
                                     .curve_secret_file = c->curve_secret_file,
                                     .curve_allow_file = c->curve_allow_file,
                                     .insecure_public_bind = c->insecure_worker_bind,
                                     .inject = c->inject,
                                     .tokenizer_digest = digest};

    ps_tok_digest(r->model.tok, digest);
    return rt_fleet_create(&r->fleet, &fc, r->clock, err) == 0;
}

static bool make_loops(struct rt_router *r, uint16_t *out_port, struct ps_buf *err)
{
    uint16_t port = (uint16_t)r->conf->port;
    uint32_t i;
    int rc;

    r->loops = ps_calloc(r->n_loops, sizeof(struct rt_loop *));
    for (i = 0; i < r->n_loops; i++) {
        if (rt_loop_create(&r->loops[i], r, i, err) != 0)
            return false;
        rc = ps_http_listen(r->loops[i]->http, r->conf->host, port, r->n_loops > 1, &port);
        if (rc != 0) {
            ps_buf_addf(err, "cannot listen on %s:%u (%s)", r->conf->host, (unsigned)port,
                        strerror(-rc));
            return false;
        }
    }
    *out_port = port;
    return true;
}

static bool start(struct rt_router *r, uint16_t *out_port, struct ps_buf *err)
{
    uint32_t i;

    if (!load_secret(r, err) || !load_model(r, err) ||
        rt_keys_create(&r->keys, &r->conf->api_keys, r->conf->api_key_file, r->cluster_secret,
                       err) != RT_KEYS_LOADED)
        return false;
    r->metrics = rt_metrics_create(r->model.name);
    if (!make_fleet(r, err))
        return false;
    r->text = rt_text_create(r);
    if (!make_loops(r, out_port, err))
        return false;
    if (rt_fleet_start(r->fleet) != 0) {
        ps_buf_add_str(err, "the link thread cannot be started");
        return false;
    }
    for (i = 0; i < r->n_loops; i++) {
        if (rt_loop_start(r->loops[i]) != 0) {
            ps_buf_add_str(err, "a loop thread cannot be started");
            return false;
        }
    }
    return true;
}

/* Waits for a signal at most CARE_INTERVAL_S; 0 when none came. */
static int next_signal(const sigset_t *set)
{
    const struct timespec wait = {.tv_sec = CARE_INTERVAL_S};
    int s = sigtimedwait(set, NULL, &wait);

    return s > 0 ? s : 0;
}

static bool all_idle(const struct rt_router *r)
{
    uint32_t i, n = 0;

    for (i = 0; i < r->n_loops; i++)
        n += rt_gens_n_running(r->loops[i]) + rt_gens_n_queued(r->loops[i]);
    return n == 0;
}

/* Runs until a stop signal, then through the stages of a drain; loops end by themselves. */
static void supervise(struct rt_router *r, const sigset_t *set)
{
    const struct rt_conf *c = r->conf;
    uint64_t next_keys_us = 0, stop_us = 0;

    while (atomic_load(&r->draining) != RT_DRAIN_CUT) {
        int s = next_signal(set);
        uint64_t now = ps_now_us(r->clock);
        uint32_t stage = atomic_load(&r->draining);

        if (s == SIGHUP || now >= next_keys_us) {
            rt_keys_reload(r->keys, s == SIGHUP);
            next_keys_us = now + KEYS_INTERVAL_S * 1000000ull;
        }
        if ((s == SIGTERM || s == SIGINT) && stage == RT_DRAIN_NO) {
            ps_info("draining", "grace_s=%ld timeout_s=%ld", (long)c->drain_grace_s,
                    (long)c->drain_timeout_s);
            stop_us = now;
            stage = c->drain_grace_s > 0 ? RT_DRAIN_GRACE : RT_DRAIN_REFUSE;
        } else if (s == SIGTERM || s == SIGINT) {
            stage = RT_DRAIN_CUT; /* the second one */
        }
        if (stage == RT_DRAIN_GRACE && now - stop_us >= (uint64_t)c->drain_grace_s * 1000000)
            stage = RT_DRAIN_REFUSE;
        if (stage == RT_DRAIN_REFUSE &&
            (all_idle(r) || now - stop_us >= (uint64_t)c->drain_timeout_s * 1000000))
            stage = RT_DRAIN_CUT;
        atomic_store(&r->draining, stage);
    }
}

static void stop(struct rt_router *r)
{
    uint32_t i;

    for (i = 0; r->loops != NULL && i < r->n_loops && r->loops[i] != NULL; i++) {
        if (!r->loops[i]->started)
            continue;
        ps_wake_ring(&r->loops[i]->wake);
        rt_loop_join(r->loops[i]);
    }
    if (r->fleet != NULL)
        rt_fleet_stop(r->fleet);
    rt_text_destroy(r->text);
    for (i = 0; r->loops != NULL && i < r->n_loops; i++)
        rt_loop_destroy(r->loops[i]);
    ps_free(r->loops);
    rt_fleet_destroy(r->fleet);
    rt_keys_destroy(r->keys);
    ps_tmpl_destroy(r->model.tmpl);
    ps_tok_destroy(r->model.tok);
}

int main(int argc, char **argv)
{
    static const struct ps_conf_table table = {
        .prog = "router",
        .usage = "penstock-router [options]",
        .about =
            "Accepts OpenAI-compatible requests, places them on workers and streams the answers.",
        .opts = rt_conf_opts,
        .n_opts = PS_ARRAY_LEN(rt_conf_opts)};
    struct ps_buf err = PS_BUF_INIT;
    static struct rt_router router;
    struct ps_clock clock;
    struct rt_conf conf;
    uint16_t port = 0;
    sigset_t set;
    int status = 1;

    switch (ps_conf_load(&table, argc, argv, &conf, NULL, check_conf, &err)) {
    case PS_CONF_OK:
        break;
    case PS_CONF_E_DONE:
        return 0;
    default:
        (void)fprintf(stderr, "penstock-router: %s\n", err.data);
        return 2;
    }
    ps_log_init("router", (enum ps_log_level)conf.log_level);
    ps_clock_real(&clock);
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGINT);
    (void)sigaddset(&set, SIGTERM);
    (void)sigaddset(&set, SIGHUP);
    (void)pthread_sigmask(SIG_BLOCK, &set, NULL); /* before threads exist: they inherit it */
    router.conf = &conf;
    router.clock = &clock;
    router.n_loops = (uint32_t)conf.loops;
    router.start_us = ps_now_us(&clock);
    if (start(&router, &port, &err)) {
        ps_info("router ready for workers", "http=%s:%u workers=%s:%u model=%s", conf.host,
                (unsigned)port, conf.worker_host, (unsigned)rt_fleet_port(router.fleet),
                PS_Q(router.model.name));
        supervise(&router, &set);
        status = 0;
    } else {
        (void)fprintf(stderr, "penstock-router: %s\n",
                      err.data != NULL ? err.data : "cannot start");
        atomic_store(&router.draining, RT_DRAIN_CUT);
    }
    stop(&router);
    ps_buf_fini(&err);
    if (status == 0)
        ps_info("router stopped", "");
    return status;
}
