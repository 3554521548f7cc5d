#pragma once

/*
 * The router's metrics, by the names dashboards already know (vllm:*), plus our own (penstock_*).
 *
 * Made once before threads start; updated from any thread. Fleet gauges are computed when /metrics or
 * /v1/stats is asked, from the fleet's view, so that beats cost nothing here.
 */

#include "common/buf.h"
#include "common/metric.h"

struct rt_router;

enum rt_outcome { RT_OUT_STOP, RT_OUT_LENGTH, RT_OUT_ABORT, RT_OUT_ERROR, RT_OUT_N };

struct rt_metrics {
    char labels[320];                     /* of every series of this router */
    struct ps_counter *success[RT_OUT_N]; /* vllm:request_success_total by finished_reason */
    struct ps_counter *prompt_tokens, *generation_tokens, *cached_tokens;
    struct ps_counter *prefix_queries, *prefix_hits; /* in tokens */
    struct ps_hist *ttft, *itl, *tpot, *e2e, *queue_time, *prefill_time, *decode_time;
    struct ps_hist *request_prompt_tokens, *request_generation_tokens, *request_max_tokens,
        *request_n;
    struct ps_counter *moves, *refused_queue_full, *ignored_params, *key_failures;
    struct ps_gauge *running, *waiting, *kv_usage, *workers_ready, *draining, *connections;
    struct ps_gauge *waiting_by_reason, *preemptions;
};

struct rt_metrics *rt_metrics_create(const char *model_name);
/* Refreshes the gauges and writes everything in the Prometheus text format. */
void rt_metrics_write(struct rt_router *r, struct ps_buf *out);
/* GET /v1/stats. */
void rt_stats_write(struct rt_router *r, struct ps_buf *out);
