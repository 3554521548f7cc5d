#pragma once

/*
 * How long a step takes: a linear model over what the step is made of.
 *
 *   step_us = base + row * rows + prefill * prompt tokens + kv * positions read + pair * products
 *
 * Positions read: the length of every row after the step, once a row. Products: for each prompt token
 * the positions it attends to, which is what makes a long prompt slower towards its end. The
 * coefficients come from a named profile, from the user, or from the step trace of a real worker.
 * Pure functions but for the reader of the trace; any thread.
 */

#include "common/base.h"
#include "common/buf.h"

enum wk_cost_term {
    WK_COST_BASE,
    WK_COST_ROW,
    WK_COST_PREFILL,
    WK_COST_KV,
    WK_COST_PAIR,
    WK_COST_N,
};

struct wk_cost { /* microseconds for one of each */
    double us[WK_COST_N];
};

struct wk_step_work {                    /* what a step holds */
    uint32_t n_row, n_prompt, n_prefill; /* rows; those with more than one token; their tokens */
    uint64_t n_kv, n_pair;
};

/* A row that computes n_q positions from pos_lo on. */
static inline void wk_step_work_add(struct wk_step_work *w, uint32_t pos_lo, uint32_t n_q)
{
    w->n_row++;
    w->n_kv += pos_lo + n_q;
    if (n_q > 1) {
        w->n_prompt++;
        w->n_prefill += n_q;
        w->n_pair += (uint64_t)n_q * pos_lo + (uint64_t)n_q * (n_q + 1) / 2;
    }
}

enum {
    WK_COST_OK,
    WK_COST_E_BAD, /* one clear sentence in err */
};

double wk_cost_us(const struct wk_cost *c, const struct wk_step_work *w);
/* "h200", "cpu", "base=7000,row=20", "cpu,kv=1.5": what is not named is the profile's (h200). */
PS_MUST int wk_cost_parse(struct wk_cost *out, const char *text, struct ps_buf *err);

struct wk_cost_sample {
    struct wk_step_work work;
    double us;
};

/* The non-negative coefficients with the least sum of squares. Returns the mean error relative to
 * the mean step. n >= 1. */
double wk_cost_fit(struct wk_cost *out, const struct wk_cost_sample *s, uint32_t n);
/* Fits to the steps of a trace (worker/trace.h: one event a line). out_error as above. */
PS_MUST int wk_cost_calibrate(struct wk_cost *out, const char *path, uint32_t *out_n_steps,
                              double *out_error, struct ps_buf *err);
