#include "common/model/block.h"

#include "common/hash.h"

#include <string.h>

enum { BLOCK_BYTES = PS_BLOCK_TOKENS * 4 };

/* Hashes travel between machines, so the bytes are little-endian whatever the host is. */
static void put_ids(uint8_t out[BLOCK_BYTES], const uint32_t *ids)
{
    for (uint32_t i = 0; i < PS_BLOCK_TOKENS; i++) {
        uint8_t *at = out + (size_t)i * 4;

        at[0] = (uint8_t)ids[i];
        at[1] = (uint8_t)(ids[i] >> 8);
        at[2] = (uint8_t)(ids[i] >> 16);
        at[3] = (uint8_t)(ids[i] >> 24);
    }
}

uint64_t ps_block_hash(uint64_t parent, const uint32_t ids[PS_BLOCK_TOKENS])
{
    uint8_t bytes[BLOCK_BYTES];

    put_ids(bytes, ids);
    return ps_hash64(bytes, sizeof(bytes), parent);
}

uint32_t ps_block_chain(uint64_t seed, const uint32_t *ids, uint32_t n, uint64_t *out)
{
    uint32_t n_blocks = n / PS_BLOCK_TOKENS;

    for (uint32_t i = 0; i < n_blocks; i++) {
        seed = ps_block_hash(seed, ids + (size_t)i * PS_BLOCK_TOKENS);
        out[i] = seed;
    }
    return n_blocks;
}

uint64_t ps_block_seed(uint64_t space_id, uint64_t adapter, uint64_t salt)
{
    uint64_t words[3] = {space_id, adapter, salt};
    uint8_t bytes[sizeof(words)];

    for (uint32_t w = 0; w < PS_ARRAY_LEN(words); w++) {
        for (uint32_t i = 0; i < 8; i++)
            bytes[w * 8 + i] = (uint8_t)(words[w] >> (8 * i));
    }
    return ps_hash64(bytes, sizeof(bytes), 0);
}
