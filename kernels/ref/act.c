#include "kernels/ref/ref.h"

#include "kernels/fp.h"
#include "kernels/ref/math.h"

void kn_ref_silu_rows(const float *gu, uint32_t dim, void *out, enum kn_dtype out_type,
                      uint32_t row0, uint32_t row1)
{
    for (size_t r = row0; r < row1; r++) {
        const float *g = gu + r * 2 * dim, *u = g + dim;

        for (uint32_t i = 0; i < dim; i++) {
            float y = g[i] / (1.0f + kn_exp(-g[i])) * u[i];

            kn_ref_round(out, r * dim + i, out_type, &y, 1);
        }
    }
}

int kn_ref_silu_mul(struct kn_dev *d PS_UNUSED, const float *gu, uint32_t n, uint32_t dim,
                    void *out, enum kn_dtype out_type)
{
    uint32_t fp = kn_fp_enter();

    kn_ref_silu_rows(gu, dim, out, out_type, 0, n);
    kn_fp_leave(fp);
    return KN_OK;
}
