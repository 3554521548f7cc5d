#include "kernels/sample.h"

void kn_samp_adjust(const struct kn_samp *s, float *row, uint32_t n, uint32_t *count)
{
    uint32_t i, id;

    for (i = 0; i < s->n_ban; i++) {
        if (s->ban_ids[i] < n)
            row[s->ban_ids[i]] = -INFINITY;
    }
    for (i = 0; i < s->n_bias; i++) {
        id = s->bias_ids[i];
        if (id < n) /* -100 bans, by the API's definition */
            row[id] = s->bias[i] <= -100.0f ? -INFINITY : row[id] + s->bias[i];
    }
    if (!kn_samp_has_penalty(s))
        return;
    /* Repetition looks at prompt and output, each id once; count is then free for the output alone. */
    for (i = 0; i < s->n_hist; i++) {
        id = s->hist[i];
        if (id >= n || count[id]++ != 0)
            continue;
        row[id] = row[id] > 0.0f ? row[id] / s->rep_penalty : row[id] * s->rep_penalty;
    }
    for (i = 0; i < s->n_hist; i++) {
        if (s->hist[i] < n)
            count[s->hist[i]] = 0;
    }
    for (i = s->n_prompt; i < s->n_hist; i++) {
        if (s->hist[i] < n)
            count[s->hist[i]]++;
    }
    for (i = s->n_prompt; i < s->n_hist; i++) {
        id = s->hist[i];
        if (id >= n || count[id] == 0)
            continue;
        row[id] = row[id] - s->frequency_penalty * (float)count[id];
        row[id] = row[id] - s->presence_penalty;
        count[id] = 0;
    }
}

void kn_samp_top(const float *row, uint32_t n, uint32_t n_top, struct kn_samp_out *out)
{
    uint32_t i, have = 0;

    PS_ASSERT(n_top <= KN_MAX_TOP);
    for (i = 0; i < n && n_top > 0; i++) {
        if (have < n_top || row[i] > out->top_logprob[have - 1])
            have = kn_samp_top_add(out, have, n_top, row[i], i);
    }
    out->n_top = have;
}

void kn_samp_finish(struct kn_samp_out *out, float log_z)
{
    uint32_t i;
    float v = out->logprob - log_z;

    out->logprob = v > KN_LOGPROB_MIN ? v : KN_LOGPROB_MIN;
    for (i = 0; i < out->n_top; i++) {
        v = out->top_logprob[i] - log_z;
        out->top_logprob[i] = v > KN_LOGPROB_MIN ? v : KN_LOGPROB_MIN;
    }
}

float kn_samp_log_z(const float *row, uint32_t n, bool *out_bad)
{
    float lane[KN_LANES] = {0}, max = -INFINITY;
    bool bad = false;
    uint32_t i;

    for (i = 0; i < n; i++) {
        bad |= row[i] != row[i];
        max = kn_max(row[i], max);
    }
    *out_bad = bad || !(max < INFINITY && max > -INFINITY);
    if (*out_bad)
        return 0.0f;
    for (i = 0; i < n; i++)
        lane[i % KN_LANES] = lane[i % KN_LANES] + kn_exp(row[i] - max);
    return max + kn_log(kn_fold_add(lane));
}

uint32_t kn_samp_rank(const float *row, uint32_t n, uint32_t id)
{
    uint32_t i, rank = 1;

    for (i = 0; i < n; i++)
        rank += row[i] > row[id];
    return rank;
}
