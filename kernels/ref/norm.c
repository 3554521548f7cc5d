#include "kernels/ref/ref.h"

#include "kernels/fp.h"
#include "kernels/ref/math.h"

void kn_ref_round(void *out, size_t at, enum kn_dtype out_type, const float *v, uint32_t n)
{
    if (out_type == KN_F32) {
        memcpy((float *)out + at, v, n * sizeof *v);
        return;
    }
    PS_ASSERT(out_type == KN_BF16);
    for (uint32_t i = 0; i < n; i++)
        ((uint16_t *)out)[at + i] = kn_f32_bf16(v[i]);
}

float kn_ref_inv_rms(const float *v, uint32_t n, float eps)
{
    float lane[KN_LANES] = {0};

    for (uint32_t i = 0; i < n; i++)
        lane[i % KN_LANES] = fmaf(v[i], v[i], lane[i % KN_LANES]);
    return 1.0f / sqrtf(kn_fold_add(lane) / (float)n + eps);
}

void kn_ref_norm_rows(const struct kn_add_norm *a, uint32_t row0, uint32_t row1)
{
    for (size_t r = row0; r < row1; r++) {
        float *x = a->x + r * a->dim, s;

        if (a->delta)
            for (uint32_t i = 0; i < a->dim; i++)
                x[i] = x[i] + a->delta[r * a->dim + i];
        s = kn_ref_inv_rms(x, a->dim, a->eps);
        for (uint32_t i = 0; i < a->dim; i++) {
            float y = x[i] * s * a->w[i];

            kn_ref_round(a->out, r * a->dim + i, a->out_type, &y, 1);
        }
    }
}

int kn_ref_add_norm(struct kn_dev *d PS_UNUSED, float *x, const float *delta, const float *w,
                    float eps, uint32_t n, uint32_t dim, void *out, enum kn_dtype out_type)
{
    struct kn_add_norm a = {x, delta, w, eps, dim, out, out_type};
    uint32_t fp = kn_fp_enter();

    kn_ref_norm_rows(&a, 0, n);
    kn_fp_leave(fp);
    return KN_OK;
}
