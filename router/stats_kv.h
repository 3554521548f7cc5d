#pragma once

/*
 * What the workers' KV stores do, as metrics and as JSON: items of each group, and each tier of each
 * worker.
 *
 * Written straight from the fleet's view when somebody asks, not through the registry: a series exists
 * while its worker does. Labels are bounded: a worker's slot, a tier's name, a group's number. Any
 * thread; nothing blocks.
 */

#include "common/buf.h"

struct rt_fleet;
struct rt_worker;

/* Families of the Prometheus text format. labels: what every series of this router carries. */
void rt_stats_kv_metrics(const struct rt_fleet *f, const char *labels, struct ps_buf *out);
/* More members of a worker's object, each after a comma: "kv_groups", "kv_tiers", totals. */
void rt_stats_kv_json(const struct rt_fleet *f, const struct rt_worker *w, struct ps_buf *out);
