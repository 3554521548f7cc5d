#pragma once

/*
 * Segment cache: the ids of whole stretches of text between control tokens.
 *
 * A conversation is sent again with every turn; its earlier messages are found here instead of being
 * tokenised again. Owned by one thread. Entries lie one after another in a ring of fixed size and the
 * oldest are overwritten; an old entry that is found is written again in front, so what is in use
 * stays. A hit is verified by comparing the text: the 64-bit hash only says where to look.
 */

#include "common/base.h"
#include "common/text/tokenizer.h"

struct ps_segcache;

struct ps_segcache *ps_segcache_create(size_t ring_bytes);
void ps_segcache_destroy(struct ps_segcache *c); /* NULL is fine */

/* kind distinguishes ways to encode the same text. Appends the ids and returns true on a hit. */
bool ps_segcache_get(struct ps_segcache *c, const char *s, size_t len, uint32_t kind,
                     struct ps_tok_ids *ids);
void ps_segcache_put(struct ps_segcache *c, const char *s, size_t len, uint32_t kind,
                     const uint32_t *ids, uint32_t n);
