#include "worker/sample/sampler.h"

#include <string.h>

static bool contains(const uint32_t *ids, uint32_t n, uint32_t id)
{
    for (uint32_t i = 0; i < n; i++) {
        if (ids[i] == id)
            return true;
    }
    return false;
}

bool wk_sample_needs_history(const struct pb_sampling *p)
{
    return p->rep_penalty != 1.0f || p->presence_penalty != 0.0f || p->frequency_penalty != 0.0f;
}

/* Before min_tokens nothing that would end the answer may be sampled. With ignore_eos an EOS ends
 * nothing, so it stays possible. */
static void add_bans(struct wk_plan_builder *b, const struct pb_submit *s, const struct wk_eos *eos,
                     struct wk_samp *out)
{
    out->ban_off = wk_plan_add_pool(b, s->stop_ids, s->n_stop_ids);
    out->n_ban = s->n_stop_ids;
    if (!s->ignore_eos) {
        wk_plan_add_pool(b, eos->ids, eos->n);
        out->n_ban += eos->n;
    }
}

uint32_t wk_sample_add(struct wk_plan_builder *b, const struct pb_submit *s,
                       const struct wk_eos *eos, const uint32_t *ids, uint32_t n_known,
                       uint32_t pos, const uint32_t *next, uint32_t n_next)
{
    struct wk_samp out;

    PS_ASSERT(n_known > 0 && (pos <= n_known || !wk_sample_needs_history(&s->samp)));
    memset(&out, 0, sizeof(out)); /* plans are compared and logged: no stray bytes */
    out.p = s->samp;
    out.pos = pos;
    out.next_off = UINT32_MAX;
    if (s->n_bias > 0) {
        out.n_bias = s->n_bias;
        out.bias_off = wk_plan_add_pool(b, s->bias_ids, s->n_bias);
        wk_plan_add_pool(b, s->bias, s->n_bias);
    }
    if (pos >= s->n_prompt && pos - s->n_prompt < s->min_tokens)
        add_bans(b, s, eos, &out);
    if (wk_sample_needs_history(&s->samp) && pos == n_known) {
        out.hist_off = wk_plan_add_pool(b, ids, n_known);
        out.n_hist = n_known;
        out.n_hist_prompt = s->n_prompt;
    }
    if (next != NULL) {
        const uint32_t none = UINT32_MAX;

        out.next_off = wk_plan_add_pool(b, next, n_next);
        wk_plan_add_pool(b, &none, 1);
    }
    return wk_plan_add_samp(b, &out);
}

int wk_sample_stop(const struct pb_submit *s, const struct wk_eos *eos, uint32_t token,
                   uint32_t n_out, uint32_t len_max)
{
    PS_ASSERT(n_out > 0);
    /* Banned before min_tokens, hence only seen there when a client sent them as answered tokens. */
    if (n_out > s->min_tokens) {
        if (!s->ignore_eos && contains(eos->ids, eos->n, token))
            return PB_FIN_STOP_EOS;
        if (contains(s->stop_ids, s->n_stop_ids, token))
            return PB_FIN_STOP_ID;
    }
    if (n_out >= s->max_tokens)
        return PB_FIN_LENGTH;
    if (s->n_prompt + n_out >= len_max)
        return PB_FIN_CONTEXT;
    return 0;
}
