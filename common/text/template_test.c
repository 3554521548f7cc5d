#include "common/text/template.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>
#include <pthread.h>

#include "common/buf.h"

#define CHATML \
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}" \
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
#define HI "[{\"role\": \"user\", \"content\": \"hi\"}]"

static const struct tm day = {.tm_year = 124, .tm_mon = 6, .tm_mday = 26};

static struct ps_tmpl *make(const char *src, const char *config)
{
    struct ps_buf err = PS_BUF_INIT;
    struct ps_tmpl *t = NULL;
    int r =
        ps_tmpl_create(&t, src, src ? strlen(src) : 0, config, config ? strlen(config) : 0, &err);

    if (r != PS_TMPL_OK)
        fail_msg("%d: %s", r, err.data ? err.data : "");
    assert_true(err.len == 0);
    ps_buf_fini(&err);
    return t;
}

static void expect_bad(const char *src, const char *config, int want, const char *text)
{
    struct ps_buf err = PS_BUF_INIT;
    struct ps_tmpl *t = NULL;
    int r =
        ps_tmpl_create(&t, src, src ? strlen(src) : 0, config, config ? strlen(config) : 0, &err);

    assert_int_equal(r, want);
    assert_null(t);
    if (text != NULL && (err.data == NULL || strstr(err.data, text) == NULL))
        fail_msg("\"%s\" is not in \"%s\"", text, err.data ? err.data : "");
    ps_buf_fini(&err);
}

static void expect_render(const struct ps_tmpl *t, const char *messages, const char *tools,
                          const char *kwargs, int want, const char *text)
{
    struct ps_buf out = PS_BUF_INIT;

    assert_int_equal(
        ps_tmpl_render(t, messages, strlen(messages), tools, NULL, kwargs, true, &day, &out), want);
    assert_string_equal(out.data ? out.data : "", text);
    ps_buf_fini(&out);
}

static void text_is_what_the_template_says(void **state)
{
    struct ps_tmpl *t = make(CHATML, NULL);

    (void)state;
    expect_render(t, HI, NULL, NULL, PS_TMPL_OK,
                  "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n");
    assert_string_equal(ps_tmpl_source(t), CHATML);
    ps_tmpl_destroy(t);
    ps_tmpl_destroy(NULL);
}

static void tokens_come_from_the_config_as_text_or_object(void **state)
{
    struct ps_tmpl *t =
        make("{{ bos_token }}{{ eos_token }}{{ image_token }}{{ pad_token is defined }}"
             "{{ add_bos_token is defined }}{{ messages[0].content }}",
             "{\"bos_token\": \"<s>\", \"eos_token\": {\"content\": \"</s>\"}, "
             "\"image_token\": \"<i>\", \"pad_token\": null, \"add_bos_token\": true}");

    (void)state;
    expect_render(t, HI, NULL, NULL, PS_TMPL_OK, "<s></s><i>FalseFalsehi");
    ps_tmpl_destroy(t);
}

static void kwargs_are_variables_but_replace_none_of_ours(void **state)
{
    struct ps_tmpl *t =
        make("{{ bos_token }}{{ x_token }}{{ pad_token is defined }}{{ tools is none }}"
             "{{ documents is none }}{{ add_generation_prompt }}{{ thinking }}"
             "{{ messages[0].content }}",
             "{\"bos_token\": \"<s>\", \"x_token\": \"<x>\"}");

    (void)state;
    expect_render(
        t, HI, NULL,
        "{\"thinking\": 1.5, \"bos_token\": \"B\", \"x_token\": \"X\", \"pad_token\": \"P\", "
        "\"messages\": [], \"tools\": 1, \"documents\": 2, \"add_generation_prompt\": false}",
        PS_TMPL_OK, "<s><x>FalseTrueTrueTrue1.5hi");
    expect_render(t, HI, NULL, "[1]", PS_TMPL_E_RENDER,
                  "the template arguments are not a JSON object");
    ps_tmpl_destroy(t);
}

static void own_refusal_of_the_template_is_its_text_alone(void **state)
{
    struct ps_tmpl *t =
        make("{% if messages[0].role != 'user' %}{{ raise_exception('No ' ~ 'user.') }}"
             "{% endif %}{{ messages[0].content }}",
             NULL);

    (void)state;
    expect_render(t, "[{\"role\": \"tool\"}]", NULL, NULL, PS_TMPL_E_RAISED, "No user.");
    ps_tmpl_destroy(t);
}

static void failure_names_the_line(void **state)
{
    struct ps_tmpl *t = make("{{ messages[0].content }}\n{{ messages[0].x.y if tools }}", NULL);

    (void)state;
    expect_render(t, HI, "[{}]", NULL, PS_TMPL_E_RENDER, "undefined value (in chat_template:2)");
    ps_tmpl_destroy(t);
}

static void endless_work_and_output_stop_at_their_limits(void **state)
{
    struct ps_tmpl *t =
        make("{{ messages[0].content }}{% if tools == [1] %}{% for a in range(10000) %}"
             "{% for b in range(10000) %}{% endfor %}{% endfor %}{% endif %}"
             "{% if tools == [2] %}{% set x = 'a' * 10000000 %}"
             "{{ x }}{{ x }}{{ x }}{{ x }}{{ x }}{{ x }}{{ x }}{% endif %}",
             NULL);
    struct ps_buf out = PS_BUF_INIT;

    (void)state;
    assert_int_equal(ps_tmpl_render(t, HI, strlen(HI), "[1]", NULL, NULL, true, &day, &out),
                     PS_TMPL_E_LIMIT);
    assert_int_equal(ps_tmpl_render(t, HI, strlen(HI), "[2]", NULL, NULL, true, &day, &out),
                     PS_TMPL_E_LIMIT);
    assert_int_equal(ps_tmpl_render(t, HI, strlen(HI), NULL, NULL, NULL, true, &day, &out),
                     PS_TMPL_OK);
    ps_buf_fini(&out);
    ps_tmpl_destroy(t);
}

static void panic_inside_is_a_failed_render(void **state)
{
    /* A negative step that only shows at run time meets minijinja's own slice, which panics. */
    struct ps_tmpl *t = make(
        "{% set s = -1 %}{{ messages[0].content }}{{ tools[::s] if tools is not none }}", NULL);
    struct ps_buf out = PS_BUF_INIT;

    (void)state;
    assert_int_equal(ps_tmpl_render(t, HI, strlen(HI), "[]", NULL, NULL, true, &day, &out),
                     PS_TMPL_E_RENDER);
    assert_non_null(strstr(out.data, "panic: "));
    ps_buf_fini(&out);
    expect_render(t, HI, NULL, NULL, PS_TMPL_OK, "hi");
    ps_tmpl_destroy(t);
}

static void context_that_is_too_deep_is_refused(void **state)
{
    struct ps_tmpl *t = make(CHATML, NULL);
    struct ps_buf deep = PS_BUF_INIT, out = PS_BUF_INIT;

    (void)state;
    for (int i = 0; i < 10000; i++)
        ps_buf_add_byte(&deep, '[');
    for (int i = 0; i < 10000; i++)
        ps_buf_add_byte(&deep, ']');
    assert_int_equal(ps_tmpl_render(t, deep.data, deep.len, NULL, NULL, NULL, true, &day, &out),
                     PS_TMPL_E_RENDER);
    ps_buf_fini(&deep);
    ps_buf_fini(&out);
    ps_tmpl_destroy(t);
}

static void clock_is_the_callers(void **state)
{
    struct ps_tmpl *t = make("{{ strftime_now('%d %b %Y') }} {{ messages[0].content }}", NULL);

    (void)state;
    expect_render(t, HI, NULL, NULL, PS_TMPL_OK, "26 Jul 2024 hi");
    ps_tmpl_destroy(t);
}

static void abilities_are_found_by_rendering(void **state)
{
    static const struct {
        const char *src;
        struct ps_tmpl_caps want;
    } rows[] = {
        {CHATML, {0}}, /* would print a null content as None, and shows no calls */
        {"{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}{% for c in "
         "m.content %}{{ c.text }}{% endfor %}{% endif %}{% endfor %}",
         {.content_parts = true}},
        {"{% for m in messages %}{% for c in m.content %}{% if c is mapping %}{{ c.text }}{% endif "
         "%}"
         "{% endfor %}{% endfor %}",
         {.content_parts = true, .parts_only = true}},
        {"{% for m in messages %}{{ m.content or '' }}{% for c in m.tool_calls %}"
         "{{ c.function.arguments|tojson }}{% endfor %}{% endfor %}",
         {.args_object = true, .null_content = true}},
        {"{% for m in messages %}{{ m.content }}{% for c in m.tool_calls %}"
         "{% for k, v in c.function.arguments|items %}{{ k }}{% endfor %}{% endfor %}{% endfor %}",
         {.args_object = true}},
        {"{% for m in messages %}{% if m.content is not none %}{{ m.content }}{% endif %}"
         "{% for c in m.tool_calls %}{{ 'a' + c.function.arguments }}{% endfor %}{% endfor %}",
         {.null_content = true}},
        {"{% for m in messages %}{{ m.content }}{% for c in m.tool_calls %}{{ c.function.arguments "
         "}}"
         "{% endfor %}{% endfor %}",
         {0}},
        {"{% for m in messages %}{% if m.role in ['developer', 'user'] %}{{ m.content }}{% endif %}"
         "{% endfor %}",
         {.developer_role = true}},
        {"{% for m in messages %}{% if m.role == 'developer' %}{{ raise_exception('x') }}{% endif "
         "%}"
         "{{ m.content }}{% endfor %}",
         {0}},
    };

    (void)state;
    for (size_t i = 0; i < PS_ARRAY_LEN(rows); i++) {
        struct ps_tmpl *t = make(rows[i].src, NULL);
        const struct ps_tmpl_caps *c = ps_tmpl_caps(t), *w = &rows[i].want;

        if (c->content_parts != w->content_parts || c->parts_only != w->parts_only ||
            c->args_object != w->args_object || c->null_content != w->null_content ||
            c->developer_role != w->developer_role)
            fail_msg("row %zu: parts %d only %d object %d null %d developer %d", i,
                     c->content_parts, c->parts_only, c->args_object, c->null_content,
                     c->developer_role);
        ps_tmpl_destroy(t);
    }
}

static void template_that_renders_nothing_useful_is_bad(void **state)
{
    (void)state;
    expect_bad("{% if %}", NULL, PS_TMPL_E_BAD, "does not compile: syntax error");
    expect_bad("\xff", NULL, PS_TMPL_E_BAD, "not UTF-8");
    expect_bad("hello", NULL, PS_TMPL_E_BAD, "its text is missing");
    expect_bad("{{ raise_exception('never') }}", NULL, PS_TMPL_E_BAD, "conversation: never");
    expect_bad("{{ nofunction() }}", NULL, PS_TMPL_E_BAD, "nofunction is unknown");
    expect_bad(CHATML, "{", PS_TMPL_E_BAD, "tokenizer_config.json is not valid JSON");
    expect_bad(NULL, NULL, PS_TMPL_E_NONE, NULL);
    expect_bad(NULL, "{\"chat_template\": null}", PS_TMPL_E_NONE, NULL);
    expect_bad(NULL, "[]", PS_TMPL_E_NONE, NULL);
}

static void tools_choose_the_tool_use_template(void **state)
{
    struct ps_tmpl *t =
        make(NULL, "{\"chat_template\": [{\"name\": \"rag\", \"template\": \"{% if %}\"}, "
                   "{\"name\": \"tool_use\", \"template\": \"T{{ messages[0].content }}\"}, "
                   "{\"name\": \"default\", \"template\": \"D{{ messages[0].content }}\"}]}");

    (void)state;
    expect_render(t, HI, NULL, NULL, PS_TMPL_OK, "Dhi");
    expect_render(t, HI, "[{}]", NULL, PS_TMPL_OK, "Thi");
    ps_tmpl_destroy(t);
}

static void put_file(const char *dir, const char *name, const char *text)
{
    char path[128];
    FILE *f;

    assert_true(snprintf(path, sizeof(path), "%s/%s", dir, name) < (int)sizeof(path));
    f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, strlen(text), f), strlen(text));
    assert_int_equal(fclose(f), 0);
}

static void file_wins_over_config(void **state)
{
    char dir[] = "/tmp/ps_template_XXXXXX", path[64];
    struct ps_buf err = PS_BUF_INIT;
    struct ps_tmpl *t = NULL;

    (void)state;
    assert_non_null(mkdtemp(dir));
    assert_int_equal(ps_tmpl_load(&t, dir, &err), PS_TMPL_E_NONE);
    put_file(dir, "tokenizer_config.json",
             "{\"bos_token\": \"<s>\", \"chat_template\": \"C{{ messages[0].content }}\"}");
    assert_int_equal(ps_tmpl_load(&t, dir, &err), PS_TMPL_OK);
    expect_render(t, HI, NULL, NULL, PS_TMPL_OK, "Chi");
    ps_tmpl_destroy(t);
    put_file(dir, "chat_template.jinja", "J{{ bos_token }}{{ messages[0].content }}\n");
    assert_int_equal(ps_tmpl_load(&t, dir, &err), PS_TMPL_OK);
    expect_render(t, HI, NULL, NULL, PS_TMPL_OK, "J<s>hi");
    ps_tmpl_destroy(t);
    put_file(dir, "chat_template.jinja", "");
    assert_int_equal(ps_tmpl_load(&t, dir, &err), PS_TMPL_E_BAD);
    ps_buf_fini(&err);
    for (size_t i = 0; i < 2; i++) {
        (void)snprintf(path, sizeof(path), "%s/%s", dir,
                       i ? "chat_template.jinja" : "tokenizer_config.json");
        assert_int_equal(unlink(path), 0);
    }
    assert_int_equal(rmdir(dir), 0);
}

static void *render_often(void *ud)
{
    const char *want = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n";
    struct ps_buf out = PS_BUF_INIT;
    uintptr_t n_wrong = 0;

    for (int i = 0; i < 500; i++) {
        ps_buf_clear(&out);
        if (ps_tmpl_render(ud, HI, strlen(HI), NULL, NULL, NULL, true, &day, &out) != PS_TMPL_OK ||
            strcmp(out.data, want) != 0)
            n_wrong++;
    }
    ps_buf_fini(&out);
    return (void *)n_wrong;
}

static void threads_share_one_template(void **state)
{
    struct ps_tmpl *t = make(CHATML, NULL);
    pthread_t th[4];
    void *n_wrong;

    (void)state;
    for (size_t i = 0; i < PS_ARRAY_LEN(th); i++)
        assert_int_equal(pthread_create(&th[i], NULL, render_often, t), 0);
    for (size_t i = 0; i < PS_ARRAY_LEN(th); i++) {
        assert_int_equal(pthread_join(th[i], &n_wrong), 0);
        assert_null(n_wrong);
    }
    ps_tmpl_destroy(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_is_what_the_template_says),
        cmocka_unit_test(tokens_come_from_the_config_as_text_or_object),
        cmocka_unit_test(kwargs_are_variables_but_replace_none_of_ours),
        cmocka_unit_test(own_refusal_of_the_template_is_its_text_alone),
        cmocka_unit_test(failure_names_the_line),
        cmocka_unit_test(endless_work_and_output_stop_at_their_limits),
        cmocka_unit_test(panic_inside_is_a_failed_render),
        cmocka_unit_test(context_that_is_too_deep_is_refused),
        cmocka_unit_test(clock_is_the_callers),
        cmocka_unit_test(abilities_are_found_by_rendering),
        cmocka_unit_test(template_that_renders_nothing_useful_is_bad),
        cmocka_unit_test(tools_choose_the_tool_use_template),
        cmocka_unit_test(file_wins_over_config),
        cmocka_unit_test(threads_share_one_template),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
