#include "kernels/ops.h"

#include <string.h>

/* Elements of k done for all rows of a panel before the next: 8 KiB of the panel stay in L1. */
enum { K_CHUNK = 128 };

size_t kn_mat_bytes(enum kn_dtype t, uint32_t n, uint32_t k)
{
    return ((size_t)n + KN_PANEL - 1) / KN_PANEL * KN_PANEL * kn_mat_k_pad(k) * kn_dtype_bytes(t);
}

/* One row's elements [j, end) in steps of one unit: a pair of bf16 or one f32 (4 bytes), or one f16. */
static void scatter4(uint8_t *dst, const uint8_t *src, size_t n_unit)
{
    for (size_t u = 0; u < n_unit; u++)
        memcpy(dst + u * KN_PANEL * 4, src + u * 4, 4);
}

static void scatter2(uint8_t *dst, const uint8_t *src, size_t n_unit, size_t dst_step)
{
    for (size_t u = 0; u < n_unit; u++)
        memcpy(dst + u * dst_step, src + u * 2, 2);
}

static void pack_chunk(uint8_t *panel, enum kn_dtype t, uint32_t lane, const uint8_t *row, size_t j,
                       size_t end)
{
    if (t == KN_F32) {
        scatter4(panel + (j * KN_PANEL + lane) * 4, row + j * 4, end - j);
    } else if (t == KN_F16) {
        scatter2(panel + (j * KN_PANEL + lane) * 2, row + j * 2, end - j, KN_PANEL * 2);
    } else {
        uint8_t *d = panel + (j * KN_PANEL + lane * 2) * 2; /* j is even */

        scatter4(d, row + j * 2, (end - j) / 2);
        scatter2(d + (end - j) / 2 * KN_PANEL * 4, row + (end - 1) * 2, (end - j) % 2, 0);
    }
}

void kn_mat_pack(void *dst, enum kn_dtype t, uint32_t n, uint32_t k, const void *src, uint32_t row0,
                 uint32_t n_rows)
{
    size_t size = kn_dtype_bytes(t), panel_bytes = KN_PANEL * kn_mat_k_pad(k) * size;
    uint32_t end = row0 + n_rows, next;

    PS_ASSERT(row0 <= n && n_rows <= n - row0);
    for (uint32_t r0 = row0; r0 < end; r0 = next) {
        next = ps_min_u32(r0 / KN_PANEL * KN_PANEL + KN_PANEL, end);
        for (size_t j = 0; j < k; j += K_CHUNK)
            for (uint32_t r = r0; r < next; r++)
                pack_chunk((uint8_t *)dst + r / KN_PANEL * panel_bytes, t, r % KN_PANEL,
                           (const uint8_t *)src + (size_t)(r - row0) * k * size, j,
                           ps_min_size(j + K_CHUNK, k));
    }
}
