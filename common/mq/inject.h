#pragma once

/*
 * Fault injection at the application's edge, for tests only: drops, doubles and delays messages.
 *
 * Parsed from text such as "seed=7,drop=0.01,dup=0.01,delay=0.01,delay_ms=60,late=0.001,late_ms=1500":
 * probabilities per message; a delayed message waits uniformly up to delay_ms, a late one up to
 * late_ms, and so overtakes none and is overtaken by others. One injector per direction; owned by one
 * thread. Without one (NULL) messages pass untouched.
 */

#include "common/base.h"

struct ps_inject;

/* tag and id come back as they were given. */
typedef void (*ps_inject_fn)(void *ud, uint64_t tag, const uint8_t *id, size_t id_len,
                             const uint8_t *data, size_t len);

enum {
    PS_INJECT_OK,
    PS_INJECT_E_BAD, /* the text is not a list of known key=value */
};

/* *out is NULL for "". salt makes the two directions of a process differ. */
PS_MUST int ps_inject_create(struct ps_inject **out, const char *text, uint64_t salt);
void ps_inject_destroy(struct ps_inject *i); /* NULL is fine */
/* Calls fn none, one or two times, now or from a later ps_inject_due. i is not NULL. */
void ps_inject_pass(struct ps_inject *i, uint64_t now_us, uint64_t tag, const uint8_t *id,
                    size_t id_len, const uint8_t *data, size_t len, ps_inject_fn fn, void *ud);
void ps_inject_due(struct ps_inject *i, uint64_t now_us, ps_inject_fn fn, void *ud);
void ps_inject_purge(struct ps_inject *i,
                     uint64_t tag); /* what waits for a socket that is closed */
