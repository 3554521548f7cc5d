#pragma once

/*
 * Compute threads: one job at a time, run by all of them and the caller.
 *
 * Owned by the executor's thread; kn_pool_run blocks until every thread has left the job. Waiting
 * spins KN_POOL_SPIN pauses, then sleeps on a futex; with more threads than CPUs it never spins
 * (spinning while oversubscribed stalls the thread that is waited for). Threads have the operators'
 * floating-point state and all signals blocked. A pool of one thread starts none.
 */

#include "common/base.h"

enum { KN_POOL_SPIN = 2048, KN_POOL_MAX = 1024 };

struct kn_pool;
typedef void (*kn_job_fn)(void *ud, uint32_t tid);

PS_MUST int kn_pool_create(struct kn_pool **out, uint32_t n_threads);
void kn_pool_destroy(struct kn_pool *p); /* NULL is fine */
uint32_t kn_pool_size(const struct kn_pool *p);
void kn_pool_run(struct kn_pool *p, kn_job_fn fn, void *ud);
void kn_pool_barrier(struct kn_pool *p); /* inside a job, by every thread */
