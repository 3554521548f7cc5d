#pragma once

/*
 * How many prompt tokens a step may compute so that its predicted time holds the inter-token
 * objective. Decode rows come first; what they leave of the objective belongs to prompts.
 *
 * The cost of a step is learnt while serving:
 *
 *   us = t0 + t1 rows + t2 kv tokens read by them + t3 prompt tokens + t4 (prompt token, key) pairs
 *
 * t >= 0 is the least-squares fit of relative errors over past steps, weighted by 0.98^age:
 * recursive least squares with exponential forgetting (Ljung, System Identification, 11.2), made
 * non-negative by coordinate descent on the normal equations (Franc, Hlavac, Navara 2005), with a
 * weak pull to the last solution, so that what was not seen lately keeps its price. Measurements
 * count at most twice what was predicted. A factor >= 1 follows the median of the last three ratios
 * of measured to fitted time: one slow step changes nothing, a machine that became slower is known
 * after two. Like TCP's timer (Jacobson 1988) the target keeps a distance of mean deviations.
 *
 * When no row waits for its next token a step may take the whole chunk; it may always take 16 tokens.
 * Scheduler thread; no call allocates or blocks.
 *
 * Invariants
 *   1 a step gets at most `chunk` tokens, and at least min(16, chunk) when prompts want as many.
 *   2 wk_budget_steady is not above what any of the last 32 steps with decode rows could have taken.
 */

#include "common/base.h"

enum { WK_BUDGET_TOKENS_MIN = 16, WK_BUDGET_N_TERMS = 5 };

struct wk_step_load { /* what a step computes */
    uint32_t n_decode, n_prefill;
    uint64_t n_kv_read; /* positions that decode rows read */
    uint64_t n_pairs;   /* of a prompt token and a position before it, or itself */
};

struct wk_budget {
    uint32_t chunk;
    uint64_t target_us; /* 0: every step may take the whole chunk */
    double price[WK_BUDGET_N_TERMS];
    double gram[WK_BUDGET_N_TERMS][WK_BUDGET_N_TERMS], moment[WK_BUDGET_N_TERMS];
    double ratio[3], slow, deviation, longest_us;
    uint64_t n_seen;
    uint32_t low_now, low_before, n_low; /* smallest room of this half window and of the last */
};

struct wk_budget_room {       /* of one step, while prompts take from it */
    uint32_t tokens, n_sure;  /* of the chunk; of the tokens that are always allowed */
    double us;                /* negative: gone */
    double us_token, us_pair; /* both 0: time is no limit */
};

void wk_budget_init(struct wk_budget *b, uint32_t chunk, uint64_t target_us);
/* The room beside n_decode rows that read n_kv_read positions. */
void wk_budget_open(const struct wk_budget *b, uint32_t n_decode, uint64_t n_kv_read,
                    struct wk_budget_room *out);
/* How many of n prompt tokens, the first at position pos, fit. */
uint32_t wk_budget_fit(const struct wk_budget_room *r, uint32_t pos, uint32_t n);
void wk_budget_spend(struct wk_budget_room *r, uint32_t pos, uint32_t n);
/* The plan of a step is made: with n_decode rows and n_prefill tokens, and this room left. */
void wk_budget_close(struct wk_budget *b, uint32_t n_decode, uint32_t n_prefill,
                     const struct wk_budget_room *left);
void wk_budget_learn(struct wk_budget *b, const struct wk_step_load *l, uint32_t step_us);

double wk_budget_predict_us(const struct wk_budget *b, const struct wk_step_load *l);
/* Prompt tokens of a step that admission may count on. */
uint32_t wk_budget_steady(const struct wk_budget *b);
/* Of steps seen lately, and of one whole chunk: what a beat may tell as the longest silence. */
uint64_t wk_budget_longest_us(const struct wk_budget *b);
