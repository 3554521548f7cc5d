#pragma once

/*
 * A request trace in the Mooncake format: one JSON object a line with timestamp (ms), input_length,
 * output_length and hash_ids, one id for each 512 tokens of the prompt; equal ids are equal tokens.
 *
 * Read once at start; lines, requests and lengths are bounded. `shrink` divides lengths and the block
 * by a number, so that the shape of a trace can be replayed on a small model.
 */

#include "common/base.h"
#include "common/buf.h"

enum {
    BN_TRACE_OK,
    BN_TRACE_E_FILE, /* cannot be opened or read: err says why */
    BN_TRACE_E_BAD,  /* a line is no request: err says which */
};

enum { BN_TRACE_BLOCK = 512, BN_TRACE_REQUESTS_MAX = 1 << 22, BN_TRACE_INPUT_MAX = 1 << 24 };

struct bn_trace_item {
    uint64_t at_us;
    uint32_t n_input, n_output, n_hashes;
    size_t hash; /* first of its ids in `hashes` */
};

struct bn_trace {
    struct bn_trace_item *items;
    uint64_t *hashes;
    size_t n_items, n_hashes;
    uint32_t block; /* tokens of one hash id */
};

PS_MUST int bn_trace_read(struct bn_trace *out, const char *path, uint32_t shrink,
                          struct ps_buf *err);
void bn_trace_fini(struct bn_trace *t);
