#pragma once

/*
 * What the files of the tokenizer share and nobody else includes: the loaded tokenizer itself.
 *
 * tok_load.c fills it, tokenizer.c encodes with it, detok.c decodes with it. Invariants:
 * (1) nothing in it changes after load; (2) added_raw is matched against the raw text, added_norm
 * against the normalised text, and both only hold ids that are in vocab; (3) the decoder is ByteLevel,
 * so that a token's bytes do not depend on its neighbours.
 */

#include "common/hash.h"
#include "common/text/added.h"
#include "common/text/bpe.h"
#include "common/text/normalize.h"
#include "common/text/post.h"
#include "common/text/pretok.h"
#include "common/text/tokenizer.h"
#include "common/text/vocab.h"

struct ps_tok {
    struct ps_vocab vocab;
    struct ps_bpe bpe;
    struct ps_added added_raw, added_norm;
    struct ps_norm *norm;
    struct ps_pretok *pretok;
    struct ps_post post;
    char *bos, *eos, *pad, *unk; /* "" when absent */
    uint8_t digest[PS_SHA256_BYTES];
};
