#include "kernels/ref/ref.h"

#include "kernels/fp.h"
#include "kernels/ref/math.h"

/* tdp32: what one AMX tdpbf16ps per 32 k does. Padding is part of the order: a chain that flushed to
 * -0 becomes +0 by the zeros after it. */
static float dot_bf16(const uint16_t *w, const uint16_t *x, uint32_t k)
{
    float acc = 0;

    for (uint32_t k0 = 0; k0 < k; k0 += KN_K_GROUP) {
        float even = 0, odd = 0;

        for (uint32_t i = k0; i < k0 + KN_K_GROUP; i += 2) {
            const uint16_t *pair = w + (size_t)i * KN_PANEL;

            even = fmaf(kn_bf16_f32(i < k ? x[i] : 0), kn_bf16_f32(pair[0]), even);
            odd = fmaf(kn_bf16_f32(i + 1 < k ? x[i + 1] : 0), kn_bf16_f32(pair[1]), odd);
        }
        acc = acc + (even + odd);
    }
    return acc;
}

static float dot_f32(const float *w, const float *x, uint32_t k)
{
    float acc = 0;

    for (uint32_t i = 0; i < k; i++)
        acc = fmaf(x[i], w[(size_t)i * KN_PANEL], acc);
    return acc;
}

static float dot_f16(const uint16_t *w, const float *x, uint32_t k)
{
    float acc = 0;

    for (uint32_t i = 0; i < k; i++)
        acc = fmaf(x[i], kn_f16_f32(w[(size_t)i * KN_PANEL]), acc);
    return acc;
}

void kn_ref_linear_panels(const struct kn_mat *w, const float *bias, const void *x,
                          uint32_t x_stride, uint32_t n_row, float *out, uint32_t panel0,
                          uint32_t panel1)
{
    size_t k_pad = kn_mat_k_pad(w->k);
    uint32_t end = ps_min_u32(panel1 * KN_PANEL, w->n);

    for (uint32_t n = panel0 * KN_PANEL; n < end; n++) {
        size_t panel = n / KN_PANEL * KN_PANEL * k_pad, lane = n % KN_PANEL;

        for (size_t r = 0; r < n_row; r++) {
            size_t at = r * x_stride;
            float v;

            if (w->dtype == KN_BF16)
                v = dot_bf16((const uint16_t *)w->data + panel + 2 * lane, (const uint16_t *)x + at,
                             w->k);
            else if (w->dtype == KN_F16)
                v = dot_f16((const uint16_t *)w->data + panel + lane, (const float *)x + at, w->k);
            else
                v = dot_f32((const float *)w->data + panel + lane, (const float *)x + at, w->k);
            out[r * w->n + n] = bias ? v + bias[n] : v;
        }
    }
}

int kn_ref_linear(struct kn_dev *d PS_UNUSED, const struct kn_mat *w, const float *bias,
                  const void *x, uint32_t x_stride, uint32_t n_row, float *out)
{
    uint32_t fp = kn_fp_enter();

    PS_ASSERT(x_stride >= w->k);
    kn_ref_linear_panels(w, bias, x, x_stride, n_row, out, 0, (w->n + KN_PANEL - 1) / KN_PANEL);
    kn_fp_leave(fp);
    return KN_OK;
}
