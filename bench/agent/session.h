#pragma once

/*
 * Agent sessions: histories of token ids that grow by answers and tool outputs, and their file.
 *
 * Owned by one thread. A history holds the very ids that were sent and received, so the next prompt
 * begins with the last one and its answer, byte for byte. `n_known` is the part of the next prompt
 * that was sent or received before; the rest is new to every cache.
 */

#include "bench/load/prompt.h"
#include "common/base.h"
#include "common/buf.h"

enum {
    BN_SESSIONS_OK,
    BN_SESSIONS_E_FILE,  /* cannot be read: err says why */
    BN_SESSIONS_E_OTHER, /* not a file of sessions of this shape: err says what differs */
};

enum { BN_HISTORY_MAX = 1 << 26 }; /* a file's histories have half of it: they may grow */

struct bn_session {
    uint32_t number, group, turn; /* turn: of the next prompt */
    uint32_t *ids;
    uint32_t n, cap, n_known;
};

struct bn_sessions_conf {
    struct bn_vocab vocab;
    uint32_t n, n_groups, n_system, n_first, n_tool;
};

struct bn_sessions {
    struct bn_sessions_conf conf;
    struct bn_session *v;
    bool *group_known; /* the group's system prompt was sent and answered */
};

void bn_sessions_init(struct bn_sessions *s, const struct bn_sessions_conf *conf);
void bn_sessions_fini(struct bn_sessions *s);
/* Tokens of the session's next prompt that were sent or received before. */
uint32_t bn_session_avoidable(const struct bn_sessions *s, const struct bn_session *x);
/* The turn was answered: the answer, then the next tool output. */
void bn_session_answered(struct bn_sessions *s, struct bn_session *x, const uint32_t *ids,
                         uint32_t n);
void bn_sessions_write(const struct bn_sessions *s, struct ps_buf *out);
/* Replaces the histories; s was made by init with the same configuration, else E_OTHER. */
PS_MUST int bn_sessions_read(struct bn_sessions *s, const char *data, size_t len,
                             struct ps_buf *err);
