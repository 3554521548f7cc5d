#include "router/request/params.h"

#include <math.h>
#include <stdio.h>

#include "router/conf_def.h"
#include "router/request/tok_fixture.h"
#include "router/router.h"

static struct ps_tok *tok;
static struct rt_conf conf = {.max_n = 16, .max_logprobs = 20};
static const char *aliases[] = {"org/m", "gpt-*"};
static struct rt_model model = {.name = "m", .aliases = aliases, .n_aliases = 2, .context = 4096};

/* Reads and settles a body; the document lives until the next call. */
static bool read_body(enum rt_dialect d, const char *body, struct rt_params *p, struct rt_fail *f,
                      uint32_t *out_ignored)
{
    static struct ps_json_doc *doc;

    ps_json_free(doc);
    doc = NULL;
    rt_params_init(p, d, &model, &conf);
    if (body == NULL)
        return true;
    return rt_check_body(body, strlen(body), &doc, f) &&
           rt_params_read(p, ps_json_root(doc), out_ignored, f) && rt_params_settle(p, f);
}

#define MSG "\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]"

static void expect_fail(enum rt_dialect d, const char *body, enum rt_fail_row row,
                        const char *param)
{
    struct rt_params p;
    struct rt_fail f = {0};
    uint32_t n;

    if (read_body(d, body, &p, &f, &n))
        fail_msg("accepted: %s", body);
    if (f.row != row || strcmp(f.param, param) != 0)
        fail_msg("%s: row %d, param %s, %s", body, (int)f.row, f.param, f.text);
    rt_params_fini(&p);
}

static void expect_ok(enum rt_dialect d, const char *body, struct rt_params *p)
{
    struct rt_fail f = {0};
    uint32_t n;

    if (!read_body(d, body, p, &f, &n))
        fail_msg("refused: %s: %s %s", body, f.param, f.text);
}

static void what_is_wrong_is_named(void **state)
{
    static const struct {
        const char *more;
        enum rt_fail_row row;
        const char *param;
    } rows[] = {
        {"\"temperature\":-0.1", RT_E6_VALUE, "temperature"},
        {"\"temperature\":2.1", RT_E6_VALUE, "temperature"},
        {"\"temperature\":\"0.5\"", RT_E5_TYPE, "temperature"},
        {"\"temperature\":true", RT_E5_TYPE, "temperature"},
        {"\"n\":0", RT_E6_VALUE, "n"},
        {"\"n\":17", RT_E6_VALUE, "n"},
        {"\"n\":1.5", RT_E5_TYPE, "n"},
        {"\"max_tokens\":0", RT_E6_VALUE, "max_tokens"},
        {"\"max_tokens\":-2", RT_E6_VALUE, "max_tokens"},
        {"\"max_completion_tokens\":0", RT_E6_VALUE, "max_completion_tokens"},
        {"\"seed\":9223372036854775808", RT_E6_VALUE, "seed"},
        {"\"seed\":9.3e18", RT_E6_VALUE, "seed"},
        {"\"stop\":\"\"", RT_E6_VALUE, "stop"},
        {"\"stop\":[1]", RT_E5_TYPE, "stop"},
        {"\"stop_token_ids\":[99999]", RT_E6_VALUE, "stop_token_ids"},
        {"\"logit_bias\":{\"x\":1}", RT_E6_VALUE, "logit_bias"},
        {"\"logit_bias\":{\"99999\":1}", RT_E6_VALUE, "logit_bias"},
        {"\"logit_bias\":{\" 1\":1}", RT_E6_VALUE, "logit_bias"},
        {"\"top_logprobs\":2", RT_E7_CONFLICT, "top_logprobs"},
        {"\"stream_options\":{}", RT_E7_CONFLICT, "stream_options"},
        {"\"stream\":true,\"stream_options\":{\"include_usage\":1}", RT_E5_TYPE,
         "stream_options.include_usage"},
        {"\"stream\":true,\"prompt_logprobs\":1", RT_E7_CONFLICT, "prompt_logprobs"},
        {"\"min_tokens\":5,\"max_tokens\":4", RT_E6_VALUE, "min_tokens"},
        {"\"tools\":[1]", RT_E8_UNSUPPORTED, "tools"},
        {"\"tool_choice\":\"required\"", RT_E6_VALUE, "tool_choice"},
        {"\"response_format\":{\"type\":\"json_object\"}", RT_E8_UNSUPPORTED_VALUE,
         "response_format"},
        {"\"guided_json\":{}", RT_E8_UNSUPPORTED, "guided_json"},
        {"\"mirostat\":1", RT_E8_UNSUPPORTED, "mirostat"},
        {"\"echo\":true", RT_E8_UNSUPPORTED, "echo"},
        {"\"model\":5", RT_E5_TYPE, "model"},
        {"\"model\":\"zzz\"", RT_E10_MODEL, "model"},
        {"\"cache_salt\":\"a/b\"", RT_E6_VALUE, "cache_salt"},
        {"\"repetition_penalty\":0", RT_E6_VALUE, "repetition_penalty"},
    };
    char body[512];

    (void)state;
    for (size_t i = 0; i < PS_ARRAY_LEN(rows); i++) {
        (void)snprintf(body, sizeof(body), "{" MSG ",%s}", rows[i].more);
        expect_fail(RT_CHAT, body, rows[i].row, rows[i].param);
    }
    expect_fail(RT_CHAT, "{}", RT_E4_MISSING, "messages");
    expect_fail(RT_CHAT, "{\"messages\":[]}", RT_E6_VALUE, "messages");
    expect_fail(RT_COMPLETION, "{}", RT_E4_MISSING, "prompt");
    expect_fail(RT_COMPLETION, "{\"prompt\":\"a\",\"max_tokens\":0}", RT_E6_VALUE, "max_tokens");
    expect_fail(RT_COMPLETION, "{\"prompt\":\"a\",\"best_of\":1,\"n\":2}", RT_E6_VALUE, "best_of");
    expect_fail(RT_COMPLETION, "{\"prompt\":\"a\",\"suffix\":\"x\"}", RT_E8_UNSUPPORTED, "suffix");
}

static void the_first_mistake_in_document_order_is_told(void **state)
{
    (void)state;
    expect_fail(RT_CHAT, "{" MSG ",\"top_p\":7,\"n\":0}", RT_E6_VALUE, "top_p");
    expect_fail(RT_CHAT, "{\"n\":0," MSG ",\"top_p\":7}", RT_E6_VALUE, "n");
}

static void bodies_that_are_no_object(void **state)
{
    (void)state;
    expect_fail(RT_CHAT, "", RT_E1_INVALID_JSON, "");
    expect_fail(RT_CHAT, "{\"a\":", RT_E1_INVALID_JSON, "");
    expect_fail(RT_CHAT, "{\"a\":NaN}", RT_E1_INVALID_JSON, "");
    expect_fail(RT_CHAT, "[]", RT_E3_NOT_OBJECT, "");
    expect_fail(RT_CHAT, "{\"a\":\"\xff\"}", RT_E2_INVALID_UTF8, "");
}

static void null_is_absent_and_unknown_is_ignored(void **state)
{
    struct rt_params p;
    struct rt_fail f;
    uint32_t n;

    (void)state;
    assert_true(read_body(RT_CHAT,
                          "{" MSG ",\"temperature\":null,\"tools\":null,\"foo\":1,\"store\":true}",
                          &p, &f, &n));
    assert_int_equal(n, 2);
    assert_true(p.samp.temperature == 1);
    rt_params_fini(&p);
    conf.strict_params = true;
    expect_fail(RT_CHAT, "{" MSG ",\"foo\":1}", RT_E8_UNSUPPORTED, "foo");
    conf.strict_params = false;
}

static void the_request_wins_over_the_model_over_the_api(void **state)
{
    struct rt_params p;

    (void)state;
    model.conf.gen = (struct ps_gen_defaults){
        .has_temperature = true, .temperature = 0.6, .has_top_k = true, .top_k = 20};
    conf.generation_config = RT_GEN_CONFIG_MODEL;
    expect_ok(RT_CHAT, "{" MSG ",\"top_k\":5}", &p);
    assert_true(fabs((double)p.samp.temperature - 0.6) < 1e-6 && p.samp.top_k == 5);
    assert_true(p.samp.top_p == 1);
    rt_params_fini(&p);
    conf.generation_config = RT_GEN_CONFIG_NONE;
    expect_ok(RT_CHAT, "{" MSG "}", &p);
    assert_true(p.samp.temperature == 1 && p.samp.top_k == -1);
    rt_params_fini(&p);
}

static void odd_values_become_what_a_worker_accepts(void **state)
{
    struct rt_params p;

    (void)state;
    expect_ok(RT_CHAT,
              "{" MSG ",\"temperature\":1e-6,\"top_p\":0,\"logit_bias\":{\"5\":150,\"6\":-1e9}}",
              &p);
    assert_true(p.samp.temperature == 0 && p.samp.top_k == 1 && p.samp.top_p == 1);
    assert_true(p.bias[0] == 100 && p.bias[1] == -100 && p.bias_ids[0] == 5);
    rt_params_fini(&p);
    expect_ok(RT_CHAT, "{" MSG ",\"max_tokens\":16.0,\"max_completion_tokens\":4}", &p);
    assert_int_equal(p.max_out, 4);
    assert_string_equal(p.max_param, "max_completion_tokens");
    rt_params_fini(&p);
    expect_ok(RT_CHAT, "{" MSG ",\"max_tokens\":-1}", &p);
    assert_false(p.has_max);
    rt_params_fini(&p);
    expect_ok(RT_COMPLETION, "{\"prompt\":\"a\"}", &p);
    assert_int_equal(p.max_out, 16);
    rt_params_fini(&p);
    expect_ok(RT_COMPLETION, "{\"prompt\":\"a\",\"echo\":true,\"max_tokens\":0,\"logprobs\":3}",
              &p);
    assert_true(p.score_only && p.max_out == 1 && p.samp.n_prompt_top == 3);
    rt_params_fini(&p);
}

static void choices_have_seeds_of_their_own(void **state)
{
    struct rt_params p;

    (void)state;
    expect_ok(RT_CHAT, "{" MSG ",\"seed\":7,\"n\":3}", &p);
    assert_int_equal(rt_params_seed(&p, 0), 7);
    assert_true(rt_params_seed(&p, 1) != rt_params_seed(&p, 2));
    rt_params_fini(&p);
    expect_ok(RT_CHAT, "{" MSG ",\"seed\":-1}", &p);
    assert_true(p.samp.seed != UINT64_MAX);
    rt_params_fini(&p);
}

static void model_names_resolve_in_order(void **state)
{
    static const struct {
        const char *asked, *shown; /* NULL: unknown */
    } rows[] = {
        {"m", "m"},       {"default", "m"}, {"M", "m"}, {"org/m", "org/m"}, {"gpt-4o", "gpt-4o"},
        {"other/m", "m"}, {"zzz", NULL},    {"", NULL}, {"m2", NULL},       {"xgpt-4", NULL},
    };
    struct rt_str none = {0};
    const char *shown;

    (void)state;
    assert_true(rt_model_resolve(&model, none, &shown));
    assert_string_equal(shown, "m");
    for (size_t i = 0; i < PS_ARRAY_LEN(rows); i++) {
        struct rt_str s = {rows[i].asked, strlen(rows[i].asked)};
        bool ok = rt_model_resolve(&model, s, &shown);

        if (ok != (rows[i].shown != NULL) || (ok && strcmp(shown, rows[i].shown) != 0))
            fail_msg("%s -> %s", rows[i].asked, ok ? shown : "(unknown)");
    }
}

static void reasoning_switches_reach_the_template_unless_given_there(void **state)
{
    static const struct {
        const char *more, *want;
    } rows[] = {
        {"\"user\":\"u\"", ""},
        {"\"reasoning_effort\":\"none\"", "{\"enable_thinking\":false,\"thinking\":false}"},
        {"\"reasoning_effort\":\"high\"",
         "{\"reasoning_effort\":\"high\",\"enable_thinking\":true,\"thinking\":true}"},
        {"\"enable_thinking\":false", "{\"enable_thinking\":false,\"thinking\":false}"},
        {"\"chat_template_kwargs\":{\"enable_thinking\":true},\"reasoning_effort\":\"none\"",
         "{\"enable_thinking\":true,\"thinking\":false}"},
        {"\"reasoning\":{\"enabled\":true}", "{\"enable_thinking\":true,\"thinking\":true}"},
    };
    struct rt_params p;
    char body[256];

    (void)state;
    for (size_t i = 0; i < PS_ARRAY_LEN(rows); i++) {
        struct ps_buf b = PS_BUF_INIT;

        (void)snprintf(body, sizeof(body), "{" MSG ",%s}", rows[i].more);
        expect_ok(RT_CHAT, body, &p);
        rt_params_kwargs(&p, &b);
        assert_string_equal(b.data, rows[i].want);
        ps_buf_fini(&b);
        rt_params_fini(&p);
    }
}

static int set_up(void **state)
{
    (void)state;
    tok = fix_tok(NULL, 0);
    model.tok = tok;
    return 0;
}

static int tear_down(void **state)
{
    struct rt_params p;
    struct rt_fail f;
    uint32_t n;

    (void)state;
    (void)read_body(RT_CHAT, NULL, &p, &f, &n); /* frees the last document */
    ps_tok_destroy(tok);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_wrong_is_named),
        cmocka_unit_test(the_first_mistake_in_document_order_is_told),
        cmocka_unit_test(bodies_that_are_no_object),
        cmocka_unit_test(null_is_absent_and_unknown_is_ignored),
        cmocka_unit_test(the_request_wins_over_the_model_over_the_api),
        cmocka_unit_test(odd_values_become_what_a_worker_accepts),
        cmocka_unit_test(choices_have_seeds_of_their_own),
        cmocka_unit_test(model_names_resolve_in_order),
        cmocka_unit_test(reasoning_switches_reach_the_template_unless_given_there),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
