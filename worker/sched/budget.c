#include "worker/sched/budget.h"

#include <string.h>

enum {
    WARM_STEPS = 8,   /* until then a measurement is believed whatever it says */
    SWEEPS = 8,       /* of the descent: it goes on from the last solution */
    HALF_WINDOW = 32, /* steps: about two seconds on cpu, as long as a mix of requests lasts */
};

/* About 50 steps of memory: enough for five prices, short enough for contexts that grow. */
#define FORGET 0.98
/* Of the mean weight of a step; keeps what lately was not seen, and decides nothing else. */
#define PULL 1e-3
/* A measurement within this factor of its prediction counts as it is. */
#define CLIP           2.0
#define SLOW_GAIN      0.25
#define SLOW_MAX       16.0
#define DEVIATION_GAIN (1.0 / 16)
/* A normal error stays below three mean deviations in 99 of 100 steps. */
#define DEVIATIONS 3.0
/* With larger errors half of the objective is kept as a distance, and no more. */
#define DEVIATION_MAX (1.0 / 3)
#define LONGEST_DECAY 0.99

/* Units of the terms: one of each costs about the same on any machine, which the pull assumes. */
#define KV_UNIT     4096.0
#define TOKEN_UNIT  32.0
#define PAIR_UNIT   (KV_UNIT * TOKEN_UNIT)
#define TOKEN_PRICE 3
#define PAIR_PRICE  4

void wk_budget_init(struct wk_budget *b, uint32_t chunk, uint64_t target_us)
{
    PS_ASSERT(chunk > 0);
    *b = (struct wk_budget){.chunk = chunk,
                            .target_us = target_us,
                            .ratio = {1, 1, 1},
                            .slow = 1,
                            .low_now = chunk,
                            .low_before = chunk};
}

static void terms_of(const struct wk_step_load *l, double x[WK_BUDGET_N_TERMS])
{
    x[0] = 1;
    x[1] = l->n_decode;
    x[2] = (double)l->n_kv_read / KV_UNIT;
    x[TOKEN_PRICE] = l->n_prefill / TOKEN_UNIT;
    x[PAIR_PRICE] = (double)l->n_pairs / PAIR_UNIT;
}

static double fitted(const struct wk_budget *b, const double x[WK_BUDGET_N_TERMS])
{
    double sum = 0;

    for (uint32_t i = 0; i < WK_BUDGET_N_TERMS; i++)
        sum += b->price[i] * x[i];
    return sum;
}

static double max_f(double a, double b)
{
    return a > b ? a : b;
}

static double min_f(double a, double b)
{
    return a < b ? a : b;
}

double wk_budget_predict_us(const struct wk_budget *b, const struct wk_step_load *l)
{
    double x[WK_BUDGET_N_TERMS];

    terms_of(l, x);
    return b->slow * fitted(b, x);
}

void wk_budget_open(const struct wk_budget *b, uint32_t n_decode, uint64_t n_kv_read,
                    struct wk_budget_room *out)
{
    struct wk_step_load l = {.n_decode = n_decode, .n_kv_read = n_kv_read};

    *out = (struct wk_budget_room){.tokens = b->chunk,
                                   .n_sure = ps_min_u32(b->chunk, WK_BUDGET_TOKENS_MIN)};
    if (b->target_us == 0 || n_decode == 0)
        return;
    out->us = (double)b->target_us / (1 + DEVIATIONS * b->deviation) - wk_budget_predict_us(b, &l);
    out->us_token = b->slow * b->price[TOKEN_PRICE] / TOKEN_UNIT;
    out->us_pair = b->slow * b->price[PAIR_PRICE] / PAIR_UNIT;
}

/* A token is paired with every position before it, so the later ones are dearer. */
static double price_of(const struct wk_budget_room *r, uint32_t pos, uint32_t n)
{
    return n * (r->us_token + r->us_pair * (pos + n / 2.0));
}

uint32_t wk_budget_fit(const struct wk_budget_room *r, uint32_t pos, uint32_t n)
{
    uint32_t fits = 0;

    n = ps_min_u32(n, r->tokens);
    if (price_of(r, pos, n) <= max_f(r->us, 0))
        return n;
    for (uint32_t over = n; over - fits > 1;) { /* fits does, over does not */
        uint32_t mid = fits + (over - fits) / 2;

        if (price_of(r, pos, mid) <= max_f(r->us, 0))
            fits = mid;
        else
            over = mid;
    }
    return ps_max_u32(fits, ps_min_u32(n, r->n_sure));
}

void wk_budget_spend(struct wk_budget_room *r, uint32_t pos, uint32_t n)
{
    PS_ASSERT(n <= r->tokens);
    r->tokens -= n;
    r->n_sure -= ps_min_u32(n, r->n_sure);
    r->us -= price_of(r, pos, n);
}

void wk_budget_close(struct wk_budget *b, uint32_t n_decode, uint32_t n_prefill,
                     const struct wk_budget_room *left)
{
    PS_ASSERT(n_prefill + left->tokens == b->chunk);
    if (n_decode == 0) /* nobody grows in such a step, so admission need not count it */
        return;
    if (b->n_low == HALF_WINDOW) {
        b->low_before = b->low_now;
        b->low_now = b->chunk;
        b->n_low = 0;
    }
    b->n_low++;
    b->low_now = ps_min_u32(b->low_now, n_prefill + wk_budget_fit(left, 0, left->tokens));
    PS_ASSERT(b->low_now > 0);
}

uint32_t wk_budget_steady(const struct wk_budget *b)
{
    return ps_min_u32(b->low_now, b->low_before);
}

static double median(const double v[3])
{
    return max_f(min_f(v[0], v[1]), min_f(max_f(v[0], v[1]), v[2]));
}

/* One price after the other is set to the best value beside the others, never below 0. */
static void descend(struct wk_budget *b)
{
    double last[WK_BUDGET_N_TERMS], pull = PULL * b->gram[0][0];

    memcpy(last, b->price, sizeof(last));
    for (uint32_t s = 0; s < SWEEPS; s++) {
        for (uint32_t i = 0; i < WK_BUDGET_N_TERMS; i++) {
            double rest = b->moment[i] + pull * last[i];

            for (uint32_t k = 0; k < WK_BUDGET_N_TERMS; k++)
                rest -= k == i ? 0 : b->gram[i][k] * b->price[k];
            b->price[i] = max_f(0, rest / (b->gram[i][i] + pull));
        }
    }
}

void wk_budget_learn(struct wk_budget *b, const struct wk_step_load *l, uint32_t step_us)
{
    double us = step_us > 0 ? step_us : 1, x[WK_BUDGET_N_TERMS], fit, guess, seen = us;

    terms_of(l, x);
    fit = max_f(fitted(b, x), 1);
    guess = b->slow * fit;
    b->longest_us = max_f(us, b->longest_us * LONGEST_DECAY);
    if (b->n_seen++ >= WARM_STEPS) {
        double off = us > guess ? us / guess - 1 : 1 - us / guess;

        b->deviation += DEVIATION_GAIN * (min_f(off, DEVIATION_MAX) - b->deviation);
        b->ratio[b->n_seen % PS_ARRAY_LEN(b->ratio)] = us / fit;
        b->slow += SLOW_GAIN * (min_f(median(b->ratio), SLOW_MAX) - b->slow);
        b->slow = max_f(b->slow, 1);
        seen = min_f(max_f(us, guess / CLIP), guess * CLIP);
    }
    for (uint32_t i = 0; i < WK_BUDGET_N_TERMS; i++) {
        for (uint32_t k = 0; k < WK_BUDGET_N_TERMS; k++)
            b->gram[i][k] = FORGET * b->gram[i][k] + x[i] * x[k] / (seen * seen);
        b->moment[i] = FORGET * b->moment[i] + x[i] / seen;
    }
    descend(b);
}

uint64_t wk_budget_longest_us(const struct wk_budget *b)
{
    struct wk_step_load l = {.n_prefill = b->chunk};

    return (uint64_t)max_f(b->longest_us, wk_budget_predict_us(b, &l));
}
