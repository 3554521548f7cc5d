#pragma once

/*
 * Added tokens: finds control tokens and the like in a text and cuts it at them.
 *
 * One ps_added holds the tokens that are matched against the raw text, another those matched against
 * the normalised text. Matching is leftmost-longest over a trie that is walked from every byte at
 * which some token starts; contents are at most PS_ADDED_LEN_MAX bytes, which bounds the walk. Built
 * at load, immutable after; a ps_split lives on the caller's stack.
 */

#include "common/base.h"

enum { PS_ADDED_LEN_MAX = 1024 };

struct ps_added_tok {
    uint32_t id;
    bool single_word, lstrip, rstrip;
};

struct ps_added {
    struct ps_added_tok *toks;
    uint32_t n, cap;
    struct ps_added_edge *edges; /* hash table */
    uint32_t n_edges, cap_edges;
    uint32_t *hit; /* node -> index of the token that ends there + 1 */
    uint32_t n_nodes, cap_nodes;
    bool first[256]; /* bytes some token starts with */
    uint32_t n_first;
    uint8_t only_first;
};

void ps_added_init(struct ps_added *a);
void ps_added_fini(struct ps_added *a);
/* Of two tokens with the same content the first counts. 0 < len <= PS_ADDED_LEN_MAX. */
void ps_added_add(struct ps_added *a, const char *content, size_t len, struct ps_added_tok tok);

struct ps_split {
    const struct ps_added *a;
    const char *s;
    size_t n, search, done; /* done: everything before it was handed out */
    bool has_tok, at_end;
    uint32_t tok_id;
    size_t tok_end;
};

void ps_split_init(struct ps_split *it, const struct ps_added *a, const char *s, size_t n);
/* false: end. Otherwise a token (*out_is_tok, *out_id) or a non-empty stretch of plain text. */
bool ps_split_next(struct ps_split *it, bool *out_is_tok, uint32_t *out_id, size_t *out_from,
                   size_t *out_to);
