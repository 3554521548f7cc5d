#pragma once

/*
 * Matrix products for one ISA: text over vec_*.h, included by one file per ISA.
 *
 * Lanes are output rows of W (the panels), so no sum crosses lanes and the order of an output is that
 * of ref/linear.c whatever the tile. A tile is KN_LIN_MR rows of x by KN_LIN_NP panels at most; its
 * chains live in registers. x comes widened and interleaved (lin_pack), so that a step reads mr
 * floats side by side.
 */

#include "kernels/cpu/linear_out.h"

/* k elements per pass over the tiles: two panels of bf16 (32 KiB) stay in L1 or L2 meanwhile. */
enum { LIN_K_BLOCK = 512 };

#define TILE_INLINE static inline __attribute__((always_inline))

/* acc += even + odd, for every output of a tile. */
#define TDP_FOLD(even, odd) \
    for (int r = 0; r < mr; r++) \
        for (int p = 0; p < np; p++) { \
            float *at = acc + (r * np + p) * KN_PANEL; \
\
            vf_store(at, vf_add(vf_load(at), vf_add((even)[r][p], (odd)[r][p]))); \
        }

/* One chain (even or odd k) of every output of a tile over 32 k. x: [16][mr]. */
TILE_INLINE void tdp_chain(const uint8_t *const *w, const float *x, vf (*c)[KN_LIN_NP], int mr,
                           int np, bool odd)
{
#pragma GCC unroll 16
    for (int r = 0; r < mr; r++)
#pragma GCC unroll 2
        for (int p = 0; p < np; p++)
            c[r][p] = vf_zero();
    for (int s = 0; s < KN_K_GROUP / 2; s++, x += mr) {
        vf b[KN_LIN_NP];

#pragma GCC unroll 2
        for (int p = 0; p < np; p++)
            b[p] = odd ? vf_load_odd(w[p] + s * 64) : vf_load_even(w[p] + s * 64);
#pragma GCC unroll 16
        for (int r = 0; r < mr; r++) {
            vf a = vf_set1(x[r]);

#pragma GCC unroll 2
            for (int p = 0; p < np; p++)
                c[r][p] = vf_fma(a, b[p], c[r][p]);
        }
    }
}

/* The even chains first, then the odd ones: half the registers, twice the loads. */
TILE_INLINE void tdp_group_halves(const uint8_t *const *w, const float *x, float *acc, int mr,
                                  int np)
{
    vf even[KN_LIN_MR][KN_LIN_NP], odd[KN_LIN_MR][KN_LIN_NP];

    tdp_chain(w, x, even, mr, np, false);
    tdp_chain(w, x + mr * (KN_K_GROUP / 2), odd, mr, np, true);
#pragma GCC unroll 16
    TDP_FOLD(even, odd)
}

/* Both chains at once: for few rows, where memory is the limit. */
TILE_INLINE void tdp_group_both(const uint8_t *const *w, const float *x, float *acc, int mr, int np)
{
    vf even[KN_LIN_MR][KN_LIN_NP], odd[KN_LIN_MR][KN_LIN_NP];

#pragma GCC unroll 16
    for (int r = 0; r < mr; r++)
#pragma GCC unroll 2
        for (int p = 0; p < np; p++)
            even[r][p] = odd[r][p] = vf_zero();
    for (int s = 0; s < KN_K_GROUP / 2; s++, x += mr) {
#pragma GCC unroll 2
        for (int p = 0; p < np; p++) {
            vf b0 = vf_load_even(w[p] + s * 64), b1 = vf_load_odd(w[p] + s * 64);

#pragma GCC unroll 16
            for (int r = 0; r < mr; r++) {
                even[r][p] = vf_fma(vf_set1(x[r]), b0, even[r][p]);
                odd[r][p] = vf_fma(vf_set1(x[r + mr * (KN_K_GROUP / 2)]), b1, odd[r][p]);
            }
        }
    }
#pragma GCC unroll 16
    TDP_FOLD(even, odd)
}

TILE_INLINE void tdp_tile(const uint8_t *const *panel, const float *x, size_t n_k, float *acc,
                          int mr, int np)
{
    for (size_t k = 0; k < n_k; k += KN_K_GROUP) {
        const uint8_t *w[KN_LIN_NP];

        for (int p = 0; p < np; p++)
            w[p] = panel[p] + k * KN_PANEL * 2;
        if (mr * np <= KN_LIN_BOTH)
            tdp_group_both(w, x + k * (size_t)mr, acc, mr, np);
        else
            tdp_group_halves(w, x + k * (size_t)mr, acc, mr, np);
    }
}

/* One chain over k, for f32 and f16 weights. */
TILE_INLINE void chain_tile(const uint8_t *const *panel, const float *x, size_t n_k, float *acc,
                            int mr, int np, bool f16)
{
    vf c[KN_LIN_MR][KN_LIN_NP];

#pragma GCC unroll 16
    for (int r = 0; r < mr; r++)
#pragma GCC unroll 2
        for (int p = 0; p < np; p++)
            c[r][p] = vf_load(acc + (r * np + p) * KN_PANEL);
    for (size_t k = 0; k < n_k; k++, x += mr) {
        vf b[KN_LIN_NP];

#pragma GCC unroll 2
        for (int p = 0; p < np; p++)
            b[p] = f16 ? vf_load_f16(panel[p] + k * KN_PANEL * 2)
                       : vf_load(panel[p] + k * KN_PANEL * 4);
#pragma GCC unroll 16
        for (int r = 0; r < mr; r++) {
            vf a = vf_set1(x[r]);

#pragma GCC unroll 2
            for (int p = 0; p < np; p++)
                c[r][p] = vf_fma(a, b[p], c[r][p]);
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < mr; r++)
#pragma GCC unroll 2
        for (int p = 0; p < np; p++)
            vf_store(acc + (r * np + p) * KN_PANEL, c[r][p]);
}

TILE_INLINE void typed_tile(enum kn_dtype t, const uint8_t *const *panel, const float *x,
                            size_t n_k, float *acc, int mr, int np)
{
    if (t == KN_BF16)
        tdp_tile(panel, x, n_k, acc, mr, np);
    else if (t == KN_F16)
        chain_tile(panel, x, n_k, acc, mr, np, true);
    else
        chain_tile(panel, x, n_k, acc, mr, np, false);
}

/* The registers of a tile are fixed when compiled: one instance per height and width. */
#define TILE_CASE(m) \
    case m: \
        if (np == 1) \
            typed_tile(t, panel, x, n_k, acc, m, 1); \
        else \
            typed_tile(t, panel, x, n_k, acc, m, KN_LIN_NP); \
        break;

static void any_tile(enum kn_dtype t, const uint8_t *const *panel, const float *x, size_t n_k,
                     float *acc, uint32_t mr, uint32_t np)
{
    switch (mr) {
        TILE_CASE(1)
        TILE_CASE(2)
        TILE_CASE(3)
        TILE_CASE(4)
        TILE_CASE(5)
        TILE_CASE(6)
#if KN_LIN_MR > 6
        TILE_CASE(7)
        TILE_CASE(8)
        TILE_CASE(9)
        TILE_CASE(10)
        TILE_CASE(11)
        TILE_CASE(12)
#endif
    }
}

/* bf16: [k / 32][even, odd][16][row of the tile]; else [k][row]. */
static void lin_pack(const struct kn_lin *l, uint32_t tile)
{
    uint32_t r0 = kn_lin_tile_row(l, tile), mr = kn_lin_tile_row(l, tile + 1) - r0, k_n = l->w->k;
    float *dst = (float *)l->xp + r0 * kn_mat_k_pad(k_n), t[KN_K_GROUP];

    for (uint32_t r = 0; r < mr; r++) {
        size_t row = (size_t)(r0 + r) * l->x_stride;

        for (uint32_t k = 0; k < k_n; k += KN_K_GROUP) {
            uint32_t n = ps_min_u32(KN_K_GROUP, k_n - k);
            uint16_t h[KN_K_GROUP] = {0};

            memset(t, 0, sizeof t);
            if (l->w->dtype == KN_BF16) {
                memcpy(h, (const uint16_t *)l->x + row + k, n * sizeof *h);
                vf_store(t, vf_load_even(h));
                vf_store(t + KN_K_GROUP / 2, vf_load_odd(h));
            } else {
                memcpy(t, (const float *)l->x + row + k, n * sizeof *t);
            }
            for (uint32_t i = 0; i < KN_K_GROUP; i++)
                dst[((size_t)k + i) * mr + r] = t[i];
        }
    }
}

static void lin_run(const struct kn_lin *l, uint32_t panel0, uint32_t panel1, float *acc)
{
    enum kn_dtype t = l->w->dtype;
    size_t k_pad = kn_mat_k_pad(l->w->k), k_step = KN_PANEL * kn_dtype_bytes(t);
    /* The padding belongs to tdp32 and to no other order. */
    size_t k_end = t == KN_BF16 ? k_pad : l->w->k, block = l->n_tile == 1 ? k_end : LIN_K_BLOCK;

    for (uint32_t p = panel0; p < panel1; p += KN_LIN_NP) {
        uint32_t np = ps_min_u32(KN_LIN_NP, panel1 - p);
        const uint8_t *w[KN_LIN_NP];

        memset(acc, 0, (size_t)l->n_row * np * KN_PANEL * sizeof *acc);
        for (size_t k = 0; k < k_end; k += block) {
            for (uint32_t i = 0; i < np; i++)
                w[i] = (const uint8_t *)l->w->data + ((p + i) * k_pad + k) * k_step;
            for (uint32_t tile = 0; tile < l->n_tile; tile++) {
                uint32_t r0 = kn_lin_tile_row(l, tile), mr = kn_lin_tile_row(l, tile + 1) - r0;

                any_tile(t, w, (const float *)l->xp + r0 * k_pad + k * mr,
                         ps_min_size(block, k_end - k), acc + (size_t)r0 * np * KN_PANEL, mr, np);
            }
        }
        lin_write(l, p, np, acc);
    }
}
