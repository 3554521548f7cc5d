#pragma once

/*
 * Where the state of a sequence is kept, for models that have one beside rows.
 *
 * A state is of one position; reuse begins only where one was kept. That is done at the end of a page
 *   - that a cut of the request rounds down to: others are expected to branch there;
 *   - that is the last one of the prompt with a token behind it: the same prompt can begin there (its
 *     last token is computed for its logits, and must not enter the state twice), and so can the next
 *     turn;
 *   - every WK_SNAP_EVERY_PAGES pages, in the prompt and in the answer;
 *   - where the cache knew rows further than it knew a state: another path branches off there.
 * A step of the sequence that reaches such a position ends there. Pure arithmetic; any thread.
 */

#include "worker/sched/seq.h"

enum { WK_SNAP_EVERY_PAGES = 16 }; /* a state is worth some pages of rows, or many */

/* The first position behind pos at which the state of q is kept. */
uint64_t wk_snap_next(const struct wk_seq *q, uint32_t page_tokens, uint32_t pos);
