#include "worker/sample/sampler.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static uint32_t stop_ids[2] = {50, 51}, bias_ids[2] = {7, 8}, eos_ids[1] = {99};
static float bias[2] = {-1.5f, 2.0f};
static const struct wk_eos eos = {eos_ids, 1};

static struct pb_submit request(void)
{
    return (struct pb_submit){
        .n_prompt = 4,
        .max_tokens = 10,
        .min_tokens = 2,
        .n_stop_ids = 2,
        .stop_ids = stop_ids,
        .n_bias = 2,
        .bias_ids = bias_ids,
        .bias = bias,
        .samp = {.temperature = 0.5f, .rep_penalty = 1.0f, .seed = 1234, .n_top = 3}};
}

/* A plan with one row that carries the sampling data; freed with the builder. */
static const struct wk_samp *fill(struct wk_plan_builder *b, const struct pb_submit *s,
                                  const uint32_t *ids, uint32_t n_known, uint32_t pos,
                                  const struct wk_plan **out_plan)
{
    struct wk_row row = {.n_q = 1, .pos_lo = pos - 1, .pos_hi = pos};
    uint32_t page = 0;

    wk_plan_begin(b, 1);
    wk_plan_add_pool(b, ids, 1); /* offsets are not all 0 */
    row.samp = wk_sample_add(b, s, &eos, ids, n_known, pos, ids, 2);
    wk_plan_add_row(b, &row, ids, &page, 1);
    *out_plan = wk_plan_end(b);
    return &wk_plan_samps(*out_plan)[wk_plan_rows(*out_plan)[0].samp];
}

static void bias_seed_and_position_travel(void **state)
{
    struct wk_plan_builder *b = wk_plan_builder_create();
    struct pb_submit s = request();
    const uint32_t ids[5] = {1, 2, 3, 4, 5};
    const struct wk_plan *p;
    const struct wk_samp *o = fill(b, &s, ids, 5, 5, &p);

    (void)state;
    assert_int_equal(o->pos, 5);
    assert_true(o->p.seed == 1234);
    assert_int_equal(o->n_bias, 2);
    assert_memory_equal(wk_plan_pool(p) + o->bias_off, bias_ids, 8);
    assert_memory_equal(wk_plan_pool(p) + o->bias_off + 2, bias, 8);
    assert_int_equal(o->n_hist, 0);
    assert_memory_equal(wk_plan_pool(p) + o->next_off, ids, 8);
    wk_plan_builder_destroy(b);
}

static void ends_are_banned_before_min_tokens_only(void **state)
{
    struct wk_plan_builder *b = wk_plan_builder_create();
    struct pb_submit s = request();
    const uint32_t ids[8] = {0};
    const struct wk_plan *p;

    (void)state;
    assert_int_equal(fill(b, &s, ids, 4, 4, &p)->n_ban, 3);
    assert_int_equal(fill(b, &s, ids, 5, 5, &p)->n_ban, 3);
    assert_int_equal(fill(b, &s, ids, 6, 6, &p)->n_ban, 0);
    s.ignore_eos = true; /* then EOS ends nothing and is not masked */
    assert_int_equal(fill(b, &s, ids, 4, 4, &p)->n_ban, 2);
    wk_plan_builder_destroy(b);
}

static void penalties_see_prompt_and_answer(void **state)
{
    struct wk_plan_builder *b = wk_plan_builder_create();
    struct pb_submit s = request();
    const uint32_t ids[6] = {1, 2, 3, 4, 5, 6};
    const struct wk_plan *p;
    const struct wk_samp *o;

    (void)state;
    s.samp.frequency_penalty = 0.1f;
    o = fill(b, &s, ids, 6, 6, &p);
    assert_int_equal(o->n_hist, 6);
    assert_int_equal(o->n_hist_prompt, 4);
    assert_memory_equal(wk_plan_pool(p) + o->hist_off, ids, sizeof(ids));
    wk_plan_builder_destroy(b);
}

static void each_end_has_its_reason(void **state)
{
    struct pb_submit s = request();

    (void)state;
    assert_int_equal(wk_sample_stop(&s, &eos, 99, 3, 100), PB_FIN_STOP_EOS);
    assert_int_equal(wk_sample_stop(&s, &eos, 51, 3, 100), PB_FIN_STOP_ID);
    assert_int_equal(wk_sample_stop(&s, &eos, 1, 9, 100), 0);
    assert_int_equal(wk_sample_stop(&s, &eos, 1, 10, 100), PB_FIN_LENGTH);
    assert_int_equal(wk_sample_stop(&s, &eos, 1, 9, 13), PB_FIN_CONTEXT);
    assert_int_equal(wk_sample_stop(&s, &eos, 1, 10, 14), PB_FIN_LENGTH);
    assert_int_equal(wk_sample_stop(&s, &eos, 99, 10, 100), PB_FIN_STOP_EOS);
    s.ignore_eos = true;
    assert_int_equal(wk_sample_stop(&s, &eos, 99, 3, 100), 0);
    assert_int_equal(wk_sample_stop(&s, &eos, 50, 3, 100), PB_FIN_STOP_ID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bias_seed_and_position_travel),
        cmocka_unit_test(ends_are_banned_before_min_tokens_only),
        cmocka_unit_test(penalties_see_prompt_and_answer),
        cmocka_unit_test(each_end_has_its_reason),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
