#pragma once

/*
 * The 16-bit float types as bits: bf16 (upper half of an f32) and IEEE half. Pure, any thread.
 *
 * Conversions are integer code, so that they mean the same under every MXCSR: widening is exact,
 * also for denormals; narrowing rounds to nearest even and keeps NaN a (quiet) NaN.
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

static inline uint16_t kn_f32_f16(float f)
{
    uint32_t u = kn_f32_bits(f), sign = u >> 16 & 0x8000u, a = u & 0x7fffffffu;
    uint32_t man, shift, r, rest, half;

    if (a > 0x7f800000u)
        return (uint16_t)(sign | 0x7e00u | (a >> 13 & 0x3ffu));
    if (a >= 0x477ff000u) /* 65520: halfway from the largest half to what would follow it */
        return (uint16_t)(sign | 0x7c00u);
    if (a >= 0x38800000u) /* 2^-14, the smallest normal half; exponents differ by 112 */
        return (uint16_t)(sign | (a - (112u << 23) + 0xfffu + (a >> 13 & 1u)) >> 13);
    if (a < 0x33000000u) /* below 2^-25, half of the smallest denormal */
        return (uint16_t)sign;
    man = (a & 0x7fffffu) | 0x800000u;
    shift = 126u - (a >> 23); /* 14 to 24: man * 2^-shift counts units of 2^-24 */
    r = man >> shift;
    rest = man & ((1u << shift) - 1u);
    half = 1u << (shift - 1u);
    return (uint16_t)(sign | (r + (rest > half || (rest == half && (r & 1u)))));
}
