#pragma once

/*
 * Step trace: a file of Chrome trace events (JSON, opened by Perfetto and chrome://tracing).
 *
 * One complete event per step on the executor's track with what the step held, the phases of every
 * request as async slices, a flow from its arrival to the step of its first token, and counters. One
 * event a line, so wk_cost_calibrate reads it too; the closing bracket is written at the end, and a
 * file without it is valid all the same. Times are microseconds of the worker's clock.
 *
 * The scheduler's thread writes fixed-size records to a ring; a thread of the trace makes text of
 * them. A full ring drops the record and counts it; the scheduler never waits. At the size limit, or
 * when the file cannot be written, the trace stops with one log line and the worker goes on.
 */

#include "common/buf.h"
#include "common/clock.h"
#include "proto/load.h"
#include "proto/submit.h"
#include "worker/exec/cost.h"

enum wk_phase {
    WK_PHASE_NONE, /* not here yet, or answered */
    WK_PHASE_QUEUED,
    WK_PHASE_FETCH, /* admitted, its pages come up from a tier */
    WK_PHASE_PREFILL,
    WK_PHASE_DECODE,
    WK_PHASE_SUSPENDED,
    WK_PHASE_N,
};

struct wk_trace;

struct wk_trace_step {
    uint64_t ticket;
    uint32_t step_us;           /* device time; the step has just ended */
    uint32_t n_fetching;        /* sequences that wait for pages */
    uint32_t tick_us, store_us; /* longest turn of the scheduler since the step before, and of the
                                 * store within one */
    struct wk_step_work work;
};

PS_MUST int wk_trace_create(struct wk_trace **out, const char *path, uint64_t max_bytes,
                            const struct ps_clock *clock, struct ps_buf *err);
void wk_trace_destroy(struct wk_trace *t); /* NULL is fine; writes everything that was kept */

/* One thread calls these; t is not NULL. id: the worker's own number of the request. */
void wk_trace_open(struct wk_trace *t, uint64_t id, const struct pb_submit *s); /* it arrived */
/* Ends the phase it is in, and begins `to`. */
void wk_trace_phase(struct wk_trace *t, uint64_t id, uint8_t *phase, enum wk_phase to);
/* Before the step's results are committed. */
void wk_trace_step(struct wk_trace *t, const struct wk_trace_step *s);
void wk_trace_first_token(struct wk_trace *t, uint64_t id);      /* it came with the last step */
void wk_trace_load(struct wk_trace *t, const struct pb_load *l); /* when it changed */
uint64_t wk_trace_n_dropped(const struct wk_trace *t);
