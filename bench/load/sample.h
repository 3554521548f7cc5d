#pragma once

/*
 * A set of durations and its percentiles.
 *
 * Owned by one thread. Memory is bounded: beyond BN_SAMPLE_MAX values a uniform reservoir is kept,
 * while count, mean and maximum stay exact. Percentiles are nearest-rank: values that were measured.
 */

#include "common/base.h"
#include "common/buf.h"
#include "common/rng.h"

enum { BN_SAMPLE_MAX = 1 << 24 };

struct bn_sample {
    uint32_t *us; /* durations; 71 minutes and more count as UINT32_MAX */
    size_t n, cap;
    uint64_t n_seen, sum_us;
    uint32_t max_us;
    bool sorted;
    struct ps_rng rng;
};

void bn_sample_init(struct bn_sample *s);
void bn_sample_fini(struct bn_sample *s);
void bn_sample_add(struct bn_sample *s, uint64_t us);
void bn_sample_merge(struct bn_sample *s, const struct bn_sample *from);
double bn_sample_ms(struct bn_sample *s, double quantile); /* 0 when there are none; sorts */
double bn_sample_mean_ms(const struct bn_sample *s);
/* `"name":{"n":..,"mean":..,"p50":..,"p90":..,"p99":..,"max":..}`, in milliseconds. */
void bn_sample_json(struct bn_sample *s, const char *name, struct ps_buf *out);
/* `| name | mean | p50 | p90 | p99 | max |` */
void bn_sample_row(struct bn_sample *s, const char *name, struct ps_buf *out);
