#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "proto/submit.h"

static const struct pb_limits lim = {.n_vocab = 1000, .context = 64};

static struct pb_submit *good(void)
{
    struct pb_submit *s = pb_submit_create(12, 2, 2, 2);

    s->n_prompt = 10;
    s->n_done = 2;
    for (uint32_t i = 0; i < 12; i++)
        s->ids[i] = i * 7;
    s->stop_ids[0] = 999;
    s->bias_ids[1] = 5;
    s->bias[0] = -100.0f;
    s->cuts[0] = 4;
    s->cuts[1] = 10;
    s->max_tokens = PB_NO_LIMIT;
    s->samp = (struct pb_sampling){
        .temperature = 1, .top_p = 1, .rep_penalty = 1, .n_top = -1, .n_prompt_top = -1};
    return s;
}

static int check(const struct pb_submit *s)
{
    char err[128];

    return pb_submit_check(s, &lim, err, sizeof(err));
}

static void good_request_passes(void **state)
{
    struct pb_submit *s = good();

    (void)state;
    assert_int_equal(check(s), PB_SUBMIT_OK);
    s->max_tokens = 2; /* everything was emitted already; only its end was lost */
    assert_int_equal(check(s), PB_SUBMIT_OK);
    s->max_tokens = 1;
    assert_int_equal(check(s), PB_SUBMIT_E_BAD);
    pb_submit_destroy(s);
}

static void every_float_must_be_finite_and_in_range(void **state)
{
    static const float bad[] = {NAN, INFINITY, -INFINITY, 1e9f, -1e9f};
    struct pb_submit *s = good();
    float *const fields[] = {
        &s->samp.temperature,
        &s->samp.top_p,
        &s->samp.min_p,
        &s->samp.rep_penalty,
        &s->samp.presence_penalty,
        &s->samp.frequency_penalty,
        &s->bias[1],
    };

    (void)state;
    for (size_t i = 0; i < PS_ARRAY_LEN(fields); i++) {
        float was = *fields[i];

        for (size_t k = 0; k < PS_ARRAY_LEN(bad); k++) {
            *fields[i] = bad[k];
            assert_int_equal(check(s), PB_SUBMIT_E_BAD);
        }
        *fields[i] = was;
        assert_int_equal(check(s), PB_SUBMIT_OK);
    }
    pb_submit_destroy(s);
}

static void every_id_must_be_below_the_vocabulary(void **state)
{
    struct pb_submit *s = good();
    uint32_t *const ids[] = {&s->ids[0], &s->ids[11], &s->stop_ids[1], &s->bias_ids[0]};

    (void)state;
    for (size_t i = 0; i < PS_ARRAY_LEN(ids); i++) {
        uint32_t was = *ids[i];

        *ids[i] = lim.n_vocab;
        assert_int_equal(check(s), PB_SUBMIT_E_BAD);
        *ids[i] = was;
    }
    assert_int_equal(check(s), PB_SUBMIT_OK);
    pb_submit_destroy(s);
}

static void lengths_must_fit_the_context(void **state)
{
    struct pb_submit *s = good();
    struct pb_limits small = lim;
    char err[128];

    (void)state;
    small.context = 11;
    assert_int_equal(pb_submit_check(s, &small, err, sizeof(err)), PB_SUBMIT_E_BAD);
    small.context = 9;
    assert_int_equal(pb_submit_check(s, &small, err, sizeof(err)), PB_SUBMIT_E_BAD);
    s->n_prompt = 0;
    assert_int_equal(check(s), PB_SUBMIT_E_BAD);
    s->n_prompt = 10;
    s->cuts[1] = 4; /* not ascending */
    assert_int_equal(check(s), PB_SUBMIT_E_BAD);
    s->cuts[1] = 11; /* beyond the prompt */
    assert_int_equal(check(s), PB_SUBMIT_E_BAD);
    pb_submit_destroy(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_request_passes),
        cmocka_unit_test(every_float_must_be_finite_and_in_range),
        cmocka_unit_test(every_id_must_be_below_the_vocabulary),
        cmocka_unit_test(lengths_must_fit_the_context),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
