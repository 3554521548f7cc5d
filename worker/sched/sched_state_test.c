/*
 * Models with a state beside rows: the real scheduler and store over exec_sim, which compares every
 * state with the tokens it stands for at every row, on pools so small that everything is in the way.
 */

#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/rng.h"
#include "common/test.h"
#include "common/uring/uring_script.h"
#include "worker/exec/exec_sim.h"
#include "worker/kv/store_int.h"
#include "worker/sched/snap.h"
#include "worker/sched/state.h"
#include "worker/tier/fs_script.h"

enum {
    PT = 16,
    ITEM = 4096,
    STATE = 8192,
    N_IDS = 97,
    REQS_MAX = 64,
    LEN_MAX = 1200,
    SLOTS_MAX = 8,
    TICKS_MAX = 200000,
    NAN_SEED = 13, /* requests with this seed end in numbers that are none */
    NAN_FROM = 60, /* once they are so long */
    DISK_BYTES = 1 << 20,
};

static const uint32_t eos[1] = {11};

struct req {
    struct pb_submit *s; /* kept copy */
    uint32_t got[LEN_MAX], n_got, n_cached;
    int finish;
    bool cancelled;
};

struct shape {
    uint32_t n_pages, n_slots, depth, chunk, reserve, context;
    uint32_t n_t1, n_t2; /* pages' worth; 0: none */
    bool has_t3;
    double prefill_tok_per_s; /* as if it had been measured; 0: not */
    struct wk_cost cost;
};

struct world {
    struct shape shape;
    struct ps_clock clock;
    struct wk_exec *exec;
    struct wk_exec_ops ops, real;
    struct wk_sim_vocab vocab;
    struct wk_kv_layout layout;
    struct ps_script_disk *disk;
    struct ps_uring *ring;
    struct wk_fs_script *fs;
    struct wk_store *store;
    struct wk_kv_tree *tree;
    struct wk_sched *s;
    struct wk_in in[4 * REQS_MAX];
    uint32_t n_in, next_in;
    struct req reqs[REQS_MAX];
    uint32_t n_reqs;
    struct wk_store_stats stats;
    uint64_t n_preempted; /* of the watcher */
    uint32_t len[REQS_MAX], len_then[REQS_MAX];
    bool running[REQS_MAX];
};

/* ---- the link ---- */

static bool port_pop(void *ud, struct wk_in *out)
{
    struct world *w = ud;

    if (w->next_in == w->n_in) {
        w->next_in = w->n_in = 0;
        return false;
    }
    *out = w->in[w->next_in++];
    return true;
}

static bool port_push(void *ud, const struct wk_out *o)
{
    struct world *w = ud;
    struct req *r = &w->reqs[o->handle];

    assert_int_not_equal(o->kind, WK_OUT_REJECTED);
    if (o->kind == WK_OUT_TOKEN) {
        assert_true(r->finish == 0 && r->n_got < LEN_MAX);
        r->got[r->n_got++] = o->token;
    } else if (o->kind == WK_OUT_FINISHED) {
        assert_int_equal(r->finish, 0);
        r->finish = (int)o->finish;
        r->n_cached = o->n_cached;
    }
    return true;
}

static void port_set_load(void *ud, const struct pb_load *load, uint64_t tick)
{
    (void)ud;
    (void)tick;
    assert_int_equal(load->n_group, 2);
    for (uint32_t g = 0; g < 2; g++)
        assert_true(load->group[g].n_free + load->group[g].n_evictable + load->group[g].n_pinned ==
                    load->group[g].n_total);
}

/* ---- the world ---- */

static struct world *poll_world; /* of poll_with_nan: an executor knows of no world */

static int poll_with_nan(struct wk_exec *e, struct wk_done *out)
{
    int r = poll_world->real.poll(e, out);

    for (uint32_t i = 0; r == WK_EXEC_OK && i < out->n_row; i++) {
        const struct wk_flight *f = &poll_world->s->flights[poll_world->s->first_flight];
        struct wk_row_out *o = (struct wk_row_out *)(uintptr_t)&out->row[i];

        assert_int_equal(out->ticket, f->ticket);
        o->fault = f->rows[i].pos_hi >= NAN_FROM && f->rows[i].q->adm.priority == NAN_SEED;
    }
    return r;
}

static void open_store(struct world *w)
{
    struct ps_buf err = PS_BUF_INIT;
    struct wk_exec_sim_conf ec = {.clock = &w->clock,
                                  .depth = w->shape.depth,
                                  .n_slots = w->shape.n_slots,
                                  .kv_bytes = (uint64_t)w->shape.n_pages * ITEM,
                                  .item_bytes = ITEM,
                                  .state_bytes = STATE,
                                  .vocab = w->vocab,
                                  .cost = w->shape.cost};
    struct wk_store_conf kc = {.layout = &w->layout,
                               .clock = &w->clock,
                               .space_id = 5,
                               .arith_id = 6,
                               .stride_tokens = PT,
                               .t1_bytes = (uint64_t)w->shape.n_t1 * ITEM,
                               .t2_path = w->shape.n_t2 > 0 ? "script" : "",
                               .t2_bytes = (uint64_t)w->shape.n_t2 * ITEM,
                               .t3_path = w->shape.has_t3 ? "/s" : "",
                               .peer_listen = "",
                               .peer_secret_file = "",
                               .no_threads = true,
                               .slab_bytes = STATE};
    struct wk_sched_conf sc = {.clock = &w->clock,
                               .port = {w, port_pop, port_push, port_set_load, NULL},
                               .layout = &w->layout,
                               .eos = {eos, 1},
                               .context = w->shape.context,
                               .chunk = w->shape.chunk,
                               .reserve = w->shape.reserve,
                               .max_waiting = REQS_MAX};

    assert_int_equal(wk_exec_sim_create(&w->exec, &ec, &err), 0);
    w->real = w->ops = *w->exec->ops;
    w->ops.poll = poll_with_nan;
    w->exec->ops = &w->ops;
    poll_world = w;
    if (w->shape.n_t2 > 0) {
        if (w->disk == NULL)
            w->disk = ps_script_disk_create(1, 2, DISK_BYTES);
        kc.t2_script = w->ring = ps_script_ring_create(w->disk, 8);
    }
    if (w->shape.has_t3) {
        if (w->fs == NULL)
            w->fs = wk_fs_script_create(2);
        kc.t3_fs = wk_fs_script_mount(w->fs);
    }
    kc.exec = sc.exec = w->exec;
    if (wk_store_create(&w->store, &kc, &err) != WK_TIER_OK)
        fail_msg("store: %s", err.data);
    ps_buf_fini(&err);
    sc.store = w->store;
    w->tree = wk_store_tree(w->store);
    w->s = wk_sched_create(&sc);
    w->s->stats.prefill_tok_per_s = w->shape.prefill_tok_per_s;
}

static void close_store(struct world *w, uint32_t flush_ms)
{
    struct wk_store_stats st;

    wk_store_stats(w->store, &st);
    for (uint32_t t = 0; t < WK_KV_N_TIERS; t++)
        w->stats.fetched_tokens[t] += st.fetched_tokens[t];
    wk_sched_destroy(w->s);
    wk_store_destroy(w->store, flush_ms); /* asserts that neither page nor state leaked */
    w->exec->ops->destroy(w->exec);
    if (w->ring != NULL)
        assert_int_equal(ps_uring_destroy(w->ring, 0), PS_URING_OK);
    w->ring = NULL;
}

static void world_open(struct world *w, const struct shape *shape)
{
    memset(w, 0, sizeof(*w));
    w->shape = *shape;
    w->vocab = (struct wk_sim_vocab){.n_ids = N_IDS, .eos = eos, .n_eos = 1, .p_eos = 0.002};
    ps_clock_manual(&w->clock, 1000000);
    wk_exec_sim_layout_state(&w->layout, ITEM, STATE);
    open_store(w);
}

static void world_close(struct world *w)
{
    close_store(w, 0);
    ps_script_disk_destroy(w->disk);
    if (w->fs != NULL)
        wk_fs_script_destroy(w->fs);
    for (uint32_t i = 0; i < w->n_reqs; i++)
        pb_submit_destroy(w->reqs[i].s);
}

/* Every living sequence that has pages has a state, and nobody else has the same. */
static void check_states(const struct world *w)
{
    uint32_t seen[2 * REQS_MAX], n = 0;

    for (uint32_t i = 0; i < w->s->n_handles + w->s->n_retiring; i++) {
        const struct wk_seq *q =
            i < w->s->n_handles ? w->s->by_handle[i] : w->s->retiring[i - w->s->n_handles];

        if (q == NULL || (i < w->s->n_handles && q->state == WK_SEQ_DRAIN))
            continue;
        assert_int_equal(q->state_item != WK_KV_NO_ITEM, q->n_pages > 0);
        for (uint32_t k = 0; k < n && q->n_pages > 0; k++)
            assert_int_not_equal(seen[k], q->state_item);
        if (q->n_pages > 0)
            seen[n++] = q->state_item;
    }
}

/* admit.h 4 holds with states as well: nobody is suspended to keep one. Only of T0: what is just being
 * copied down is not to be had for a while. */
static void check_suspensions(struct world *w)
{
    uint32_t most = 0, d = w->shape.depth - 1;
    bool admitted = false;

    for (uint32_t h = 0; h < w->n_reqs; h++) {
        const struct wk_seq *q = h < w->s->n_handles ? w->s->by_handle[h] : NULL;
        bool runs = q != NULL && q->state == WK_SEQ_RUN;

        if (q != NULL)
            w->len[h] = q->n_ids + q->n_fly_tok;
        most = ps_max_u32(most, w->len[h] - w->len_then[h]);
        admitted |= runs && !w->running[h];
        w->running[h] = runs;
    }
    if (w->s->stats.n_preempted != w->n_preempted && w->shape.n_t1 == 0)
        assert_true(most + 2 * (d + 1) + 1 > w->shape.reserve);
    w->n_preempted = w->s->stats.n_preempted;
    if (admitted)
        memcpy(w->len_then, w->len, sizeof(w->len));
}

static void world_tick(struct world *w, uint32_t n_ios)
{
    uint32_t wait_ms;

    assert_int_equal(wk_sched_tick(w->s, &wait_ms), 0);
    (void)wk_store_pump(w->store, n_ios);
    check_states(w);
    check_suspensions(w);
    ps_clock_advance(&w->clock, 500);
}

static void world_run(struct world *w)
{
    for (uint32_t i = 0; i < TICKS_MAX; i++) {
        if (i > 0 && wk_sched_is_idle(w->s))
            return;
        world_tick(w, 4);
    }
    fail_msg("not idle after so many ticks");
}

static void settle(struct world *w)
{
    for (uint32_t i = 0; i < 200; i++)
        world_tick(w, 64);
    wk_store_check(w->store);
}

static uint32_t n_kept(const struct world *w)
{
    return wk_kv_tree_n_idle(w->tree, WK_KV_T0, WK_KV_SNAP_GROUP);
}

/* Sequences that were admitted for something that did not come. */
static uint64_t n_in_vain(const struct world *w)
{
    struct wk_store_stats st;

    wk_store_stats(w->store, &st);
    return st.n_fetch_failed + st.n_fetch_late;
}

static struct pb_submit *request(const uint32_t *ids, uint32_t n, uint32_t max_tokens,
                                 uint32_t n_cuts)
{
    struct pb_submit *s = pb_submit_create(n, 0, 0, n_cuts);

    s->n_prompt = n;
    s->max_tokens = max_tokens;
    s->ignore_eos = true;
    s->chain_seed = 1;
    s->samp = (struct pb_sampling){
        .temperature = 1, .rep_penalty = 1, .seed = 7, .n_top = -1, .n_prompt_top = -1};
    memcpy(s->ids, ids, n * sizeof(*ids));
    return s;
}

static struct pb_submit *copy_of(const struct pb_submit *s)
{
    struct pb_submit *c = request(s->ids, s->n_prompt, s->max_tokens, s->n_cuts);

    memcpy(c->cuts, s->cuts, s->n_cuts * sizeof(*s->cuts));
    c->samp = s->samp;
    c->chain_seed = s->chain_seed;
    c->ignore_eos = s->ignore_eos;
    c->priority = s->priority;
    return c;
}

static uint32_t submit(struct world *w, struct pb_submit *move_s)
{
    uint32_t h = w->n_reqs++;

    assert_true(h < REQS_MAX && w->n_in < PS_ARRAY_LEN(w->in));
    w->reqs[h].s = move_s;
    w->in[w->n_in++] = (struct wk_in){WK_IN_OPEN, h, copy_of(move_s)};
    return h;
}

static void send(struct world *w, enum wk_in_kind kind, uint32_t h)
{
    assert_true(w->n_in < PS_ARRAY_LEN(w->in));
    w->in[w->n_in++] = (struct wk_in){kind, h, NULL};
}

/* The answer by definition: each token from the digest of its prefix. */
static void check_answer(const struct world *w, const struct req *r)
{
    static uint32_t ids[2 * LEN_MAX];
    uint32_t n = r->s->n_prompt;

    memcpy(ids, r->s->ids, n * sizeof(*ids));
    for (uint32_t i = 0; i < r->n_got; i++, n++) {
        ids[n] = wk_exec_sim_token(&w->vocab, wk_exec_sim_digest(ids, n), &r->s->samp, n, NULL, 0);
        assert_int_equal(r->got[i], ids[n]);
    }
    assert_int_not_equal(r->finish, 0);
    if (r->finish == PB_FIN_STOP_EOS)
        assert_int_equal(ids[n - 1], eos[0]);
    else if (r->finish == PB_FIN_LENGTH)
        assert_int_equal(r->n_got, r->s->max_tokens);
    else if (r->finish == PB_FIN_CANCELLED)
        assert_true(r->cancelled);
    else if (r->finish == PB_FIN_NUMERICAL)
        assert_int_equal(r->s->priority, NAN_SEED);
    else
        assert_int_equal(r->finish, PB_FIN_CONTEXT);
}

/* Runs one request alone; returns how much of it was cached. */
static uint32_t run_one(struct world *w, struct pb_submit *move_s)
{
    uint32_t h = submit(w, move_s);

    world_run(w);
    check_answer(w, &w->reqs[h]);
    return w->reqs[h].n_cached;
}

static void fill(uint32_t *ids, uint32_t n, uint64_t seed)
{
    struct ps_rng r;

    ps_rng_seed(&r, seed);
    for (uint32_t i = 0; i < n; i++)
        ids[i] = (uint32_t)ps_rng_below(&r, N_IDS);
}

static const struct shape roomy = {
    .n_pages = 200, .n_slots = 4, .depth = 2, .chunk = 40, .reserve = 64, .context = 1000};

/* ---- where states are kept, and what that is good for ---- */

static void the_same_prompt_begins_at_its_last_page_end_that_leaves_a_token(void **state)
{
    struct world w;
    uint32_t ids[LEN_MAX];

    (void)state;
    world_open(&w, &roomy);
    fill(ids, LEN_MAX, 1);
    assert_int_equal(run_one(&w, request(ids, 50, 5, 0)), 0);
    assert_int_equal(n_kept(&w), 1);
    assert_int_equal(run_one(&w, request(ids, 50, 5, 0)), 48);
    assert_int_equal(run_one(&w, request(ids, 49, 5, 0)), 48);
    assert_int_equal(n_kept(&w), 1);
    assert_int_equal(run_one(&w, request(ids, 48, 5, 0)), 0);  /* it would leave nothing */
    assert_int_equal(run_one(&w, request(ids, 48, 5, 0)), 32); /* and kept the one before */
    assert_int_equal(w.s->stats.n_snapshots, 2);
    world_close(&w);
}

static void rows_without_a_state_at_their_end_are_no_use(void **state)
{
    struct world w;
    uint32_t a[LEN_MAX], b[LEN_MAX];

    (void)state;
    world_open(&w, &roomy);
    fill(a, LEN_MAX, 1);
    fill(b, LEN_MAX, 2);
    memcpy(b, a, 85 * sizeof(*a));
    assert_int_equal(run_one(&w, request(a, 150, 3, 0)), 0);
    assert_int_equal(run_one(&w, request(b, 100, 3, 0)), 0); /* 85 tokens of it are there */
    assert_int_equal(n_in_vain(&w), 0);
    world_close(&w);
}

static void a_cut_is_where_others_begin(void **state)
{
    struct world w;
    struct pb_submit *s;
    uint32_t a[LEN_MAX], b[LEN_MAX];

    (void)state;
    world_open(&w, &roomy);
    fill(a, LEN_MAX, 1);
    fill(b, LEN_MAX, 2);
    memcpy(b, a, 45 * sizeof(*a));
    s = request(a, 150, 3, 2);
    s->cuts[0] = 45;
    s->cuts[1] = 100;
    assert_int_equal(run_one(&w, s), 0);
    assert_int_equal(w.s->stats.n_snapshots, 3); /* 32, 96 and 144 */
    assert_int_equal(run_one(&w, request(b, 100, 3, 0)), 32);
    assert_int_equal(run_one(&w, request(a, 97, 3, 0)), 96);
    world_close(&w);
}

static void where_a_path_turned_out_to_branch_the_next_one_begins(void **state)
{
    struct world w;
    uint32_t a[LEN_MAX], b[LEN_MAX];

    (void)state;
    world_open(&w, &roomy);
    fill(a, LEN_MAX, 1);
    assert_int_equal(run_one(&w, request(a, 150, 3, 0)), 0);
    for (uint32_t i = 0; i < 3; i++) {
        fill(b, LEN_MAX, 2 + i);
        memcpy(b, a, 85 * sizeof(*a));
        assert_int_equal(run_one(&w, request(b, 120, 3, 0)), i == 0 ? 0 : 80);
    }
    world_close(&w);
}

static void long_prompts_and_answers_keep_a_state_every_16_pages(void **state)
{
    struct world w;
    uint32_t a[LEN_MAX], h;

    (void)state;
    world_open(&w, &roomy);
    fill(a, LEN_MAX, 1);
    h = submit(&w, request(a, 300, 300, 0));
    world_run(&w);
    assert_int_equal(w.s->stats.n_snapshots, 3); /* 256, 288, 512 */
    memcpy(a + 300, w.reqs[h].got, 300 * sizeof(*a));
    assert_int_equal(run_one(&w, request(a, 600, 3, 0)), 512);
    world_close(&w);
}

static void choices_of_one_prompt_wait_for_its_state_instead_of_computing_it_again(void **state)
{
    struct world w;
    uint32_t a[LEN_MAX];

    (void)state;
    world_open(&w, &roomy);
    fill(a, LEN_MAX, 1);
    for (uint32_t i = 0; i < 4; i++)
        submit(&w, request(a, 200, 10, 0));
    world_run(&w);
    for (uint32_t i = 0; i < 4; i++) {
        check_answer(&w, &w.reqs[i]);
        assert_int_equal(w.reqs[i].n_cached, i == 0 ? 0 : 192);
    }
    world_close(&w);
}

/* 13 slabs of 2 pages or a state: 4 have the path, and one that answers comes to have all others. */
static void making_room_for_a_state_never_takes_the_path_that_it_is_for(void **state)
{
    struct world w;
    struct shape shape = roomy;
    uint32_t a[LEN_MAX], b[LEN_MAX], x;

    (void)state;
    shape.n_pages = 26;
    fill(a, LEN_MAX, 1);
    fill(b, LEN_MAX, 2);
    world_open(&w, &shape);
    assert_int_equal(run_one(&w, request(a, 97, 3, 0)), 0);
    x = submit(&w, request(b, 10, 240, 0)); /* too short to keep a state of its own */
    world_tick(&w, 4);
    while (w.s->by_handle[x]->n_pages < 15)
        world_tick(&w, 4);
    assert_int_equal(wk_kv_tree_n_free(w.tree, WK_KV_T0, WK_KV_SNAP_GROUP), 0);
    assert_int_equal(run_one(&w, request(a, 97, 3, 0)), 96);
    check_answer(&w, &w.reqs[x]);
    world_close(&w);
}

/* ---- what is never published ---- */

static void nothing_is_kept_of_a_request_that_was_cancelled_flushed_or_broken(void **state)
{
    struct world w;
    struct pb_submit *s;
    uint32_t a[LEN_MAX];

    (void)state;
    fill(a, LEN_MAX, 1);
    for (uint32_t how = 0; how < 3; how++) {
        struct shape shape = roomy;

        shape.chunk = 64;
        shape.cost = (struct wk_cost){{1600, 0, 0, 0, 0}}; /* a step takes some ticks */
        world_open(&w, &shape);
        s = request(a, 66, 20, 0);
        s->priority = how == 2 ? NAN_SEED : 0;
        submit(&w, s);
        world_tick(&w, 0);
        assert_int_equal(w.s->flights[0].rows[0].pos_hi, 64);
        assert_int_not_equal(w.s->flights[0].rows[0].kept, WK_KV_NO_ITEM);
        w.reqs[0].cancelled = how == 0;
        if (how == 0)
            send(&w, WK_IN_CANCEL, 0);
        if (how == 1)
            send(&w, WK_IN_FLUSH, 0);
        world_run(&w);
        settle(&w);
        check_answer(&w, &w.reqs[0]);
        assert_int_equal(n_kept(&w), 0);
        assert_int_equal(w.s->stats.n_snapshots, 0);
        world_close(&w);
    }
}

static void a_snapshot_is_found_only_once_its_step_is_committed(void **state)
{
    struct world w;
    struct shape shape = roomy;
    uint32_t a[LEN_MAX];

    (void)state;
    fill(a, LEN_MAX, 1);
    shape.chunk = 64;
    shape.cost = (struct wk_cost){{1600, 0, 0, 0, 0}};
    world_open(&w, &shape);
    submit(&w, request(a, 66, 20, 0));
    for (uint32_t i = 0; i < 20; i++) {
        world_tick(&w, 0);
        assert_int_equal(n_kept(&w), w.s->by_handle[0]->n_kv_done >= 64);
    }
    world_run(&w);
    world_close(&w);
}

/* ---- tiers ---- */

static void check_restarts(struct shape shape, enum wk_kv_tier tier, uint32_t want)
{
    struct world w;
    uint32_t a[LEN_MAX];

    shape.prefill_tok_per_s = 10; /* nothing is dearer than to compute */
    fill(a, LEN_MAX, 1);
    world_open(&w, &shape);
    assert_int_equal(run_one(&w, request(a, 600, 3, 0)), 0);
    for (uint32_t life = 0; life < 2; life++) {
        settle(&w);
        close_store(&w, 1000000);
        open_store(&w);
        settle(&w);
        memset(&w.stats, 0, sizeof(w.stats));
        assert_int_equal(run_one(&w, request(a, 600, 3, 0)), want);
        assert_true(n_kept(&w) >= 1);
    }
    world_close(&w);
    assert_int_equal(w.stats.fetched_tokens[tier], want);
}

static void a_state_comes_back_from_disk_or_directory_after_a_restart(void **state)
{
    struct shape shape = roomy;

    (void)state;
    shape.n_t1 = 80;
    shape.n_t2 = 160;
    check_restarts(shape, WK_KV_T2, 592);
    shape.n_t2 = 0;
    shape.has_t3 = true; /* whole runs of 256 tokens */
    check_restarts(shape, WK_KV_T3, 512);
}

static void a_fetch_that_is_given_up_frees_its_items_at_once(void **state)
{
    struct world w;
    struct shape shape = roomy;
    uint32_t a[LEN_MAX], h;

    (void)state;
    shape.n_t1 = 80;
    shape.n_t2 = 160;
    shape.prefill_tok_per_s = 10;
    fill(a, LEN_MAX, 1);
    world_open(&w, &shape);
    assert_int_equal(run_one(&w, request(a, 150, 3, 0)), 0);
    settle(&w);
    close_store(&w, 1000000);
    open_store(&w);
    settle(&w);
    h = submit(&w, request(a, 150, 3, 0));
    world_tick(&w, 0); /* the disk says nothing */
    assert_int_equal(w.s->by_handle[h]->state, WK_SEQ_FETCH);
    assert_true(wk_store_is_moving(w.store));
    w.reqs[h].cancelled = true;
    send(&w, WK_IN_CANCEL, h);
    world_tick(&w, 0);
    assert_true(wk_store_is_moving(w.store));
    for (uint32_t g = 0; g < 2; g++)
        assert_int_equal(wk_kv_tree_n_free(w.tree, WK_KV_T0, g),
                         wk_kv_tree_n_total(w.tree, WK_KV_T0, g));
    settle(&w);
    world_close(&w);
}

/* ---- lives ---- */

struct totals {
    uint64_t n_reqs, n_tokens, n_cached, n_preempted, n_snapshots, n_missed, n_cancelled, n_broken;
    uint64_t fetched[WK_KV_N_TIERS];
};

static uint32_t below(struct ps_rng *r, uint32_t n)
{
    return (uint32_t)ps_rng_below(r, n);
}

static struct shape random_shape(struct ps_rng *r, uint64_t seed)
{
    struct shape s = {.n_pages = 12 + below(r, 40),
                      .n_slots = 1 + below(r, SLOTS_MAX),
                      .depth = 1 + below(r, 2),
                      .chunk = 1 + below(r, 100),
                      .reserve = 8u << below(r, 4)};

    s.context = 60 + below(r, 500);
    if (seed % 4 > 0)
        s.n_t1 = 10 + below(r, 40);
    if (seed % 4 == 2 || seed % 8 == 3)
        s.n_t2 = 20 + below(r, 60);
    s.has_t3 = seed % 4 == 3;
    if (s.has_t3) { /* moves runs of 16 pages */
        s.n_pages += 40;
        s.n_t1 += 40;
        s.context += 300;
    }
    s.prefill_tok_per_s = below(r, 2) == 0 ? 10 : 0;
    if (below(r, 2) == 0)
        s.cost = (struct wk_cost){{below(r, 1500), below(r, 100), below(r, 50), 0, 0}};
    return s;
}

static struct pb_submit *random_request(struct ps_rng *r, const struct world *w,
                                        uint32_t base[3][LEN_MAX])
{
    uint32_t limit = ps_min_u32(w->shape.context, w->s->pool_tokens - 1);
    uint32_t n = 1 + below(r, below(r, 4) == 0 ? limit : limit / 2 + 1), n_cuts = below(r, 3),
             at = 0;
    struct pb_submit *s;

    n = ps_min_u32(n, limit);
    if (n > PT && below(r, 4) == 0)
        n -= n % PT;
    n_cuts = n < 8 ? 0 : n_cuts;
    s = request(base[below(r, 3)], n, below(r, 3) == 0 ? PB_NO_LIMIT : below(r, 80), n_cuts);
    if (s->max_tokens != PB_NO_LIMIT) /* what can never fit is refused, which is tested elsewhere */
        s->max_tokens = ps_min_u32(s->max_tokens, w->s->pool_tokens - n);
    for (uint32_t i = 0; i < n_cuts; i++)
        s->cuts[i] = at += 1 + below(r, n / 3);
    for (uint32_t i = below(r, 2 * n); i < n; i++)
        s->ids[i] = below(r, N_IDS);
    s->chain_seed = 1 + (below(r, 5) == 0);
    s->priority = below(r, 20) == 0 ? NAN_SEED : 0;
    s->ignore_eos = below(r, 2) == 0;
    s->samp.seed = below(r, 3);
    return s;
}

static void random_round(struct world *w, struct ps_rng *r, uint32_t base[3][LEN_MAX], uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        submit(w, random_request(r, w, base));
        for (uint32_t k = below(r, below(r, 5) == 0 ? 80 : 6); k > 0; k--) {
            world_tick(w, below(r, 6));
            if (below(r, 60) == 0) {
                uint32_t h = below(r, w->n_reqs);

                w->reqs[h].cancelled = true;
                if (w->reqs[h].finish == 0)
                    send(w, WK_IN_CANCEL, h);
            }
            if (below(r, 300) == 0)
                send(w, WK_IN_FLUSH, 0);
            if (below(r, 20) == 0)
                wk_store_check(w->store);
        }
    }
    world_run(w);
    settle(w);
}

static void random_life(uint64_t seed, struct totals *t)
{
    static struct world w;
    static uint32_t base[3][LEN_MAX];
    struct shape shape;
    struct ps_rng r;

    ps_rng_seed(&r, seed);
    shape = random_shape(&r, seed);
    for (uint32_t i = 0; i < 3; i++)
        fill(base[i], LEN_MAX, seed * 3 + i);
    memcpy(base[2], base[1], 70 * sizeof(uint32_t));
    world_open(&w, &shape);
    random_round(&w, &r, base, 1 + below(&r, 24));
    t->n_preempted += w.s->stats.n_preempted;
    t->n_snapshots += w.s->stats.n_snapshots;
    t->n_missed += w.s->batch.n_missed;
    if (shape.n_t1 == 0)
        assert_int_equal(n_in_vain(&w), 0);
    if ((shape.n_t2 > 0 || shape.has_t3) && below(&r, 2) == 0) {
        close_store(&w, below(&r, 2) == 0 ? 1000000 : 0);
        open_store(&w);
        random_round(&w, &r, base, 1 + below(&r, 8));
    }
    for (uint32_t h = 0; h < w.n_reqs; h++) {
        check_answer(&w, &w.reqs[h]);
        t->n_tokens += w.reqs[h].n_got;
        t->n_cached += w.reqs[h].n_cached;
        t->n_cancelled += w.reqs[h].finish == PB_FIN_CANCELLED;
        t->n_broken += w.reqs[h].finish == PB_FIN_NUMERICAL;
    }
    t->n_reqs += w.n_reqs;
    for (uint32_t g = 0; g < 2; g++)
        assert_int_equal(wk_kv_tree_n_avail(w.tree, WK_KV_T0, g),
                         wk_kv_tree_n_total(w.tree, WK_KV_T0, g));
    world_close(&w);
    for (uint32_t i = 0; i < WK_KV_N_TIERS; i++)
        t->fetched[i] += w.stats.fetched_tokens[i];
}

static void every_answer_is_that_of_the_definition_and_nothing_leaks(void **state)
{
    uint64_t n_lives = getenv("PENSTOCK_FULL") != NULL ? 10000 : 400;
    struct totals t = {0};

    (void)state;
    for (uint64_t seed = 0; seed < n_lives; seed++)
        random_life(seed, &t);
    print_message("# %llu requests, %llu tokens, %llu cached, %llu suspended, %llu states kept, "
                  "%llu not for want of room, %llu cancelled, %llu broken; tokens from T1 %llu, T2 "
                  "%llu, T3 %llu\n",
                  (unsigned long long)t.n_reqs, (unsigned long long)t.n_tokens,
                  (unsigned long long)t.n_cached, (unsigned long long)t.n_preempted,
                  (unsigned long long)t.n_snapshots, (unsigned long long)t.n_missed,
                  (unsigned long long)t.n_cancelled, (unsigned long long)t.n_broken,
                  (unsigned long long)t.fetched[WK_KV_T1], (unsigned long long)t.fetched[WK_KV_T2],
                  (unsigned long long)t.fetched[WK_KV_T3]);
    /* The lives were lively. */
    assert_true(t.n_cached > 1000 && t.n_preempted > 100 && t.n_snapshots > 1000);
    assert_true(t.n_missed > 10 && t.n_cancelled > 100 && t.n_broken > 20);
    assert_true(t.fetched[WK_KV_T1] > 500 && t.fetched[WK_KV_T2] > 500 &&
                t.fetched[WK_KV_T3] > 500);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_prompt_begins_at_its_last_page_end_that_leaves_a_token),
        cmocka_unit_test(rows_without_a_state_at_their_end_are_no_use),
        cmocka_unit_test(a_cut_is_where_others_begin),
        cmocka_unit_test(where_a_path_turned_out_to_branch_the_next_one_begins),
        cmocka_unit_test(long_prompts_and_answers_keep_a_state_every_16_pages),
        cmocka_unit_test(choices_of_one_prompt_wait_for_its_state_instead_of_computing_it_again),
        cmocka_unit_test(making_room_for_a_state_never_takes_the_path_that_it_is_for),
        cmocka_unit_test(nothing_is_kept_of_a_request_that_was_cancelled_flushed_or_broken),
        cmocka_unit_test(a_snapshot_is_found_only_once_its_step_is_committed),
        cmocka_unit_test(a_state_comes_back_from_disk_or_directory_after_a_restart),
        cmocka_unit_test(a_fetch_that_is_given_up_frees_its_items_at_once),
        cmocka_unit_test(every_answer_is_that_of_the_definition_and_nothing_leaks),
    };

    ps_log_init("sched_state_test", PS_LOG_WARN); /* stores open and close hundreds of times */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
