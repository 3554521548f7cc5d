#pragma once

/*
 * Metrics: counters, gauges, histograms, and their Prometheus text.
 *
 * Registered before threads start (or at a join, under the registry's lock); updated from any thread
 * with relaxed atomics; never freed before exit. A family has one type and one help line; a series
 * is a family plus a fixed label string (`model_name="m",engine="0"`), NULL for none. Label
 * cardinality is bounded by code: no user, key or request ids.
 */

#include "common/base.h"
#include "common/buf.h"

struct ps_counter {
    _Atomic uint64_t v;
};
struct ps_gauge {
    _Atomic uint64_t bits; /* a double */
};
struct ps_hist;

struct ps_counter *ps_counter_get(const char *name, const char *help, const char *labels);
struct ps_gauge *ps_gauge_get(const char *name, const char *help, const char *labels);
/* bounds: ascending upper bounds; +Inf is added. The same (name, labels) gives the same object. */
struct ps_hist *ps_hist_get(const char *name, const char *help, const char *labels,
                            const double *bounds, uint32_t n_bounds);

void ps_counter_add(struct ps_counter *c, uint64_t n);
void ps_gauge_set(struct ps_gauge *g, double v);
void ps_hist_observe(struct ps_hist *h, double v);
uint64_t ps_counter_value(const struct ps_counter *c);
double ps_gauge_value(const struct ps_gauge *g);
uint64_t ps_hist_count(const struct ps_hist *h);
double ps_hist_sum(const struct ps_hist *h);

void ps_metric_write(
    struct ps_buf *out); /* text/plain; version=0.0.4, HELP and TYPE for each family */
