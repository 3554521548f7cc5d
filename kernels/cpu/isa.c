#include "kernels/cpu/isa.h"

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/rng.h"
#include "kernels/fp.h"

/* CPUID leaf 7, subleaf 0, EDX. */
enum { CPUID_AMX_BF16 = 1 << 22, CPUID_AMX_TILE = 1 << 24 };
/* State components of XCR0: tile configuration (bit 17) and tile data (bit 18). */
enum { XCR0_AMX = 3 << 17, XFEATURE_TILE_DATA = 18 };
/* arch_prctl: the kernel gives tile data to a process only when asked (<asm/prctl.h>, Linux 5.16). */
enum { REQ_XCOMP_PERM = 0x1023 };

static bool has_amx(void)
{
    uint32_t a, b, c, d, xcr0, hi;

    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d & CPUID_AMX_TILE) || !(d & CPUID_AMX_BF16))
        return false;
    __asm__ volatile("xgetbv" : "=a"(xcr0), "=d"(hi) : "c"(0));
    return (xcr0 & XCR0_AMX) == XCR0_AMX &&
           syscall(SYS_arch_prctl, REQ_XCOMP_PERM, XFEATURE_TILE_DATA) == 0;
}

static bool has_avx512(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

static bool has_avx2(void)
{
    uint32_t a, b, c, d;

    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

/* The check's shape: a tile that is not full, a single panel after a pair, padded k. */
enum {
    CHECK_ROWS = 37,
    CHECK_N = 40,
    CHECK_K = 200,
    CHECK_PANELS = 3,
    CHECK_K_PAD = 224,
    CHECK_KINDS = 3
};

/* Kind 0: moderate numbers. 1: products around the smallest normal number. 2: any bits. */
static uint16_t check_value(struct ps_rng *rng, int kind)
{
    uint64_t u = ps_rng_u64(rng);

    if (kind == 2)
        return (uint16_t)u;
    return (uint16_t)((u & 0x807fu) | (kind == 1 ? 57 + (u >> 32) % 12 : 120 + (u >> 32) % 10)
                                          << 7);
}

/* Everything one path writes, so that two paths can be compared. */
struct check {
    _Alignas(64) uint16_t w[CHECK_PANELS * KN_PANEL * CHECK_K_PAD];
    _Alignas(
        64) float xp[4 * KN_AMX_ROWS * CHECK_K_PAD]; /* tiles times rows of a tile is at most 64 */
    _Alignas(64) float acc[(CHECK_ROWS + KN_PANEL) * 2 * KN_PANEL];
    uint16_t x[CHECK_ROWS * CHECK_K], row[CHECK_K];
    float out[2][CHECK_ROWS * CHECK_N];
};

static void check_run(struct check *c, const struct kn_mat *w, const struct kn_lin_path *path,
                      float *out)
{
    struct kn_lin l = {
        .w = w, .x = c->x, .x_stride = CHECK_K, .n_row = CHECK_ROWS, .out = out, .xp = c->xp};

    l.n_tile = (CHECK_ROWS + path->tile_rows - 1) / path->tile_rows;
    if (path->enter)
        path->enter();
    for (uint32_t t = 0; t < l.n_tile; t++)
        path->pack(&l, t);
    path->run(&l, 0, CHECK_PANELS, c->acc);
    if (path->leave)
        path->leave();
}

/* Does the tile unit of this machine give the bits of tdp32? NaN is equal to NaN. */
static bool amx_is_exact(void)
{
    struct check *c = ps_alloc_aligned(PS_CACHE_LINE, sizeof *c);
    struct kn_mat w = {c->w, KN_BF16, CHECK_N, CHECK_K};
    uint32_t fp = kn_fp_enter();
    struct ps_rng rng;
    bool same = true;

    ps_rng_seed(&rng, 1);
    for (int kind = 0; kind < CHECK_KINDS && same; kind++) {
        memset(c, 0, sizeof *c);
        for (uint32_t n = 0; n < CHECK_N; n++) {
            for (uint32_t k = 0; k < CHECK_K; k++)
                c->row[k] = check_value(&rng, kind);
            kn_mat_pack(c->w, KN_BF16, CHECK_N, CHECK_K, c->row, n, 1);
        }
        for (uint32_t i = 0; i < CHECK_ROWS * CHECK_K; i++)
            c->x[i] = check_value(&rng, kind);
        check_run(c, &w, &kn_isa_avx512.lin, c->out[0]);
        check_run(c, &w, &kn_isa_amx.lin_big, c->out[1]);
        for (uint32_t i = 0; i < CHECK_ROWS * CHECK_N; i++) {
            float a = c->out[0][i], b = c->out[1][i];

            same = same && (kn_f32_bits(a) == kn_f32_bits(b) || (a != a && b != b));
        }
    }
    kn_fp_leave(fp);
    ps_free(c);
    return same;
}

const struct kn_isa *kn_isa_pick(const char *name, const char **out_note)
{
    bool any = name[0] == '\0';

    *out_note = "";
    if ((any || strcmp(name, "amx") == 0) && has_avx512() && has_avx2() && has_amx()) {
        if (amx_is_exact())
            return &kn_isa_amx;
        *out_note = " (amx left out: it failed its self-check)";
    }
    if ((any || strcmp(name, "avx512") == 0) && has_avx512() && has_avx2())
        return &kn_isa_avx512;
    if ((any || strcmp(name, "avx2") == 0) && has_avx2())
        return &kn_isa_avx2;
    return any || strcmp(name, "scalar") == 0 ? &kn_isa_scalar : NULL;
}
