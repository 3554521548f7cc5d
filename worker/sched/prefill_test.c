#include "worker/sched/prefill.h"

#include "common/rng.h"
#include "common/test.h"

enum { ROWS = 64, CHUNK = 256 };

struct fixture {
    struct wk_admit a;
    struct wk_budget b;
    struct wk_admit_row rows[ROWS];
    uint32_t grants[ROWS], n;
};

static void open_fixture(struct fixture *f)
{
    static const struct wk_admit_conf c = {
        .reserve = 64, .chunk = CHUNK, .page_tokens = 16, .n_rows_max = ROWS};

    *f = (struct fixture){.n = 0};
    wk_admit_init(&f->a, &c);
    wk_budget_init(&f->b, CHUNK, 0);
}

static void close_fixture(struct fixture *f)
{
    while (f->a.n_rows > 0)
        wk_admit_remove(&f->a, f->a.rows[0]);
    wk_admit_fini(&f->a);
}

static struct wk_admit_row *add(struct fixture *f, int32_t priority, uint32_t n_left)
{
    struct wk_admit_row *r = &f->rows[f->n];

    assert_true(f->n < ROWS);
    *r = (struct wk_admit_row){.priority = priority,
                               .ticket = f->n++,
                               .len = n_left,
                               .hard = n_left + 100,
                               .n_left = n_left};
    wk_admit_push(&f->a, r);
    wk_admit_enter(&f->a, r);
    return r;
}

static uint32_t granted(const struct fixture *f, const struct wk_admit_row *r)
{
    for (uint32_t i = 0; i < f->a.n_rows; i++) {
        if (f->a.rows[i] == r)
            return f->grants[i];
    }
    fail_msg("no such row");
    return 0;
}

static uint32_t share(struct fixture *f, uint32_t n_tokens)
{
    struct wk_budget_room room;

    wk_budget_open(&f->b, 0, 0, &room);
    room.tokens = n_tokens;
    return wk_prefill_share(&f->a, CHUNK, &room, f->grants);
}

/* The tokens are computed. */
static void advance(struct fixture *f)
{
    for (uint32_t i = 0; i < f->a.n_rows; i++)
        f->a.rows[i]->n_left -= f->grants[i];
}

static void the_shortest_goes_first_and_the_head_never_sits_out(void **state)
{
    struct fixture f;
    struct wk_admit_row *head, *mid, *small;

    (void)state;
    open_fixture(&f);
    head = add(&f, 0, 4000);
    mid = add(&f, 0, 500);
    small = add(&f, 0, 30);
    assert_int_equal(share(&f, 256), 256);
    assert_int_equal(granted(&f, head), 64);
    assert_int_equal(granted(&f, small), 30);
    assert_int_equal(granted(&f, mid), 162);
    assert_int_equal(share(&f, 16), 16); /* the least a step has */
    assert_int_equal(granted(&f, head), 4);
    assert_int_equal(granted(&f, small), 12);
    assert_int_equal(share(&f, 1), 1);
    assert_int_equal(granted(&f, head), 1);
    close_fixture(&f);
}

static void what_nobody_else_wants_goes_to_the_longest(void **state)
{
    struct fixture f;
    struct wk_admit_row *head, *other;

    (void)state;
    open_fixture(&f);
    head = add(&f, 0, 4000);
    assert_int_equal(share(&f, 256), 256);
    assert_int_equal(granted(&f, head), 256);
    other = add(&f, 0, 100);
    (void)add(&f, 0, 0); /* decodes */
    assert_int_equal(share(&f, 256), 256);
    assert_int_equal(granted(&f, other), 100);
    assert_int_equal(granted(&f, head), 156);
    close_fixture(&f);
}

static void a_row_whose_step_must_end_leaves_its_room_to_others(void **state)
{
    struct fixture f;
    struct wk_admit_row *head, *other;

    (void)state;
    open_fixture(&f);
    head = add(&f, 0, 4000);
    other = add(&f, 0, 1000);
    head->n_stop = 16;
    other->n_stop = 100;
    assert_int_equal(share(&f, 256), 116);
    assert_int_equal(granted(&f, head), 16);
    assert_int_equal(granted(&f, other), 100);
    other->n_stop = 0;
    assert_int_equal(share(&f, 256), 256);
    assert_int_equal(granted(&f, head), 16);
    assert_int_equal(granted(&f, other), 240);
    close_fixture(&f);
}

static void a_higher_priority_goes_before_a_shorter_prompt(void **state)
{
    struct fixture f;
    struct wk_admit_row *low, *head, *high;

    (void)state;
    open_fixture(&f);
    low = add(&f, 1, 20);
    head = add(&f, 0, 1000);
    high = add(&f, 0, 900);
    assert_int_equal(share(&f, 256), 256);
    assert_int_equal(granted(&f, high), 192);
    assert_int_equal(granted(&f, head), 64);
    assert_int_equal(granted(&f, low), 0);
    assert_int_equal(low->n_passed, 0); /* only its own class counts */
    close_fixture(&f);
}

static void few_prompts_are_half_done_at_a_time(void **state)
{
    struct fixture f;
    uint32_t n;

    (void)state;
    open_fixture(&f);
    for (uint32_t i = 0; i < 20; i++)
        (void)add(&f, 0, 5000);
    for (uint32_t step = 0; step < 10; step++) {
        for (uint32_t i = f.a.n_rows; i-- > 1;) { /* what is not begun is always shorter */
            if (!f.a.rows[i]->begun)
                f.a.rows[i]->pull = 2000 - 150 * step;
        }
        assert_int_equal(share(&f, 256), 256);
        advance(&f);
        n = 0;
        for (uint32_t i = 1; i < f.a.n_rows; i++)
            n += f.a.rows[i]->begun && f.a.rows[i]->n_left > 0;
        assert_true(n <= WK_PREFILL_PARTIAL_MAX);
    }
    assert_int_equal(n, WK_PREFILL_PARTIAL_MAX);
    f.rows[19].begun = false; /* one that ends within the step runs beside them */
    f.rows[19].n_left = 7;
    (void)share(&f, 256);
    assert_int_equal(granted(&f, &f.rows[19]), 7);
    close_fixture(&f);
}

static void who_is_waited_for_counts_as_the_shortest_of_those_who_wait(void **state)
{
    struct fixture f;
    struct wk_admit_row *leader;

    (void)state;
    open_fixture(&f);
    (void)add(&f, 0, 0); /* the head decodes */
    (void)add(&f, 0, 300);
    leader = add(&f, 0, 2000);
    leader->pull = 40;
    assert_int_equal(share(&f, 256), 256);
    assert_int_equal(granted(&f, leader), 256);
    close_fixture(&f);
}

static void young_short_prompts_pass_an_old_long_one_a_bounded_number_of_times(void **state)
{
    enum { LONG = 3000 };
    struct fixture f;
    struct wk_admit_row *old;
    uint32_t n_steps = 0;

    (void)state;
    open_fixture(&f);
    (void)add(&f, 0, 1u << 30); /* a head that takes its quarter for ever */
    old = add(&f, 0, LONG);
    while (old->n_left > 0) {
        if (f.n < ROWS)
            (void)add(&f, 0, CHUNK); /* more than is left over comes in each step */
        else
            f.rows[2 + n_steps % (ROWS - 2)].n_left = CHUNK;
        assert_int_equal(share(&f, CHUNK), CHUNK);
        advance(&f);
        assert_true(old->n_passed <= (4 * LONG + CHUNK - 1) / CHUNK);
        n_steps++;
        assert_true(n_steps < 200);
    }
    assert_true(old->n_passed > 20); /* it was passed at first */
    assert_true(n_steps <= (4 * LONG + CHUNK - 1) / CHUNK + LONG / (CHUNK / 2));
    close_fixture(&f);
}

static void nothing_of_the_room_is_left_and_passing_is_bounded_in_any_mix(void **state)
{
    struct ps_rng rng;

    (void)state;
    ps_rng_seed(&rng, 3);
    for (uint32_t life = 0; life < 200; life++) {
        uint32_t first[ROWS];
        struct fixture f;

        open_fixture(&f);
        for (uint32_t step = 0; step < 300; step++) {
            uint64_t want = 0;
            uint32_t n = 1 + (uint32_t)ps_rng_below(&rng, CHUNK), sum;

            if (f.n < ROWS && ps_rng_below(&rng, 3) == 0) {
                first[f.n] =
                    2 + (uint32_t)ps_rng_below(&rng, ps_rng_below(&rng, 4) == 0 ? 4000 : 300);
                (void)add(&f, (int32_t)ps_rng_below(&rng, 2), first[f.n]);
            }
            for (uint32_t i = 0; i < f.a.n_rows; i++)
                want += f.a.rows[i]->n_left;
            sum = share(&f, n);
            assert_int_equal(sum, ps_min_u64(want, n));
            if (f.a.n_rows > 0 && f.a.rows[0]->n_left > 0)
                assert_true(f.grants[0] > 0);
            advance(&f);
            for (uint32_t i = 0; i < f.n; i++)
                assert_true(f.rows[i].n_passed <= (4 * first[i] + CHUNK - 1) / CHUNK);
        }
        close_fixture(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_shortest_goes_first_and_the_head_never_sits_out),
        cmocka_unit_test(what_nobody_else_wants_goes_to_the_longest),
        cmocka_unit_test(a_row_whose_step_must_end_leaves_its_room_to_others),
        cmocka_unit_test(a_higher_priority_goes_before_a_shorter_prompt),
        cmocka_unit_test(few_prompts_are_half_done_at_a_time),
        cmocka_unit_test(who_is_waited_for_counts_as_the_shortest_of_those_who_wait),
        cmocka_unit_test(young_short_prompts_pass_an_old_long_one_a_bounded_number_of_times),
        cmocka_unit_test(nothing_of_the_room_is_left_and_passing_is_bounded_in_any_mix),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
