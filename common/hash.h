#pragma once

/*
 * Hashes: XXH3 for tables and block chains, SHA-256 and HMAC where an adversary may choose the input.
 *
 * Pure functions, any thread, no allocation except inside OpenSSL.
 */

#include "common/base.h"

uint64_t ps_hash64(const void *p, size_t n_bytes, uint64_t seed); /* XXH3 64-bit with seed */

enum { PS_SHA256_BYTES = 32 };

void ps_sha256(const void *p, size_t n_bytes, uint8_t out[PS_SHA256_BYTES]);
void ps_hmac_sha256(const void *key, size_t key_bytes, const void *p, size_t n_bytes,
                    uint8_t out[PS_SHA256_BYTES]);
bool ps_equal_ct(const void *a, const void *b, size_t n_bytes); /* constant time */
void ps_hex(char *out, const void *p, size_t n_bytes);          /* 2n + 1 bytes, lower case */
