#pragma once

/*
 * The end of every matrix product: bias added last, whole lanes or the row's own end written.
 * Included by one file per ISA, after its vec_*.h.
 */

#include "kernels/cpu/isa.h"

/* acc: [n_row][np * KN_PANEL], the sums of panels [panel, panel + np). */
static void lin_write(const struct kn_lin *l, uint32_t panel, uint32_t np, const float *acc)
{
    for (size_t r = 0; r < l->n_row; r++)
        for (uint32_t p = 0; p < np; p++) {
            uint32_t n0 = (panel + p) * KN_PANEL, n = ps_min_u32(KN_PANEL, l->w->n - n0);
            float *out = l->out + r * l->w->n + n0;
            vf v = vf_load(acc + (r * np + p) * KN_PANEL);

            if (l->bias)
                v = vf_add(v, n == KN_PANEL ? vf_load(l->bias + n0) : vf_load_n(l->bias + n0, n));
            if (n == KN_PANEL)
                vf_store(out, v);
            else
                vf_store_n(out, v, n);
        }
}
