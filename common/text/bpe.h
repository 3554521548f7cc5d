#pragma once

/*
 * Byte-pair encoding of one pre-token: bytes in, token ids out.
 *
 * ps_bpe is built at load and immutable after; ps_bpe_ctx belongs to one thread. The pair with the
 * lowest rank is merged first, the leftmost of equals first. Short pieces rescan an array, long ones
 * use a heap; both give the same ids (tested against each other). Short pieces with few ids are kept
 * in a two-way cache of fixed size; a hit is verified by comparing all bytes of the piece.
 */

#include "common/base.h"
#include "common/text/tokenizer.h"
#include "common/text/vocab.h"

struct ps_bpe_merge {
    uint32_t rank; /* UINT32_MAX: these two do not merge */
    uint32_t id;
};

struct ps_bpe_slot {
    uint64_t pair; /* left << 32 | right */
    struct ps_bpe_merge to;
};

struct ps_bpe {
    const struct ps_vocab *vocab;
    struct ps_bpe_slot *slots;
    uint32_t cap, n;                /* cap: power of two */
    struct ps_bpe_merge *byte_pair; /* [256 * 256], the table of every piece's first pass */
    uint32_t byte_id[256];          /* PS_VOCAB_NONE: not in the vocabulary */
    uint32_t unk_id;                /* PS_VOCAB_NONE: unknown bytes are dropped */
    bool fuse_unk;
    bool ignore_merges; /* a piece that is a token as a whole is that token */
};

void ps_bpe_init(struct ps_bpe *b, const struct ps_vocab *v, uint32_t n_merges);
void ps_bpe_fini(struct ps_bpe *b);
/* Replaces an earlier merge of the same pair. At most n_merges calls. */
void ps_bpe_add(struct ps_bpe *b, uint32_t left, uint32_t right, uint32_t rank, uint32_t id);
void ps_bpe_seal(struct ps_bpe *b); /* after the last merge: fills the byte tables */

struct ps_bpe_ctx;

struct ps_bpe_ctx *ps_bpe_ctx_create(const struct ps_bpe *b);
void ps_bpe_ctx_destroy(struct ps_bpe_ctx *c);
/* [piece, piece + len) lies in a text that is readable up to end. */
void ps_bpe_encode(struct ps_bpe_ctx *c, const char *piece, size_t len, const char *end,
                   bool use_cache, struct ps_tok_ids *ids);
/* The two algorithms by themselves, for tests: always the heap, or always the array. */
void ps_bpe_encode_heap(struct ps_bpe_ctx *c, const char *piece, size_t len,
                        struct ps_tok_ids *ids);
void ps_bpe_encode_array(struct ps_bpe_ctx *c, const char *piece, size_t len,
                         struct ps_tok_ids *ids);

/* Room for n more ids. */
void ps_tok_ids_reserve(struct ps_tok_ids *ids, size_t n);

static inline void ps_tok_ids_add(struct ps_tok_ids *ids, uint32_t id)
{
    if (PS_UNLIKELY(ids->n == ids->cap))
        ps_tok_ids_reserve(ids, 1);
    ids->ids[ids->n++] = id;
}
