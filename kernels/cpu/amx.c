/*
 * bf16 products of many rows by AMX tiles: tdpbf16ps is the order tdp32 in hardware.
 *
 * Two tiles of 16 rows by two panels: accumulators in tmm0-3, x in tmm4-5, weights in tmm6-7. All tiles
 * are 16 rows of 64 bytes; short ends are padded with zeros, which the order asks for anyway.
 */
#include "kernels/cpu/vec_avx512.h"

#include <string.h>

#include "kernels/cpu/linear_out.h"

enum { TILE_BYTES = 1024, TILE_STRIDE = 64, N_TILE = 8 };

struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};
_Static_assert(sizeof(struct tile_config) == 64, "ldtilecfg reads 64 bytes");

/* The intrinsics do not tell the compiler what memory they read (gcc 12: 8 of 64 bytes of the
 * configuration, nothing of a tile). */
#define ALL_MEMORY() __asm__ volatile("" ::: "memory")

void kn_amx_enter(void)
{
    struct tile_config c;

    memset(&c, 0, sizeof c);
    c.palette = 1;
    for (int i = 0; i < N_TILE; i++) {
        c.row_bytes[i] = TILE_STRIDE;
        c.rows[i] = KN_AMX_ROWS;
    }
    ALL_MEMORY();
    _tile_loadconfig(&c);
}

void kn_amx_leave(void)
{
    _tile_release();
}

/* [tile][k / 32][16 rows][32] bf16; rows past the tile's end and k past the row's are zero. */
void kn_amx_pack(const struct kn_lin *l, uint32_t tile)
{
    uint32_t r0 = kn_lin_tile_row(l, tile), n = kn_lin_tile_row(l, tile + 1) - r0, k_n = l->w->k;
    uint16_t *dst = (uint16_t *)l->xp + (size_t)tile * KN_AMX_ROWS * kn_mat_k_pad(k_n);

    for (uint32_t k = 0; k < k_n; k += KN_K_GROUP, dst += KN_AMX_ROWS * KN_K_GROUP) {
        memset(dst, 0, TILE_BYTES);
        for (uint32_t r = 0; r < n; r++)
            memcpy(dst + (size_t)r * KN_K_GROUP,
                   (const uint16_t *)l->x + (size_t)(r0 + r) * l->x_stride + k,
                   ps_min_u32(KN_K_GROUP, k_n - k) * sizeof *dst);
    }
}

/* Rows of one or two tiles by one or two panels, all of k. a, w: [k / 32] tiles of 1 KiB. */
static void product(const uint8_t *const a[2], const uint8_t *const w[2], size_t n_group,
                    bool two_a, bool two_w)
{
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (size_t g = 0; g < n_group; g++) {
        size_t at = g * TILE_BYTES;

        _tile_loadd(4, a[0] + at, TILE_STRIDE);
        _tile_loadd(6, w[0] + at, TILE_STRIDE);
        _tile_dpbf16ps(0, 4, 6);
        if (two_w) {
            _tile_loadd(7, w[1] + at, TILE_STRIDE);
            _tile_dpbf16ps(1, 4, 7);
        }
        if (two_a) {
            _tile_loadd(5, a[1] + at, TILE_STRIDE);
            _tile_dpbf16ps(2, 5, 6);
            if (two_w)
                _tile_dpbf16ps(3, 5, 7);
        }
    }
}

void kn_amx_run(const struct kn_lin *l, uint32_t panel0, uint32_t panel1, float *acc)
{
    size_t k_pad = kn_mat_k_pad(l->w->k), row_bytes = k_pad * sizeof(uint16_t);
    const uint8_t *xp = l->xp, *data = l->w->data;

    ALL_MEMORY();
    for (uint32_t p = panel0; p < panel1; p += KN_AMX_UNIT) {
        uint32_t np = ps_min_u32(KN_AMX_UNIT, panel1 - p);
        const uint8_t *w[2] = {data + p * KN_PANEL * row_bytes,
                               data + (p + np - 1) * KN_PANEL * row_bytes};
        size_t stride = np * KN_PANEL * sizeof *acc;

        for (uint32_t t = 0; t < l->n_tile; t += 2) {
            uint32_t nt = ps_min_u32(2, l->n_tile - t);
            const uint8_t *a[2] = {xp + t * KN_AMX_ROWS * row_bytes,
                                   xp + (t + nt - 1) * KN_AMX_ROWS * row_bytes};
            float *c = acc + (size_t)kn_lin_tile_row(l, t) * np * KN_PANEL;

            product(a, w, k_pad / KN_K_GROUP, nt == 2, np == 2);
            /* A tile that is not full runs into the rows of the next, which is stored after it. */
            _tile_stored(0, c, stride);
            if (np == 2)
                _tile_stored(1, c + KN_PANEL, stride);
            if (nt == 2) {
                c = acc + (size_t)kn_lin_tile_row(l, t + 1) * np * KN_PANEL;
                _tile_stored(2, c, stride);
                if (np == 2)
                    _tile_stored(3, c + KN_PANEL, stride);
            }
        }
        ALL_MEMORY();
        lin_write(l, p, np, acc);
    }
}
