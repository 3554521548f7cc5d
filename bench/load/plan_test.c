#include "bench/load/plan.h"

#include <stdio.h>
#include <stdlib.h>

#include "bench/load/sample.h"
#include "common/test.h"

static struct bn_load_conf conf_of(void)
{
    return (struct bn_load_conf){.prompt = "10-40",
                                 .output = "5",
                                 .trace = "",
                                 .vocab = 100,
                                 .id_min = 3,
                                 .seed = 4,
                                 .requests = 1000,
                                 .groups = 3,
                                 .prefix = 8,
                                 .trace_shrink = 1,
                                 .speed = 1};
}

static struct bn_plan *plan_of(const struct bn_load_conf *conf)
{
    struct ps_buf err = PS_BUF_INIT;
    struct bn_plan *p = NULL;

    if (bn_plan_create(&p, conf, &err) != BN_PLAN_OK)
        fail_msg("%s", err.data);
    ps_buf_fini(&err);
    return p;
}

static void a_range_is_one_length_or_two_in_order(void **state)
{
    static const char *const bad[] = {"",    "-",     "0", "5-", "-5",
                                      "5-4", "1-2-3", "x", "5x", "99999999"};
    struct bn_range r;

    (void)state;
    assert_true(bn_range_read("7", &r));
    assert_true(r.min == 7 && r.max == 7);
    assert_true(bn_range_read("1-16777216", &r));
    assert_true(r.min == 1 && r.max == 16777216);
    for (size_t i = 0; i < PS_ARRAY_LEN(bad); i++)
        assert_false(bn_range_read(bad[i], &r));
}

static void requests_of_a_group_share_their_prefix_and_nothing_else(void **state)
{
    struct bn_load_conf conf = conf_of();
    struct bn_plan *p = plan_of(&conf), *again = plan_of(&conf);
    uint32_t a[40], b[40], c[40], warm[40];
    struct bn_shape s;

    (void)state;
    for (uint64_t i = 0; i < 300; i++) {
        bn_plan_shape(p, i, &s);
        assert_in_range(s.n_prompt, 10, 40);
        assert_int_equal(s.n_output, 5);
        bn_plan_ids(p, i, false, a);
        bn_plan_ids(again, i, false, b);
        assert_memory_equal(a, b, s.n_prompt * sizeof(a[0]));
        for (uint32_t k = 0; k < s.n_prompt; k++)
            assert_in_range(a[k], 3, 99);
        bn_plan_ids(p, i + 3, false, b);
        assert_memory_equal(a, b, 8 * sizeof(a[0]));
        bn_plan_ids(p, i + 1, false, c);
        assert_memory_not_equal(a, c, 8 * sizeof(a[0]));
        bn_plan_ids(p, i, true, warm);
        assert_memory_not_equal(a, warm, 8 * sizeof(a[0]));
    }
    bn_plan_destroy(p);
    bn_plan_destroy(again);
}

static void poisson_arrivals_have_the_rate_and_end_with_the_duration(void **state)
{
    struct bn_load_conf conf = conf_of();
    struct bn_plan *p;

    (void)state;
    conf.rate = 100;
    conf.requests = 100000;
    conf.duration_s = 50;
    p = plan_of(&conf);
    assert_in_range(p->n, 4700, 5300); /* 4 standard deviations */
    for (uint64_t i = 1; i < p->n; i++)
        assert_true(p->due_us[i] >= p->due_us[i - 1]);
    assert_true(p->due_us[p->n - 1] <= 50000000);
    bn_plan_destroy(p);
}

static void logarithmic_lengths_are_as_often_short_as_long(void **state)
{
    struct bn_load_conf conf = conf_of();
    struct bn_plan *p;
    struct bn_shape s;
    int n_short = 0;

    (void)state;
    conf.prompt = "10-9000";
    conf.lengths = BN_LENGTHS_LOG;
    p = plan_of(&conf);
    for (uint64_t i = 0; i < 1000; i++) {
        bn_plan_shape(p, i, &s);
        n_short += s.n_prompt < 300;
    }
    assert_in_range(n_short, 440, 560);
    bn_plan_destroy(p);
}

static void options_that_exclude_each_other_are_told(void **state)
{
    struct bn_load_conf conf[5];
    struct ps_buf err = PS_BUF_INIT;
    struct bn_plan *p;

    (void)state;
    for (size_t i = 0; i < PS_ARRAY_LEN(conf); i++)
        conf[i] = conf_of();
    conf[0].vocab = 0;
    conf[1].prefix = 10;
    conf[2].requests = 0;
    conf[3].trace_shrink = 3;
    conf[4].output = "0";
    for (size_t i = 0; i < PS_ARRAY_LEN(conf); i++) {
        ps_buf_clear(&err);
        assert_int_equal(bn_plan_create(&p, &conf[i], &err), BN_PLAN_E_BAD);
        assert_true(err.len > 0);
    }
    ps_buf_fini(&err);
}

struct file {
    char dir[32], path[64];
};

static void file_write(struct file *f, const char *text)
{
    FILE *out;

    (void)snprintf(f->dir, sizeof(f->dir), "/tmp/penstock-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    (void)snprintf(f->path, sizeof(f->path), "%s/trace", f->dir);
    out = fopen(f->path, "we");
    assert_non_null(out);
    (void)fputs(text, out);
    assert_int_equal(fclose(out), 0);
}

static void file_remove(struct file *f)
{
    assert_int_equal(unlink(f->path), 0);
    assert_int_equal(rmdir(f->dir), 0);
}

static void a_trace_gives_times_lengths_and_equal_blocks(void **state)
{
    struct bn_load_conf conf = conf_of();
    struct bn_plan *p;
    uint32_t a[300], b[300];
    struct bn_shape s;
    struct file f;

    (void)state;
    file_write(
        &f, "{\"timestamp\":1000,\"input_length\":1100,\"output_length\":8,\"hash_ids\":[5,6,7]}\n"
            "{\"timestamp\":3000,\"input_length\":1024,\"output_length\":1,\"hash_ids\":[5,9]}\n");
    conf.trace = f.path;
    conf.trace_shrink = 4;
    conf.speed = 2;
    conf.requests = 0;
    p = plan_of(&conf);
    assert_int_equal(p->n, 2);
    assert_int_equal(p->due_us[0], 0);
    assert_int_equal(p->due_us[1], 1000000);
    bn_plan_shape(p, 0, &s);
    assert_true(s.n_prompt == 275 && s.n_output == 2);
    bn_plan_shape(p, 1, &s);
    assert_true(s.n_prompt == 256 && s.n_output == 1);
    bn_plan_ids(p, 0, false, a);
    bn_plan_ids(p, 1, false, b);
    assert_memory_equal(a, b, 128 * sizeof(a[0]));
    assert_memory_not_equal(a + 128, b + 128, 16 * sizeof(a[0]));
    bn_plan_destroy(p);
    file_remove(&f);
}

static void a_bad_trace_is_told_by_its_line(void **state)
{
    static const char good[] =
        "{\"timestamp\":10,\"input_length\":5,\"output_length\":5,\"hash_ids\":[1]}\n";
    static const char *const bad[] = {
        "{\"timestamp\":9,\"input_length\":5,\"output_length\":5,\"hash_ids\":[1]}"
        "\n", /* back in time */
        "{\"timestamp\":11,\"input_length\":0,\"output_length\":5,\"hash_ids\":[]}"
        "\n",
        "{\"timestamp\":11,\"input_length\":600,\"output_length\":5,\"hash_ids\":["
        "1]}\n",
        "{\"timestamp\":11,\"input_length\":5,\"output_length\":5,\"hash_ids\":[-1]"
        "}\n",
        "{\"timestamp\":11,\"input_length\":5,\"hash_ids\":[1]}\n",
        "no json\n",
    };

    (void)state;
    for (size_t i = 0; i < PS_ARRAY_LEN(bad); i++) {
        struct ps_buf text = PS_BUF_INIT, err = PS_BUF_INIT;
        struct bn_trace t;
        struct file f;

        ps_buf_addf(&text, "%s%s", good, bad[i]);
        file_write(&f, text.data);
        assert_int_equal(bn_trace_read(&t, f.path, 1, &err), BN_TRACE_E_BAD);
        assert_non_null(strstr(err.data, ":2:"));
        file_remove(&f);
        assert_int_equal(bn_trace_read(&t, f.path, 1, &err), BN_TRACE_E_FILE);
        ps_buf_fini(&text);
        ps_buf_fini(&err);
    }
}

static void percentiles_are_measured_values(void **state)
{
    struct bn_sample a, b, c;

    (void)state;
    bn_sample_init(&a);
    bn_sample_init(&b);
    assert_true(bn_sample_ms(&a, 0.5) == 0);
    bn_sample_init(&c);
    for (uint64_t i = 1; i <= 3; i++)
        bn_sample_add(&c, 1000 * i);
    assert_true(bn_sample_ms(&c, 0.5) == 2);
    for (uint64_t i = 1; i <= 50; i++)
        bn_sample_add(&a, 1000 * (101 - i));
    for (uint64_t i = 1; i <= 50; i++)
        bn_sample_add(&b, 1000 * i);
    assert_true(bn_sample_ms(&a, 0.5) == 75);
    bn_sample_merge(&a, &b);
    assert_true(bn_sample_ms(&a, 0.5) == 50);
    assert_true(bn_sample_ms(&a, 0.9) == 90);
    assert_true(bn_sample_ms(&a, 0.99) == 99);
    assert_true(bn_sample_ms(&a, 1) == 100);
    assert_true(a.max_us == 100000 && a.n_seen == 100 && bn_sample_mean_ms(&a) == 50.5);
    bn_sample_fini(&a);
    bn_sample_fini(&b);
    bn_sample_fini(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_range_is_one_length_or_two_in_order),
        cmocka_unit_test(requests_of_a_group_share_their_prefix_and_nothing_else),
        cmocka_unit_test(poisson_arrivals_have_the_rate_and_end_with_the_duration),
        cmocka_unit_test(logarithmic_lengths_are_as_often_short_as_long),
        cmocka_unit_test(options_that_exclude_each_other_are_told),
        cmocka_unit_test(a_trace_gives_times_lengths_and_equal_blocks),
        cmocka_unit_test(a_bad_trace_is_told_by_its_line),
        cmocka_unit_test(percentiles_are_measured_values),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
