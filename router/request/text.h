#pragma once

/*
 * The pool for long texts: requests too large to be parsed, rendered and tokenized on a loop thread
 * are prepared here, so that no stream waits behind another request's prompt.
 *
 * A job is the caller's memory and belongs to the pool from submit until done, which runs on the
 * loop's thread (from rt_text_tick). Short jobs run at once on the calling loop, in the same way, so
 * that there is one path. Rings between a loop and its pool thread are bounded; a full one is a named
 * case. The pool knows nothing of requests.
 *
 * Invariant: done is called exactly once for every accepted job, with ran false only at destroy.
 */

#include "common/base.h"

struct ps_tok_ctx;
struct rt_loop;
struct rt_router;
struct rt_text;

enum {
    RT_TEXT_INLINE_BYTES = 32 * 1024, /* a few ms of work: the longest a loop may be held up */
};

enum {
    RT_TEXT_OK,
    RT_TEXT_E_FULL,
};

struct rt_text_job {
    void (*run)(struct rt_text_job *j, struct ps_tok_ctx *tok); /* any thread */
    void (*done)(struct rt_text_job *j, bool ran);              /* the loop's thread */
};

struct rt_text *rt_text_create(struct rt_router *r);
/* Loops have stopped. Jobs that were not run hear done(ran = false). NULL is fine. */
void rt_text_destroy(struct rt_text *t);
/* n_bytes decides where it runs. A short job has run and is done when this returns. */
PS_MUST int rt_text_submit(struct rt_loop *l, struct rt_text_job *j, size_t n_bytes);
void rt_text_tick(struct rt_loop *l); /* once a turn: hears what the pool has finished */
