#include "kernels/cpu/isa.h"
#include "kernels/sample.h"

/* kernels/cpu/sample_body.h without vectors, for machines that have none. */

static float max_of(const float *v, uint32_t n, bool *out_nan)
{
    float max = -INFINITY;
    bool nan = false;

    for (uint32_t i = 0; i < n; i++) {
        nan |= v[i] != v[i];
        max = kn_max(v[i], max);
    }
    *out_nan = nan;
    return max;
}

static uint32_t find(const float *v, uint32_t n, float x)
{
    uint32_t i = 0;

    while (i < n && v[i] != x)
        i++;
    return i;
}

static uint32_t next_above(const float *v, uint32_t from, uint32_t n, float x)
{
    uint32_t i = from;

    while (i < n && !(v[i] > x))
        i++;
    return i;
}

static uint32_t count_above(const float *v, uint32_t n, float x)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < n; i++)
        count += v[i] > x;
    return count;
}

static float sum_exp(const float *v, uint32_t n, float max)
{
    float lane[KN_LANES] = {0};

    for (uint32_t i = 0; i < n; i++)
        lane[i % KN_LANES] = lane[i % KN_LANES] + kn_exp(v[i] - max);
    return kn_fold_add(lane);
}

static float mass_above(const float *v, uint32_t n, float max, float floor)
{
    float sum = 0.0f;

    for (uint32_t i = 0; i < n; i++) {
        if (v[i] > floor)
            sum = sum + kn_exp(v[i] - max);
    }
    return sum;
}

static void divide(float *out, const float *v, uint32_t n, float by)
{
    for (uint32_t i = 0; i < n; i++)
        out[i] = v[i] / by;
}

static uint32_t walk(const struct kn_cand *c, uint32_t from, uint32_t n, float max, float mass,
                     float *sum)
{
    uint32_t i = from;

    while (i < n) {
        *sum = *sum + kn_exp(c[i++].z - max);
        if (*sum >= mass)
            break;
    }
    return i;
}

static uint32_t draw(const struct kn_draw *d)
{
    uint32_t best = d->start;
    float best_v = kn_draw_value(d, best);

    for (uint32_t i = 0; i < d->n; i++) {
        if (d->z[i] > kn_draw_floor(best_v) && !(d->z[i] < d->last.z))
            kn_draw_one(d, i, &best, &best_v);
    }
    return best;
}

const struct kn_samp_isa kn_samp_scalar = {.max = max_of,
                                           .find = find,
                                           .next_above = next_above,
                                           .count_above = count_above,
                                           .sum_exp = sum_exp,
                                           .mass_above = mass_above,
                                           .divide = divide,
                                           .walk = walk,
                                           .draw = draw};
