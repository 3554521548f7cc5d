#pragma once

/*
 * Every turn's answer as token ids, and the comparison of two runs bit for bit.
 *
 * A file has one line a turn, in order of session and turn: session, turn, the hash of the prompt's
 * ids, then the answer's ids. Two runs of the same options give the same file if, and only if, every
 * answer is equal.
 */

#include "common/base.h"
#include "common/buf.h"

struct bn_answer {
    uint32_t session, turn, n;
    uint64_t prompt_hash;
    uint32_t *ids;
};

struct bn_answers {
    struct bn_answer *v;
    size_t n, cap;
};

void bn_answers_fini(struct bn_answers *a);
void bn_answers_add(struct bn_answers *a, uint32_t session, uint32_t turn, const uint32_t *prompt,
                    size_t n_prompt, const uint32_t *ids, uint32_t n);
void bn_answers_write(struct bn_answers *a, struct ps_buf *out); /* sorts */

struct bn_difference {
    uint64_t n_turns, n_differ; /* differ: equal prompts, other answers, or a turn only one has */
    uint64_t n_followed;        /* other prompts: they follow from an earlier difference */
    char first[160];            /* where the first one is */
};

/* Both texts as written above; out tells. Lines that are no answers count as differences. */
void bn_answers_compare(const char *a, size_t n_a, const char *b, size_t n_b,
                        struct bn_difference *out);
