#include "common/rng.h"

#include <errno.h>
#include <sys/random.h>

/* splitmix64: spreads any seed, also 0, over the state of the stream. */
static uint64_t split_mix(uint64_t *x)
{
    uint64_t z = *x += UINT64_C(0x9E3779B97F4A7C15);

    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

void ps_rng_seed(struct ps_rng *r, uint64_t seed)
{
    for (uint32_t i = 0; i < PS_ARRAY_LEN(r->s); i++)
        r->s[i] = split_mix(&seed);
}

static uint64_t rot_left(uint64_t x, uint32_t n)
{
    return (x << n) | (x >> (64 - n));
}

/* xoshiro256** (Blackman and Vigna, 2018). */
uint64_t ps_rng_u64(struct ps_rng *r)
{
    uint64_t *s = r->s;
    uint64_t out = rot_left(s[1] * 5, 7) * 9;
    uint64_t t = s[1] << 17;

    PS_DASSERT((s[0] | s[1] | s[2] | s[3]) != 0); /* all zero would stay zero: not seeded */
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rot_left(s[3], 45);
    return out;
}

uint64_t ps_rng_below(struct ps_rng *r, uint64_t n)
{
    uint64_t x, reject;

    PS_ASSERT(n > 0);
    /* The lowest 2^64 mod n values are refused, so that the rest is a multiple of n. */
    reject = (UINT64_MAX - n + 1) % n;
    do {
        x = ps_rng_u64(r);
    } while (x < reject);
    return x % n;
}

double ps_rng_unit(struct ps_rng *r)
{
    return (double)(ps_rng_u64(r) >> 11) * 0x1p-53;
}

/* Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011). */
void ps_philox(uint64_t key, const uint32_t counter[4], uint32_t out[4])
{
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];

    for (int round = 0; round < 10; round++) {
        uint64_t a = UINT64_C(0xD2511F53) * c0;
        uint64_t b = UINT64_C(0xCD9E8D57) * c2;

        c0 = (uint32_t)(b >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)b;
        c2 = (uint32_t)(a >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)a;
        k0 += UINT32_C(0x9E3779B9);
        k1 += UINT32_C(0xBB67AE85);
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

void ps_random_bytes(void *out, size_t n_bytes)
{
    char *p = out;

    while (n_bytes > 0) {
        ssize_t n = getrandom(p, n_bytes, 0);

        PS_ASSERT(n > 0 || errno == EINTR);
        if (n > 0) {
            p += n;
            n_bytes -= (size_t)n;
        }
    }
}
