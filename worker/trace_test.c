#include "worker/trace.h"

#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "common/json/json.h"
#include "common/test.h"
#include "worker/exec/exec_sim.h"
#include "worker/sched/sched.h"

enum { N_REQS = 40, N_SLOTS = 6, PAGES = 48, N_IDS = 500, FILE_MAX = 8 << 20 };

static char dir[64], path[96];

static int make_dir(void **state)
{
    (void)state;
    (void)snprintf(dir, sizeof(dir), "/tmp/trace_test.XXXXXX");
    if (mkdtemp(dir) == NULL)
        return -1;
    (void)snprintf(path, sizeof(path), "%s/trace.json", dir);
    return 0;
}

static int remove_dir(void **state)
{
    (void)state;
    (void)unlink(path);
    return rmdir(dir);
}

/* The file, with `more` behind it, as JSON. */
static struct ps_json_doc *parse(const char *more)
{
    const struct ps_json_limits lim = {.max_depth = 8, .max_values = 4000000};
    struct ps_json_doc *d = NULL;
    char *text = ps_alloc(FILE_MAX + 8);
    FILE *f = fopen(path, "r");
    size_t n, off;

    assert_non_null(f);
    n = fread(text, 1, FILE_MAX, f);
    (void)fclose(f);
    memcpy(text + n, more, strlen(more));
    if (ps_json_parse(&d, text, n + strlen(more), &lim, &off) != PS_JSON_OK)
        fail_msg("not JSON at byte %zu: %.200s", off, text + off);
    ps_free(text);
    return d;
}

static const char *str(const struct ps_json *e, const char *key)
{
    const struct ps_json *v = ps_json_member(e, key, PS_JSON_STR);
    size_t len;

    return v != NULL ? ps_json_str(v, &len) : "";
}

static int64_t num(const struct ps_json *e, const char *key)
{
    const struct ps_json *v = ps_json_member(e, key, PS_JSON_INT);

    if (v == NULL)
        fail_msg("an event lacks %s", key);
    return ps_json_int(v);
}

/* ---- a scheduler that is traced ---- */

struct world {
    struct ps_clock clock;
    struct wk_exec *exec;
    struct wk_sched *s;
    struct wk_kv_layout layout;
    uint32_t n_opened, n_finished;
    uint64_t n_preempted;
};

static bool port_pop(void *ud, struct wk_in *out)
{
    struct world *w = ud;
    struct pb_submit *s;

    if (w->n_opened == N_REQS)
        return false;
    s = pb_submit_create(10 + w->n_opened * 5, 0, 0, 0);
    s->n_prompt = 10 + w->n_opened * 5;
    s->req = 0xabc0 + w->n_opened;
    s->max_tokens = 60 + w->n_opened;
    s->ignore_eos = true;
    s->chain_seed = 1;
    s->samp = (struct pb_sampling){.rep_penalty = 1, .n_top = -1, .n_prompt_top = -1};
    for (uint32_t i = 0; i < s->n_prompt; i++)
        s->ids[i] = (w->n_opened * 31 + i) % N_IDS;
    *out = (struct wk_in){WK_IN_OPEN, w->n_opened++, s};
    return true;
}

static bool port_push(void *ud, const struct wk_out *o)
{
    struct world *w = ud;

    w->n_finished += o->kind == WK_OUT_FINISHED;
    return true;
}

static void port_set_load(void *ud, const struct pb_load *load, uint64_t tick)
{
    struct world *w = ud;

    (void)tick;
    w->n_preempted = load->n_preempted;
}

static void run_traced(struct world *w, const struct wk_cost *cost)
{
    struct ps_buf err = PS_BUF_INIT;
    struct wk_trace *t = NULL;
    struct wk_exec_sim_conf ec = {.clock = &w->clock,
                                  .depth = 2,
                                  .n_slots = N_SLOTS,
                                  .kv_bytes = (uint64_t)PAGES * 4096,
                                  .item_bytes = 4096,
                                  .vocab = {.n_ids = N_IDS},
                                  .cost = *cost};
    struct wk_sched_conf sc = {.clock = &w->clock,
                               .port = {w, port_pop, port_push, port_set_load, NULL},
                               .layout = &w->layout,
                               .context = 512,
                               .chunk = 64,
                               .reserve = 16,
                               .max_waiting = N_REQS};

    memset(w, 0, sizeof(*w));
    ps_clock_manual(&w->clock, 5000000);
    wk_exec_sim_layout(&w->layout, 4096);
    assert_int_equal(wk_trace_create(&t, path, FILE_MAX, &w->clock, &err), 0);
    assert_int_equal(wk_exec_sim_create(&w->exec, &ec, &err), 0);
    sc.exec = w->exec;
    sc.store = wk_store_create_t0(&w->layout, &w->clock, w->exec);
    sc.trace = t;
    w->s = wk_sched_create(&sc);
    for (uint32_t i = 0; i < 100000 && w->n_finished < N_REQS; i++) {
        uint64_t due = wk_exec_sim_next_due(w->exec), now = ps_now_us(&w->clock);
        uint32_t wait_ms;

        if (due != UINT64_MAX && due > now)
            ps_clock_advance(&w->clock, due - now);
        assert_int_equal(wk_sched_tick(w->s, &wait_ms), 0);
    }
    assert_int_equal(w->n_finished, N_REQS);
    assert_true(w->n_preempted > 0);
    assert_int_equal(wk_trace_n_dropped(t), 0);
    wk_sched_destroy(w->s);
    wk_store_destroy(sc.store, 0);
    w->exec->ops->destroy(w->exec);
    wk_trace_destroy(t);
}

struct seen { /* of one request */
    const char *phase;
    uint64_t times[WK_PHASE_N];
    bool opened, ended_flow;
};

static void check_request_event(struct seen *all, const struct ps_json *e)
{
    static const char *const names[WK_PHASE_N] = {"none",    "queued", "fetch",
                                                  "prefill", "decode", "suspended"};
    const char *ph = str(e, "ph"), *name = str(e, "name");
    bool slice = ph[0] == 'X';
    int64_t id = num(slice ? ps_json_get(e, "args") : e, "id");
    struct seen *s = &all[id];

    assert_in_range(id, 0, N_REQS - 1);
    if (slice) {
        assert_false(s->opened);
        s->opened = true;
        return;
    }
    assert_true(s->opened);
    if (ph[0] == 'b') {
        assert_null(s->phase); /* one phase at a time */
        s->phase = name;
        for (uint32_t p = 0; p < WK_PHASE_N; p++)
            s->times[p] += strcmp(names[p], name) == 0;
    } else if (ph[0] == 'e') {
        assert_string_equal(s->phase, name);
        s->phase = NULL;
    } else if (ph[0] == 'f') {
        assert_false(s->ended_flow);
        s->ended_flow = true;
    }
}

static void every_phase_that_begins_ends_and_steps_do_not_overlap(void **state)
{
    const struct wk_cost cost = {{5000, 30, 20, 1.5, 0.25}};
    static struct seen all[N_REQS];
    const struct ps_json *root, *e;
    int64_t end = 0, begin = 0;
    uint64_t n_suspended = 0, n_steps = 0, n_loads = 0;
    struct ps_json_doc *d;
    struct world w;

    (void)state;
    run_traced(&w, &cost);
    d = parse("");
    root = ps_json_root(d);
    for (size_t i = 0; i < ps_json_n(root); i++) {
        e = ps_json_at(root, i);
        if (strcmp(str(e, "cat"), "step") == 0) {
            begin = num(e, "ts");
            assert_true(begin >= end);
            end = begin + num(e, "dur");
            assert_int_equal(num(ps_json_get(e, "args"), "us"), num(e, "dur"));
            n_steps++;
        } else if (str(e, "ph")[0] == 'C') {
            n_loads++;
        } else if (str(e, "cat")[0] != '\0') {
            if (str(e, "ph")[0] == 'f')
                assert_int_equal(num(e, "ts"), begin); /* in the step that brought it */
            check_request_event(all, e);
        }
    }
    assert_true(n_steps > 100 && n_loads > 10);
    for (uint32_t i = 0; i < N_REQS; i++) {
        assert_true(all[i].opened && all[i].ended_flow && all[i].phase == NULL);
        assert_int_equal(all[i].times[WK_PHASE_QUEUED], 1);
        assert_int_equal(all[i].times[WK_PHASE_PREFILL], all[i].times[WK_PHASE_SUSPENDED] + 1);
        n_suspended += all[i].times[WK_PHASE_SUSPENDED];
    }
    assert_int_equal(n_suspended, w.n_preempted);
    ps_json_free(d);
}

static void the_cost_model_is_found_again_from_the_trace_of_its_own_run(void **state)
{
    const struct wk_cost cost = {{5000, 30, 20, 1.5, 0.25}};
    struct ps_buf err = PS_BUF_INIT;
    struct wk_cost c;
    struct world w;
    uint32_t n;
    double error;

    (void)state;
    run_traced(&w, &cost);
    assert_int_equal(wk_cost_calibrate(&c, path, &n, &error, &err), WK_COST_OK);
    assert_true(error < 1e-3); /* steps are whole microseconds */
    for (uint32_t i = 0; i < WK_COST_N; i++)
        assert_true(fabs(c.us[i] - cost.us[i]) < 0.02 * cost.us[i]);
}

/* ---- the file ---- */

static void step(struct wk_trace *t, uint64_t ticket)
{
    const struct wk_trace_step s = {
        .ticket = ticket, .step_us = 1000, .work = {.n_row = 3, .n_kv = 99}};

    wk_trace_step(t, &s);
}

static off_t size_now(void)
{
    struct stat st;

    assert_int_equal(stat(path, &st), 0);
    return st.st_size;
}

static void a_file_whose_writer_was_killed_lacks_only_its_bracket(void **state)
{
    const struct timespec ms = {.tv_nsec = 1000000};
    struct ps_buf err = PS_BUF_INIT;
    struct wk_trace *t = NULL;
    struct ps_json_doc *d;
    struct ps_clock clock;
    off_t before;

    (void)state;
    ps_clock_manual(&clock, 1000);
    assert_int_equal(wk_trace_create(&t, path, FILE_MAX, &clock, &err), 0);
    before = size_now();
    step(t, 7);
    for (uint32_t i = 0; i < 5000 && size_now() == before; i++)
        (void)nanosleep(&ms, NULL); /* bounded wait for the writer's next round */
    d = parse("]");
    assert_int_equal(ps_json_n(ps_json_root(d)), 4); /* three names and the step */
    ps_json_free(d);
    wk_trace_destroy(t);
    d = parse("");
    ps_json_free(d);
}

static void it_stops_at_its_size_limit_and_stays_valid(void **state)
{
    struct ps_buf err = PS_BUF_INIT;
    struct wk_trace *t = NULL;
    struct ps_json_doc *d;
    struct ps_clock clock;

    (void)state;
    ps_clock_manual(&clock, 1000);
    assert_int_equal(wk_trace_create(&t, path, 5000, &clock, &err), 0);
    for (uint32_t i = 0; i < 1000; i++)
        step(t, i);
    wk_trace_destroy(t);
    assert_in_range(size_now(), 4000, 5000);
    d = parse("");
    assert_true(ps_json_n(ps_json_root(d)) > 10);
    ps_json_free(d);
}

static void a_path_that_cannot_be_written_is_refused(void **state)
{
    struct ps_buf err = PS_BUF_INIT;
    struct wk_trace *t = NULL;
    struct ps_clock clock;

    (void)state;
    ps_clock_manual(&clock, 1000);
    assert_true(wk_trace_create(&t, "/nonexistent/x", 5000, &clock, &err) < 0);
    assert_non_null(strstr(err.data, "/nonexistent/x"));
    ps_buf_fini(&err);
}

static void *read_all(void *ud)
{
    const int *fd = ud;
    char buf[4096];

    while (read(*fd, buf, sizeof(buf)) > 0)
        ;
    return NULL;
}

static void a_stuck_file_costs_events_and_never_the_caller(void **state)
{
    struct ps_buf err = PS_BUF_INIT;
    struct wk_trace *t = NULL;
    struct ps_clock clock;
    pthread_t reader;
    int fd;

    (void)state;
    ps_clock_manual(&clock, 1000);
    (void)unlink(path);
    assert_int_equal(mkfifo(path, 0600), 0);
    fd = open(path, O_RDONLY | O_NONBLOCK); /* a pipe that nobody reads */
    assert_true(fd >= 0);
    assert_int_equal(wk_trace_create(&t, path, UINT64_MAX, &clock, &err), 0);
    for (uint32_t i = 0; i < 200000; i++)
        step(t, i);
    assert_true(wk_trace_n_dropped(t) > 0);
    assert_int_equal(fcntl(fd, F_SETFL, 0), 0);
    assert_int_equal(pthread_create(&reader, NULL, read_all, &fd), 0);
    wk_trace_destroy(t);
    assert_int_equal(pthread_join(reader, NULL), 0);
    (void)close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_phase_that_begins_ends_and_steps_do_not_overlap),
        cmocka_unit_test(the_cost_model_is_found_again_from_the_trace_of_its_own_run),
        cmocka_unit_test(a_file_whose_writer_was_killed_lacks_only_its_bracket),
        cmocka_unit_test(it_stops_at_its_size_limit_and_stays_valid),
        cmocka_unit_test(a_path_that_cannot_be_written_is_refused),
        cmocka_unit_test(a_stuck_file_costs_events_and_never_the_caller),
    };

    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
