/*
 * Probes and what a person asks a router: health, readiness, liveness, version, stats, metrics.
 */

#include <stdatomic.h>
#include <string.h>

#include "common/conf.h"
#include "common/json/json.h"
#include "router/api/api.h"
#include "router/conf_def.h"
#include "router/stats.h"

enum { LIVE_WITHIN_US = 5 * 1000 * 1000 };

static void count_workers(const struct rt_router *r, uint32_t *out_ready, uint32_t *out_total)
{
    uint32_t n = rt_fleet_n_slots(r->fleet);
    struct rt_worker w;

    *out_ready = *out_total = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (!rt_fleet_worker(r->fleet, i, &w) || w.state == RT_W_ABSENT)
            continue;
        (*out_total)++;
        /* A worker that was silent for a moment still counts: readiness must not flap. */
        *out_ready += w.state == RT_W_LIVE || w.state == RT_W_SUSPECT;
    }
}

static void answer(struct rt_ask *a, bool ok, const char *retry, const char *body)
{
    rt_ask_reply(a, ok ? 200 : 503, "application/json", ok ? "" : retry, body, strlen(body));
}

void rt_api_health(struct rt_ask *a, const char *body, size_t len)
{
    uint32_t n_ready, n_total;

    (void)body;
    (void)len;
    count_workers(a->api->loop->router, &n_ready, &n_total);
    answer(a, n_ready > 0, "", n_ready > 0 ? "{\"status\":\"ok\"}" : "{\"status\":\"no worker\"}");
}

void rt_api_ping(struct rt_ask *a, const char *body, size_t len)
{
    uint32_t n_ready, n_total;

    (void)body;
    (void)len;
    count_workers(a->api->loop->router, &n_ready, &n_total);
    answer(a, n_ready > 0, "", "");
}

void rt_api_ready(struct rt_ask *a, const char *body, size_t len)
{
    struct rt_router *r = a->api->loop->router;
    bool draining = atomic_load(&r->draining) != RT_DRAIN_NO;
    struct ps_buf b = PS_BUF_INIT;
    uint32_t n_ready, n_total;
    bool ok;

    (void)body;
    (void)len;
    count_workers(r, &n_ready, &n_total);
    ok = !draining && n_ready >= (uint32_t)r->conf->min_ready_workers;
    ps_buf_addf(&b, "{\"status\":\"%s\",\"workers\":{\"ready\":%u,\"total\":%u},\"models\":[",
                draining ? "draining"
                : ok     ? "ready"
                         : "waiting",
                n_ready, n_total);
    ps_json_add_str(&b, r->model.name, strlen(r->model.name));
    ps_buf_add_str(&b, "]}");
    answer(a, ok, "retry-after: 1\r\n", b.data);
    ps_buf_fini(&b);
}

void rt_api_live(struct rt_ask *a, const char *body, size_t len)
{
    struct rt_router *r = a->api->loop->router;
    uint64_t now = ps_now_us(r->clock);
    bool ok = true;

    (void)body;
    (void)len;
    for (uint32_t i = 0; i < r->n_loops; i++) {
        uint64_t alive = atomic_load(&r->loops[i]->alive_us);

        ok = ok && (alive > now || now - alive < LIVE_WITHIN_US);
    }
    answer(a, ok, "", ok ? "{\"status\":\"ok\"}" : "{\"status\":\"a loop hangs\"}");
}

void rt_api_version(struct rt_ask *a, const char *body, size_t len)
{
    struct ps_buf b = PS_BUF_INIT;

    (void)body;
    (void)len;
    ps_buf_addf(&b, "{\"version\":\"%s\",\"commit\":\"%s\",\"api\":\"1\"}", ps_version(),
                ps_commit());
    rt_ask_json(a, 200, &b);
    ps_buf_fini(&b);
}

void rt_api_stats(struct rt_ask *a, const char *body, size_t len)
{
    struct ps_buf b = PS_BUF_INIT;

    (void)body;
    (void)len;
    rt_stats_write(a->api->loop->router, &b);
    rt_ask_json(a, 200, &b);
    ps_buf_fini(&b);
}

void rt_api_metrics(struct rt_ask *a, const char *body, size_t len)
{
    struct ps_buf b = PS_BUF_INIT;

    (void)body;
    (void)len;
    rt_metrics_write(a->api->loop->router, &b);
    rt_ask_reply(a, 200, "text/plain; version=0.0.4; charset=utf-8", "", b.data, b.len);
    ps_buf_fini(&b);
}
