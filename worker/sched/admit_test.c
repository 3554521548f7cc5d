#include "worker/sched/prefill.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/rng.h"

/*
 * One worker in numbers: pages are counts, a step is an instant, a row ends after its true length.
 * Pages of a suspended row stay cached, and are the first to go when others take pages.
 */
enum { MAX_ROWS = 48, MAX_DEPTH = 3 };

struct sim_row {
    struct wk_admit_row a;
    uint32_t prompt, want;   /* tokens; want: how many it really generates */
    uint32_t n_out, n_known; /* committed answer tokens; prompt + n_out */
    uint32_t n_fly, cached;  /* steps in flight; pages left in the cache */
    uint32_t out_at_admit, len_at_admission, n_sat_out;
    bool ended, released, zombie;
};

struct sim {
    struct wk_admit adm;
    struct sim_row rows[MAX_ROWS];
    uint32_t n, n_released;
    uint32_t total, used, warm; /* pages; warm: evictable ones of nobody in particular */
    struct {
        struct sim_row *row[MAX_ROWS];
        bool token[MAX_ROWS];
        uint32_t n;
    } fly[MAX_DEPTH];
    uint32_t n_in_fly, first_fly;
    uint32_t n_suspensions, n_steps, max_batch;
    uint64_t batch_sum;
    bool shortest_first; /* prompts share as prefill.h says, else by rank */
    /* The room of a step varies between chunk (what admission counts on) and this. */
    uint32_t chunk_max;
    struct ps_rng rng;
};

static uint32_t pages_of(const struct sim *s, uint32_t tokens)
{
    return (tokens + s->adm.conf.page_tokens - 1) / s->adm.conf.page_tokens;
}

static void sim_init(struct sim *s, uint32_t total, uint32_t reserve, uint32_t chunk,
                     uint32_t depth)
{
    struct wk_admit_conf c = {.reserve = reserve,
                              .chunk = chunk,
                              .page_tokens = 16,
                              .n_fly = depth - 1,
                              .n_rows_max = MAX_ROWS};

    *s = (struct sim){.total = total, .chunk_max = chunk};
    ps_rng_seed(&s->rng, total);
    wk_admit_init(&s->adm, &c);
}

static struct sim_row *sim_add(struct sim *s, int32_t priority, uint32_t prompt, uint32_t max,
                               uint32_t want)
{
    struct sim_row *r = &s->rows[s->n];
    uint32_t pool = s->total * s->adm.conf.page_tokens;

    assert_true(s->n < MAX_ROWS && prompt < pool && want > 0);
    *r = (struct sim_row){.prompt = prompt, .n_known = prompt};
    r->a.priority = priority;
    r->a.ticket = s->n++;
    r->a.len = prompt;
    r->a.hard = prompt + ps_min_u32(max, pool - prompt);
    r->want = ps_min_u32(want, r->a.hard - prompt);
    wk_admit_push(&s->adm, &r->a);
    return r;
}

static void take_pages(struct sim *s, struct sim_row *r, uint32_t n)
{
    uint32_t evict;

    r->a.held += n;
    s->used += n;
    assert_true(s->used <= s->total); /* invariant 1 */
    assert_true(r->a.held <= pages_of(s, r->a.hard));
    evict = s->used + s->warm > s->total ? s->used + s->warm - s->total : 0;
    s->warm -= evict;
    for (uint32_t i = 0; i < s->n; i++) { /* cached pages of the suspended are evicted last */
        uint32_t cached = 0;

        for (uint32_t k = 0; k < s->n; k++)
            cached += s->rows[k].cached;
        if (s->used + cached <= s->total)
            break;
        s->rows[i].cached -= ps_min_u32(s->rows[i].cached, s->used + cached - s->total);
    }
}

static void release(struct sim *s, struct sim_row *r)
{
    s->used -= r->a.held;
    if (r->ended) {
        s->warm += r->a.held;
        r->released = true;
        s->n_released++;
    } else {
        r->cached = r->n_known / s->adm.conf.page_tokens;
    }
    r->a.held = 0;
    r->a.drains = false;
}

static uint32_t unshared(const struct wk_admit_row *r, void *ud)
{
    (void)ud;
    return r->held;
}

static void commit(struct sim *s)
{
    uint32_t f = s->first_fly;

    for (uint32_t i = 0; i < s->fly[f].n; i++) {
        struct sim_row *r = s->fly[f].row[i];

        r->n_fly--;
        if (!r->ended && s->fly[f].token[i]) {
            r->n_known++;
            if (++r->n_out == r->want) {
                r->ended = true;
                wk_admit_remove(&s->adm, &r->a);
            }
        }
        if (r->n_fly == 0 && (r->ended || r->a.drains))
            release(s, r);
    }
    s->first_fly = (f + 1) % MAX_DEPTH;
    s->n_in_fly--;
}

static void relieve(struct sim *s)
{
    for (;;) {
        uint32_t returning = 0, conf_l = s->adm.conf.n_fly + 1, most = 0;
        struct sim_row *v;

        for (uint32_t i = 0; i < s->n; i++)
            returning += (s->rows[i].ended || s->rows[i].a.drains) ? s->rows[i].a.held : 0;
        if (!wk_admit_is_short(&s->adm, s->total - s->used + returning))
            return;
        v = (struct sim_row *)wk_admit_victim(&s->adm, unshared, NULL);
        if (v == NULL)
            return;
        assert_ptr_not_equal(&v->a, s->adm.rows[0]); /* invariant 2 */
        for (uint32_t i = 0; i < s->adm.n_rows; i++) {
            struct sim_row *r = (struct sim_row *)s->adm.rows[i];

            most = ps_max_u32(most, r->a.len - r->len_at_admission);
        }
        for (uint32_t i = 0; i < s->n; i++) { /* rows that have ended since grew as well */
            if (s->rows[i].ended)
                most = ps_max_u32(most, s->rows[i].a.len - s->rows[i].len_at_admission);
        }
        assert_true(most + conf_l > s->adm.conf.reserve); /* invariant 4 */
        assert_true(v->a.len - v->prompt + conf_l + s->adm.conf.n_fly + 1 >=
                    v->out_at_admit + s->adm.conf.reserve); /* invariant 5 */
        wk_admit_suspend(&s->adm, &v->a, v->n_fly > 0);
        v->a.len = v->n_known + v->n_fly;
        s->n_suspensions++;
        if (v->n_fly == 0)
            release(s, v);
    }
}

static void admit(struct sim *s)
{
    struct wk_admit_row *next;

    while ((next = wk_admit_next(&s->adm)) != NULL) {
        struct sim_row *r = (struct sim_row *)next;
        uint32_t need, left, hits;

        r->a.len = r->n_known;
        need = pages_of(s, r->a.len);
        hits = ps_min_u32(r->cached, (r->a.len - 1) / s->adm.conf.page_tokens);
        left = r->a.len - hits * s->adm.conf.page_tokens;
        r->a.n_left = left > 1 ? left : 0;
        if (!wk_admit_fits(&s->adm, &r->a, need, need, s->total - s->used)) {
            assert_true(s->used > 0); /* invariant 3: alone it always fits */
            return;
        }
        wk_admit_enter(&s->adm, &r->a);
        r->cached = 0;
        take_pages(s, r, need);
        r->out_at_admit = r->n_out;
        for (uint32_t i = 0; i < s->n; i++)
            s->rows[i].len_at_admission = s->rows[i].a.len;
    }
}

/* Prompt tokens of each row. */
static void share(struct sim *s, uint32_t *grants)
{
    uint32_t chunk = s->adm.conf.chunk;
    struct wk_budget_room room = {
        .tokens = chunk + (uint32_t)ps_rng_below(&s->rng, s->chunk_max - chunk + 1)};

    if (s->shortest_first) {
        wk_prefill_share(&s->adm, s->chunk_max, &room, grants);
        return;
    }
    for (uint32_t i = 0; i < s->adm.n_rows; i++) {
        grants[i] = ps_min_u32(s->adm.rows[i]->n_left, room.tokens);
        room.tokens -= grants[i];
    }
}

static bool plan(struct sim *s)
{
    uint32_t f = (s->first_fly + s->n_in_fly) % MAX_DEPTH, grants[MAX_ROWS];

    s->fly[f].n = 0;
    share(s, grants);
    for (uint32_t i = 0; i < s->adm.n_rows; i++) {
        struct sim_row *r = (struct sim_row *)s->adm.rows[i];
        uint32_t n = grants[i], want;
        bool token;

        if (r->a.len == r->a.hard && r->a.n_left == 0)
            continue;
        if (r->a.n_left > 0) {
            if (n == 0)
                continue;
            r->a.n_left -= n;
            token = r->a.n_left == 0;
        } else {
            want = pages_of(s, r->a.len);
            if (want > r->a.held) {
                if (want - r->a.held > s->total - s->used) {
                    r->n_sat_out++;
                    if (i == 0)
                        assert_true(r->n_sat_out <= s->adm.conf.n_fly + 3); /* invariant 2 */
                    continue;
                }
                take_pages(s, r, want - r->a.held);
            }
            token = true;
        }
        r->n_sat_out = 0;
        r->a.len += token;
        r->n_fly++;
        s->fly[f].row[s->fly[f].n] = r;
        s->fly[f].token[s->fly[f].n++] = token;
    }
    if (s->fly[f].n == 0)
        return false;
    s->n_in_fly++;
    s->n_steps++;
    s->batch_sum += s->fly[f].n;
    s->max_batch = ps_max_u32(s->max_batch, s->fly[f].n);
    return true;
}

/* One turn of the scheduler; false when nothing is left to do. */
static bool sim_step(struct sim *s)
{
    if (s->n_in_fly == s->adm.conf.n_fly + 1)
        commit(s);
    relieve(s);
    admit(s);
    if (!plan(s) && s->n_in_fly > 0)
        commit(s); /* nothing to do beside what is in flight */
    return s->n_released < s->n;
}

static void sim_run(struct sim *s, uint32_t n_steps_max)
{
    uint32_t n = 0;

    while (sim_step(s)) {
        if (++n > n_steps_max)
            fail_msg("%u of %u rows ended after %u steps", s->n_released, s->n, n);
        if (s->n_in_fly == 0 && s->adm.n_rows == 0 && s->adm.n_waiting == 0 && s->n_released < s->n)
            fail_msg("a row got lost");
    }
    while (s->n_in_fly > 0)
        commit(s);
    assert_int_equal(s->used, 0);
    wk_admit_fini(&s->adm);
}

static void an_idle_worker_admits_what_fits_the_pool_exactly(void **state) /* C1 and invariant 3 */
{
    struct sim s;

    (void)state;
    for (uint32_t prompt = 1; prompt < 160; prompt++) {
        sim_init(&s, 10, 256, 32, 1);
        sim_add(&s, 0, prompt, UINT32_MAX, 200);
        admit(&s);
        assert_int_equal(s.adm.n_rows, 1);
        sim_run(&s, 1000);
    }
}

static void rows_that_cannot_run_together_run_in_turn(void **state) /* C2 */
{
    struct sim s;

    (void)state;
    sim_init(&s, 63, 256, 512, 1);
    sim_add(&s, 0, 100, 108, 108); /* 13 pages at its end */
    sim_add(&s, 0, 500, 188, 188); /* 43 */
    sim_add(&s, 0, 200, 424, 424); /* 39: with the second 82 > 63 */
    sim_run(&s, 3000);
    assert_true(s.n_suspensions <= 2);
}

static void a_suspended_row_is_not_admitted_to_be_suspended_again(void **state) /* C3 */
{
    struct sim s;

    (void)state;
    sim_init(&s, 40, 64, 512, 1);
    for (uint32_t i = 0; i < 6; i++)
        sim_add(&s, 0, 40, UINT32_MAX, 400);
    sim_run(&s, 5000); /* invariants 4 and 5 are asserted at every suspension */
    assert_true(s.n_suspensions > 0);
    for (uint32_t i = 0; i < 6; i++)
        assert_true(s.rows[i].a.n_suspends <= 4);
}

static void an_absent_limit_does_not_reserve_the_whole_pool(void **state) /* C4 */
{
    struct sim s;

    (void)state;
    sim_init(&s, 250, 64, 512, 1);
    for (uint32_t i = 0; i < 40; i++)
        sim_add(&s, 0, 20, UINT32_MAX, 10);
    sim_run(&s, 2000);
    assert_true(s.max_batch >= 30);
    assert_int_equal(s.n_suspensions, 0);
}

static void rows_that_end_make_room_for_those_that_grow(void **state) /* C5 */
{
    static const uint32_t reserves[2] = {64,
                                         1u << 20}; /* the latter: the exact sum of whole lives */
    uint32_t n_steps[2];

    (void)state;
    for (uint32_t k = 0; k < 2; k++) {
        struct sim s;

        sim_init(&s, 250, reserves[k], 512, 1);
        for (uint32_t i = 0; i < MAX_ROWS; i++) {
            uint32_t want = 20 + i * 7 % MAX_ROWS * 20;

            sim_add(&s, 0, 40, want, want);
        }
        sim_run(&s, 50000);
        n_steps[k] = s.n_steps;
    }
    assert_true(n_steps[0] * 10 < n_steps[1] * 8);
}

static void a_suspended_row_comes_back_before_its_whole_life_fits(void **state) /* C6 */
{
    struct sim s;
    struct sim_row *r;

    (void)state;
    sim_init(&s, 100, 64, 512, 1);
    sim_add(&s, 0, 640, 160, 160); /* 40 now, 44 within the reserve, 50 at its end */
    r = sim_add(&s, 0, 320, UINT32_MAX, 100);
    admit(&s);
    assert_int_equal(s.adm.n_rows, 2);
    wk_admit_suspend(&s.adm, &r->a, false);
    release(&s, r);
    /* 20 now, 28 within twice the reserve, 100 at its hard end: 44 + 28 pages fit, 144 do not. */
    admit(&s);
    assert_int_equal(s.adm.n_rows, 2);
    sim_run(&s, 2000);
}

static void head_victims_and_queue_obey_one_order(void **state) /* C8 */
{
    struct wk_admit_conf c = {.reserve = 64, .chunk = 16, .page_tokens = 16, .n_rows_max = 4};
    struct wk_admit_row r[3] = {{.priority = 1, .ticket = 1, .held = 5},
                                {.priority = 1, .ticket = 2, .held = 5},
                                {.priority = 0, .ticket = 3, .held = 500}};
    struct wk_admit a;

    (void)state;
    wk_admit_init(&a, &c);
    for (uint32_t i = 0; i < 3; i++)
        wk_admit_push(&a, &r[i]);
    for (uint32_t i = 0; i < 3; i++) /* the queue: by rank */
        wk_admit_enter(&a, wk_admit_next(&a));
    assert_ptr_equal(a.rows[0], &r[2]); /* the head: lowest rank, not lowest ticket */
    assert_ptr_equal(wk_admit_victim(&a, unshared, NULL), &r[1]); /* the victim: highest rank */
    wk_admit_suspend(&a, &r[1], false);
    assert_ptr_equal(wk_admit_victim(&a, unshared, NULL), &r[0]); /* though it was the head once */
    for (uint32_t i = 0; i < 3; i++)
        wk_admit_remove(&a, &r[i]);
    wk_admit_fini(&a);
}

static void whoever_waits_for_a_leader_is_passed_within_its_priority(void **state)
{
    struct wk_admit_conf c = {.reserve = 64, .chunk = 16, .page_tokens = 16, .n_rows_max = 2};
    struct wk_admit_row r[4] = {{.priority = 0, .ticket = 5, .n_suspends = 1},
                                {.priority = 0, .ticket = 1},
                                {.priority = 0, .ticket = 2},
                                {.priority = 1, .ticket = 3}};
    struct wk_admit a;

    (void)state;
    wk_admit_init(&a, &c);
    for (uint32_t i = 0; i < 4; i++)
        wk_admit_push(&a, &r[i]);
    assert_ptr_equal(wk_admit_next(&a), &r[0]);
    assert_ptr_equal(wk_admit_behind(&a, &r[1]), &r[2]);
    assert_null(wk_admit_behind(&a, &r[2])); /* lower priorities wait with it */
    wk_admit_enter(&a, &r[0]);
    wk_admit_enter(&a, &r[2]);
    assert_null(wk_admit_behind(&a, &r[1])); /* no row is left */
    for (uint32_t i = 0; i < 4; i++)
        wk_admit_remove(&a, &r[i]);
    wk_admit_fini(&a);
}

static void a_warm_cache_admits_like_an_empty_one(void **state) /* C7 */
{
    struct sim s;

    (void)state;
    sim_init(&s, 100, 256, 512, 1);
    s.warm = 100; /* nothing is free, everything evictable */
    for (uint32_t i = 0; i < 4; i++)
        sim_add(&s, 0, 64, 64, 64);
    admit(&s);
    assert_int_equal(s.adm.n_rows, 4);
    assert_int_equal(s.warm, 84);
    sim_run(&s, 1000);
}

static void growth_of_the_running_comes_before_a_newcomer(void **state) /* C10 */
{
    struct sim s;
    struct sim_row *big;

    (void)state;
    sim_init(&s, 30, 64, 512, 1);
    big = sim_add(&s, 0, 200, 160, 160); /* 13 now, 23 at the end, 17 within the reserve */
    sim_add(&s, 0, 150, 100, 100); /* 10 now and 14 within the reserve: does not fit beside it */
    admit(&s);
    assert_int_equal(s.adm.n_rows, 1);
    sim_run(&s, 2000);
    assert_int_equal(big->a.n_suspends, 0);
}

static void a_long_prefill_counts_as_time_in_which_others_grow(void **state) /* C11 */
{
    struct wk_admit_conf c = {.reserve = 64, .chunk = 16, .page_tokens = 16, .n_rows_max = 4};
    struct wk_admit_row old = {.ticket = 1, .len = 160, .hard = 1600, .held = 10};
    struct wk_admit_row new = {.ticket = 2, .len = 640, .hard = 650, .n_left = 640};
    struct wk_admit a;

    (void)state;
    wk_admit_init(&a, &c);
    wk_admit_push(&a, &old);
    wk_admit_enter(&a, &old);
    wk_admit_push(&a, &new);
    /* H = 64 + 40 steps: the old row grows 6.5 -> 7 pages, the new one needs 40 and grows by 1. */
    assert_true(wk_admit_fits(&a, &new, 40, 40, 48));
    assert_false(wk_admit_fits(&a, &new, 40, 40, 47));
    wk_admit_remove(&a, &new);
    wk_admit_remove(&a, &old);
    wk_admit_fini(&a);
}

static void each_suspension_doubles_the_own_reservation(void **state)
{
    struct wk_admit_conf c = {.reserve = 64, .chunk = 16, .page_tokens = 16, .n_rows_max = 4};
    struct wk_admit_row r = {.len = 16, .hard = 100000};
    struct wk_admit a;

    (void)state;
    wk_admit_init(&a, &c);
    for (uint32_t i = 0; i < 12; i++) {
        uint32_t pages = 1 + 4 * (1u << ps_min_u32(i, 8));

        r.n_suspends = i;
        assert_true(wk_admit_fits(&a, &r, 1, 1, pages));
        assert_false(wk_admit_fits(&a, &r, 1, 1, pages - 1));
    }
    wk_admit_fini(&a);
}

static void suspended_rows_come_first_within_their_priority(void **state)
{
    struct wk_admit_conf c = {.reserve = 64, .chunk = 16, .page_tokens = 16, .n_rows_max = 4};
    struct wk_admit_row r[5] = {{.priority = 0, .ticket = 1},
                                {.priority = 0, .ticket = 5, .n_suspends = 1},
                                {.priority = 1, .ticket = 0, .n_suspends = 3},
                                {.priority = -1, .ticket = 9},
                                {.priority = 0, .ticket = 4, .n_suspends = 2}};
    const uint32_t order[5] = {3, 4, 1, 0, 2};
    struct wk_admit a;

    (void)state;
    wk_admit_init(&a, &c);
    for (uint32_t i = 0; i < 5; i++)
        wk_admit_push(&a, &r[i]);
    r[4].drains = true;
    for (uint32_t i = 0; i < 5; i++) {
        if (i == 1) { /* nobody passes the one that drains */
            assert_null(wk_admit_next(&a));
            r[4].drains = false;
        }
        assert_ptr_equal(wk_admit_next(&a), &r[order[i]]);
        wk_admit_remove(&a, &r[order[i]]);
    }
    wk_admit_fini(&a);
}

static void whoever_steps_aside_is_never_the_head(void **state)
{
    struct wk_admit_conf c = {.reserve = 64, .chunk = 16, .page_tokens = 16, .n_rows_max = 4};
    struct wk_admit_row r[4] = {{.priority = 0, .ticket = 1, .held = 90},
                                {.priority = 0, .ticket = 2, .held = 50},
                                {.priority = 1, .ticket = 3, .held = 10},
                                {.priority = 1, .ticket = 4, .held = 10}};
    struct wk_admit a;

    (void)state;
    wk_admit_init(&a, &c);
    for (uint32_t i = 0; i < 4; i++) {
        wk_admit_push(&a, &r[i]);
        wk_admit_enter(&a, &r[i]);
    }
    for (uint32_t i = 3; i > 0; i--) { /* lowest priority, most pages, then youngest */
        assert_ptr_equal(wk_admit_victim(&a, unshared, NULL), &r[i]);
        wk_admit_remove(&a, &r[i]);
    }
    assert_null(wk_admit_victim(&a, unshared, NULL));
    wk_admit_remove(&a, &r[0]);
    wk_admit_fini(&a);
}

static void every_ticket_finishes_in_any_tiny_pool(void **state)
{
    uint32_t n_seeds = getenv("PENSTOCK_FULL") != NULL ? 10000 : 2000;
    uint64_t n_suspensions = 0;
    uint32_t worst = 0;

    (void)state;
    for (uint32_t seed = 0; seed < n_seeds; seed++) {
        static const uint32_t reserves[5] = {16, 32, 64, 128, 256};
        struct sim s;
        struct ps_rng r;
        uint32_t n;

        ps_rng_seed(&r, seed);
        sim_init(&s, 12 + (uint32_t)ps_rng_below(&r, 149), reserves[ps_rng_below(&r, 5)],
                 16u << ps_rng_below(&r, 5), 1 + (uint32_t)ps_rng_below(&r, MAX_DEPTH));
        s.shortest_first = seed % 2 == 1;
        s.chunk_max <<= seed % 3;
        n = 1 + (uint32_t)ps_rng_below(&r, 40);
        for (uint32_t i = 0; i < n; i++) {
            uint32_t pool = s.total * 16;
            uint32_t prompt =
                1 + (uint32_t)ps_rng_below(&r, ps_rng_below(&r, 3) ? pool / 6 : pool - 2);
            uint32_t max =
                ps_rng_below(&r, 2) ? UINT32_MAX : 1 + (uint32_t)ps_rng_below(&r, pool - prompt);
            uint32_t want = 1 + (uint32_t)ps_rng_below(&r, ps_rng_below(&r, 4) ? 200 : pool);

            sim_add(&s, seed % 4 == 0 ? (int32_t)ps_rng_below(&r, 3) : 0, prompt, max, want);
            for (uint64_t k = ps_rng_below(&r, 30); k > 0 && s.n_released < s.n; k--)
                sim_step(&s);
        }
        sim_run(&s, 400000);
        n_suspensions += s.n_suspensions;
        for (uint32_t i = 0; i < n; i++)
            worst = ps_max_u32(worst, s.rows[i].a.n_suspends);
    }
    assert_true(n_suspensions > n_seeds / 10); /* the pressure was real */
    assert_true(worst <= 8);
    print_message("# %d seeds, %llu suspensions, at most %u of one row\n", n_seeds,
                  (unsigned long long)n_suspensions, worst);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_idle_worker_admits_what_fits_the_pool_exactly),
        cmocka_unit_test(rows_that_cannot_run_together_run_in_turn),
        cmocka_unit_test(a_suspended_row_is_not_admitted_to_be_suspended_again),
        cmocka_unit_test(an_absent_limit_does_not_reserve_the_whole_pool),
        cmocka_unit_test(rows_that_end_make_room_for_those_that_grow),
        cmocka_unit_test(a_suspended_row_comes_back_before_its_whole_life_fits),
        cmocka_unit_test(head_victims_and_queue_obey_one_order),
        cmocka_unit_test(whoever_waits_for_a_leader_is_passed_within_its_priority),
        cmocka_unit_test(a_warm_cache_admits_like_an_empty_one),
        cmocka_unit_test(growth_of_the_running_comes_before_a_newcomer),
        cmocka_unit_test(a_long_prefill_counts_as_time_in_which_others_grow),
        cmocka_unit_test(each_suspension_doubles_the_own_reservation),
        cmocka_unit_test(suspended_rows_come_first_within_their_priority),
        cmocka_unit_test(whoever_steps_aside_is_never_the_head),
        cmocka_unit_test(every_ticket_finishes_in_any_tiny_pool),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
