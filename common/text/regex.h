#pragma once

/*
 * Regular expressions of tokenizer.json (Oniguruma syntax) run by PCRE2.
 *
 * Where the two engines differ the pattern is rewritten (\s, \S, \w, \W are spelt out as Unicode
 * properties) or refused (nested classes, \h, inline options other than i, quantified intervals).
 * A compiled pattern is immutable and shared; a ps_regex_ctx belongs to one thread. Matching is
 * bounded: an engine that gives up is reported, never taken for "no match".
 */

#include "common/base.h"
#include "common/buf.h"

struct ps_regex;
struct ps_regex_ctx;

/* NULL: not supported or not a pattern, with a sentence in why. literal: the text itself. */
struct ps_regex *ps_regex_create(const char *pattern, size_t len, bool literal, struct ps_buf *why);
void ps_regex_destroy(struct ps_regex *r); /* NULL is fine */

struct ps_regex_ctx *ps_regex_ctx_create(void);
void ps_regex_ctx_destroy(struct ps_regex_ctx *c); /* NULL is fine */

enum {
    PS_REGEX_MATCH,
    PS_REGEX_E_NONE,
    PS_REGEX_E_LIMIT, /* match, depth or stack limit */
};
/* The leftmost match in valid UTF-8 s at or after byte p; it may be empty. */
int ps_regex_find(const struct ps_regex *r, struct ps_regex_ctx *c, const char *s, size_t n,
                  size_t p, size_t *out_from, size_t *out_to);
