#include "router/stats.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "common/json/json.h"
#include "router/conf_def.h"
#include "router/router.h"
#include "router/stats_kv.h"

/* Bucket bounds of the established names; dashboards depend on them. */
static const double ttft_bounds[] = {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1,
                                     0.25,  0.5,   0.75, 1,    2.5,  5,    7.5,  10,
                                     20,    40,    80,   160,  640,  2560};
static const double itl_bounds[] = {0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5,
                                    0.75, 1,     2.5,  5,     7.5, 10,   20,  40,  80};
static const double long_bounds[] = {0.3, 0.5, 0.8, 1,  1.5, 2,   2.5, 5,   10,   15,  20,
                                     30,  40,  50,  60, 120, 240, 480, 960, 1920, 7680};
static const double token_bounds[] = {1,     2,     5,     10,     20,     50,
                                      100,   200,   500,   1000,   2000,   5000,
                                      10000, 20000, 50000, 100000, 200000, 500000};
static const double n_bounds[] = {1, 2, 5, 10, 20};

#define HIST(name, help, bounds) ps_hist_get((name), (help), labels, (bounds), PS_ARRAY_LEN(bounds))

static void make_histograms(struct rt_metrics *m, const char *labels)
{
    m->ttft = HIST("vllm:time_to_first_token_seconds", "Time from arrival to the first token.",
                   ttft_bounds);
    m->itl = HIST("vllm:inter_token_latency_seconds", "Time between two tokens of a stream.",
                  itl_bounds);
    m->tpot = HIST("vllm:request_time_per_output_token_seconds",
                   "Mean time per token after the first.", itl_bounds);
    m->e2e = HIST("vllm:e2e_request_latency_seconds", "Time from arrival to the end.", long_bounds);
    m->queue_time =
        HIST("vllm:request_queue_time_seconds", "Time in the router's queue.", long_bounds);
    m->prefill_time = HIST("vllm:request_prefill_time_seconds",
                           "Time from dispatch to the first token.", long_bounds);
    m->decode_time = HIST("vllm:request_decode_time_seconds",
                          "Time from the first token to the end.", long_bounds);
    m->request_prompt_tokens =
        HIST("vllm:request_prompt_tokens", "Prompt tokens of a request.", token_bounds);
    m->request_generation_tokens =
        HIST("vllm:request_generation_tokens", "Tokens of an answer.", token_bounds);
    m->request_max_tokens =
        HIST("vllm:request_params_max_tokens", "max_tokens asked for.", token_bounds);
    m->request_n = HIST("vllm:request_params_n", "Choices asked for.", n_bounds);
}

static void make_counters(struct rt_metrics *m, const char *labels)
{
    static const char *const reasons[RT_OUT_N] = {"stop", "length", "abort", "error"};
    char text[320];
    int i;

    for (i = 0; i < RT_OUT_N; i++) {
        (void)snprintf(text, sizeof(text), "%s,finished_reason=\"%s\"", labels, reasons[i]);
        m->success[i] =
            ps_counter_get("vllm:request_success_total", "Requests that ended, by reason.", text);
    }
    m->prompt_tokens =
        ps_counter_get("vllm:prompt_tokens_total", "Prompt tokens of ended requests.", labels);
    m->generation_tokens =
        ps_counter_get("vllm:generation_tokens_total", "Tokens of ended answers.", labels);
    m->cached_tokens = ps_counter_get("vllm:prompt_tokens_cached_total",
                                      "Prompt tokens found in a cache.", labels);
    m->prefix_queries =
        ps_counter_get("vllm:prefix_cache_queries_total", "Prompt tokens looked up.", labels);
    m->prefix_hits = ps_counter_get("vllm:prefix_cache_hits_total", "Prompt tokens found.", labels);
    m->moves =
        ps_counter_get("penstock_moves_total", "Generations moved to another worker.", labels);
    m->refused_queue_full = ps_counter_get("penstock_refused_queue_full_total",
                                           "Requests refused: queue full.", labels);
    m->ignored_params = ps_counter_get("penstock_ignored_params_total",
                                       "Request fields accepted and ignored.", labels);
    m->key_failures =
        ps_counter_get("penstock_key_failures_total", "Requests without a valid API key.", labels);
}

static void make_gauges(struct rt_metrics *m, const char *labels)
{
    char text[320];

    m->running = ps_gauge_get("vllm:num_requests_running", "Requests on workers.", labels);
    m->waiting = ps_gauge_get("vllm:num_requests_waiting",
                              "Requests in the router's and the workers' queues.", labels);
    (void)snprintf(text, sizeof(text), "%s,reason=\"capacity\"", labels);
    m->waiting_by_reason =
        ps_gauge_get("vllm:num_requests_waiting_by_reason", "Waiting requests by reason.", text);
    m->kv_usage =
        ps_gauge_get("vllm:kv_cache_usage_perc", "Used share of the KV pages, 0 to 1.", labels);
    m->preemptions = ps_gauge_get("penstock_preemptions",
                                  "Suspensions on the live workers since they started.", labels);
    m->workers_ready = ps_gauge_get("penstock_workers_ready", "Live workers.", labels);
    m->draining = ps_gauge_get("penstock_draining", "1 while shutting down.", labels);
    m->connections = ps_gauge_get("penstock_connections", "Open client connections.", labels);
}

struct rt_metrics *rt_metrics_create(const char *model_name)
{
    struct rt_metrics *m = ps_calloc(1, sizeof(*m));
    struct ps_buf labels = PS_BUF_INIT;
    const char *p;

    ps_buf_add_str(&labels, "model_name=\"");
    for (p = model_name; *p != '\0'; p++) { /* the label escapes of the text format */
        if (*p == '"' || *p == '\\')
            ps_buf_add_byte(&labels, '\\');
        ps_buf_add_byte(&labels, *p == '\n' ? ' ' : *p);
    }
    ps_buf_add_str(&labels, "\",engine=\"0\"");
    make_counters(m, labels.data);
    make_histograms(m, labels.data);
    make_gauges(m, labels.data);
    (void)snprintf(m->labels, sizeof(m->labels), "%s", labels.data);
    ps_buf_fini(&labels); /* the registry keeps copies */
    return m;
}

struct totals { /* over the fleet */
    struct pb_load load;
    uint32_t n_ready;
    uint32_t n_queued, n_running, n_conns;
    uint64_t out_bytes;
};

static void add_load(struct pb_load *t, const struct pb_load *l)
{
    t->n_running += l->n_running;
    t->n_waiting += l->n_waiting + l->n_suspended;
    t->group[0].n_total += l->group[0].n_total;
    t->group[0].n_free += l->group[0].n_free;
    t->group[0].n_evictable += l->group[0].n_evictable;
    t->prompt_tokens += l->prompt_tokens;
    t->generated_tokens += l->generated_tokens;
    t->cached_tokens += l->cached_tokens;
    t->n_preempted += l->n_preempted;
    t->n_finished += l->n_finished;
}

/* Share of the pages that requests hold. */
static double kv_usage(const struct pb_kv_group *g)
{
    uint64_t idle = g->n_free + g->n_evictable;

    return idle < g->n_total ? (double)(g->n_total - idle) / (double)g->n_total : 0.0;
}

static void sum(struct rt_router *r, struct totals *t)
{
    uint32_t i, n = rt_fleet_n_slots(r->fleet);
    struct rt_worker w;

    *t = (struct totals){0};
    for (i = 0; i < n; i++) {
        if (!rt_fleet_worker(r->fleet, i, &w) || w.state == RT_W_ABSENT || w.state == RT_W_DEAD)
            continue;
        t->n_ready += w.state == RT_W_LIVE;
        add_load(&t->load, &w.load);
    }
    for (i = 0; i < r->n_loops; i++) {
        t->n_queued += rt_gens_n_queued(r->loops[i]);
        t->n_running += rt_gens_n_running(r->loops[i]);
        t->n_conns += ps_http_n_conns(r->loops[i]->http);
        t->out_bytes += ps_http_pending_bytes(r->loops[i]->http);
    }
}

void rt_metrics_write(struct rt_router *r, struct ps_buf *out)
{
    struct rt_metrics *m = r->metrics;
    struct totals t;
    double waiting;

    sum(r, &t);
    waiting = (double)t.n_queued + t.load.n_waiting;
    ps_gauge_set(m->running, t.load.n_running);
    ps_gauge_set(m->waiting, waiting);
    ps_gauge_set(m->waiting_by_reason, waiting);
    ps_gauge_set(m->kv_usage, kv_usage(&t.load.group[0]));
    ps_gauge_set(m->preemptions, (double)t.load.n_preempted);
    ps_gauge_set(m->workers_ready, t.n_ready);
    ps_gauge_set(m->draining, atomic_load(&r->draining) != 0);
    ps_gauge_set(m->connections, t.n_conns);
    ps_metric_write(out);
    rt_stats_kv_metrics(r->fleet, m->labels, out);
}

static const char *state_name(enum rt_worker_state s)
{
    static const char *const names[] = {"absent", "live", "suspect", "draining", "dead"};

    return names[s];
}

static void write_str(struct ps_buf *out, const char *key, const char *value)
{
    ps_buf_addf(out, "\"%s\":", key);
    ps_json_add_str(out, value, strlen(value));
}

static void write_worker(struct rt_router *r, struct ps_buf *out, const struct rt_worker *w)
{
    const struct pb_kv_group *g = &w->load.group[0];
    uint64_t now_us = ps_now_us(r->clock);

    ps_buf_addf(out, "{\"id\":\"%016lx\",\"slot\":%u,", (unsigned long)w->info.uid, w->slot);
    write_str(out, "state", state_name(w->state));
    ps_buf_add_byte(out, ',');
    write_str(out, "device", w->info.device);
    ps_buf_addf(out,
                ",\"running\":%u,\"waiting\":%u,\"suspended\":%u,\"kv_usage\":", w->load.n_running,
                w->load.n_waiting, w->load.n_suspended);
    ps_json_add_double(out, kv_usage(g));
    ps_buf_addf(out,
                ",\"kv_total_pages\":%lu,\"kv_free_pages\":%lu,\"kv_evictable_pages\":%lu,\"kv_"
                "pinned_pages\":%lu",
                (unsigned long)g->n_total, (unsigned long)g->n_free, (unsigned long)g->n_evictable,
                (unsigned long)g->n_pinned);
    rt_stats_kv_json(r->fleet, w, out);
    ps_buf_addf(out, ",\"last_heartbeat_ms\":%lu,\"rss_bytes\":%lu,\"step_us\":%u}",
                (unsigned long)((now_us - ps_min_u64(now_us, w->last_beat_us)) / 1000),
                (unsigned long)w->load.rss_bytes, w->load.step_us_mean);
}

static void write_workers(struct rt_router *r, struct ps_buf *out)
{
    uint32_t i, n = rt_fleet_n_slots(r->fleet);
    struct rt_worker w;
    bool first = true;

    ps_buf_add_str(out, "\"workers\":[");
    for (i = 0; i < n; i++) {
        if (!rt_fleet_worker(r->fleet, i, &w) || w.state == RT_W_ABSENT)
            continue;
        if (!first)
            ps_buf_add_byte(out, ',');
        first = false;
        write_worker(r, out, &w);
    }
    ps_buf_add_str(out, "]");
}

void rt_stats_write(struct rt_router *r, struct ps_buf *out)
{
    const struct rt_metrics *m = r->metrics;
    const uint64_t queries = ps_counter_value(m->prefix_queries),
                   hits = ps_counter_value(m->prefix_hits);
    struct totals t;

    sum(r, &t);
    ps_buf_add_str(out, "{\"build\":{");
    write_str(out, "version", ps_version());
    ps_buf_add_byte(out, ',');
    write_str(out, "commit", ps_commit());
    ps_buf_addf(out, "},\"uptime_s\":%lu,\"model\":[{",
                (unsigned long)((ps_now_us(r->clock) - r->start_us) / 1000000));
    write_str(out, "name", r->model.name);
    ps_buf_addf(out, ",\"max_model_len\":%u,", r->model.context);
    write_str(out, "dtype", r->model.conf.dtype);
    ps_buf_addf(
        out,
        "}],\"scheduler\":{\"active_requests\":%u,\"queue_depth\":%u,\"kv_total_pages\":%lu,"
        "\"kv_free_pages\":%lu,\"kv_evictable_pages\":%lu,\"page_size\":16}",
        t.load.n_running, t.n_queued + t.load.n_waiting, (unsigned long)t.load.group[0].n_total,
        (unsigned long)t.load.group[0].n_free, (unsigned long)t.load.group[0].n_evictable);
    ps_buf_addf(out,
                ",\"throughput\":{\"prefill_tokens\":%lu,\"generated_tokens\":%lu,\"requests_"
                "completed\":%lu,"
                "\"requests_failed\":%lu,\"requests_cancelled\":%lu,\"ttft_micros_total\":%.0f,"
                "\"ttft_count\":%lu,"
                "\"tpot_micros_total\":%.0f,\"tpot_count\":%lu}",
                (unsigned long)(t.load.prompt_tokens -
                                ps_min_u64(t.load.prompt_tokens, t.load.cached_tokens)),
                (unsigned long)t.load.generated_tokens,
                (unsigned long)(ps_counter_value(m->success[RT_OUT_STOP]) +
                                ps_counter_value(m->success[RT_OUT_LENGTH])),
                (unsigned long)ps_counter_value(m->success[RT_OUT_ERROR]),
                (unsigned long)ps_counter_value(m->success[RT_OUT_ABORT]),
                ps_hist_sum(m->ttft) * 1e6, (unsigned long)ps_hist_count(m->ttft),
                ps_hist_sum(m->tpot) * 1e6, (unsigned long)ps_hist_count(m->tpot));
    ps_buf_addf(out,
                ",\"prefix_cache\":{\"lookups\":%lu,\"hits\":%lu,\"hit_tokens\":%lu,\"hit_rate\":",
                (unsigned long)queries, (unsigned long)hits, (unsigned long)hits);
    ps_json_add_double(out, queries > 0 ? (double)hits / (double)queries : 0.0);
    ps_buf_addf(out, "},\"spec_decode\":{\"available\":false,\"drafted\":0,\"accepted\":0,\"accept_"
                     "rate\":0.0},");
    write_workers(r, out);
    ps_buf_addf(
        out, ",\"router\":{\"connections\":%u,\"streams\":%u,\"buffered_bytes\":%lu,\"loops\":%u}}",
        t.n_conns, t.n_running + t.n_queued, (unsigned long)t.out_bytes, r->n_loops);
}
