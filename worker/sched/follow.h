#pragma once

/*
 * Waiting for a prefix that somebody computes right now, instead of computing it twice.
 *
 * A request whose first missing page an admitted row is about to publish (same chain of hashes, the
 * page full and inside what is known of that row) stays in the queue until that row, its leader, has
 * committed the page, then looks again. Choices of one request (n > 1) and bursts with a new shared
 * prompt so compute it once and fork at the last full page. The leader is given the follower's place
 * among prompts (`pull`, prefill.h): following never makes a short prompt wait for the rest of a
 * long one.
 *
 * Who may follow whom: only a request that never ran, and only a leader of its own or a higher
 * priority. Others of its priority pass a follower meanwhile: it does not compete for memory, and
 * admit.h 6 protects the suspended, who never follow. Nobody starves: a leader that ends or is
 * suspended is no leader any more; one that goes on commits the page in bounded time (prefill.h 2),
 * and is no leader for that page then, published or not (a flush); and after each wait the follower
 * has a page less to compute, or is looked at again before everybody of its class that came later.
 * Scheduler thread; no call allocates.
 */

#include "worker/sched/seq.h"

/* At the begin of an admission pass: nobody is waited for. */
void wk_follow_reset(const struct wk_admit *a);
/* True: q still waits for the leader it had. leader: who answers to q->follow.handle now, or NULL. */
bool wk_follow_goes_on(struct wk_seq *q, struct wk_seq *leader, uint32_t page_tokens);
/* The cache has n_hit pages of q, so that it need not compute n_kv tokens. True: q waits. has_state:
 * it waits for the next page at whose end the leader keeps its state; other pages are no use alone. */
bool wk_follow_begin(const struct wk_admit *a, struct wk_seq *q, uint32_t n_hit, uint32_t n_kv,
                     uint32_t page_tokens, bool has_state);
/* q is admitted with n_kv tokens of the cache: how many of them are the fruit of waiting. */
uint32_t wk_follow_end(struct wk_seq *q, uint32_t n_kv);
