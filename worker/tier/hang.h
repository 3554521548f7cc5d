#pragma once

/*
 * A tier that hangs for a while, for tests of whole processes: stands before a real one, and from
 * `at_us` on, for `for_us` (0: for ever), lets nothing begin. What it holds back then comes late, as
 * from a disk whose controller resets, or not at all, as from a server that is gone.
 */

#include "worker/tier/tier.h"

/* Takes the tier (move_t). */
struct wk_tier *wk_tier_hang_create(struct wk_tier *move_t, uint64_t at_us, uint64_t for_us);
/* "AT:FOR" in seconds; false: not of that form. */
bool wk_tier_hang_parse(const char *text, uint64_t *out_at_us, uint64_t *out_for_us);
