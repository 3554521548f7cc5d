#pragma once

/*
 * Vocabulary: token strings, ids, and the raw bytes each token stands for.
 *
 * A byte-level tokenizer.json writes every byte as one printable character (the byte alphabet);
 * here a token that consists of such characters only is turned into its bytes once, and everything
 * else (a control token with a space in its name) keeps its UTF-8. Built at load, immutable after.
 *
 * Invariants: an id of the model has exactly one string; only tokens of the model, and of them only
 * those inside the alphabet, can be found by bytes; ids are below PS_VOCAB_ID_MAX.
 */

#include "common/base.h"

enum { PS_VOCAB_ID_MAX = 1 << 22 }; /* 25 times the largest vocabulary known; bounds the tables */

#define PS_VOCAB_NONE UINT32_MAX

struct ps_vocab_ent {
    uint32_t text_off, text_len; /* as written in the file */
    uint32_t raw_off, raw_len;   /* the bytes it stands for */
    uint32_t id;
    bool plain;   /* every character is in the byte alphabet */
    bool model;   /* of model.vocab, not an added token */
    bool listed;  /* can be found by its text */
    bool special; /* dropped by skip_special_tokens */
};

struct ps_vocab {
    char *pool; /* strings and bytes of all entries */
    size_t pool_len, pool_cap;
    struct ps_vocab_ent *ents;
    uint32_t n_ents, cap_ents;
    uint32_t *by_text; /* hash tables of entry index + 1; 0: free */
    uint32_t *by_raw;
    uint32_t text_cap, raw_cap;
    uint32_t *by_id; /* entry index + 1 */
    uint32_t n_id;   /* highest id + 1 */
    uint32_t cap_ids;
    uint32_t n_model;
};

void ps_vocab_init(struct ps_vocab *v);
void ps_vocab_fini(struct ps_vocab *v);
/* A token of the model. false: the id is too large or belongs to another string already. */
PS_MUST bool ps_vocab_add_model(struct ps_vocab *v, const char *text, size_t len, uint32_t id);
/* The string of an added token; takes over the id's string when there is one. */
PS_MUST bool ps_vocab_add_added(struct ps_vocab *v, const char *text, size_t len, uint32_t id);
/* From now on the id decodes as this text, which cannot be found by it. */
void ps_vocab_set_decoded(struct ps_vocab *v, uint32_t id, const char *text, size_t len);
/* Marks the entry with this string. */
void ps_vocab_set_special(struct ps_vocab *v, const char *text, size_t len);
bool ps_vocab_is_special(const struct ps_vocab *v, const char *text, size_t len);

uint32_t ps_vocab_find_text(const struct ps_vocab *v, const char *text, size_t len);
uint32_t ps_vocab_find_raw(const struct ps_vocab *v, const char *raw, size_t len);
const struct ps_vocab_ent *ps_vocab_at(const struct ps_vocab *v, uint32_t id); /* may be NULL */

static inline const char *ps_vocab_raw(const struct ps_vocab *v, const struct ps_vocab_ent *e)
{
    return v->pool + e->raw_off;
}
static inline const char *ps_vocab_text(const struct ps_vocab *v, const struct ps_vocab_ent *e)
{
    return v->pool + e->text_off;
}
