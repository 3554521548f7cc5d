#pragma once

/*
 * One event of a completion stream, read without a tree: which ids came, how the choice ended, what
 * the usage says, or which error the server tells.
 *
 * Pure functions over bytes, no recursion, any thread. Fields that are not asked for are skipped.
 * Only choice 0 is looked at: the requests of this client have one.
 */

#include "common/base.h"

enum {
    BN_EVENT_OK,
    BN_EVENT_E_BAD, /* not JSON of the expected shape; nothing in out counts */
};

struct bn_event {
    bool has_choice, has_text, has_usage, has_error;
    uint32_t n_ids; /* all of them, also beyond ids_max */
    uint64_t n_prompt, n_completion, n_cached;
    char finish[16]; /* "" while the choice runs */
    char error[160]; /* the server's message */
};

/* Up to ids_max of the token ids go to ids (may be NULL with 0). */
PS_MUST int bn_event_read(const char *s, size_t n, struct bn_event *out, uint32_t *ids,
                          size_t ids_max);
