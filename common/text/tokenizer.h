#pragma once

/*
 * Tokenizer: Hugging Face tokenizer.json (byte-level BPE) in C, bit-equal to the `tokenizers` library.
 *
 * Loaded once, immutable afterwards and shared by all threads; each thread that encodes owns one
 * ps_tok_ctx (match data, scratch, caches). Text must be valid UTF-8 (the caller repaired it).
 * Nothing here logs. Stages, in order: added tokens not normalised, normaliser, added tokens
 * normalised, pre-tokeniser, BPE, post-processor.
 *
 * Invariant: encode(x) with a warm cache equals encode(x) with a cold one.
 */

#include "common/base.h"
#include "common/buf.h"

enum {
    PS_TOK_OK,
    PS_TOK_E_BAD,   /* the file is not a tokenizer we can run: one clear sentence in err */
    PS_TOK_E_LIMIT, /* encode: more than max_tokens ids, or the regex engine gave up */
};

struct ps_tok;
struct ps_tok_ctx;

struct ps_tok_ids {
    uint32_t *ids;
    uint32_t n, cap;
};

/* dir holds tokenizer.json and, optionally, tokenizer_config.json. */
PS_MUST int ps_tok_load(struct ps_tok **out, const char *dir, struct ps_buf *err);
/* From memory, for tests and fuzzing; config may be NULL. */
PS_MUST int ps_tok_parse(struct ps_tok **out, const char *json, size_t len, const char *config,
                         size_t config_len, struct ps_buf *err);
void ps_tok_destroy(struct ps_tok *t); /* NULL is fine */

struct ps_tok_ctx *ps_tok_ctx_create(const struct ps_tok *t);
void ps_tok_ctx_destroy(struct ps_tok_ctx *c);

enum {
    PS_TOK_SPECIAL = 1,    /* run the post-processor (BOS and the like) */
    PS_TOK_NO_CONTROL = 2, /* added tokens in the text are plain text */
    PS_TOK_NO_CACHE = 4,   /* for tests */
};
/* Appends to ids. max_tokens 0: no limit. */
PS_MUST int ps_tok_encode(struct ps_tok_ctx *c, const char *text, size_t len, uint32_t flags,
                          uint32_t max_tokens, struct ps_tok_ids *ids);
void ps_tok_ids_fini(struct ps_tok_ids *ids);

/* Vocabulary. n_vocab = highest id + 1, added tokens included. */
uint32_t ps_tok_n_vocab(const struct ps_tok *t);
/* Raw bytes of one token ("" for an unknown id); not NUL-terminated; owned by t. */
const char *ps_tok_bytes(const struct ps_tok *t, uint32_t id, uint32_t *out_len);
bool ps_tok_is_special(const struct ps_tok *t, uint32_t id); /* skipped by skip_special_tokens */
bool ps_tok_find(const struct ps_tok *t, const char *content, size_t len, uint32_t *out_id);
/* From tokenizer_config.json; "" and false when absent. */
const char *ps_tok_bos(const struct ps_tok *t);
const char *ps_tok_eos(const struct ps_tok *t);
const char *ps_tok_pad(const struct ps_tok *t);
const char *ps_tok_unk(const struct ps_tok *t);
bool ps_tok_eos_id(const struct ps_tok *t, uint32_t *out_id);
/* SHA-256 of the parts that decide ids and bytes (tokenizer.json as read). */
void ps_tok_digest(const struct ps_tok *t, uint8_t out[32]);

/* Whole decode (lossy UTF-8), appended to out. */
void ps_tok_decode(const struct ps_tok *t, const uint32_t *ids, uint32_t n, bool skip_special,
                   struct ps_buf *out);

/*
 * Streaming decode: one per sequence. The concatenation of all pieces and the final flush equals
 * ps_tok_decode of all ids, byte for byte, and no piece splits a character.
 */
struct ps_detok {
    const struct ps_tok *tok;
    char pend[4]; /* bytes of an unfinished character */
    uint8_t n_pend;
    bool skip_special;
};

void ps_detok_init(struct ps_detok *d, const struct ps_tok *t, bool skip_special);
void ps_detok_push(struct ps_detok *d, uint32_t id, struct ps_buf *out);
void ps_detok_flush(struct ps_detok *d, struct ps_buf *out);
