/*
 * The scheduler beside an oracle that knows how long every answer will be.
 *
 *     sched_oracle [n_requests [seed]]
 *
 * Real scheduler, admission, prefix tree and plans; invented link and executor, and a manual clock
 * that moves by a cost model, so an hour of serving takes seconds and every run is repeatable. The
 * model is that of a GPU worker or of a small model on cpu (struct profile); each step takes up to
 * 5 % more or less than that, and one in 500 three times as long.
 *
 * The oracle shares prompts out as the scheduler does (prefill.h, budget.h), but admits by the true
 * future peak of all rows: nobody is ever suspended, and no page is kept for nothing. Capacity is its
 * token rate between 20 and 70 % of all tokens when everything is there at once, in requests; then
 * all get the same Poisson arrivals at 1.2 times that.
 */

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/rng.h"
#include "worker/sched/state.h"

enum {
    PT = 16,
    EOS = 0,
    VOCAB = 32000,
    PROMPT_MAX = 8192,
    ANSWER_MAX = 8192,
    CONTEXT = 40960,
    N_REQS_MAX = 100000,
    DEPTH = 2,
};

#define LOAD 1.2

struct profile {
    const char *name;
    double base_us, row_us, kv_us, token_us, pair_us;
    uint32_t itl_us, chunk, n_slots, pool_tokens;
};

/* The first is that of the simulations the admission rule was chosen by: 7 ms a step, 40,000 prompt
 * tokens and 4 TB of KV (147,456 bytes a token) a second. */
static const struct profile profiles[] = {
    {"gpu, 150k tokens", 7000, 20, 0.0369, 25, 0, 25000, 2048, 256, 150000},
    {"gpu, 60k tokens", 7000, 20, 0.0369, 25, 0, 25000, 2048, 256, 60000},
    {"gpu, 500k tokens", 7000, 20, 0.0369, 25, 0, 25000, 2048, 512, 500000},
    {"cpu, 60k tokens", 9000, 600, 0.1, 250, 0.004, 50000, 256, 64, 60000},
};

struct req {
    uint32_t n_prompt, want, max_tokens;
    uint64_t arrival_us;
    uint64_t first_us, last_us, end_us; /* 0: not yet */
    uint32_t n_got;
    bool refused;
};

struct sample { /* of one run */
    uint32_t *gaps_us;
    size_t n_gaps, cap_gaps;
    uint64_t n_all_tokens, early_us, late_us; /* when 20 and 70 % of all tokens were there */
    uint64_t end_us, n_tokens, n_computed, n_steps, n_rows, host_ns, n_host;
    uint32_t n_finished, n_suspended, n_over_pool;
    struct ps_rng noise;
};

static double step_us(const struct profile *p, struct sample *x, const struct wk_step_load *l)
{
    double us = p->base_us + p->row_us * l->n_decode + p->kv_us * (double)l->n_kv_read +
                p->token_us * l->n_prefill + p->pair_us * (double)l->n_pairs;

    us *= 0.95 + 0.1 * ps_rng_unit(&x->noise);
    return ps_rng_below(&x->noise, 500) == 0 ? 3 * us : us;
}

/* ---- requests ---- */

static double normal(struct ps_rng *r)
{
    double u = ps_rng_unit(r), v = ps_rng_unit(r);

    return sqrt(-2 * log(u > 1e-300 ? u : 1e-300)) * cos(2 * 3.14159265358979323846 * v);
}

static uint32_t lognormal(struct ps_rng *r, double median, double sigma, uint32_t max)
{
    double v = median * exp(sigma * normal(r));

    return v < 1 ? 1 : v > max ? max : (uint32_t)v;
}

/* Prompts from one token to 8k, mostly some hundreds; three answers in ten are long. The limit is
 * absent in half and 1.2 to 4 times the answer else. */
static void make_requests(struct req *reqs, uint32_t n, uint64_t seed)
{
    struct ps_rng r;

    ps_rng_seed(&r, seed);
    for (uint32_t i = 0; i < n; i++) {
        bool is_long = ps_rng_below(&r, 10) < 3;
        struct req *q = &reqs[i];

        *q = (struct req){.n_prompt = lognormal(&r, 400, 1.4, PROMPT_MAX),
                          .want = lognormal(&r, is_long ? 1200 : 160, 0.9, ANSWER_MAX),
                          .max_tokens = PB_NO_LIMIT};
        if (ps_rng_below(&r, 2) == 0)
            q->max_tokens = (uint32_t)(q->want * (1.2 + 2.8 * ps_rng_unit(&r))) + 1;
    }
}

static void make_arrivals(struct req *reqs, uint32_t n, double per_s, uint64_t seed)
{
    double at = 1e6;
    struct ps_rng r;

    ps_rng_seed(&r, seed + 1);
    for (uint32_t i = 0; i < n; i++) {
        if (per_s > 0)
            at += -log(1 - ps_rng_unit(&r)) / per_s * 1e6;
        reqs[i].arrival_us = (uint64_t)at;
        reqs[i].first_us = reqs[i].last_us = reqs[i].end_us = 0;
        reqs[i].n_got = 0;
    }
}

static void add_token(struct sample *x, struct req *q, uint64_t now_us)
{
    if (q->n_got++ == 0) {
        q->first_us = now_us;
    } else {
        if (x->n_gaps == x->cap_gaps) {
            x->cap_gaps = x->cap_gaps > 0 ? x->cap_gaps * 2 : 1 << 16;
            x->gaps_us = ps_realloc(x->gaps_us, x->cap_gaps * sizeof(*x->gaps_us));
        }
        x->gaps_us[x->n_gaps++] = (uint32_t)ps_min_u64(now_us - q->last_us, UINT32_MAX);
    }
    q->last_us = now_us;
    x->n_tokens++;
    if (x->n_tokens == x->n_all_tokens / 5)
        x->early_us = now_us;
    if (x->n_tokens == x->n_all_tokens * 7 / 10)
        x->late_us = now_us;
}

static void add_end(struct sample *x, struct req *q, uint64_t now_us)
{
    q->end_us = now_us;
    x->n_finished++;
    x->end_us = now_us;
}

/* ---- the scheduler's world ---- */

struct fake_link {
    struct ps_clock *clock;
    struct req *reqs;
    uint32_t n, next;
    struct sample *x;
};

static bool fake_pop(void *ud, struct wk_in *out)
{
    struct fake_link *l = ud;
    const struct req *q = &l->reqs[l->next];
    struct pb_submit *s;

    if (l->next == l->n || q->arrival_us > ps_now_us(l->clock))
        return false;
    s = pb_submit_create(q->n_prompt, 0, 0, 0);
    s->n_prompt = q->n_prompt;
    s->max_tokens = q->max_tokens;
    s->chain_seed = l->next + 1; /* nobody shares anything */
    s->samp =
        (struct pb_sampling){.rep_penalty = 1, .seed = l->next, .n_top = -1, .n_prompt_top = -1};
    memset(s->ids, 1, q->n_prompt * sizeof(*s->ids));
    *out = (struct wk_in){WK_IN_OPEN, l->next++, s};
    return true;
}

static bool fake_push(void *ud, const struct wk_out *o)
{
    struct fake_link *l = ud;
    struct req *q = &l->reqs[o->handle];
    uint64_t now = ps_now_us(l->clock);

    if (o->kind == WK_OUT_TOKEN)
        add_token(l->x, q, now);
    else if (o->kind == WK_OUT_FINISHED)
        add_end(l->x, q, now);
    else if (o->kind == WK_OUT_REJECTED)
        q->refused = true;
    return true;
}

static void fake_set_load(void *ud, const struct pb_load *load, uint64_t tick)
{
    struct fake_link *l = ud;

    (void)tick;
    l->x->n_suspended = (uint32_t)load->n_preempted;
}

struct cost_exec {
    struct wk_exec base;
    const struct profile *p;
    struct ps_clock *clock;
    const struct req *reqs;
    struct sample *x;
    struct wk_plan *plans[DEPTH];
    uint64_t due_us[DEPTH], took_us[DEPTH];
    uint32_t first, n;
    struct wk_row_out *outs;
};

static int cost_enqueue(struct wk_exec *e, const struct wk_plan *p)
{
    struct cost_exec *c = (struct cost_exec *)e;
    uint32_t at = (c->first + c->n) % DEPTH;
    uint64_t start = ps_now_us(c->clock);
    struct wk_step_load l = {0};

    for (uint32_t i = 0; i < p->n_row; i++) {
        const struct wk_row *r = &wk_plan_rows(p)[i];

        if (r->n_q > 1) {
            l.n_prefill += r->n_q;
            l.n_pairs += (uint64_t)r->n_q * r->pos_lo + (uint64_t)r->n_q * r->n_q / 2;
        } else {
            l.n_decode++;
            l.n_kv_read += r->pos_hi;
        }
    }
    if (c->n > 0)
        start = c->due_us[(c->first + c->n - 1) % DEPTH];
    c->took_us[at] = (uint64_t)step_us(c->p, c->x, &l);
    c->due_us[at] = start + c->took_us[at];
    c->plans[at] = ps_alloc(p->bytes);
    memcpy(c->plans[at], p, p->bytes);
    c->n++;
    c->x->n_computed += l.n_prefill;
    c->x->n_steps++;
    c->x->n_rows += l.n_decode;
    return WK_EXEC_OK;
}

static int cost_poll(struct wk_exec *e, struct wk_done *out)
{
    struct cost_exec *c = (struct cost_exec *)e;
    struct wk_plan *p = c->plans[c->first];

    if (c->n == 0 || c->due_us[c->first] > ps_now_us(c->clock))
        return WK_EXEC_E_NONE;
    for (uint32_t i = 0; i < p->n_row; i++) {
        const struct wk_row *r = &wk_plan_rows(p)[i];
        const struct wk_samp *s = &wk_plan_samps(p)[r->samp];
        const struct req *q = &c->reqs[s->p.seed];

        c->outs[i] = (struct wk_row_out){.slot = r->slot, .flags = r->flags};
        if (r->flags & WK_ROW_LAST_CHUNK)
            c->outs[i].token = s->pos + 1 >= q->n_prompt + q->want ? EOS : 1 + s->pos % (VOCAB - 1);
    }
    *out = (struct wk_done){.ticket = p->ticket,
                            .n_row = p->n_row,
                            .row = c->outs,
                            .step_us = (uint32_t)c->took_us[c->first]};
    ps_free(p);
    c->first = (c->first + 1) % DEPTH;
    c->n--;
    return WK_EXEC_OK;
}

static const struct wk_exec_ops cost_ops = {.enqueue = cost_enqueue, .poll = cost_poll};

static uint64_t host_ns(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void run_scheduler(const struct profile *p, uint32_t reserve, uint64_t itl_us,
                          struct req *reqs, uint32_t n, struct sample *x)
{
    static const uint32_t eos = EOS;
    struct ps_clock clock;
    struct fake_link link = {.clock = &clock, .reqs = reqs, .n = n, .x = x};
    struct cost_exec exec = {.base = {.ops = &cost_ops,
                                      .depth = DEPTH,
                                      .n_slots = p->n_slots,
                                      .n_pages = p->pool_tokens / PT},
                             .p = p,
                             .clock = &clock,
                             .reqs = reqs,
                             .x = x};
    struct wk_kv_layout layout;
    struct wk_sched_conf conf = {.clock = &clock,
                                 .port = {&link, fake_pop, fake_push, fake_set_load, NULL},
                                 .exec = &exec.base,
                                 .layout = &layout,
                                 .eos = {&eos, 1},
                                 .context = CONTEXT,
                                 .chunk = p->chunk,
                                 .itl_us = itl_us,
                                 .reserve = reserve,
                                 .max_waiting = n};
    struct wk_sched *s;

    ps_clock_manual(&clock, 1000000);
    wk_kv_layout_init(&layout);
    wk_kv_layout_add_attn(&layout, 1, 1, 16, KN_F32, PT);
    wk_kv_layout_seal(&layout);
    exec.outs = ps_calloc(p->n_slots, sizeof(*exec.outs));
    conf.store = wk_store_create_t0(&layout, &clock, &exec.base);
    s = wk_sched_create(&conf);
    while (x->n_finished < n) {
        uint64_t next = link.next < n ? reqs[link.next].arrival_us : UINT64_MAX, began;
        uint32_t wait_ms;

        began = host_ns();
        PS_ASSERT(wk_sched_tick(s, &wait_ms) == 0);
        x->host_ns += host_ns() - began;
        x->n_host++;
        if (link.next < n)
            next = reqs[link.next].arrival_us;
        if (exec.n > 0)
            next = ps_min_u64(next, exec.due_us[exec.first]);
        if (x->n_finished == n)
            break;
        PS_ASSERT(next != UINT64_MAX); /* somebody is left, so something happens */
        if (next > ps_now_us(&clock))
            ps_clock_advance(&clock, next - ps_now_us(&clock));
    }
    for (; exec.n > 0; exec.n--) {
        ps_free(exec.plans[exec.first]);
        exec.first = (exec.first + 1) % DEPTH;
    }
    wk_sched_destroy(s);
    wk_store_destroy(conf.store, 0);
    ps_free(exec.outs);
}

/* ---- the oracle ---- */

struct oracle_row {
    struct wk_admit_row a;
    struct req *q;
    uint32_t n_out;
};

struct oracle {
    const struct profile *p;
    struct wk_admit adm; /* keeps the rows in order; its own rule is not asked */
    struct wk_budget budget;
    struct oracle_row *rows;
    uint32_t *grants;
    struct { /* scratch of the peak: when a row ends, and what it holds until then */
        uint64_t left, len;
    } * ends;
    uint64_t now_us;
};

static struct oracle_row *oracle_of(struct wk_admit_row *r)
{
    return PS_CONTAINER(r, struct oracle_row, a);
}

static int by_left(const void *x, const void *y)
{
    uint64_t a = *(const uint64_t *)x, b = *(const uint64_t *)y;

    return a < b ? -1 : a > b;
}

/* The most pages that the admitted rows and r will ever hold together, each growing by one token a
 * step until its true end. */
static uint64_t future_peak(struct oracle *o, struct wk_admit_row *r)
{
    uint32_t n = 0;
    uint64_t peak = 0;

    for (uint32_t i = 0; i <= o->adm.n_rows; i++) {
        struct oracle_row *w = oracle_of(i < o->adm.n_rows ? o->adm.rows[i] : r);

        o->ends[n].left = w->q->want - w->n_out;
        o->ends[n++].len = w->q->n_prompt + w->n_out;
    }
    qsort(o->ends, n, sizeof(*o->ends), by_left);
    for (uint32_t k = 0; k < n; k++) { /* just before the k-th ends */
        uint64_t sum = 0;

        if (k + 1 < n && o->ends[k + 1].left == o->ends[k].left)
            continue; /* the later of two equal ones counts both: they are in the sum below */
        for (uint32_t i = 0; i < n; i++) {
            if (o->ends[i].left >= o->ends[k].left)
                sum += ps_div_up_u64(o->ends[i].len + o->ends[k].left, PT);
        }
        peak = ps_max_u64(peak, sum);
    }
    return peak;
}

static void oracle_arrive(struct oracle *o, struct req *reqs, uint32_t n, uint32_t *next)
{
    for (; *next < n && reqs[*next].arrival_us <= o->now_us; ++*next) {
        struct oracle_row *w = &o->rows[*next];

        *w = (struct oracle_row){.q = &reqs[*next]};
        w->a.ticket = *next;
        w->a.len = w->a.n_left = w->q->n_prompt;
        w->a.hard = w->q->n_prompt + w->q->want;
        wk_admit_push(&o->adm, &w->a);
    }
}

static void oracle_step(struct oracle *o, struct sample *x)
{
    struct wk_step_load l = {0};
    struct wk_budget_room room;
    uint64_t held = 0;
    double us;

    for (uint32_t i = 0; i < o->adm.n_rows; i++) {
        struct wk_admit_row *r = o->adm.rows[i];

        held += ps_div_up_u64(r->len + (r->n_left == 0), PT);
        l.n_decode += r->n_left == 0;
        l.n_kv_read += r->n_left == 0 ? r->len : 0;
    }
    x->n_over_pool += held > o->p->pool_tokens / PT;
    wk_budget_open(&o->budget, l.n_decode, l.n_kv_read, &room);
    l.n_prefill = wk_prefill_share(&o->adm, o->p->chunk, &room, o->grants);
    wk_budget_close(&o->budget, l.n_decode, l.n_prefill, &room);
    for (uint32_t i = 0; i < o->adm.n_rows; i++) {
        const struct wk_admit_row *r = o->adm.rows[i];
        uint64_t n_q = o->grants[i];

        l.n_pairs += n_q * (r->len - r->n_left) + n_q * n_q / 2;
    }
    us = step_us(o->p, x, &l);
    wk_budget_learn(&o->budget, &l, (uint32_t)us);
    o->now_us += (uint64_t)us;
    x->n_computed += l.n_prefill;
    x->n_steps++;
    x->n_rows += l.n_decode;
    for (uint32_t i = o->adm.n_rows; i-- > 0;) {
        struct oracle_row *w = oracle_of(o->adm.rows[i]);
        bool decodes = w->a.n_left == 0;

        w->a.n_left -= o->grants[i];
        if (w->a.n_left > 0 || (!decodes && o->grants[i] == 0))
            continue;
        w->a.len++;
        w->n_out++;
        add_token(x, w->q, o->now_us);
        if (w->n_out == w->q->want) {
            add_end(x, w->q, o->now_us);
            wk_admit_remove(&o->adm, &w->a);
        }
    }
}

static void run_oracle(const struct profile *p, struct req *reqs, uint32_t n, struct sample *x)
{
    struct wk_admit_conf conf = {
        .reserve = 1, .chunk = p->chunk, .page_tokens = PT, .n_rows_max = p->n_slots};
    struct oracle o = {.p = p, .now_us = 1000000};
    uint32_t next = 0;

    wk_admit_init(&o.adm, &conf);
    wk_budget_init(&o.budget, p->chunk, p->itl_us);
    o.rows = ps_calloc(n, sizeof(*o.rows));
    o.grants = ps_calloc(p->n_slots, sizeof(*o.grants));
    o.ends = ps_calloc(p->n_slots + 1u, sizeof(*o.ends));
    while (x->n_finished < n) {
        struct wk_admit_row *r;

        oracle_arrive(&o, reqs, n, &next);
        while ((r = wk_admit_next(&o.adm)) != NULL && future_peak(&o, r) <= p->pool_tokens / PT)
            wk_admit_enter(&o.adm, r);
        if (o.adm.n_rows > 0) {
            oracle_step(&o, x);
        } else {
            PS_ASSERT(next < n && r == NULL);
            o.now_us = reqs[next].arrival_us;
        }
    }
    wk_admit_fini(&o.adm);
    ps_free(o.rows);
    ps_free(o.grants);
    ps_free(o.ends);
}

/* ---- what it says ---- */

static int by_u32(const void *x, const void *y)
{
    uint32_t a = *(const uint32_t *)x, b = *(const uint32_t *)y;

    return a < b ? -1 : a > b;
}

static double tok_per_s(const struct sample *x, const struct req *reqs)
{
    return (double)x->n_tokens * 1e6 / (double)(x->end_us - reqs[0].arrival_us);
}

static double at_share(const uint32_t *sorted, size_t n, double share)
{
    return n == 0 ? 0 : sorted[(size_t)((double)(n - 1) * share)];
}

static void report(const char *name, const struct profile *p, struct sample *x,
                   const struct req *reqs, uint32_t n, double oracle_tok_per_s)
{
    uint32_t *ttft_ms = ps_calloc(n, sizeof(*ttft_ms)), n_wrong = 0;
    size_t n_over = 0;
    uint64_t n_prompts = 0;

    for (uint32_t i = 0; i < n; i++) {
        ttft_ms[i] = (uint32_t)((reqs[i].first_us - reqs[i].arrival_us) / 1000);
        n_wrong += reqs[i].n_got != reqs[i].want || reqs[i].refused;
        n_prompts += reqs[i].n_prompt;
    }
    qsort(ttft_ms, n, sizeof(*ttft_ms), by_u32);
    qsort(x->gaps_us, x->n_gaps, sizeof(*x->gaps_us), by_u32);
    for (size_t i = 0; i < x->n_gaps; i++)
        n_over += x->gaps_us[i] > p->itl_us;
    printf("| %s | %u | %.0f | %.3f | %u | %.1f | %.1f | %.1f | %.2f | %.1f | %.1f | %.1f | %.1f "
           "| %.0f |\n",
           name, x->n_finished - n_wrong, tok_per_s(x, reqs), tok_per_s(x, reqs) / oracle_tok_per_s,
           x->n_suspended, (double)x->n_rows / (double)x->n_steps,
           at_share(x->gaps_us, x->n_gaps, 0.5) / 1e3, at_share(x->gaps_us, x->n_gaps, 0.99) / 1e3,
           100.0 * (double)n_over / (double)x->n_gaps, x->gaps_us[x->n_gaps - 1] / 1e6,
           at_share(ttft_ms, n, 0.5) / 1e3, at_share(ttft_ms, n, 0.99) / 1e3,
           100.0 * fmax(0, (double)x->n_computed / (double)n_prompts - 1),
           x->n_host > 0 ? (double)x->host_ns / 1e3 / (double)x->n_host : 0.0);
    (void)fflush(stdout);
    ps_free(ttft_ms);
    ps_free(x->gaps_us);
}

static void run_profile(const struct profile *p, struct req *reqs, uint32_t n, uint64_t seed)
{
    static const struct {
        const char *name;
        uint32_t reserve;
        bool fixed;
    } runs[] = {{"W = 256", 256, false},
                {"W = 256, whole chunks", 256, true},
                {"W = 512", 512, false},
                {"whole life", 1u << 24, false}};
    struct sample x = {.n_gaps = 0};
    uint64_t n_over_pool, n_steps;
    double per_s, oracle;

    for (uint32_t i = 0; i < n; i++)
        x.n_all_tokens += reqs[i].want;
    ps_rng_seed(&x.noise, seed);
    make_arrivals(reqs, n, 0, seed);
    run_oracle(p, reqs, n, &x);
    per_s = 0.5 * n * 1e6 / (double)(x.late_us - x.early_us);
    ps_free(x.gaps_us);
    printf("\n%s: step %.1f ms + %.2f ms a row + %.3f ms a prompt token; objective %.0f ms, chunk "
           "%u, %u rows; capacity %.2f requests/s, arrivals %.2f/s\n\n",
           p->name, p->base_us / 1e3, p->row_us / 1e3, p->token_us / 1e3, p->itl_us / 1e3, p->chunk,
           p->n_slots, per_s, LOAD * per_s);
    printf(
        "| policy | finished whole | tok/s | of oracle | suspensions | mean rows | gap p50 ms | "
        "gap p99 ms | over objective %% | worst gap s | first token p50 s | p99 s | computed "
        "twice %% | host us / tick |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n");
    x = (struct sample){.n_gaps = 0};
    ps_rng_seed(&x.noise, seed);
    make_arrivals(reqs, n, LOAD * per_s, seed);
    run_oracle(p, reqs, n, &x);
    oracle = tok_per_s(&x, reqs);
    n_over_pool =
        x.n_over_pool; /* prompts delay growth: its peaks may meet later than it thought */
    n_steps = x.n_steps;
    report("oracle", p, &x, reqs, n, oracle);
    for (uint32_t i = 0; i < PS_ARRAY_LEN(runs); i++) {
        x = (struct sample){.n_gaps = 0};
        ps_rng_seed(&x.noise, seed);
        make_arrivals(reqs, n, LOAD * per_s, seed);
        run_scheduler(p, runs[i].reserve, runs[i].fixed ? 0 : p->itl_us, reqs, n, &x);
        report(runs[i].name, p, &x, reqs, n, oracle);
    }
    printf("\nThe oracle was given more than the pool in %llu of %llu steps.\n",
           (unsigned long long)n_over_pool, (unsigned long long)n_steps);
}

int main(int argc, char **argv)
{
    uint32_t n = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : 2000;
    uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    struct req *reqs;

    if (n == 0 || n > N_REQS_MAX) {
        (void)fprintf(stderr, "sched_oracle [n_requests [seed]], at most %d\n", N_REQS_MAX);
        return 2;
    }
    reqs = ps_calloc(n, sizeof(*reqs));
    make_requests(reqs, n, seed);
    printf("%u requests, seed %llu, load %.1f\n", n, (unsigned long long)seed, LOAD);
    for (uint32_t i = 0; i < PS_ARRAY_LEN(profiles); i++)
        run_profile(&profiles[i], reqs, n, seed);
    ps_free(reqs);
    return 0;
}
