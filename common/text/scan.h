#pragma once

/*
 * Pre-tokeniser scanners: the published split patterns, written by hand.
 *
 * A scanner returns the end of the piece that starts at p, for a text [0, n) that begins where the
 * pattern's subject begins; it is exactly what splitting with the pattern (isolated) gives, gaps
 * included, which a test proves against PCRE2. Always p < end <= n. Pure functions, any thread,
 * linear time. Patterns that are not known here run in PCRE2.
 */

#include "common/base.h"

typedef size_t (*ps_scan_fn)(const uint8_t *s, size_t p, size_t n);

struct ps_scan_def {
    const char *name;
    const char *patterns[3]; /* splits applied one after another; NULL: fewer */
    ps_scan_fn fn;
};

enum { PS_SCAN_GPT2, PS_SCAN_QWEN2, PS_SCAN_QWEN35, PS_SCAN_LLAMA3, PS_SCAN_DEEPSEEK, PS_SCAN_N };

extern const struct ps_scan_def ps_scan_defs[PS_SCAN_N];
