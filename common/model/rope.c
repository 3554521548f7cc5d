/*
 * Rotary frequencies and their scaling types. The reference computes theta^(-2i/d) and the angles in
 * f32; a double angle would differ by up to 1e-2 rad at position 262144, so f32 it is here too.
 */

#include <math.h>

#include "common/model/config.h"

static const double TWO_PI = 6.283185307179586476925286766559;

/* Llama 3.1: long waves are stretched by `factor`, short ones kept, those between blended. */
static float scale_llama3(const struct ps_rope_conf *r, float f)
{
    double wave = TWO_PI / (double)f, old = r->original_max_pos, t;

    if (wave < old / r->high_freq)
        return f;
    if (wave > old / r->low_freq)
        return (float)((double)f / r->factor);
    t = (old / wave - r->low_freq) / (r->high_freq - r->low_freq);
    return (float)((1.0 - t) * (double)f / r->factor + t * (double)f);
}

static double yarn_gain(double s, double k)
{
    return s <= 1.0 ? 1.0 : 0.1 * k * log(s) + 1.0;
}

static double yarn_corr(const struct ps_rope_conf *r, double old, double d, double n_rot)
{
    return d * log(old / (n_rot * TWO_PI)) / (2.0 * log(r->theta));
}

static void scale_yarn(const struct ps_model_config *c, float *inv_freq, uint32_t d,
                       float *out_scale)
{
    const struct ps_rope_conf *r = &c->rope;
    double old = r->original_max_pos != 0 ? r->original_max_pos : c->max_pos;
    double s = r->factor > 0.0 ? r->factor : (double)c->max_pos / old;
    double lo = yarn_corr(r, old, d, r->beta_fast), hi = yarn_corr(r, old, d, r->beta_slow), ramp;
    uint32_t i;

    if (r->truncate) {
        lo = floor(lo);
        hi = ceil(hi);
    }
    lo = fmax(lo, 0.0);
    hi = fmin(hi, (double)d - 1.0);
    if (lo == hi)
        hi += 0.001;
    for (i = 0; i < d / 2; i++) {
        ramp = fmin(fmax(((double)i - lo) / (hi - lo), 0.0), 1.0);
        inv_freq[i] = (float)((double)inv_freq[i] * ((1.0 - ramp) + ramp / s));
    }
    if (r->attention_factor > 0.0)
        *out_scale = (float)r->attention_factor;
    else if (r->mscale != 0.0 && r->mscale_all_dim != 0.0)
        *out_scale = (float)(yarn_gain(s, r->mscale) / yarn_gain(s, r->mscale_all_dim));
    else
        *out_scale = (float)yarn_gain(s, 1.0);
}

void ps_rope_frequencies(const struct ps_model_config *c, float *inv_freq, uint32_t *out_d_rot,
                         float *out_scale)
{
    uint32_t d = (uint32_t)((double)c->d_head * c->rope.partial) & ~1u, i;

    PS_ASSERT(c->d_head >= 2 && c->rope.theta > 1.0);
    *out_d_rot = d;
    *out_scale = 1.0f;
    for (i = 0; i < d / 2; i++) {
        float e = (float)(2 * i) / (float)d;

        inv_freq[i] = 1.0f / powf((float)c->rope.theta, e);
        if (c->rope.type == PS_ROPE_LINEAR)
            inv_freq[i] = (float)((double)inv_freq[i] / c->rope.factor);
        else if (c->rope.type == PS_ROPE_LLAMA3)
            inv_freq[i] = scale_llama3(&c->rope, inv_freq[i]);
    }
    if (c->rope.type == PS_ROPE_YARN)
        scale_yarn(c, inv_freq, d, out_scale);
}
