#include "kernels/ref/ref.h"

#include "kernels/half.h"

/* No arithmetic: every type widens exactly. */
void kn_ref_embed_row(const struct kn_mat *table, uint32_t id, float *out)
{
    size_t k_pad = kn_mat_k_pad(table->k);
    size_t panel = id / KN_PANEL * KN_PANEL * k_pad, lane = id % KN_PANEL;
    const uint16_t *h = (const uint16_t *)table->data + panel;

    PS_ASSERT(id < table->n);
    for (size_t i = 0; i < table->k; i++) {
        if (table->dtype == KN_BF16)
            out[i] = kn_bf16_f32(h[i / 2 * 2 * KN_PANEL + lane * 2 + i % 2]);
        else if (table->dtype == KN_F16)
            out[i] = kn_f16_f32(h[i * KN_PANEL + lane]);
        else
            memcpy(&out[i], (const float *)table->data + panel + i * KN_PANEL + lane, sizeof *out);
    }
}

int kn_ref_embed(struct kn_dev *d PS_UNUSED, const struct kn_mat *table, const uint32_t *ids,
                 uint32_t n, float *out)
{
    for (size_t i = 0; i < n; i++)
        kn_ref_embed_row(table, ids[i], out + i * table->k);
    return KN_OK;
}

int kn_ref_gather_rows(struct kn_dev *d PS_UNUSED, const float *x, const uint32_t *rows, uint32_t n,
                       uint32_t dim, float *out)
{
    for (size_t i = 0; i < n; i++)
        memcpy(out + i * dim, x + (size_t)rows[i] * dim, dim * sizeof *out);
    return KN_OK;
}
