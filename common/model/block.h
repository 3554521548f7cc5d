#pragma once

/*
 * Block identity: the chained 64-bit hash of 16 tokens that placement and the worker's tree share.
 *
 * h0 = XXH3(seed, tokens[0..16)), h_i = XXH3(seed = h_{i-1}, tokens of block i); token ids as 32-bit
 * little-endian. Only full blocks have a hash. 64 bits are a hint: whoever attaches a block compares
 * token ids. Pure functions, any thread.
 */

#include "common/base.h"

enum { PS_BLOCK_TOKENS = 16 };

uint64_t ps_block_hash(uint64_t parent, const uint32_t ids[PS_BLOCK_TOKENS]);
/* out[i] for each full block of ids; returns n / 16. */
uint32_t ps_block_chain(uint64_t seed, const uint32_t *ids, uint32_t n, uint64_t *out);
/* Chain seed = H(space_id, adapter digest (0: none), tenant salt). */
uint64_t ps_block_seed(uint64_t space_id, uint64_t adapter, uint64_t salt);
