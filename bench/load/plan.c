#include "bench/load/plan.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/rng.h"

bool bn_range_read(const char *s, struct bn_range *out)
{
    unsigned long v[2];
    const char *p = s;
    int n = 0;
    char *end;

    do {
        if (n == 2 || *p < '0' || *p > '9')
            return false;
        v[n] = strtoul(p, &end, 10);
        if (v[n] < 1 || v[n] > BN_LENGTH_MAX)
            return false;
        n++;
        p = end;
    } while (*p++ == '-');
    if (p[-1] != '\0' || (n == 2 && v[0] > v[1]))
        return false;
    out->min = (uint32_t)v[0];
    out->max = (uint32_t)v[n - 1];
    return true;
}

static double exponential(struct ps_rng *rng)
{
    return -log(1 - ps_rng_unit(rng));
}

/* Poisson arrivals until the number or the duration is reached. */
static void plan_poisson(struct bn_plan *p, uint64_t n_max, uint64_t end_us)
{
    struct ps_rng rng;
    double at_us = 0;

    ps_rng_seed(&rng, bn_stream_seed(p->vocab.seed, BN_STREAM_ARRIVAL, 0));
    p->due_us = ps_calloc(n_max, sizeof(p->due_us[0]));
    for (p->n = 0; p->n < n_max; p->n++) {
        at_us += exponential(&rng) / p->conf->rate * 1e6;
        if (at_us > (double)end_us)
            break;
        p->due_us[p->n] = (uint64_t)at_us;
    }
}

static void plan_trace(struct bn_plan *p, uint64_t n_max, uint64_t end_us)
{
    uint64_t first = p->trace.items[0].at_us, at_us;

    n_max = ps_min_u64(n_max, p->trace.n_items);
    p->due_us = ps_calloc(n_max, sizeof(p->due_us[0]));
    for (p->n = 0; p->n < n_max; p->n++) {
        at_us = (uint64_t)((double)(p->trace.items[p->n].at_us - first) / p->conf->speed);
        if (at_us > end_us)
            break;
        p->due_us[p->n] = at_us;
    }
}

static int check(struct bn_plan *p, struct ps_buf *err)
{
    const struct bn_load_conf *c = p->conf;
    const char *bad = NULL;

    if (c->vocab == 0)
        bad = "--vocab: the size of the model's vocabulary is needed";
    else if (c->id_min >= c->vocab)
        bad = "--id-min: not below --vocab";
    else if (!bn_range_read(c->prompt, &p->prompt))
        bad = "--prompt-tokens: expected N or MIN-MAX";
    else if (!bn_range_read(c->output, &p->output))
        bad = "--output-tokens: expected N or MIN-MAX";
    else if (c->prefix >= p->prompt.min && c->trace[0] == '\0' && c->prefix > 0)
        bad = "--prefix-tokens: not below --prompt-tokens";
    else if (c->trace[0] != '\0' && c->rate > 0)
        bad = "--rate: a trace has its own arrivals";
    else if (BN_TRACE_BLOCK % c->trace_shrink != 0)
        bad = "--trace-shrink: not a power of two";
    else if (c->requests == 0 && c->duration_s <= 0 && c->trace[0] == '\0')
        bad = "--requests or --duration: one of them is needed";
    if (bad != NULL)
        ps_buf_add_str(err, bad);
    return bad == NULL ? BN_PLAN_OK : BN_PLAN_E_BAD;
}

int bn_plan_create(struct bn_plan **out, const struct bn_load_conf *conf, struct ps_buf *err)
{
    struct bn_plan *p = ps_calloc(1, sizeof(*p));
    uint64_t n_max = conf->requests > 0 ? (uint64_t)conf->requests : BN_TRACE_REQUESTS_MAX;
    uint64_t end_us = conf->duration_s > 0 ? (uint64_t)(conf->duration_s * 1e6) : UINT64_MAX;
    int r;

    p->conf = conf;
    p->vocab = (struct bn_vocab){
        .seed = (uint64_t)conf->seed, .first = (uint32_t)conf->id_min, .n = (uint32_t)conf->vocab};
    r = check(p, err);
    if (r == BN_PLAN_OK && conf->trace[0] != '\0' &&
        bn_trace_read(&p->trace, conf->trace, (uint32_t)conf->trace_shrink, err) != BN_TRACE_OK)
        r = BN_PLAN_E_BAD;
    if (r != BN_PLAN_OK) {
        bn_plan_destroy(p);
        return r;
    }
    if (p->trace.n_items > 0)
        plan_trace(p, n_max, end_us);
    else if (conf->rate > 0)
        plan_poisson(p, n_max, end_us);
    else
        p->n = conf->requests > 0 ? n_max : UINT64_MAX;
    *out = p;
    return BN_PLAN_OK;
}

void bn_plan_destroy(struct bn_plan *p)
{
    if (p == NULL)
        return;
    bn_trace_fini(&p->trace);
    ps_free(p->due_us);
    ps_free(p);
}

static uint32_t draw_length(const struct bn_plan *p, struct ps_rng *rng, const struct bn_range *r)
{
    double u = ps_rng_unit(rng);
    double min = r->min, max = (double)r->max + 1;
    double v = p->conf->lengths == BN_LENGTHS_LOG ? min * pow(max / min, u) : min + (max - min) * u;

    return ps_min_u32((uint32_t)v, r->max);
}

void bn_plan_shape(const struct bn_plan *p, uint64_t i, struct bn_shape *out)
{
    struct ps_rng rng;

    if (p->trace.n_items > 0) {
        const struct bn_trace_item *it = &p->trace.items[i % p->trace.n_items];

        *out = (struct bn_shape){.n_prompt = it->n_input, .n_output = it->n_output};
        return;
    }
    ps_rng_seed(&rng, bn_stream_seed(p->vocab.seed, BN_STREAM_SHAPE, i));
    out->n_prompt = draw_length(p, &rng, &p->prompt);
    out->n_output = draw_length(p, &rng, &p->output);
}

void bn_plan_ids(const struct bn_plan *p, uint64_t i, bool warm, uint32_t *out)
{
    size_t n_prefix = (size_t)p->conf->prefix;
    struct bn_shape s;

    bn_plan_shape(p, i, &s);
    if (warm) {
        bn_draw_ids(&p->vocab, BN_STREAM_WARM, i, out, s.n_prompt);
        return;
    }
    if (p->trace.n_items > 0) {
        const struct bn_trace_item *it = &p->trace.items[i];

        for (uint32_t k = 0; k < it->n_hashes; k++) {
            uint32_t at = k * p->trace.block;

            bn_draw_ids(&p->vocab, BN_STREAM_BLOCK, p->trace.hashes[it->hash + k], out + at,
                        ps_min_u32(p->trace.block, it->n_input - at));
        }
        return;
    }
    bn_draw_ids(&p->vocab, BN_STREAM_PREFIX, i % (uint64_t)p->conf->groups, out, n_prefix);
    bn_draw_ids(&p->vocab, BN_STREAM_OWN, i, out + n_prefix, s.n_prompt - n_prefix);
}
