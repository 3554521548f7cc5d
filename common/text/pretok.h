#pragma once

/*
 * Pre-tokeniser: cuts a stretch of normalised text into the pieces that BPE sees.
 *
 * The stages of tokenizer.json in order, each refining the pieces of the one before; the last one is
 * ByteLevel. Patterns that scan.h knows run as scanners, all others in PCRE2. Immutable after parse;
 * a ps_pretok_ctx belongs to one thread. Pieces are handed out in batches.
 */

#include "common/base.h"
#include "common/buf.h"
#include "common/json/json.h"

struct ps_pretok;
struct ps_pretok_ctx;

struct ps_span {
    uint32_t from, to;
};

/* v: the value of "pre_tokenizer". NULL: not supported, with a sentence in err. */
struct ps_pretok *ps_pretok_create(const struct ps_json *v, struct ps_buf *err);
void ps_pretok_destroy(struct ps_pretok *t);          /* NULL is fine */
bool ps_pretok_is_scanner(const struct ps_pretok *t); /* runs without PCRE2, in one pass */

struct ps_pretok_ctx *ps_pretok_ctx_create(const struct ps_pretok *t);
void ps_pretok_ctx_destroy(struct ps_pretok_ctx *c); /* NULL is fine */

/* Starts on a text of less than 4 GiB that stays until the last batch. false: the engine gave up. */
PS_MUST bool ps_pretok_start(struct ps_pretok_ctx *c, const char *s, size_t n);
/*
 * The next batch: offsets into *out_base, whose text ends at *out_end. 0: no more. A stage may have
 * changed the text (add_prefix_space), so *out_base need not be s.
 */
uint32_t ps_pretok_next(struct ps_pretok_ctx *c, const struct ps_span **out_spans,
                        const char **out_base, const char **out_end);
