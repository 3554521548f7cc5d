#include "worker/self_bench.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "worker/exec/exec_sim.h"
#include "worker/sched/sched.h"

enum {
    CHUNK = 2048,
    N_IDS = 32000,
    ROOM = 64,            /* pages beyond what the rows hold */
    TICKS_MAX = 1u << 22, /* nothing here needs more */
    ITEM_BYTES = WK_SIM_ITEM_BYTES_MIN,
};

/* exec_sim behind a watch: its own time is no overhead of the scheduler's. */
struct watched {
    struct wk_exec base;
    struct wk_exec *sim;
    uint64_t poll_ns;
    uint32_t n_steps;
};

struct world {
    struct ps_clock clock;
    struct watched exec;
    struct wk_kv_layout layout;
    struct wk_store *store;
    struct wk_sched *s;
    uint32_t n_rows, context, n_opened, n_running;
};

static uint64_t now_ns(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int watched_enqueue(struct wk_exec *e, const struct wk_plan *p)
{
    struct watched *w = PS_CONTAINER(e, struct watched, base);

    return w->sim->ops->enqueue(w->sim, p);
}

static int watched_poll(struct wk_exec *e, struct wk_done *out)
{
    struct watched *w = PS_CONTAINER(e, struct watched, base);
    uint64_t t0 = now_ns();
    int r = w->sim->ops->poll(w->sim, out);

    w->poll_ns += now_ns() - t0;
    w->n_steps += r == WK_EXEC_OK;
    return r;
}

static const struct wk_exec_ops watched_ops = {.enqueue = watched_enqueue, .poll = watched_poll};

/* Prompts are alike but for their last token, as those of agents are; answers never end. */
static bool port_pop(void *ud, struct wk_in *out)
{
    struct world *w = ud;
    struct pb_submit *s;

    if (w->n_opened == w->n_rows)
        return false;
    s = pb_submit_create(w->context, 0, 0, 0);
    s->n_prompt = w->context;
    s->max_tokens = PB_NO_LIMIT;
    s->ignore_eos = true;
    s->chain_seed = 1;
    s->samp = (struct pb_sampling){.rep_penalty = 1, .n_top = -1, .n_prompt_top = -1};
    for (uint32_t i = 0; i < w->context; i++)
        s->ids[i] = i % N_IDS;
    s->ids[w->context - 1] = w->n_opened;
    *out = (struct wk_in){WK_IN_OPEN, w->n_opened++, s};
    return true;
}

static bool port_push(void *ud, const struct wk_out *o)
{
    (void)ud;
    (void)o;
    return true;
}

static void port_set_load(void *ud, const struct pb_load *load, uint64_t tick)
{
    struct world *w = ud;

    (void)tick;
    w->n_running = load->n_prefill_pending == 0 ? load->n_running : 0;
}

static int world_open(struct world *w, uint32_t n_steps)
{
    uint32_t n_tail = n_steps * 2 / WK_SIM_PAGE_TOKENS + ROOM; /* warm-up and measurement */
    uint64_t n_pages = w->context / WK_SIM_PAGE_TOKENS * 2 + (uint64_t)w->n_rows * n_tail;
    struct ps_buf err = PS_BUF_INIT;
    struct wk_exec_sim_conf ec = {.clock = &w->clock,
                                  .depth = 2,
                                  .n_slots = w->n_rows,
                                  .kv_bytes = n_pages * ITEM_BYTES,
                                  .item_bytes = ITEM_BYTES,
                                  .vocab = {.n_ids = N_IDS}};
    struct wk_sched_conf sc = {.clock = &w->clock,
                               .port = {w, port_pop, port_push, port_set_load, NULL},
                               .layout = &w->layout,
                               .context = w->context + n_tail * WK_SIM_PAGE_TOKENS,
                               .chunk = CHUNK,
                               .reserve = 256,
                               .max_waiting = w->n_rows};
    int r = wk_exec_sim_create(&w->exec.sim, &ec, &err);

    ps_buf_fini(&err);
    if (r != 0)
        return r;
    w->exec.base = *w->exec.sim;
    w->exec.base.ops = &watched_ops;
    sc.exec = &w->exec.base;
    sc.store = w->store = wk_store_create_t0(&w->layout, &w->clock, &w->exec.base);
    w->s = wk_sched_create(&sc);
    return 0;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

/* A tick ends the steps in flight and begins as many: its time is theirs. */
static int measure(struct world *w, uint32_t n_steps, double *us, uint32_t *out_n)
{
    uint32_t n = 0, wait_ms;

    for (uint32_t i = 0; i < TICKS_MAX && n < n_steps; i++) {
        uint32_t steps = w->exec.n_steps;
        uint64_t t0, polled = w->exec.poll_ns;
        int r;

        t0 = now_ns();
        r = wk_sched_tick(w->s, &wait_ms);
        if (r < 0)
            return r;
        steps = w->exec.n_steps - steps;
        if (w->n_running == w->n_rows && steps > 0)
            us[n++] = (double)(now_ns() - t0 - (w->exec.poll_ns - polled)) / 1e3 / steps;
    }
    *out_n = n;
    return 0;
}

static int bench_sched(FILE *out, uint32_t n_rows, uint32_t context, uint32_t n_steps)
{
    struct world w = {.n_rows = n_rows, .context = context};
    double *us = ps_calloc(n_steps, sizeof(*us)), sum = 0;
    uint32_t n = 0;
    int r;

    ps_clock_real(&w.clock);
    wk_exec_sim_layout(&w.layout, ITEM_BYTES);
    r = world_open(&w, n_steps);
    if (r == 0)
        r = measure(&w, n_steps / 2, us, &n);
    if (r == 0 && n > 0) {
        for (uint32_t i = 0; i < n; i++)
            sum += us[i];
        qsort(us, n, sizeof(*us), by_value);
        (void)fprintf(out, "%6u %8u %10.2f %10.2f %10.2f %12.0f\n", n_rows, context, sum / n,
                      us[n / 2], us[n - 1 - n / 100], sum / n * 1e3 / n_rows);
    }
    if (w.exec.sim != NULL)
        w.exec.sim->ops->destroy(w.exec.sim);
    wk_sched_destroy(w.s);
    wk_store_destroy(w.store, 0);
    ps_free(us);
    return r < 0 ? r : n > 0 ? 0 : PS_FAULT(-EPROTO);
}

int wk_self_bench(FILE *out, uint32_t n_steps, uint32_t n_pages)
{
    static const struct {
        uint32_t n_rows, context;
    } rows[] = {{1, 512}, {32, 512}, {256, 512}, {256, 8192}};
    struct wk_bench_kv kv;
    int r = 0;

    (void)fprintf(out, "scheduler: host time of a decode step in microseconds, without the device\n"
                       "  rows  context       mean     median        p99   ns per row\n");
    for (uint32_t i = 0; i < PS_ARRAY_LEN(rows) && r == 0; i++)
        r = bench_sched(out, rows[i].n_rows, rows[i].context, n_steps);
    if (r != 0)
        return r;
    wk_self_bench_kv(&kv, n_pages);
    (void)fprintf(out,
                  "prefix tree of %u pages: pages a second\n"
                  "insert %.0f, match %.0f, evict and insert %.0f\n",
                  n_pages, kv.insert_per_s, kv.match_per_s, kv.evict_per_s);
    return 0;
}
