#pragma once

/*
 * Post-processor: the ids put before and after a text (BOS and the like).
 *
 * TemplateProcessing for one sequence, ByteLevel (which changes no ids) and sequences of them come
 * down to a fixed prefix and suffix. Built at load, immutable after.
 */

#include "common/base.h"
#include "common/buf.h"
#include "common/json/json.h"

enum { PS_POST_IDS_MAX = 64 };

struct ps_post {
    uint32_t prefix[PS_POST_IDS_MAX], suffix[PS_POST_IDS_MAX];
    uint32_t n_prefix, n_suffix;
};

/* v: the value of "post_processor", NULL or null for none. false: a sentence in err. */
PS_MUST bool ps_post_parse(struct ps_post *p, const struct ps_json *v, struct ps_buf *err);
/* Puts one more id in front of the prefix or behind the suffix. */
PS_MUST bool ps_post_wrap(struct ps_post *p, uint32_t id, bool front);
