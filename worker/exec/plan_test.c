#include "worker/exec/exec.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

enum { ROWS_MAX = 60 };

static void build(struct wk_plan_builder *b, uint32_t n_rows, struct wk_plan *out_copy)
{
    uint32_t pages[ROWS_MAX][4]; /* read when the plan ends */
    const struct wk_plan *p;

    assert_true(n_rows <= ROWS_MAX);
    wk_plan_begin(b, 41 + n_rows);
    for (uint32_t i = 0; i < n_rows; i++) {
        uint32_t toks[3] = {i, i + 100, i + 200};
        struct wk_samp s = {.pos = i + 7, .next_off = UINT32_MAX};
        struct wk_row row = {
            .slot = i, .n_q = (uint16_t)(1 + i % 3), .pos_lo = i, .pos_hi = i + 4, .state = i + 50};

        for (uint32_t k = 0; k < 4; k++)
            pages[i][k] = i * 10 + k;
        s.hist_off = wk_plan_add_pool(b, toks, 3);
        s.n_hist = 3;
        row.samp = wk_plan_add_samp(b, &s);
        assert_int_equal(wk_plan_add_row(b, &row, toks, pages[i], 1 + i % 4), i);
    }
    wk_plan_add_copy(b, &(struct wk_copy){.src = 4, .dst = 5, .n_tok = 6});
    wk_plan_add_copy(
        b, &(struct wk_copy){.group = 1, .src = 7, .dst = 8, .n_tok = 9, .when = WK_COPY_AFTER});
    p = wk_plan_end(b);
    memcpy(out_copy, p, p->bytes); /* plain data: only the copy is looked at */
}

static void check(const struct wk_plan *p, uint32_t n_rows)
{
    const struct wk_row *rows = wk_plan_rows(p);
    uint32_t tok = 0;

    assert_int_equal(p->ticket, 41 + n_rows);
    assert_int_equal(p->n_row, n_rows);
    assert_int_equal(p->table_stride, n_rows < 4 ? n_rows : 4);
    for (uint32_t i = 0; i < n_rows; i++) {
        const struct wk_samp *s = &wk_plan_samps(p)[rows[i].samp];
        const uint32_t *table = wk_plan_table(p) + i * p->table_stride;

        assert_int_equal(rows[i].slot, i);
        assert_int_equal(rows[i].state, i + 50);
        assert_int_equal(rows[i].tok_off, tok);
        for (uint32_t k = 0; k < rows[i].n_q; k++)
            assert_int_equal(wk_plan_toks(p)[tok++], i + 100 * k);
        for (uint32_t k = 0; k < p->table_stride; k++)
            assert_int_equal(table[k], k < 1 + i % 4 ? i * 10 + k : 0);
        assert_int_equal(s->pos, i + 7);
        for (uint32_t k = 0; k < 3; k++)
            assert_int_equal(wk_plan_pool(p)[s->hist_off + k], i + 100 * k);
    }
    assert_int_equal(p->n_tok, tok);
    assert_int_equal(p->n_copy, 2);
    assert_int_equal(wk_plan_copies(p)[0].dst, 5);
    assert_int_equal(wk_plan_copies(p)[0].when, WK_COPY_BEFORE);
    assert_int_equal(wk_plan_copies(p)[1].n_tok, 9);
    assert_int_equal(wk_plan_copies(p)[1].when, WK_COPY_AFTER);
}

static void a_copied_plan_reads_like_the_built_one_and_builders_are_reused(void **state)
{
    struct wk_plan_builder *b = wk_plan_builder_create();
    struct wk_plan *copy = ps_alloc(1 << 20);

    (void)state;
    for (uint32_t n = ROWS_MAX; n > 0; n--) {
        build(b, n, copy);
        check(copy, n);
    }
    ps_free(copy);
    wk_plan_builder_destroy(b);
}

static void parts_are_aligned(void **state)
{
    struct wk_plan_builder *b = wk_plan_builder_create();
    struct wk_plan *p = ps_alloc(1 << 20);

    (void)state;
    build(b, 7, p);
    assert_int_equal(p->rows_off % 64 + p->toks_off % 64 + p->table_off % 64, 0);
    assert_int_equal(p->samp_off % 64 + p->copy_off % 64 + p->pool_off % 64, 0);
    ps_free(p);
    wk_plan_builder_destroy(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_copied_plan_reads_like_the_built_one_and_builders_are_reused),
        cmocka_unit_test(parts_are_aligned),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
