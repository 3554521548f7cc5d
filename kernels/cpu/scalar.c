#include "kernels/cpu/isa.h"

/* The fallback is the reference text itself, on shares of the work. */

static void run(const struct kn_lin *l, uint32_t panel0, uint32_t panel1, float *acc PS_UNUSED)
{
    kn_ref_linear_panels(l->w, l->bias, l->x, l->x_stride, l->n_row, l->out, panel0, panel1);
}

static void math(char fn, const float *x, float *y, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        float s, c;

        kn_sincos(x[i], &s, &c);
        y[i] = fn == 'e' ? kn_exp(x[i]) : fn == 'l' ? kn_log(x[i]) : fn == 's' ? s : c;
    }
}

const struct kn_isa kn_isa_scalar = {
    .name = "scalar",
    .samp = &kn_samp_scalar,
    .lin = {.tile_rows = UINT32_MAX, .unit = 1, .run = run},
    .norm_rows = kn_ref_norm_rows,
    .qkv_row = kn_ref_qkv_row,
    .silu_rows = kn_ref_silu_rows,
    .math = math,
};
