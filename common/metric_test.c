#include "common/metric.h"

#include <math.h>
#include <pthread.h>

#include "common/test.h"

static void assert_has(const char *text)
{
    struct ps_buf b = PS_BUF_INIT;

    ps_metric_write(&b);
    if (strstr(b.data, text) == NULL)
        fail_msg("\"%s\" is not in:\n%s", text, b.data);
    ps_buf_fini(&b);
}

static void the_same_name_and_labels_are_the_same_series(void **state)
{
    struct ps_counter *a = ps_counter_get("t_requests_total", "Requests.", "model_name=\"m\"");
    struct ps_counter *b = ps_counter_get("t_requests_total", "Requests.", "model_name=\"n\"");

    (void)state;
    assert_ptr_equal(a, ps_counter_get("t_requests_total", "Requests.", "model_name=\"m\""));
    assert_ptr_not_equal(a, b);
    ps_counter_add(a, 2);
    ps_counter_add(a, 1);
    assert_int_equal(ps_counter_value(a), 3);
    assert_has("# HELP t_requests_total Requests.\n"
               "# TYPE t_requests_total counter\n"
               "t_requests_total{model_name=\"m\"} 3\n"
               "t_requests_total{model_name=\"n\"} 0\n");
}

static void a_gauge_holds_any_double(void **state)
{
    struct ps_gauge *g = ps_gauge_get("t_load", "Load with \\ and\nnewline.", NULL);

    (void)state;
    assert_has("# HELP t_load Load with \\\\ and\\nnewline.\n# TYPE t_load gauge\nt_load 0.0\n");
    ps_gauge_set(g, 0.1);
    assert_has("\nt_load 0.1\n");
    ps_gauge_set(g, -INFINITY);
    assert_has("\nt_load -Inf\n");
    ps_gauge_set(g, NAN);
    assert_has("\nt_load NaN\n");
}

static void a_histogram_cumulates(void **state)
{
    static const double bounds[] = {0.1, 1, 10};
    struct ps_hist *h = ps_hist_get("t_wait_seconds", "Wait.", "engine=\"0\"", bounds, 3);

    (void)state;
    ps_hist_observe(h, 0.1); /* a bound belongs to its own bucket */
    ps_hist_observe(h, 0.5);
    ps_hist_observe(h, 100);
    assert_ptr_equal(h, ps_hist_get("t_wait_seconds", "Wait.", "engine=\"0\"", bounds, 3));
    assert_int_equal(ps_hist_count(h), 3);
    assert_true(ps_hist_sum(h) == 100.6);
    assert_has("# TYPE t_wait_seconds histogram\n"
               "t_wait_seconds_bucket{engine=\"0\",le=\"0.1\"} 1\n"
               "t_wait_seconds_bucket{engine=\"0\",le=\"1.0\"} 2\n"
               "t_wait_seconds_bucket{engine=\"0\",le=\"10.0\"} 2\n"
               "t_wait_seconds_bucket{engine=\"0\",le=\"+Inf\"} 3\n"
               "t_wait_seconds_sum{engine=\"0\"} 100.6\n"
               "t_wait_seconds_count{engine=\"0\"} 3\n");
}

static void a_histogram_without_labels_has_only_le(void **state)
{
    static const double bounds[] = {1};

    (void)state;
    ps_hist_observe(ps_hist_get("t_plain", "Plain.", NULL, bounds, 1), 2);
    assert_has("t_plain_bucket{le=\"1.0\"} 0\nt_plain_bucket{le=\"+Inf\"} 1\nt_plain_sum 2.0\n"
               "t_plain_count 1\n");
}

static void retype(void *ud)
{
    (void)ud;
    ps_gauge_get("t_requests_total", "Requests.", NULL);
}

static void a_family_has_one_type(void **state)
{
    (void)state;
    ps_test_dies(retype, NULL, "f->kind == kind");
}

static void *observe(void *ud)
{
    for (int i = 0; i < 20000; i++) {
        ps_hist_observe(ud, 1);
        ps_counter_add(ps_counter_get("t_threads_total", "Threads.", NULL), 1);
    }
    return NULL;
}

static void nothing_is_lost_between_threads(void **state)
{
    static const double bounds[] = {1};
    struct ps_hist *h = ps_hist_get("t_threads", "Threads.", NULL, bounds, 1);
    pthread_t t[2];

    (void)state;
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&t[i], NULL, observe, h), 0);
    assert_has("# TYPE t_threads histogram\n");
    for (int i = 0; i < 2; i++)
        pthread_join(t[i], NULL);
    assert_int_equal(ps_hist_count(h), 40000);
    assert_true(ps_hist_sum(h) == 40000);
    assert_int_equal(ps_counter_value(ps_counter_get("t_threads_total", "Threads.", NULL)), 40000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_name_and_labels_are_the_same_series),
        cmocka_unit_test(a_gauge_holds_any_double),
        cmocka_unit_test(a_histogram_cumulates),
        cmocka_unit_test(a_histogram_without_labels_has_only_le),
        cmocka_unit_test(a_family_has_one_type),
        cmocka_unit_test(nothing_is_lost_between_threads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
