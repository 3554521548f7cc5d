#include "worker/exec/exec_sim.h"

#include <errno.h>
#include <poll.h>
#include <string.h>

#include "common/rng.h"
#include "common/test.h"

enum { PT = WK_SIM_PAGE_TOKENS, N_IDS = 1000, PAGES = 64, SLOTS = 4, LEN_MAX = 400 };
enum {
    STATE_BYTES = 8192,
    STATES = PAGES / 2 / 2
}; /* states from here on: short prompts leave room */

static const uint32_t eos[2] = {7, 8};

struct world {
    struct ps_clock clock;
    struct wk_exec *e;
    struct wk_plan_builder *b;
    struct wk_sim_vocab vocab;
    struct wk_done done;
    uint64_t ticket;
    uint32_t table[SLOTS][LEN_MAX / PT];
};

static void world_open_with(struct world *w, uint32_t depth, uint32_t item_bytes,
                            uint32_t state_bytes, const struct wk_cost *cost)
{
    struct wk_exec_sim_conf conf = {.clock = &w->clock,
                                    .depth = depth,
                                    .n_slots = SLOTS,
                                    .kv_bytes = (uint64_t)PAGES * item_bytes,
                                    .item_bytes = item_bytes,
                                    .state_bytes = state_bytes,
                                    .cost = cost != NULL ? *cost : (struct wk_cost){{0}}};
    struct ps_buf err = PS_BUF_INIT;

    memset(w, 0, sizeof(*w));
    ps_clock_manual(&w->clock, 1000);
    w->vocab = conf.vocab = (struct wk_sim_vocab){.n_ids = N_IDS, .eos = eos, .n_eos = 2};
    assert_int_equal(wk_exec_sim_create(&w->e, &conf, &err), 0);
    assert_int_equal(w->e->n_pages, PAGES);
    assert_int_equal(w->e->ops->wake_fd(w->e), -1);
    w->b = wk_plan_builder_create();
    for (uint32_t s = 0; s < SLOTS; s++) {
        for (uint32_t i = 0; i < LEN_MAX / PT && i < PAGES / SLOTS; i++)
            w->table[s][i] = i * SLOTS + s;
    }
}

static void world_open(struct world *w, uint32_t depth, uint32_t item_bytes,
                       const struct wk_cost *cost)
{
    world_open_with(w, depth, item_bytes, 0, cost);
}

static void world_close(struct world *w)
{
    w->e->ops->destroy(w->e);
    wk_plan_builder_destroy(w->b);
}

static const struct pb_sampling greedy = {.rep_penalty = 1, .n_top = -1, .n_prompt_top = -1};

static void add(struct world *w, uint32_t slot, uint32_t pos, uint32_t n_q, uint32_t flags,
                const uint32_t *toks, const struct pb_sampling *p)
{
    struct wk_samp s = {.p = *p, .pos = pos + n_q, .next_off = UINT32_MAX};
    struct wk_row row = {.slot = slot,
                         .n_q = (uint16_t)n_q,
                         .flags = flags,
                         .pos_lo = pos,
                         .pos_hi = pos + n_q,
                         .state = STATES + slot};

    if (flags & WK_ROW_PROMPT_SCORES)
        s.next_off = wk_plan_add_pool(w->b, toks + 1, n_q);
    row.samp = wk_plan_add_samp(w->b, &s);
    wk_plan_add_row(w->b, &row, toks, w->table[slot], (pos + n_q + PT - 1) / PT);
}

static void begin(struct world *w)
{
    wk_plan_begin(w->b, ++w->ticket);
}

static void enqueue(struct world *w)
{
    assert_int_equal(w->e->ops->enqueue(w->e, wk_plan_end(w->b)), WK_EXEC_OK);
}

static const struct wk_done *run(struct world *w)
{
    enqueue(w);
    assert_int_equal(w->e->ops->poll(w->e, &w->done), WK_EXEC_OK);
    assert_int_equal(w->done.ticket, w->ticket);
    return &w->done;
}

/* One row in a step of its own; returns its token. */
static uint32_t step(struct world *w, uint32_t slot, uint32_t pos, uint32_t n_q, uint32_t flags,
                     const uint32_t *toks)
{
    begin(w);
    add(w, slot, pos, n_q, flags | WK_ROW_LAST_CHUNK, toks, &greedy);
    run(w);
    assert_int_equal(w->done.fault, 0);
    return w->done.row[0].token;
}

static uint32_t oracle(const struct world *w, const uint32_t *ids, uint32_t n)
{
    return wk_exec_sim_token(&w->vocab, wk_exec_sim_digest(ids, n), &greedy, n, NULL, 0);
}

static void fill(uint32_t *ids, uint32_t n, uint64_t seed)
{
    struct ps_rng r;

    ps_rng_seed(&r, seed);
    for (uint32_t i = 0; i < n; i++)
        ids[i] = (uint32_t)ps_rng_below(&r, N_IDS);
}

static void expect_fault(struct world *w)
{
    run(w);
    assert_int_equal(w->done.fault, -EIO);
}

/* ---- results ---- */

static void a_token_is_a_function_of_its_exact_prefix_whatever_the_chunks(void **state)
{
    static const uint32_t chunks[] = {1, 3, 15, 16, 17, 48, 100};
    uint32_t ids[LEN_MAX];

    (void)state;
    for (uint32_t c = 0; c < PS_ARRAY_LEN(chunks); c++) {
        struct world w;
        uint32_t n, flags = WK_ROW_FIRST;

        world_open(&w, 1, 4096, NULL);
        fill(ids, 100, 1);
        for (uint32_t pos = 0; pos < 100; pos += n, flags = 0) {
            n = ps_min_u32(chunks[c], 100 - pos);
            begin(&w);
            add(&w, 0, pos, n, flags | (pos + n == 100 ? WK_ROW_LAST_CHUNK : 0u), ids + pos,
                &greedy);
            assert_int_equal(run(&w)->fault, 0);
        }
        ids[100] = w.done.row[0].token;
        assert_int_equal(ids[100], oracle(&w, ids, 100));
        for (n = 101; n < 140; n++) /* by turns known and from the slot */
            ids[n] = step(&w, 0, n - 1, 1, n % 2 ? WK_ROW_TOK_FROM_SLOT : 0u, &ids[n - 1]);
        for (n = 101; n < 140; n++)
            assert_int_equal(ids[n], oracle(&w, ids, n));
        world_close(&w);
    }
}

static void any_other_prefix_seed_or_position_gives_another_token(void **state)
{
    const struct wk_sim_vocab v = {.n_ids = 1u << 30};
    struct pb_sampling a = {.temperature = 1, .seed = 1}, b = {.temperature = 1, .seed = 2};
    uint32_t ids[40], t;

    (void)state;
    fill(ids, 40, 2);
    t = wk_exec_sim_token(&v, wk_exec_sim_digest(ids, 40), &a, 40, NULL, 0);
    assert_int_not_equal(t, wk_exec_sim_token(&v, wk_exec_sim_digest(ids, 40), &b, 40, NULL, 0));
    assert_int_not_equal(t, wk_exec_sim_token(&v, wk_exec_sim_digest(ids, 39), &a, 40, NULL, 0));
    assert_int_not_equal(t, wk_exec_sim_token(&v, wk_exec_sim_digest(ids, 40), &a, 41, NULL, 0));
    for (uint32_t i = 0; i < 40; i++) {
        ids[i] ^= 1;
        assert_int_not_equal(t,
                             wk_exec_sim_token(&v, wk_exec_sim_digest(ids, 40), &a, 40, NULL, 0));
        ids[i] ^= 1;
    }
    a.temperature = b.temperature = 0; /* greedy: whatever the seed */
    assert_int_equal(wk_exec_sim_token(&v, 5, &a, 40, NULL, 0),
                     wk_exec_sim_token(&v, 5, &b, 40, NULL, 0));
}

static void banned_ids_are_never_drawn_and_eos_only_as_often_as_asked(void **state)
{
    static const uint32_t ban[3] = {0, 3, 7};
    struct wk_sim_vocab v = {.n_ids = 10, .eos = eos, .n_eos = 2};
    uint32_t n_eos = 0;

    (void)state;
    for (uint64_t d = 0; d < 2000; d++) {
        uint32_t t = wk_exec_sim_token(&v, d, &greedy, 1, ban, 2);

        assert_true(t < 10 && t != 0 && t != 3 && t != 7 && t != 8);
    }
    v.p_eos = 0.1;
    for (uint64_t d = 0; d < 2000; d++) {
        n_eos += wk_exec_sim_token(&v, d, &greedy, 1, ban, 2) == 7;
        assert_int_not_equal(wk_exec_sim_token(&v, d, &greedy, 1, ban, 3), 7);
    }
    assert_true(n_eos > 150 && n_eos < 250);
}

static void logprobs_and_prompt_scores_come_from_each_positions_prefix(void **state)
{
    const struct pb_sampling p = {.n_top = 3, .n_prompt_top = 2};
    struct world w;
    uint32_t ids[64];
    const struct wk_row_out *o;

    (void)state;
    world_open(&w, 1, 4096, NULL);
    fill(ids, 64, 3);
    step(&w, 1, 0, 10, WK_ROW_FIRST, ids);
    begin(&w);
    add(&w, 0, 0, 40, WK_ROW_FIRST | WK_ROW_LAST_CHUNK | WK_ROW_LOGPROBS | WK_ROW_PROMPT_SCORES,
        ids, &p);
    o = &run(&w)->row[0];
    assert_int_equal(o->n_scores, 40);
    for (uint32_t i = 0; i < 39; i++) {
        assert_true(o->scores[i].logprob ==
                    wk_exec_sim_logprob(wk_exec_sim_digest(ids, i + 1), ids[i + 1]));
        assert_int_equal(o->scores[i].n_top, 2);
    }
    assert_true(o->logprob.logprob == wk_exec_sim_logprob(wk_exec_sim_digest(ids, 40), o->token));
    assert_int_equal(o->logprob.n_top, 3);
    assert_int_equal(o->logprob.top[0].id, o->token);
    world_close(&w);
}

/* ---- what a row reads ---- */

static void a_page_overwritten_under_a_running_sequence_is_a_fault_of_the_next_step(void **state)
{
    uint32_t ids[LEN_MAX];

    (void)state;
    fill(ids, LEN_MAX, 4);
    for (uint32_t victim = 0; victim < 4; victim++) { /* the last one is half full */
        struct world w;
        uint8_t item[4096];

        world_open(&w, 1, 4096, NULL);
        step(&w, 0, 0, 60, WK_ROW_FIRST, ids);
        step(&w, 1, 0, 60, WK_ROW_FIRST, ids + 70);
        step(&w, 0, 60, 1, WK_ROW_TOK_FROM_SLOT, ids);
        assert_int_equal(w.e->ops->kv_read(w.e, 0, w.table[1][victim], item), 0);
        assert_int_equal(w.e->ops->kv_write(w.e, 0, w.table[0][victim], item), 0);
        begin(&w);
        add(&w, 0, 61, 1, WK_ROW_TOK_FROM_SLOT, ids, &greedy);
        expect_fault(&w);
        world_close(&w);
    }
}

static void a_table_with_swapped_or_foreign_pages_is_a_fault(void **state)
{
    uint32_t ids[LEN_MAX];

    (void)state;
    fill(ids, LEN_MAX, 5);
    for (uint32_t k = 0; k < 4; k++) {
        struct world w;
        uint32_t t;

        world_open(&w, 1, 4096, NULL);
        step(&w, 0, 0, 64, WK_ROW_FIRST, ids);
        step(&w, 1, 0, 64, WK_ROW_FIRST, ids + 100);
        t = w.table[0][1];
        w.table[0][1] = k < 2 ? w.table[0][2] : w.table[1][1];
        w.table[0][2] = k < 2 ? t : w.table[0][2];
        begin(&w);
        add(&w, 0, 64, 3, k % 2 ? WK_ROW_FIRST : 0u, ids + 64, &greedy);
        expect_fault(&w);
        world_close(&w);
    }
}

static void a_position_or_token_that_is_not_the_slots_is_a_fault(void **state)
{
    uint32_t ids[LEN_MAX], t;

    (void)state;
    fill(ids, LEN_MAX, 6);
    for (uint32_t k = 0; k < 3; k++) {
        struct world w;

        world_open(&w, 1, 4096, NULL);
        t = step(&w, 0, 0, 40, WK_ROW_FIRST, ids);
        t = k == 1 ? (t + 1) % N_IDS : t;
        begin(&w);
        add(&w, 0, k == 0 ? 41 : 40, 1, 0, &t, &greedy);
        run(&w);
        assert_int_equal(w.done.fault, k == 2 ? 0 : -EIO);
        world_close(&w);
    }
}

static void a_page_moved_through_a_tier_serves_and_a_torn_one_does_not(void **state)
{
    enum { ITEM = 16384 };
    uint32_t ids[LEN_MAX], t;
    static uint8_t item[ITEM];

    (void)state;
    fill(ids, LEN_MAX, 7);
    for (uint32_t torn = 0; torn < 4; torn++) {
        struct world w;

        world_open(&w, 1, ITEM, NULL);
        t = step(&w, 0, 0, 50, WK_ROW_FIRST, ids);
        for (uint32_t i = 0; i < 3; i++) {
            assert_int_equal(w.e->ops->kv_read(w.e, 0, w.table[0][i], item), 0);
            if (torn > 0 && i == 2)
                memset(item + (size_t)torn * 4096, 0, 4096); /* a block that never arrived */
            assert_int_equal(w.e->ops->kv_write(w.e, 0, w.table[2][i], item), 0);
        }
        begin(&w);
        add(&w, 2, 48, 2, WK_ROW_FIRST | WK_ROW_LAST_CHUNK, ids + 48, &greedy);
        run(&w);
        assert_int_equal(w.done.fault, torn > 0 ? -EIO : 0);
        assert_true(torn > 0 || w.done.row[0].token == t);
        world_close(&w);
    }
}

static void a_tail_copy_takes_only_the_shared_tokens(void **state)
{
    struct wk_copy c = {.n_tok = 5};
    struct world w;
    uint32_t a[LEN_MAX], b[LEN_MAX];

    (void)state;
    world_open(&w, 1, 4096, NULL);
    fill(a, 48, 8);
    fill(b, 48, 9);
    memcpy(b, a, 37 * sizeof(*a));
    step(&w, 0, 0, 48, WK_ROW_FIRST, a);
    memcpy(w.table[1], w.table[0], 2 * sizeof(uint32_t));
    c.src = w.table[0][2];
    c.dst = w.table[1][2];
    begin(&w);
    wk_plan_add_copy(w.b, &c);
    add(&w, 1, 37, 8, WK_ROW_FIRST | WK_ROW_LAST_CHUNK, b + 37, &greedy);
    run(&w);
    assert_int_equal(w.done.fault, 0);
    assert_int_equal(w.done.row[0].token, oracle(&w, b, 45));
    step(&w, 0, 48, 1, WK_ROW_TOK_FROM_SLOT, a); /* the source is as it was */
    world_close(&w);
}

static void a_cached_token_is_compared_and_not_written(void **state)
{
    struct world w;
    uint32_t ids[LEN_MAX], wrong, t;

    (void)state;
    world_open(&w, 1, 4096, NULL);
    fill(ids, 64, 10);
    t = step(&w, 0, 0, 64, WK_ROW_FIRST, ids);
    memcpy(w.table[1], w.table[0], 4 * sizeof(uint32_t));
    assert_int_equal(step(&w, 1, 63, 1, WK_ROW_FIRST | WK_ROW_NO_KV_WRITE, ids + 63), t);
    step(&w, 1, 64, 1, WK_ROW_TOK_FROM_SLOT, ids);
    wrong = (ids[63] + 1) % N_IDS;
    begin(&w);
    add(&w, 2, 63, 1, WK_ROW_FIRST | WK_ROW_NO_KV_WRITE, &wrong, &greedy);
    memcpy(w.table[2], w.table[0], 4 * sizeof(uint32_t));
    expect_fault(&w);
    world_close(&w);
}

static void a_row_that_writes_into_a_shared_page_is_a_fault(void **state)
{
    struct world w;
    uint32_t ids[LEN_MAX];

    (void)state;
    world_open(&w, 1, 4096, NULL);
    fill(ids, 64, 12);
    step(&w, 0, 0, 64, WK_ROW_FIRST, ids);
    memcpy(w.table[1], w.table[0], 4 * sizeof(uint32_t));
    begin(&w);
    add(&w, 1, 40, 3, WK_ROW_FIRST, ids + 40, &greedy);
    expect_fault(&w);
    world_close(&w);
}

/* ---- states ---- */

enum { SNAPSHOT = STATES + SLOTS, OTHER_SNAPSHOT };

static void add_state_copy(struct world *w, uint32_t src, uint32_t dst, uint32_t pos,
                           enum wk_copy_when when)
{
    const struct wk_copy c = {.group = 1, .src = src, .dst = dst, .n_tok = pos, .when = when};

    wk_plan_add_copy(w->b, &c);
}

enum state_fault {
    STATE_RIGHT,
    STATE_NOT_RESTORED,
    STATE_OF_ANOTHER,
    STATE_TAKEN_LATE,
    STATE_TORN,
    STATE_N_FAULTS,
};

static void a_row_wants_the_state_of_exactly_its_prefix(void **state)
{
    static uint8_t item[STATE_BYTES];
    uint32_t a[LEN_MAX], b[LEN_MAX], src;
    struct world w;

    (void)state;
    fill(a, 60, 30);
    fill(b, 60, 31);
    for (int f = STATE_RIGHT; f < STATE_N_FAULTS; f++) {
        world_open_with(&w, 1, 4096, STATE_BYTES, NULL);
        step(&w, 2, 0, 32, WK_ROW_FIRST, b); /* what its state holds afterwards is of others */
        begin(&w);
        add(&w, 0, 0, 32, WK_ROW_FIRST, a, &greedy);
        add(&w, 1, 0, 32, WK_ROW_FIRST, b, &greedy);
        add_state_copy(&w, STATES + 1, OTHER_SNAPSHOT, 32, WK_COPY_AFTER);
        if (f != STATE_TAKEN_LATE)
            add_state_copy(&w, STATES, SNAPSHOT, 32, WK_COPY_AFTER);
        run(&w);
        assert_int_equal(w.done.fault, 0);
        step(&w, 0, 32, 1, 0, a + 32);
        memcpy(w.table[2], w.table[0], 2 * sizeof(uint32_t)); /* 32 tokens' */
        src = f == STATE_OF_ANOTHER ? OTHER_SNAPSHOT : f == STATE_TAKEN_LATE ? STATES : SNAPSHOT;
        if (f == STATE_TORN) {
            assert_int_equal(w.e->ops->kv_read(w.e, 1, SNAPSHOT, item), 0);
            memset(item + STATE_BYTES / 2, 0, STATE_BYTES / 2);
            assert_int_equal(w.e->ops->kv_write(w.e, 1, SNAPSHOT, item), 0);
        }
        begin(&w);
        if (f != STATE_NOT_RESTORED)
            add_state_copy(&w, src, STATES + 2, 32, WK_COPY_BEFORE);
        add(&w, 2, 32, 10, WK_ROW_FIRST, a + 32, &greedy);
        run(&w);
        assert_int_equal(w.done.fault, f == STATE_RIGHT ? 0 : -EIO);
        world_close(&w);
    }
}

/* ---- time ---- */

static void a_step_is_done_when_the_clock_says_so_one_after_the_other(void **state)
{
    const struct wk_cost cost = {{1000, 10, 5, 1, 0}};
    struct world w;
    uint32_t ids[64];

    (void)state;
    world_open(&w, 2, 4096, &cost);
    fill(ids, 64, 11);
    assert_true(wk_exec_sim_next_due(w.e) == UINT64_MAX);
    begin(&w);
    add(&w, 0, 0, 32, WK_ROW_FIRST | WK_ROW_LAST_CHUNK, ids, &greedy);
    enqueue(&w); /* 1000 + 10 + 32 * 5 + 32 = 1202 */
    assert_int_equal(wk_exec_sim_next_due(w.e), 2202);
    begin(&w);
    add(&w, 0, 32, 1, WK_ROW_TOK_FROM_SLOT | WK_ROW_LAST_CHUNK, ids, &greedy);
    enqueue(&w); /* 1000 + 10 + 33, behind the first */
    begin(&w);
    add(&w, 1, 0, 1, WK_ROW_FIRST, ids, &greedy);
    assert_int_equal(w.e->ops->enqueue(w.e, wk_plan_end(w.b)), WK_EXEC_E_FULL);
    ps_clock_advance(&w.clock, 1201);
    assert_int_equal(w.e->ops->poll(w.e, &w.done), WK_EXEC_E_NONE);
    ps_clock_advance(&w.clock, 1);
    assert_int_equal(w.e->ops->poll(w.e, &w.done), WK_EXEC_OK);
    assert_int_equal(w.done.ticket, 1);
    assert_int_equal(w.done.step_us, 1202);
    assert_int_equal(wk_exec_sim_next_due(w.e), 2202 + 1043);
    assert_int_equal(w.e->ops->poll(w.e, &w.done), WK_EXEC_E_NONE);
    ps_clock_advance(&w.clock, 5000);
    assert_int_equal(w.e->ops->poll(w.e, &w.done), WK_EXEC_OK);
    assert_int_equal(w.done.ticket, 2);
    assert_int_equal(w.done.step_us, 1043);
    world_close(&w);
}

static void on_the_real_clock_the_descriptor_wakes_when_a_step_is_due(void **state)
{
    const uint32_t ids[2] = {1, 2};
    struct ps_buf err = PS_BUF_INIT;
    struct wk_exec_sim_conf conf = {.with_timer = true,
                                    .depth = 2,
                                    .n_slots = SLOTS,
                                    .kv_bytes = 1 << 20,
                                    .item_bytes = 4096,
                                    .vocab = {.n_ids = N_IDS},
                                    .cost = {{3000, 0, 0, 0, 0}}};
    struct world w = {.table = {{0}, {1}}};
    struct pollfd fd = {.events = POLLIN};
    uint64_t t0;

    (void)state;
    ps_clock_real(&w.clock);
    conf.clock = &w.clock;
    assert_int_equal(wk_exec_sim_create(&w.e, &conf, &err), 0);
    w.b = wk_plan_builder_create();
    fd.fd = w.e->ops->wake_fd(w.e);
    assert_int_equal(poll(&fd, 1, 0), 0);
    t0 = ps_now_us(&w.clock);
    for (uint32_t i = 0; i < 2; i++) {
        begin(&w);
        add(&w, i, 0, 1, WK_ROW_FIRST, ids, &greedy);
        enqueue(&w);
    }
    for (uint32_t i = 1; i <= 2; i++) {
        assert_int_equal(poll(&fd, 1, 10000), 1);
        assert_true(ps_now_us(&w.clock) - t0 >= 3000 * i);
        assert_int_equal(w.e->ops->poll(w.e, &w.done), WK_EXEC_OK);
        assert_int_equal(w.done.ticket, i);
    }
    assert_int_equal(poll(&fd, 1, 0), 0);
    world_close(&w);
}

static void the_layout_has_the_item_size_that_was_asked_for(void **state)
{
    static const uint32_t sizes[] = {4096, 65536, 1u << 20};

    (void)state;
    for (uint32_t i = 0; i < PS_ARRAY_LEN(sizes); i++) {
        struct wk_kv_layout l;

        wk_exec_sim_layout(&l, sizes[i]);
        assert_int_equal(l.n_group, 1);
        assert_int_equal(l.group[0].item_bytes, sizes[i]);
        assert_int_equal(l.group[0].page_tokens, PT);
        assert_int_equal(l.comp[0].shape, WK_KV_ROWS);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_token_is_a_function_of_its_exact_prefix_whatever_the_chunks),
        cmocka_unit_test(any_other_prefix_seed_or_position_gives_another_token),
        cmocka_unit_test(banned_ids_are_never_drawn_and_eos_only_as_often_as_asked),
        cmocka_unit_test(logprobs_and_prompt_scores_come_from_each_positions_prefix),
        cmocka_unit_test(a_page_overwritten_under_a_running_sequence_is_a_fault_of_the_next_step),
        cmocka_unit_test(a_table_with_swapped_or_foreign_pages_is_a_fault),
        cmocka_unit_test(a_position_or_token_that_is_not_the_slots_is_a_fault),
        cmocka_unit_test(a_page_moved_through_a_tier_serves_and_a_torn_one_does_not),
        cmocka_unit_test(a_tail_copy_takes_only_the_shared_tokens),
        cmocka_unit_test(a_cached_token_is_compared_and_not_written),
        cmocka_unit_test(a_row_wants_the_state_of_exactly_its_prefix),
        cmocka_unit_test(a_row_that_writes_into_a_shared_page_is_a_fault),
        cmocka_unit_test(a_step_is_done_when_the_clock_says_so_one_after_the_other),
        cmocka_unit_test(on_the_real_clock_the_descriptor_wakes_when_a_step_is_due),
        cmocka_unit_test(the_layout_has_the_item_size_that_was_asked_for),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
