#pragma once

/*
 * Normaliser: what tokenizer.json does to a text before it is split (NFC, Replace, Prepend).
 *
 * Immutable after create; scratch belongs to the caller's thread. Text that a step does not change is
 * not copied. NFC touches only the neighbourhood of characters that may change, and equals that of
 * Hugging Face's normaliser, which knows Unicode 10 (see uprop_gen.c).
 */

#include "common/base.h"
#include "common/buf.h"
#include "common/json/json.h"

struct ps_norm;

struct ps_norm_scratch {
    struct ps_buf a, b;
};

/* v: the value of "normalizer", NULL or null for none. NULL: not supported, with a sentence in err. */
struct ps_norm *ps_norm_create(const struct ps_json *v, struct ps_buf *err);
void ps_norm_destroy(struct ps_norm *n); /* NULL is fine */

/*
 * s is valid UTF-8. The result is s itself or lies in scratch until the next call. false: the text
 * would grow beyond 16 times its length and 4 KiB.
 */
PS_MUST bool ps_norm_run(const struct ps_norm *n, struct ps_norm_scratch *scratch, const char *s,
                         size_t len, const char **out_s, size_t *out_len);
void ps_norm_scratch_fini(struct ps_norm_scratch *scratch);
