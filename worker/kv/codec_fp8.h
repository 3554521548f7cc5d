#pragma once

/*
 * fp8: rows as E4M3 codes with one fp16 scale each.
 *
 * E4M3 is the form without infinities: sign, 4 bits of exponent (bias 7), 3 of mantissa, largest 448.
 * The scale is the row's largest magnitude / 448, rounded up to fp16, so that nothing saturates; a
 * zero row has scale 0. Codes round to nearest even. Pure functions, any thread. The scalar code
 * defines the bits; the AVX2 code, taken where the machine has it, gives the same.
 */

#include "kernels/ops.h"

/* rows [n_row, d] of bf16 or f32; codes [n_row, d]; scales [n_row] fp16. False: a NaN, an infinity, or
 * a magnitude above 448 * 65504 (about 2.9e7); codes and scales are undefined then. */
PS_MUST bool wk_fp8_encode(enum kn_dtype type, const uint8_t *rows, uint32_t n_row, uint32_t d,
                           uint8_t *codes, uint16_t *scales);
/* Any bytes decode to numbers; the codes that are NaN in the standard, never written, read as 480. */
void wk_fp8_decode(enum kn_dtype type, const uint8_t *codes, const uint16_t *scales, uint32_t n_row,
                   uint32_t d, uint8_t *rows);
