#pragma once

/*
 * UTF-8: validation and lossy repair, one definition for requests, tokenizer and detokenizer.
 *
 * Strict: no overlong forms, no surrogates, at most U+10FFFF. Repair replaces each maximal subpart
 * of an ill-formed sequence by one U+FFFD (WHATWG and Rust's lossy decoding do the same), so pieces
 * repaired one after another equal the repair of the whole. Pure functions, any thread.
 */

#include "common/base.h"
#include "common/buf.h"

bool ps_utf8_valid(const char *s, size_t len);
/* Decodes one code point at s (len > 0); returns its length in bytes, 0 when ill-formed. */
uint32_t ps_utf8_decode(const char *s, size_t len, uint32_t *out_cp);
uint32_t ps_utf8_encode(char out[4], uint32_t cp);
size_t ps_utf8_n_cp(const char *s, size_t len); /* code points of a valid string */
/*
 * Appends the longest prefix of s that is decided (complete characters and proven ill-formed bytes,
 * the latter as U+FFFD) and returns how many bytes it consumed; what is left (< 4 bytes) may still
 * become a character. With final set, everything is consumed.
 */
size_t ps_utf8_repair(struct ps_buf *out, const char *s, size_t len, bool final);
