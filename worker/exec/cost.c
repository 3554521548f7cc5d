#include "worker/exec/cost.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    SAMPLES_MAX = 1 << 20, /* 48 MiB; more steps than that say nothing new */
    SAMPLES_MIN = 16,      /* fewer cannot tell five coefficients apart */
    LINE_BYTES = 1024,     /* a step's event is shorter; longer lines are other events */
    US_MAX = 1000000000,   /* a coefficient: 1,000 s is a slip of the pen */
};

/* A column that is this close to the others' span is dropped from a candidate. */
#define PIVOT_MIN 1e-9

static const char *const term_names[WK_COST_N] = {"base", "row", "prefill", "kv", "pair"};

static const struct {
    const char *name;
    struct wk_cost cost;
} profiles[] = {
    /* An H200-like device and an 8B model: 7 ms for the weights, 147,456 B of KV a token at 4 TB/s,
     * 40,000 prompt tokens a second. */
    {"h200", {{7000, 20, 25, 0.036864, 0}}},
    /* Two threads of a small server and a 0.6B model: 34 ms a step with one row, 86 ms with eight,
     * 186 prompt tokens a second (bench/results, model_bench). */
    {"cpu", {{27000, 6500, 5300, 3.4, 0}}},
};

static void terms_of(const struct wk_step_work *w, double out[WK_COST_N])
{
    out[WK_COST_BASE] = 1;
    out[WK_COST_ROW] = w->n_row;
    out[WK_COST_PREFILL] = w->n_prefill;
    out[WK_COST_KV] = (double)w->n_kv;
    out[WK_COST_PAIR] = (double)w->n_pair;
}

double wk_cost_us(const struct wk_cost *c, const struct wk_step_work *w)
{
    double x[WK_COST_N], us = 0;

    terms_of(w, x);
    for (uint32_t i = 0; i < WK_COST_N; i++)
        us += c->us[i] * x[i];
    return us;
}

/* One "name=number" of len bytes into out. */
static bool parse_term(struct wk_cost *out, const char *at, size_t len)
{
    const char *eq = memchr(at, '=', len);
    char number[32], *end;
    size_t n_name = eq != NULL ? (size_t)(eq - at) : 0, n = eq != NULL ? len - n_name - 1 : 0;

    if (eq == NULL || n == 0 || n >= sizeof(number) || eq[1] < '0' || eq[1] > '9')
        return false;
    memcpy(number, eq + 1, n);
    number[n] = '\0';
    for (uint32_t i = 0; i < WK_COST_N; i++) {
        if (strlen(term_names[i]) == n_name && memcmp(term_names[i], at, n_name) == 0) {
            double us = strtod(number, &end);

            if (*end != '\0' || !(us >= 0 && us <= US_MAX))
                return false;
            out->us[i] = us;
            return true;
        }
    }
    return false;
}

static bool parse_profile(struct wk_cost *out, const char *at, size_t len)
{
    for (uint32_t i = 0; i < PS_ARRAY_LEN(profiles); i++) {
        if (strlen(profiles[i].name) == len && memcmp(profiles[i].name, at, len) == 0) {
            *out = profiles[i].cost;
            return true;
        }
    }
    return false;
}

int wk_cost_parse(struct wk_cost *out, const char *text, struct ps_buf *err)
{
    struct wk_cost c = profiles[0].cost;

    for (const char *at = text; *at != '\0';) {
        size_t len = strcspn(at, ",");

        if (!(at == text && parse_profile(&c, at, len)) && !parse_term(&c, at, len)) {
            ps_buf_addf(err,
                        "'%.*s' is not h200, cpu (first) or base|row|prefill|kv|pair=MICROSECONDS",
                        (int)ps_min_size(len, 64), at);
            return WK_COST_E_BAD;
        }
        at += len;
        if (*at == ',')
            at++;
    }
    *out = c;
    return WK_COST_OK;
}

/* ---- the fit ---- */

struct normal { /* least squares as a^T a x = a^T y, columns scaled to length 1 */
    double a[WK_COST_N][WK_COST_N], b[WK_COST_N], scale[WK_COST_N];
};

static void normal_of(struct normal *m, const struct wk_cost_sample *s, uint32_t n)
{
    double x[WK_COST_N];

    memset(m, 0, sizeof(*m));
    for (uint32_t k = 0; k < n; k++) {
        terms_of(&s[k].work, x);
        for (uint32_t i = 0; i < WK_COST_N; i++) {
            m->b[i] += x[i] * s[k].us;
            for (uint32_t j = 0; j < WK_COST_N; j++)
                m->a[i][j] += x[i] * x[j];
        }
    }
    for (uint32_t i = 0; i < WK_COST_N; i++)
        m->scale[i] = m->a[i][i] > 0 ? 1 / sqrt(m->a[i][i]) : 0;
    for (uint32_t i = 0; i < WK_COST_N; i++) {
        m->b[i] *= m->scale[i];
        for (uint32_t j = 0; j < WK_COST_N; j++)
            m->a[i][j] *= m->scale[i] * m->scale[j];
    }
}

/* Solves for the terms in `set` by Cholesky; the others are 0. False: dependent columns. */
static bool solve(const struct normal *m, uint32_t set, double x[WK_COST_N])
{
    double l[WK_COST_N][WK_COST_N], z[WK_COST_N];
    uint32_t at[WK_COST_N], n = 0;

    for (uint32_t i = 0; i < WK_COST_N; i++) {
        x[i] = 0;
        if (set & 1u << i)
            at[n++] = i;
    }
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t j = 0; j <= i; j++) {
            double v = m->a[at[i]][at[j]];

            for (uint32_t k = 0; k < j; k++)
                v -= l[i][k] * l[j][k];
            if (i == j && v < PIVOT_MIN)
                return false;
            l[i][j] = i == j ? sqrt(v) : v / l[j][j];
        }
        z[i] = m->b[at[i]];
        for (uint32_t k = 0; k < i; k++)
            z[i] -= l[i][k] * z[k];
        z[i] /= l[i][i];
    }
    for (uint32_t i = n; i-- > 0;) {
        for (uint32_t k = i + 1; k < n; k++)
            z[i] -= l[k][i] * z[k];
        z[i] /= l[i][i];
        x[at[i]] = z[i];
    }
    return true;
}

/* What x explains of |y|^2: the larger, the smaller the squares that are left. */
static double explained(const struct normal *m, const double x[WK_COST_N])
{
    double v = 0;

    for (uint32_t i = 0; i < WK_COST_N; i++) {
        v += 2 * x[i] * m->b[i];
        for (uint32_t j = 0; j < WK_COST_N; j++)
            v -= x[i] * m->a[i][j] * x[j];
    }
    return v;
}

/* The constrained minimum is the free minimum over the terms that are not 0 there, so the best of
 * the 31 free minima without a negative coefficient is it. */
double wk_cost_fit(struct wk_cost *out, const struct wk_cost_sample *s, uint32_t n)
{
    struct normal m;
    double best = -1, x[WK_COST_N], sum_error = 0, sum = 0;

    PS_ASSERT(n >= 1);
    normal_of(&m, s, n);
    *out = (struct wk_cost){{0}};
    for (uint32_t set = 1; set < 1u << WK_COST_N; set++) {
        bool ok = solve(&m, set, x);

        for (uint32_t i = 0; i < WK_COST_N && ok; i++)
            ok = x[i] >= 0;
        if (!ok || explained(&m, x) <= best)
            continue;
        best = explained(&m, x);
        for (uint32_t i = 0; i < WK_COST_N; i++)
            out->us[i] = x[i] * m.scale[i];
    }
    for (uint32_t k = 0; k < n; k++) {
        sum_error += fabs(wk_cost_us(out, &s[k].work) - s[k].us);
        sum += s[k].us;
    }
    return sum > 0 ? sum_error / sum : 0;
}

/* ---- reading a trace ---- */

static bool field(const char *line, const char *key, double *out)
{
    const char *at = strstr(line, key);
    char *end;

    if (at == NULL)
        return false;
    at += strlen(key);
    *out = strtod(at, &end);
    return end != at && *out >= 0 && *out <= 1e15;
}

static bool sample_of(const char *line, struct wk_cost_sample *out)
{
    double row, prefill, kv, pair, us;

    if (strstr(line, "\"cat\":\"step\"") == NULL || !field(line, "\"us\":", &us) ||
        !field(line, "\"rows\":", &row) || !field(line, "\"prefill\":", &prefill) ||
        !field(line, "\"kv\":", &kv) || !field(line, "\"pairs\":", &pair) || row > UINT32_MAX ||
        prefill > UINT32_MAX)
        return false;
    *out = (struct wk_cost_sample){.work = {.n_row = (uint32_t)row,
                                            .n_prefill = (uint32_t)prefill,
                                            .n_kv = (uint64_t)kv,
                                            .n_pair = (uint64_t)pair},
                                   .us = us};
    return true;
}

int wk_cost_calibrate(struct wk_cost *out, const char *path, uint32_t *out_n_steps,
                      double *out_error, struct ps_buf *err)
{
    FILE *f = fopen(path, "re");
    struct wk_cost_sample *s = NULL;
    uint32_t n = 0, cap = 0;
    char line[LINE_BYTES];

    if (f == NULL) {
        ps_buf_addf(err, "%s: %s", path, strerror(errno));
        return WK_COST_E_BAD;
    }
    while (n < SAMPLES_MAX && fgets(line, sizeof(line), f) != NULL) {
        if (n == cap) {
            cap = ps_max_u32(1024, cap * 2);
            s = ps_realloc(s, cap * sizeof(*s));
        }
        n += sample_of(line, &s[n]);
    }
    (void)fclose(f);
    if (n >= SAMPLES_MIN) {
        *out_error = wk_cost_fit(out, s, n);
        *out_n_steps = n;
    } else {
        ps_buf_addf(err, "%s holds %u steps, at least %d are needed", path, n, SAMPLES_MIN);
    }
    ps_free(s);
    return n >= SAMPLES_MIN ? WK_COST_OK : WK_COST_E_BAD;
}
