/*
 * The AMX path with its tile unit replaced by scalar code: packing, tile addressing and short ends can
 * be checked on machines without AMX (what the hardware computes is checked when a device is opened).
 */
#include "kernels/cpu/isa.h"

#include <immintrin.h>
#include <stdio.h>

#include "common/rng.h"
#include "common/test.h"
#include "kernels/fp.h"

enum { ROWS = 16, ROW_BYTES = 64 };

static _Alignas(64) uint8_t tiles[8][ROWS][ROW_BYTES];
static bool configured;

static void tile_load(int t, const void *p, size_t stride)
{
    for (size_t r = 0; r < ROWS; r++)
        memcpy(tiles[t][r], (const uint8_t *)p + r * stride, ROW_BYTES);
}

static void tile_store(int t, void *p, size_t stride)
{
    for (size_t r = 0; r < ROWS; r++)
        memcpy((uint8_t *)p + r * stride, tiles[t][r], ROW_BYTES);
}

/* tdpbf16ps as the manual has it, sums in the measured order: even chain, odd chain, their sum. */
static void tile_product(int c, int a, int b)
{
    PS_ASSERT(configured);
    for (int m = 0; m < ROWS; m++)
        for (int n = 0; n < ROWS; n++) {
            float part[2] = {0, 0}, sum;

            for (int i = 0; i < 2; i++)
                for (int k = 0; k < ROWS; k++) {
                    uint16_t x, w;

                    memcpy(&x, &tiles[a][m][4 * k + 2 * i], sizeof x);
                    memcpy(&w, &tiles[b][k][4 * n + 2 * i], sizeof w);
                    part[i] = fmaf(kn_bf16_f32(x), kn_bf16_f32(w), part[i]);
                }
            memcpy(&sum, &tiles[c][m][4 * n], sizeof sum);
            sum = sum + (part[0] + part[1]);
            memcpy(&tiles[c][m][4 * n], &sum, sizeof sum);
        }
}

static void configure(const uint8_t *c)
{
    configured = c[0] == 1;
    for (int t = 0; t < 8; t++) /* bytes of a row, rows of a tile */
        configured =
            configured && c[16 + 2 * t] == ROW_BYTES && c[17 + 2 * t] == 0 && c[48 + t] == ROWS;
}

#undef _tile_loadconfig
#undef _tile_release
#undef _tile_zero
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbf16ps
#define _tile_loadconfig(c)     configure((const uint8_t *)(c))
#define _tile_release()         ((void)(configured = false))
#define _tile_zero(t)           ((void)memset(tiles[t], 0, sizeof tiles[t]))
#define _tile_loadd(t, p, s)    tile_load((t), (p), (s))
#define _tile_stored(t, p, s)   tile_store((t), (p), (s))
#define _tile_dpbf16ps(c, a, b) tile_product((c), (a), (b))

#include "kernels/cpu/amx.c"

static void check_shape(struct ps_rng *rng, uint32_t n, uint32_t k, uint32_t m)
{
    size_t n_panel = (n + KN_PANEL - 1) / KN_PANEL, k_pad = kn_mat_k_pad(k);
    uint16_t *plain = ps_alloc((size_t)n * k * 2), *x = ps_alloc((size_t)m * k * 2);
    void *packed = ps_alloc_aligned(64, kn_mat_bytes(KN_BF16, n, k));
    float *want = ps_calloc((size_t)m * n, 4), *got = ps_calloc((size_t)m * n, 4),
          *bias = ps_calloc(n, 4);
    float *acc = ps_alloc((m + KN_PANEL) * (size_t)KN_AMX_UNIT * KN_PANEL * 4);
    struct kn_mat w = {packed, KN_BF16, n, k};
    struct kn_lin l = {.w = &w, .bias = bias, .x = x, .x_stride = k, .n_row = m, .out = got};
    uint32_t fp = kn_fp_enter();

    l.n_tile = (m + KN_AMX_ROWS - 1) / KN_AMX_ROWS;
    l.xp = ps_alloc_aligned(64, l.n_tile * KN_AMX_ROWS * k_pad * 2);
    for (size_t i = 0; i < (size_t)n * k; i++)
        plain[i] = kn_f32_bf16((float)ps_rng_unit(rng) - 0.5f);
    for (size_t i = 0; i < (size_t)m * k; i++)
        x[i] = kn_f32_bf16((float)ps_rng_unit(rng) - 0.5f);
    for (uint32_t i = 0; i < n; i++)
        bias[i] = (float)i;
    memset(packed, 0, kn_mat_bytes(KN_BF16, n, k));
    kn_mat_pack(packed, KN_BF16, n, k, plain, 0, n);
    kn_ref_linear_panels(&w, bias, x, k, m, want, 0, (uint32_t)n_panel);
    kn_amx_enter();
    for (uint32_t t = 0; t < l.n_tile; t++)
        kn_amx_pack(&l, t);
    kn_amx_run(&l, 0, 1, acc); /* a single panel, then pairs */
    kn_amx_run(&l, 1, (uint32_t)n_panel, acc);
    kn_amx_leave();
    kn_fp_leave(fp);
    assert_memory_equal(want, got, (size_t)m * n * 4);
    ps_free(l.xp);
    ps_free(acc);
    ps_free(bias);
    ps_free(got);
    ps_free(want);
    ps_free(packed);
    ps_free(x);
    ps_free(plain);
}

static void tiles_give_the_reference_order(void **state PS_UNUSED)
{
    struct ps_rng rng;

    ps_rng_seed(&rng, 7);
    check_shape(&rng, 32, 32, 16);
    check_shape(&rng, 40, 200, 37);
    check_shape(&rng, 17, 33, 48);
    check_shape(&rng, 80, 96, 17);
    check_shape(&rng, 5, 64, 65);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(tiles_give_the_reference_order)};

    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512dq")) {
        puts("1..0 # SKIP this CPU lacks AVX-512");
        return 0;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
