#pragma once

/*
 * The size of a model directory's vocabulary, for those who need no tokenizer.
 */

#include "common/base.h"
#include "common/buf.h"

enum {
    PS_VOCAB_OK,
    PS_VOCAB_E_BAD, /* one clear sentence in err */
};

/* Highest id of tokenizer.json plus one; UINT32_MAX when the directory has no tokenizer.json. */
PS_MUST int ps_vocab_n_ids(const char *dir, uint32_t *out_n, struct ps_buf *err);
