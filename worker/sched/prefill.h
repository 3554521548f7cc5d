#pragma once

/*
 * Which prompts share the prefill tokens of a step.
 *
 * Classes of priority one after the other; within a class the shortest remainder first, because that
 * makes the mean wait for a first token least. A prompt that is passed over by a younger one gets a
 * quarter of the chunk off its remainder each time, for good: after 4 times the steps that it needs
 * alone nobody younger passes it any more. The head of the admitted rows gets a quarter of what it
 * could have whatever stands before it. A row that others wait for (`pull`, see follow.h) counts as
 * the shortest of them.
 *
 * Nobody begins while 4 prompts of its class or a higher one are begun and unfinished, but the head,
 * one that ends within the step, and one that may not be passed over any more. Four because prompts
 * that advance side by side all end late, and 4 shares of 16 tokens are the smallest step that is
 * worth its fixed cost on cpu.
 *
 * Nothing of the room is left while a prompt could use it, so a prompt is computed within
 * ceil(uncomputed tokens of all rows / tokens of a step) steps in any order: the horizon of admit.h.
 * A row whose step has to end somewhere (`n_stop`, see snap.h) leaves the rest of its room to others;
 * alone, each such stop may make it one step more.
 * Scheduler thread; no call allocates.
 *
 * Invariants
 *   1 the head gets at least a token in each step that has room for any.
 *   2 a younger prompt of the same class passes a prompt of n tokens in at most ceil(4 n / chunk) steps.
 */

#include "worker/sched/admit.h"
#include "worker/sched/budget.h"

enum { WK_PREFILL_PARTIAL_MAX = 4 };

/* Fills grants[a->n_rows], tokens of each admitted row; takes them from the room. Returns the sum. */
uint32_t wk_prefill_share(const struct wk_admit *a, uint32_t chunk, struct wk_budget_room *room,
                          uint32_t *grants);
