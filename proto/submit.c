#include "proto/submit.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "proto/generate.pb-c.h"
#include "proto/msg_internal.h"

struct pb_submit *pb_submit_create(uint32_t n_ids, uint32_t n_stop_ids, uint32_t n_bias,
                                   uint32_t n_cuts)
{
    size_t n_words = (size_t)n_ids + n_stop_ids + 2 * (size_t)n_bias + n_cuts;
    struct pb_submit *s = ps_calloc(1, sizeof(*s) + n_words * 4);
    uint32_t *p = (uint32_t *)(void *)(s + 1);

    PS_ASSERT(n_stop_ids <= PB_MAX_STOP_IDS && n_bias <= PB_MAX_BIAS && n_cuts <= PB_MAX_CUTS);
    s->ids = p;
    s->stop_ids = s->ids + n_ids;
    s->bias_ids = s->stop_ids + n_stop_ids;
    s->bias = (float *)(void *)(s->bias_ids + n_bias);
    s->cuts = s->bias_ids + 2 * (size_t)n_bias;
    s->n_stop_ids = n_stop_ids;
    s->n_bias = n_bias;
    s->n_cuts = n_cuts;
    return s;
}

void pb_submit_destroy(struct pb_submit *s)
{
    ps_free(s);
}

static bool in_range(float v, float lo, float hi)
{
    return isfinite(v) && v >= lo && v <= hi;
}

static const char *bad_sampling(const struct pb_sampling *p)
{
    if (!in_range(p->temperature, 0.0f, 100.0f))
        return "temperature";
    if (!in_range(p->top_p, 0.0f, 1.0f) || p->top_p <= 0.0f)
        return "top_p";
    if (!in_range(p->min_p, 0.0f, 1.0f))
        return "min_p";
    if (!in_range(p->rep_penalty, 0.0f, 100.0f) || p->rep_penalty <= 0.0f)
        return "repetition_penalty";
    if (!in_range(p->presence_penalty, -2.0f, 2.0f))
        return "presence_penalty";
    if (!in_range(p->frequency_penalty, -2.0f, 2.0f))
        return "frequency_penalty";
    if (p->n_top < -1 || p->n_top > PB_MAX_TOP)
        return "n_top";
    if (p->n_prompt_top < -1 || p->n_prompt_top > PB_MAX_TOP)
        return "n_prompt_top";
    return NULL;
}

static bool ids_below(const uint32_t *ids, size_t n, uint32_t limit)
{
    uint32_t max = 0;

    for (size_t i = 0; i < n; i++)
        max = ps_max_u32(max, ids[i]);
    return n == 0 || max < limit;
}

static const char *bad_lists(const struct pb_submit *s, const struct pb_limits *lim)
{
    if (s->n_stop_ids > PB_MAX_STOP_IDS || !ids_below(s->stop_ids, s->n_stop_ids, lim->n_vocab))
        return "stop_ids";
    if (s->n_bias > PB_MAX_BIAS || !ids_below(s->bias_ids, s->n_bias, lim->n_vocab))
        return "bias_ids";
    for (uint32_t i = 0; i < s->n_bias; i++) {
        if (!in_range(s->bias[i], -100.0f, 100.0f))
            return "bias";
    }
    if (s->n_cuts > PB_MAX_CUTS)
        return "cuts";
    for (uint32_t i = 0; i < s->n_cuts; i++) {
        if (s->cuts[i] > s->n_prompt || (i > 0 && s->cuts[i] <= s->cuts[i - 1]))
            return "cuts";
    }
    return NULL;
}

static const char *bad_lengths(const struct pb_submit *s, const struct pb_limits *lim)
{
    if (s->n_prompt == 0 || s->n_prompt > lim->context)
        return "n_prompt";
    if (s->n_done > lim->context - s->n_prompt)
        return "n_done";
    if (s->n_done > s->max_tokens)
        return "n_done above max_tokens";
    if (s->min_tokens > s->max_tokens)
        return "min_tokens";
    if (!ids_below(s->ids, (size_t)s->n_prompt + s->n_done, lim->n_vocab))
        return "ids";
    return NULL;
}

int pb_submit_check(const struct pb_submit *s, const struct pb_limits *lim, char *err,
                    size_t err_size)
{
    const char *what = bad_lengths(s, lim);

    PS_ASSERT(err_size >= 128);
    if (what == NULL)
        what = bad_lists(s, lim);
    if (what == NULL)
        what = bad_sampling(&s->samp);
    if (what == NULL)
        return PB_SUBMIT_OK;
    snprintf(err, err_size, "%s out of range", what);
    return PB_SUBMIT_E_BAD;
}

/* ---- the wire ---- */

static void take_sampling(const Penstock__Sampling *p, struct pb_sampling *s)
{
    s->temperature = p->temperature;
    s->top_p = p->top_p;
    s->min_p = p->min_p;
    s->rep_penalty = p->rep_penalty;
    s->presence_penalty = p->presence_penalty;
    s->frequency_penalty = p->frequency_penalty;
    s->top_k = p->top_k;
    s->seed = p->seed;
    s->n_top = p->n_top;
    s->n_prompt_top = p->n_prompt_top;
}

/* The counts are checked against the bytes that arrived before anything is allocated by them. */
static struct pb_submit *take_submit(const Penstock__Submit *p, struct pb_raw *raw)
{
    uint64_t n_ids = (uint64_t)p->n_prompt + p->n_done;
    uint64_t n_words;
    struct pb_submit *s;

    if (p->samp == NULL || p->n_stop_ids > PB_MAX_STOP_IDS || p->n_bias > PB_MAX_BIAS ||
        p->n_cuts > PB_MAX_CUTS || n_ids > PB_FRAME_MAX / 4)
        return NULL;
    n_words = n_ids + p->n_stop_ids + 2 * (uint64_t)p->n_bias + p->n_cuts;
    if (raw->left != n_words * 4)
        return NULL;
    s = pb_submit_create((uint32_t)n_ids, p->n_stop_ids, p->n_bias, p->n_cuts);
    s->req = p->req;
    s->attempt = p->attempt;
    s->dispatch_seq = p->dispatch_seq;
    s->space_id = p->space_id;
    s->arith_id = p->arith_id;
    s->chain_seed = p->chain_seed;
    s->priority = p->priority;
    s->deadline_ms = p->deadline_ms;
    s->n_prompt = p->n_prompt;
    s->n_done = p->n_done;
    s->max_tokens = p->max_tokens;
    s->min_tokens = p->min_tokens;
    s->ignore_eos = p->ignore_eos;
    take_sampling(p->samp, &s->samp);
    if (!pb_raw_u32s(raw, s->ids, (uint32_t)n_ids) ||
        !pb_raw_u32s(raw, s->stop_ids, s->n_stop_ids) ||
        !pb_raw_u32s(raw, s->bias_ids, s->n_bias) || !pb_raw_f32s(raw, s->bias, s->n_bias) ||
        !pb_raw_u32s(raw, s->cuts, s->n_cuts)) {
        pb_submit_destroy(s);
        return NULL;
    }
    return s;
}

int pb_submit_decode(const struct pb_raw *pb, struct pb_raw *raw, ProtobufCAllocator *a,
                     struct pb_submit **out)
{
    Penstock__Submit *p = penstock__submit__unpack(a, pb->left, pb->p);
    struct pb_submit *s;

    if (p == NULL)
        return PB_MSG_E_BAD;
    s = take_submit(p, raw);
    penstock__submit__free_unpacked(p, a);
    if (s == NULL)
        return PB_MSG_E_BAD;
    *out = s;
    return PB_MSG_OK;
}

void pb_submit_encode(struct ps_buf *out, const struct pb_head *h, const struct pb_submit *s)
{
    Penstock__Sampling samp = PENSTOCK__SAMPLING__INIT;
    Penstock__Submit p = PENSTOCK__SUBMIT__INIT;

    samp.temperature = s->samp.temperature;
    samp.top_p = s->samp.top_p;
    samp.min_p = s->samp.min_p;
    samp.rep_penalty = s->samp.rep_penalty;
    samp.presence_penalty = s->samp.presence_penalty;
    samp.frequency_penalty = s->samp.frequency_penalty;
    samp.top_k = s->samp.top_k;
    samp.seed = s->samp.seed;
    samp.n_top = s->samp.n_top;
    samp.n_prompt_top = s->samp.n_prompt_top;
    p.req = s->req;
    p.attempt = s->attempt;
    p.dispatch_seq = s->dispatch_seq;
    p.space_id = s->space_id;
    p.arith_id = s->arith_id;
    p.chain_seed = s->chain_seed;
    p.priority = s->priority;
    p.deadline_ms = s->deadline_ms;
    p.n_prompt = s->n_prompt;
    p.n_done = s->n_done;
    p.max_tokens = s->max_tokens;
    p.min_tokens = s->min_tokens;
    p.ignore_eos = s->ignore_eos;
    p.n_stop_ids = s->n_stop_ids;
    p.n_bias = s->n_bias;
    p.n_cuts = s->n_cuts;
    p.samp = &samp;
    pb_pack_add(out, h, &p.base);
    pb_add_u32s(out, s->ids, s->n_prompt + s->n_done);
    pb_add_u32s(out, s->stop_ids, s->n_stop_ids);
    pb_add_u32s(out, s->bias_ids, s->n_bias);
    for (uint32_t i = 0; i < s->n_bias; i++)
        pb_add_f32(out, s->bias[i]);
    pb_add_u32s(out, s->cuts, s->n_cuts);
}
