#pragma once

/*
 * tq4: TurboQuant at 4 bits (MSE form, arXiv 2504.19874), with one sign flip and a corrected scale.
 *
 * A row x of d numbers is rotated, r = H D x / |x| (D: signs of the layer, head and K or V; H: Walsh-
 * Hadamard / sqrt(d)), after which its coordinates follow a known law, and each becomes the nearest of
 * the 16 values that are best for that law (Lloyd-Max). Stored are the 16 indices, 0 the most negative,
 * the even coordinate in the low half of a byte, and the fp16 scale |x| / <r, c>, which makes <x, x'>
 * equal |x|^2: scores keep their slope, and sums of many rows do not shrink. A zero row has scale 0.
 *
 * The codebook exists for d of 64, 128 and 256. Errors are relative to |x|: keys that share a large
 * constant part lose what tells them apart (see bench/results). Pure functions, any thread. The scalar
 * code defines the bits; the AVX2 code, taken where the machine has it, gives the same.
 */

#include "kernels/ops.h"

enum { WK_TQ4_SIGN_WORDS = 4, WK_TQ4_SIGN_VERSION = 1 };

bool wk_tq4_has(uint32_t d); /* is there a codebook? */
/* Bit i set: coordinate i is negated. Heads are counted over all ranks. */
void wk_tq4_signs(uint32_t layer, uint32_t kv_head, bool is_v, uint64_t out[WK_TQ4_SIGN_WORDS]);
/* rows [n_row, d] of bf16 or f32; codes [n_row, d / 2]; scales [n_row] fp16. False: a NaN, an infinity,
 * or a row whose scale is no fp16 number (norm above about 64,000); codes and scales are undefined. */
PS_MUST bool wk_tq4_encode(enum kn_dtype type, const uint64_t *signs, const uint8_t *rows,
                           uint32_t n_row, uint32_t d, uint8_t *codes, uint16_t *scales);
/* Any bytes decode to numbers. */
void wk_tq4_decode(enum kn_dtype type, const uint64_t *signs, const uint8_t *codes,
                   const uint16_t *scales, uint32_t n_row, uint32_t d, uint8_t *rows);
