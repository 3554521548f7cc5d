#pragma once

/*
 * Random numbers of two kinds.
 *
 * ps_rng: a small fast stream (xoshiro256**) for jitter, injectors and tests; seeded, never secret.
 * ps_philox: counter-based (Philox 4x32-10): a pure function of (key, counter), which makes sampling
 * reproducible on any worker, batch and backend. ps_random_bytes: the kernel's
 * entropy, for ids, seeds and keys.
 */

#include "common/base.h"

struct ps_rng {
    uint64_t s[4];
};

void ps_rng_seed(struct ps_rng *r, uint64_t seed);
uint64_t ps_rng_u64(struct ps_rng *r);
uint64_t ps_rng_below(struct ps_rng *r, uint64_t n); /* uniform in [0, n), n > 0 */
double ps_rng_unit(struct ps_rng *r);                /* [0, 1) */

/* out[4] = Philox4x32-10 of the 128-bit counter under the 64-bit key. */
void ps_philox(uint64_t key, const uint32_t counter[4], uint32_t out[4]);

void ps_random_bytes(void *out, size_t n_bytes); /* getrandom; aborts if the kernel refuses */
