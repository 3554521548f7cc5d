#include "worker/exec/cost.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/rng.h"
#include "common/test.h"

static struct wk_cost_sample random_step(struct ps_rng *r, const struct wk_cost *c, double noise)
{
    struct wk_cost_sample s = {.us = 0};
    uint32_t n = (uint32_t)ps_rng_below(r, 64) + 1;

    for (uint32_t i = 0; i < n; i++)
        wk_step_work_add(&s.work, (uint32_t)ps_rng_below(r, 4000), 1);
    if (ps_rng_below(r, 2) == 0)
        wk_step_work_add(&s.work, (uint32_t)ps_rng_below(r, 8000),
                         2 + (uint32_t)ps_rng_below(r, 512));
    s.us = wk_cost_us(c, &s.work) * (1 + noise * (2 * ps_rng_unit(r) - 1));
    return s;
}

static void work_counts_rows_prompt_tokens_and_what_they_attend_to(void **state)
{
    struct wk_step_work w = {0};

    (void)state;
    wk_step_work_add(&w, 99, 1);
    assert_int_equal(w.n_row, 1);
    assert_int_equal(w.n_prefill, 0);
    assert_int_equal(w.n_kv, 100);
    assert_int_equal(w.n_pair, 0);
    wk_step_work_add(&w, 10, 3);
    assert_int_equal(w.n_row, 2);
    assert_int_equal(w.n_prompt, 1);
    assert_int_equal(w.n_prefill, 3);
    assert_int_equal(w.n_kv, 113);
    assert_int_equal(w.n_pair, 11 + 12 + 13);
}

static void a_profile_may_be_changed_term_by_term(void **state)
{
    struct ps_buf err = PS_BUF_INIT;
    struct wk_cost h, c;

    (void)state;
    assert_int_equal(wk_cost_parse(&h, "", &err), WK_COST_OK);
    assert_true(h.us[WK_COST_BASE] == 7000 && h.us[WK_COST_PREFILL] == 25);
    assert_int_equal(wk_cost_parse(&c, "base=1.5,pair=0.25", &err), WK_COST_OK);
    assert_true(c.us[WK_COST_BASE] == 1.5 && c.us[WK_COST_PAIR] == 0.25);
    assert_true(c.us[WK_COST_ROW] == h.us[WK_COST_ROW]);
    assert_int_equal(wk_cost_parse(&c, "cpu,kv=0", &err), WK_COST_OK);
    assert_true(c.us[WK_COST_BASE] == 27000 && c.us[WK_COST_KV] == 0);
    assert_null(err.data);
}

static void what_is_no_cost_is_refused_with_a_sentence(void **state)
{
    static const char *const bad[] = {"gpu",    "base",       "base=",       "base=-1",
                                      "base=x", "base=1e300", "base=nan",    "=1",
                                      "row=1 ", "row=1,cpu",  "row=1,,kv=2", "bas=1"};
    struct wk_cost c = {{1, 2, 3, 4, 5}};

    (void)state;
    for (uint32_t i = 0; i < PS_ARRAY_LEN(bad); i++) {
        struct ps_buf err = PS_BUF_INIT;

        assert_int_equal(wk_cost_parse(&c, bad[i], &err), WK_COST_E_BAD);
        assert_non_null(err.data);
        assert_true(c.us[0] == 1 && c.us[4] == 5); /* untouched */
        ps_buf_fini(&err);
    }
}

static void the_fit_finds_the_coefficients_it_was_made_from(void **state)
{
    const struct wk_cost truth = {{7000, 20, 25, 0.04, 0.0005}};
    struct wk_cost_sample s[400];
    struct wk_cost c;
    struct ps_rng r;
    double error;

    (void)state;
    ps_rng_seed(&r, 5);
    for (uint32_t i = 0; i < PS_ARRAY_LEN(s); i++)
        s[i] = random_step(&r, &truth, 0);
    error = wk_cost_fit(&c, s, PS_ARRAY_LEN(s));
    assert_true(error < 1e-6);
    for (uint32_t i = 0; i < WK_COST_N; i++)
        assert_true(fabs(c.us[i] - truth.us[i]) <= 1e-3 * truth.us[i]);
}

static void no_coefficient_of_the_fit_is_negative(void **state)
{
    const struct wk_cost truth = {{7000, 0, 25, 0.04, 0}};

    (void)state;
    for (uint64_t seed = 1; seed < 50; seed++) {
        struct wk_cost_sample s[60];
        struct wk_cost c;
        struct ps_rng r;

        ps_rng_seed(&r, seed);
        for (uint32_t i = 0; i < PS_ARRAY_LEN(s); i++)
            s[i] = random_step(&r, &truth, 0.3);
        assert_true(wk_cost_fit(&c, s, PS_ARRAY_LEN(s)) < 0.3);
        for (uint32_t i = 0; i < WK_COST_N; i++)
            assert_true(c.us[i] >= 0);
    }
}

static void terms_that_never_vary_do_not_break_the_fit(void **state)
{
    struct wk_cost_sample s[20];
    struct wk_cost c;

    (void)state;
    for (uint32_t i = 0; i < PS_ARRAY_LEN(s); i++) /* one row, no prompt: base and row are one */
        s[i] = (struct wk_cost_sample){.work = {.n_row = 1, .n_kv = 100 + i}, .us = 500.0 + i};
    assert_true(wk_cost_fit(&c, s, PS_ARRAY_LEN(s)) < 1e-6);
    assert_true(fabs(c.us[WK_COST_KV] - 1) < 1e-3);
    assert_true(c.us[WK_COST_PREFILL] == 0 && c.us[WK_COST_PAIR] == 0);
}

static void a_trace_is_read_line_by_line_and_other_events_are_passed_over(void **state)
{
    char dir[] = "/tmp/cost_test.XXXXXX", path[64];
    const struct wk_cost truth = {{1000, 10, 5, 0.5, 0}};
    struct ps_buf err = PS_BUF_INIT;
    struct wk_cost c;
    struct ps_rng r;
    uint32_t n;
    double error;
    FILE *f;

    (void)state;
    assert_non_null(mkdtemp(dir));
    (void)snprintf(path, sizeof(path), "%s/trace", dir);
    assert_int_equal(wk_cost_calibrate(&c, path, &n, &error, &err), WK_COST_E_BAD);
    f = fopen(path, "w");
    assert_non_null(f);
    ps_rng_seed(&r, 3);
    (void)fputs("[\n{\"ph\":\"M\",\"name\":\"process_name\"},\n", f);
    for (uint32_t i = 0; i < 100; i++) {
        struct wk_cost_sample s = random_step(&r, &truth, 0);

        (void)fprintf(f,
                      "{\"ph\":\"X\",\"cat\":\"step\",\"ts\":1,\"dur\":2,\"args\":{\"us\":%.3f,"
                      "\"rows\":%u,\"prefill\":%u,\"kv\":%llu,\"pairs\":%llu}},\n"
                      "{\"ph\":\"C\",\"name\":\"pages\"},\n",
                      s.us, s.work.n_row, s.work.n_prefill, (unsigned long long)s.work.n_kv,
                      (unsigned long long)s.work.n_pair);
        if (i == 14) {
            (void)fflush(f);
            ps_buf_clear(&err);
            assert_int_equal(wk_cost_calibrate(&c, path, &n, &error, &err), WK_COST_E_BAD);
        }
    }
    (void)fputs("{\"ph\":\"X\",\"cat\":\"step\",\"args\":{\"us\":1", f); /* killed in the middle */
    (void)fclose(f);
    assert_int_equal(wk_cost_calibrate(&c, path, &n, &error, &err), WK_COST_OK);
    assert_int_equal(n, 100);
    assert_true(error < 1e-4);
    assert_true(fabs(c.us[WK_COST_BASE] - 1000) < 5 && fabs(c.us[WK_COST_PREFILL] - 5) < 0.1);
    (void)unlink(path);
    (void)rmdir(dir);
    ps_buf_fini(&err);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(work_counts_rows_prompt_tokens_and_what_they_attend_to),
        cmocka_unit_test(a_profile_may_be_changed_term_by_term),
        cmocka_unit_test(what_is_no_cost_is_refused_with_a_sentence),
        cmocka_unit_test(the_fit_finds_the_coefficients_it_was_made_from),
        cmocka_unit_test(no_coefficient_of_the_fit_is_negative),
        cmocka_unit_test(terms_that_never_vary_do_not_break_the_fit),
        cmocka_unit_test(a_trace_is_read_line_by_line_and_other_events_are_passed_over),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
