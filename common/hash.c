#include "common/hash.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <xxhash.h>

_Static_assert(sizeof(XXH64_hash_t) == sizeof(uint64_t), "XXH3 gives 64 bits");

uint64_t ps_hash64(const void *p, size_t n_bytes, uint64_t seed)
{
    return XXH3_64bits_withSeed(p, n_bytes, seed);
}

/* OpenSSL fails here only in a build without SHA-256: that cannot be handled. */
void ps_sha256(const void *p, size_t n_bytes, uint8_t out[PS_SHA256_BYTES])
{
    unsigned int n = 0;

    PS_ASSERT(EVP_Digest(p, n_bytes, out, &n, EVP_sha256(), NULL) == 1 && n == PS_SHA256_BYTES);
}

void ps_hmac_sha256(const void *key, size_t key_bytes, const void *p, size_t n_bytes,
                    uint8_t out[PS_SHA256_BYTES])
{
    unsigned int n = 0;

    PS_ASSERT(key_bytes <= INT32_MAX);
    /* A NULL key would mean "the key of last time" to OpenSSL. */
    PS_ASSERT(HMAC(EVP_sha256(), key_bytes > 0 ? key : "", (int)key_bytes, p, n_bytes, out, &n) !=
              NULL);
    PS_ASSERT(n == PS_SHA256_BYTES);
}

bool ps_equal_ct(const void *a, const void *b, size_t n_bytes)
{
    return CRYPTO_memcmp(a, b, n_bytes) == 0;
}

void ps_hex(char *out, const void *p, size_t n_bytes)
{
    static const char digits[] = "0123456789abcdef";
    const uint8_t *in = p;

    for (size_t i = 0; i < n_bytes; i++) {
        out[2 * i] = digits[in[i] >> 4];
        out[2 * i + 1] = digits[in[i] & 15];
    }
    out[2 * n_bytes] = '\0';
}
