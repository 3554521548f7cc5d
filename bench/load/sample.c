#include "bench/load/sample.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void bn_sample_init(struct bn_sample *s)
{
    memset(s, 0, sizeof(*s));
    ps_rng_seed(&s->rng, 1);
}

void bn_sample_fini(struct bn_sample *s)
{
    ps_free(s->us);
    s->us = NULL;
}

static void keep(struct bn_sample *s, uint32_t us)
{
    uint64_t slot;

    s->sorted = false;
    if (s->n == BN_SAMPLE_MAX) {
        slot = ps_rng_below(&s->rng, s->n_seen);
        if (slot < s->n)
            s->us[slot] = us;
        return;
    }
    if (s->n == s->cap) {
        s->cap = s->cap > 0 ? s->cap * 2 : 1024;
        s->us = ps_realloc(s->us, s->cap * sizeof(s->us[0]));
    }
    s->us[s->n++] = us;
}

void bn_sample_add(struct bn_sample *s, uint64_t us)
{
    uint32_t v = (uint32_t)ps_min_u64(us, UINT32_MAX);

    s->n_seen++;
    s->sum_us += v;
    s->max_us = ps_max_u32(s->max_us, v);
    keep(s, v);
}

void bn_sample_merge(struct bn_sample *s, const struct bn_sample *from)
{
    s->n_seen += from->n_seen;
    s->sum_us += from->sum_us;
    s->max_us = ps_max_u32(s->max_us, from->max_us);
    for (size_t i = 0; i < from->n; i++)
        keep(s, from->us[i]);
}

static int by_value(const void *a, const void *b)
{
    const uint32_t *x = a, *y = b;

    return (*x > *y) - (*x < *y);
}

double bn_sample_ms(struct bn_sample *s, double quantile)
{
    size_t rank;

    PS_ASSERT(quantile > 0 && quantile <= 1);
    if (s->n == 0)
        return 0;
    if (!s->sorted)
        qsort(s->us, s->n, sizeof(s->us[0]), by_value);
    s->sorted = true;
    rank = (size_t)ceil(quantile * (double)s->n);
    return (double)s->us[rank > 0 ? rank - 1 : 0] / 1e3;
}

double bn_sample_mean_ms(const struct bn_sample *s)
{
    return s->n_seen > 0 ? (double)s->sum_us / (double)s->n_seen / 1e3 : 0;
}

void bn_sample_json(struct bn_sample *s, const char *name, struct ps_buf *out)
{
    ps_buf_addf(out,
                "\"%s\":{\"n\":%llu,\"mean\":%.3f,\"p50\":%.3f,\"p90\":%.3f,\"p99\":%.3f,"
                "\"max\":%.3f}",
                name, (unsigned long long)s->n_seen, bn_sample_mean_ms(s), bn_sample_ms(s, 0.5),
                bn_sample_ms(s, 0.9), bn_sample_ms(s, 0.99), (double)s->max_us / 1e3);
}

void bn_sample_row(struct bn_sample *s, const char *name, struct ps_buf *out)
{
    ps_buf_addf(out, "| %s | %.2f | %.2f | %.2f | %.2f | %.2f |\n", name, bn_sample_mean_ms(s),
                bn_sample_ms(s, 0.5), bn_sample_ms(s, 0.9), bn_sample_ms(s, 0.99),
                (double)s->max_us / 1e3);
}
