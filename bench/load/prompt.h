#pragma once

/*
 * Prompts as token ids, drawn from seeds, and the body of a completion request.
 *
 * Pure functions: the same stream of (seed, kind, number) gives the same ids in every run and in
 * every program here, so that prefixes can be shared, repeated, and sent again after a restart.
 */

#include "common/base.h"
#include "common/buf.h"

enum bn_stream {
    BN_STREAM_PREFIX = 1, /* shared by a group */
    BN_STREAM_OWN,        /* of one request */
    BN_STREAM_BLOCK,      /* of a trace: number is the block's hash id */
    BN_STREAM_TOOL,       /* what a tool put out */
    BN_STREAM_WARM,       /* of a warm-up: shared with nothing */
    BN_STREAM_SHAPE,      /* no ids: lengths */
    BN_STREAM_ARRIVAL,    /* no ids: times */
};

struct bn_vocab {
    uint64_t seed;
    uint32_t first, n; /* ids are drawn from [first, n) */
};

/* The seed of one stream's own generator. */
uint64_t bn_stream_seed(uint64_t seed, enum bn_stream kind, uint64_t number);
void bn_draw_ids(const struct bn_vocab *v, enum bn_stream kind, uint64_t number, uint32_t *out,
                 size_t n);

struct bn_ask {
    const char *model;
    const uint32_t *ids;
    size_t n_ids;
    uint32_t n_output;
    double temperature;
    uint64_t seed;
    bool with_ids;
};

/* A streamed completion of exactly n_output tokens, with its usage at the end. */
void bn_write_body(struct ps_buf *out, const struct bn_ask *a);
