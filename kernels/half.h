#pragma once

/*
 * The 16-bit float types as bits: bf16 (upper half of an f32) and IEEE half. Pure, any thread.
 *
 * Conversions are integer code, so that they mean the same under every MXCSR: widening is exact,
 * also for denormals; narrowing to bf16 rounds to nearest even and keeps NaN a (quiet) NaN.
 */

#include <string.h>

#include "common/base.h"

static inline uint32_t kn_f32_bits(float f)
{
    uint32_t u;

    memcpy(&u, &f, sizeof u);
    return u;
}

static inline float kn_bits_f32(uint32_t u)
{
    float f;

    memcpy(&f, &u, sizeof f);
    return f;
}

static inline float kn_bf16_f32(uint16_t h)
{
    return kn_bits_f32((uint32_t)h << 16);
}

static inline uint16_t kn_f32_bf16(float f)
{
    uint32_t u = kn_f32_bits(f);

    if ((u & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)((u >> 16) | 0x40u);
    return (uint16_t)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

static inline float kn_f16_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16;
    uint32_t exp = (h >> 10) & 31u;
    uint32_t man = h & 0x3ffu;

    if (exp == 31) /* infinity; a NaN becomes quiet, as the conversion instructions have it */
        return kn_bits_f32(sign | 0x7f800000u | man << 13 | (man ? 0x400000u : 0));
    if (exp != 0)
        return kn_bits_f32(sign | (exp + 112u) << 23 | man << 13);
    if (man == 0)
        return kn_bits_f32(sign);
    for (exp = 113; !(man & 0x400u); exp--) /* a denormal half is a normal f32 */
        man <<= 1;
    return kn_bits_f32(sign | exp << 23 | (man & 0x3ffu) << 13);
}
