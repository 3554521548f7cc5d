#pragma once

/*
 * The floating-point state of every operator (EX4): round to nearest, FTZ, DAZ, no traps.
 *
 * Each public operator enters on the calling thread and leaves before it returns; compute threads
 * enter once, when they start. The state is per thread and nobody else's code runs inside.
 */

#include <immintrin.h>

#include "common/base.h"

/* All exceptions masked (0x1f80), FTZ (bit 15), DAZ (bit 6), rounding bits 0. */
enum { KN_MXCSR = 0x1f80 | 1 << 15 | 1 << 6 };

static inline uint32_t kn_fp_enter(void)
{
    uint32_t old = _mm_getcsr();

    _mm_setcsr(KN_MXCSR);
    return old;
}

static inline void kn_fp_leave(uint32_t old)
{
    _mm_setcsr(old);
}
