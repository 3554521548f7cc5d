#include "router/request/messages.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static const struct ps_tmpl_caps plain = {0};
static const struct ps_tmpl_caps able = {
    .content_parts = true, .null_content = true, .args_object = true, .developer_role = true};
static const struct ps_tmpl_caps only_parts = {.content_parts = true, .parts_only = true};

static struct ps_json_doc *parse(const char *text)
{
    const struct ps_json_limits lim = {.max_depth = 128, .max_values = 1000000};
    struct ps_json_doc *doc;
    size_t off;

    if (ps_json_parse(&doc, text, strlen(text), &lim, &off) != PS_JSON_OK)
        fail_msg("bad JSON in the test: %s", text);
    return doc;
}

static void expect(const struct ps_tmpl_caps *caps, const char *in, const char *want)
{
    struct ps_buf out = PS_BUF_INIT;
    struct ps_json_doc *doc = parse(in);
    struct rt_msg_fail f;

    if (rt_msg_prepare(ps_json_root(doc), caps, &out, &f) != RT_MSG_OK)
        fail_msg("%s: %s %s", in, f.code, f.param);
    assert_string_equal(out.data, want);
    ps_buf_fini(&out);
    ps_json_free(doc);
}

static void expect_fail(const char *in, const char *code, const char *param)
{
    struct ps_json_doc *doc = parse(in);
    struct ps_buf out = PS_BUF_INIT;
    struct rt_msg_fail f;

    ps_buf_add_str(&out, "before");
    if (rt_msg_prepare(ps_json_root(doc), &plain, &out, &f) != RT_MSG_E_BAD)
        fail_msg("accepted: %s", in);
    assert_string_equal(f.code, code);
    assert_string_equal(f.param, param);
    assert_true(strncmp(f.text, param, strlen(param)) == 0 && strlen(f.text) > strlen(param));
    assert_string_equal(out.data, "before");
    ps_buf_fini(&out);
    ps_json_free(doc);
}

static void c021_absent_messages_are_missing(void **state)
{
    struct ps_buf out = PS_BUF_INIT;
    struct rt_msg_fail f;

    (void)state;
    assert_int_equal(rt_msg_prepare(NULL, &plain, &out, &f), RT_MSG_E_BAD);
    assert_string_equal(f.code, "missing_required_parameter");
    assert_string_equal(f.param, "messages");
    expect_fail("null", "missing_required_parameter", "messages");
}

static void c022_number_of_messages_is_bounded(void **state)
{
    struct ps_buf many = PS_BUF_INIT;

    (void)state;
    expect_fail("[]", "invalid_value", "messages");
    ps_buf_add_byte(&many, '[');
    for (int i = 0; i <= RT_MSG_MAX; i++)
        ps_buf_add_str(&many, i > 0 ? ",0" : "0");
    ps_buf_add_byte(&many, ']');
    expect_fail(many.data, "invalid_value", "messages");
    ps_buf_fini(&many);
}

static void c023_wrong_types_are_named(void **state)
{
    (void)state;
    expect_fail("\"hi\"", "invalid_type", "messages");
    expect_fail("{}", "invalid_type", "messages");
    expect_fail("[7]", "invalid_type", "messages[0]");
    expect_fail("[{\"role\": 1}]", "invalid_type", "messages[0].role");
    expect_fail("[{\"role\": \"user\", \"content\": 1}]", "invalid_type", "messages[0].content");
    expect_fail("[{\"role\": \"user\", \"content\": {}}]", "invalid_type", "messages[0].content");
    expect_fail("[{\"role\": \"user\", \"content\": \"a\", \"name\": 1}]", "invalid_type",
                "messages[0].name");
    expect_fail("[{\"role\": \"user\", \"content\": [\"a\"]}]", "invalid_type",
                "messages[0].content[0]");
    expect_fail("[{\"role\": \"user\", \"content\": [{\"type\": 1}]}]", "invalid_type",
                "messages[0].content[0].type");
    expect_fail("[{\"role\": \"user\", \"content\": [{\"type\": \"text\", \"text\": 1}]}]",
                "invalid_type", "messages[0].content[0].text");
}

static void c024_roles_are_known_or_refused(void **state)
{
    (void)state;
    expect_fail("[{\"role\": \"robot\", \"content\": \"a\"}]", "invalid_value", "messages[0].role");
    expect_fail("[{\"role\": \"\", \"content\": \"a\"}]", "invalid_value", "messages[0].role");
    expect_fail("[{\"role\": \"assistantassistantassistant\"}]", "invalid_value",
                "messages[0].role");
    expect_fail("[{\"content\": \"a\"}]", "missing_required_parameter", "messages[0].role");
    expect_fail("[{\"role\": \"user\", \"content\": \"a\"}, {\"role\": null}]",
                "missing_required_parameter", "messages[1].role");
}

static void c025_roles_compare_without_case(void **state)
{
    (void)state;
    expect(
        &plain,
        "[{\"role\": \"USER\", \"content\": \"a\"}, {\"role\": \"Assistant\", \"content\": \"\"}]",
        "[{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", \"content\": \"\"}]");
}

static void c026_c027_parts_are_joined_or_kept_as_the_template_wants(void **state)
{
    const char *one =
        "[{\"role\": \"user\", \"content\": [{\"type\": \"text\", \"text\": \"Say hi\"}]}]";
    const char *all =
        "[{\"role\": \"user\", \"content\": [{\"type\": \"input_text\", \"text\": \"a\"}, "
        "{\"type\": \"output_text\", \"text\": \"\"}, {\"type\": \"refusal\", \"refusal\": "
        "\"\\u0000\\\"b\", \"x\": 1}, {\"type\": \"text\", \"text\": \"c\"}]}]";

    (void)state;
    expect(&plain, one, "[{\"role\": \"user\", \"content\": \"Say hi\"}]");
    expect(&able, one, one);
    expect(&plain, all, "[{\"role\": \"user\", \"content\": \"a\\n\\n\\u0000\\\"b\\nc\"}]");
    expect(
        &able, all,
        "[{\"role\": \"user\", \"content\": [{\"type\": \"text\", \"text\": \"a\"}, {\"type\": "
        "\"text\", \"text\": \"\"}, {\"type\": \"text\", \"text\": \"\\u0000\\\"b\"}, {\"type\": "
        "\"text\", \"text\": \"c\"}]}]");
    expect(&plain, "[{\"role\": \"user\", \"content\": []}]",
           "[{\"role\": \"user\", \"content\": \"\"}]");
    expect(&able, "[{\"role\": \"user\", \"content\": \"s\"}]",
           "[{\"role\": \"user\", \"content\": \"s\"}]");
    expect(&only_parts, "[{\"role\": \"user\", \"content\": \"Say hi\"}]", one);
}

static void c028_media_is_refused_with_its_path(void **state)
{
    (void)state;
    expect_fail(
        "[{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"user\", \"content\": [{\"type\": "
        "\"text\", \"text\": \"a\"}, {\"type\": \"image_url\", \"image_url\": {}}]}]",
        "unsupported_content", "messages[1].content[1].type");
    expect_fail("[{\"role\": \"user\", \"content\": [{\"type\": \"input_audio\"}]}]",
                "unsupported_content", "messages[0].content[0].type");
    expect_fail("[{\"role\": \"user\", \"content\": [{\"type\": \"smell\"}]}]", "invalid_value",
                "messages[0].content[0].type");
    expect_fail("[{\"role\": \"user\", \"content\": [{}]}]", "missing_required_parameter",
                "messages[0].content[0].type");
    expect_fail("[{\"role\": \"user\", \"content\": [{\"type\": \"text\"}]}]",
                "missing_required_parameter", "messages[0].content[0].text");
}

static void c029_answer_needs_content_or_calls(void **state)
{
    const char *call =
        "[{\"role\": \"assistant\", \"content\": null, \"tool_calls\": [{\"id\": \"c\", "
        "\"type\": \"function\", \"function\": {\"name\": \"f\", \"arguments\": \"{}\"}}]}]";

    (void)state;
    expect_fail("[{\"role\": \"assistant\"}]", "missing_required_parameter", "messages[0].content");
    expect_fail("[{\"role\": \"assistant\", \"content\": null, \"tool_calls\": []}]",
                "missing_required_parameter", "messages[0].content");
    expect_fail("[{\"role\": \"user\", \"content\": null, \"tool_calls\": [1]}]",
                "missing_required_parameter", "messages[0].content");
    expect(
        &plain, call,
        "[{\"role\": \"assistant\", \"content\": \"\", \"tool_calls\": [{\"id\": \"c\", \"type\": "
        "\"function\", \"function\": {\"name\": \"f\", \"arguments\": \"{}\"}}]}]");
    expect(
        &able, call,
        "[{\"role\": \"assistant\", \"content\": null, \"tool_calls\": [{\"id\": \"c\", \"type\": "
        "\"function\", \"function\": {\"name\": \"f\", \"arguments\": {}}}]}]");
    expect(&able,
           "[{\"role\": \"assistant\", \"tool_calls\": [{\"function\": {\"name\": \"f\"}}]}]",
           "[{\"role\": \"assistant\", \"tool_calls\": [{\"function\": {\"name\": \"f\", "
           "\"arguments\": "
           "{}}}], \"content\": null}]");
    expect(&able, "[{\"role\": \"assistant\", \"tool_calls\": [], \"content\": \"a\"}]",
           "[{\"role\": \"assistant\", \"content\": \"a\"}]");
    expect(&able, "[{\"role\": \"assistant\", \"content\": null, \"refusal\": \"no\"}]",
           "[{\"role\": \"assistant\", \"content\": \"no\", \"refusal\": \"no\"}]");
}

static void c030_tool_result_names_its_call(void **state)
{
    (void)state;
    expect_fail("[{\"role\": \"tool\", \"content\": \"a\"}]", "missing_required_parameter",
                "messages[0].tool_call_id");
    expect_fail("[{\"role\": \"tool\", \"content\": \"a\", \"tool_call_id\": 1}]", "invalid_type",
                "messages[0].tool_call_id");
    expect(&plain, "[{\"role\": \"tool\", \"content\": \"a\", \"tool_call_id\": \"c\"}]",
           "[{\"role\": \"tool\", \"content\": \"a\", \"tool_call_id\": \"c\"}]");
    expect(&plain, "[{\"role\": \"function\", \"name\": \"f\", \"content\": null}]",
           "[{\"role\": \"tool\", \"name\": \"f\", \"content\": \"\"}]");
}

static void c031_c033_unknown_members_pass_and_null_ones_do_not_exist(void **state)
{
    (void)state;
    expect(
        &plain,
        "[{\"name\": \"\", \"content\": \"a\", \"role\": \"user\", \"cache_control\": {\"b\": 1.0, "
        "\"a\": 1}, \"audio\": null}, {\"role\": \"user\", \"content\": \"\", \"name\": null}]",
        "[{\"name\": \"\", \"content\": \"a\", \"role\": \"user\", \"cache_control\": {\"b\": 1.0, "
        "\"a\": 1}}, {\"role\": \"user\", \"content\": \"\"}]");
}

static void c032_developer_is_system_where_it_is_unknown(void **state)
{
    const char *in = "[{\"role\": \"developer\", \"content\": \"a\"}]";

    (void)state;
    expect(&plain, in, "[{\"role\": \"system\", \"content\": \"a\"}]");
    expect(&able, in, in);
}

static void arguments_are_objects_or_strings_as_the_template_wants(void **state)
{
    static const char *const rows[][3] = {
        /* in, as a string, as an object */
        {"\"{\\\"b\\\":1.0,\\\"a\\\":[]}\"", "\"{\\\"b\\\":1.0,\\\"a\\\":[]}\"",
         "{\"b\": 1.0, \"a\": []}"},
        {"{\"b\": 1, \"a\": \"\\u00e9\"}", "\"{\\\"b\\\": 1, \\\"a\\\": \\\"\u00e9\\\"}\"",
         "{\"b\": 1, \"a\": \"\u00e9\"}"},
        {"\"{not json\"", "\"{not json\"", "\"{not json\""},
        {"\"[1]\"", "\"[1]\"", "\"[1]\""},
        {"\" \"", "\" \"", "{}"},
        {"null", "\"{}\"", "{}"},
    };

    (void)state;
    for (size_t i = 0; i < PS_ARRAY_LEN(rows); i++) {
        for (size_t k = 1; k <= 2; k++) {
            struct ps_buf in = PS_BUF_INIT, want = PS_BUF_INIT;
            bool null = strcmp(rows[i][0], "null") == 0;

            ps_buf_addf(
                &in,
                "[{\"role\": \"assistant\", \"content\": \"\", \"tool_calls\": [{\"function\": "
                "{\"arguments\": %s, \"name\": \"f\"}}]}]",
                rows[i][0]);
            if (null)
                ps_buf_addf(&want,
                            "[{\"role\": \"assistant\", \"content\": \"\", \"tool_calls\": "
                            "[{\"function\": {\"name\": \"f\", \"arguments\": %s}}]}]",
                            rows[i][k]);
            else
                ps_buf_addf(&want,
                            "[{\"role\": \"assistant\", \"content\": \"\", \"tool_calls\": "
                            "[{\"function\": {\"arguments\": %s, \"name\": \"f\"}}]}]",
                            rows[i][k]);
            expect(k == 1 ? &plain : &able, in.data, want.data);
            ps_buf_fini(&in);
            ps_buf_fini(&want);
        }
    }
}

static void calls_are_checked_with_their_path(void **state)
{
    static const char *const rows[][3] = {
        {"5", "invalid_type", "messages[0].tool_calls"},
        {"[5]", "invalid_type", "messages[0].tool_calls[0]"},
        {"[{}]", "missing_required_parameter", "messages[0].tool_calls[0].function"},
        {"[{\"function\": 1}]", "invalid_type", "messages[0].tool_calls[0].function"},
        {"[{\"function\": {}}]", "missing_required_parameter",
         "messages[0].tool_calls[0].function.name"},
        {"[{\"function\": {\"name\": 1}}]", "invalid_type",
         "messages[0].tool_calls[0].function.name"},
        {"[{\"function\": {\"name\": \"f\", \"arguments\": 1}}]", "invalid_type",
         "messages[0].tool_calls[0].function.arguments"},
        {"[{\"id\": 1, \"function\": {\"name\": \"f\"}}]", "invalid_type",
         "messages[0].tool_calls[0].id"},
        {"[{\"function\": {\"name\": \"f\"}}, {\"type\": \"custom\"}]", "invalid_value",
         "messages[0].tool_calls[1].type"},
    };

    (void)state;
    for (size_t i = 0; i < PS_ARRAY_LEN(rows); i++) {
        struct ps_buf in = PS_BUF_INIT;

        ps_buf_addf(&in, "[{\"role\": \"assistant\", \"content\": \"\", \"tool_calls\": %s}]",
                    rows[i][0]);
        expect_fail(in.data, rows[i][1], rows[i][2]);
        ps_buf_fini(&in);
    }
}

static void legacy_call_becomes_a_tool_call(void **state)
{
    (void)state;
    expect(
        &plain,
        "[{\"role\": \"assistant\", \"content\": null, \"function_call\": {\"name\": \"f\", "
        "\"arguments\": \"{}\"}}]",
        "[{\"role\": \"assistant\", \"content\": \"\", \"tool_calls\": [{\"type\": \"function\", "
        "\"function\": {\"name\": \"f\", \"arguments\": \"{}\"}}]}]");
    expect_fail("[{\"role\": \"assistant\", \"content\": \"\", \"function_call\": {}}]",
                "missing_required_parameter", "messages[0].function_call.name");
}

static void reasoning_goes_where_templates_read_it(void **state)
{
    (void)state;
    expect(
        &plain, "[{\"role\": \"assistant\", \"content\": \"a\", \"reasoning\": \"r\"}]",
        "[{\"thinking\": \"r\", \"role\": \"assistant\", \"content\": \"a\", \"reasoning\": \"r\", "
        "\"reasoning_content\": \"r\"}]");
    expect(&plain,
           "[{\"reasoning_content\": \"c\", \"role\": \"assistant\", \"content\": \"a\", "
           "\"thinking\": "
           "\"t\"}]",
           "[{\"reasoning_content\": \"c\", \"role\": \"assistant\", \"content\": \"a\", "
           "\"thinking\": "
           "\"t\"}]");
    expect(
        &plain,
        "[{\"role\": \"assistant\", \"reasoning_content\": null, \"content\": \"a\", \"thinking\": "
        "\"t\", \"reasoning\": \"r\"}]",
        "[{\"role\": \"assistant\", \"content\": \"a\", \"thinking\": \"t\", \"reasoning\": \"r\", "
        "\"reasoning_content\": \"t\"}]");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(c021_absent_messages_are_missing),
        cmocka_unit_test(c022_number_of_messages_is_bounded),
        cmocka_unit_test(c023_wrong_types_are_named),
        cmocka_unit_test(c024_roles_are_known_or_refused),
        cmocka_unit_test(c025_roles_compare_without_case),
        cmocka_unit_test(c026_c027_parts_are_joined_or_kept_as_the_template_wants),
        cmocka_unit_test(c028_media_is_refused_with_its_path),
        cmocka_unit_test(c029_answer_needs_content_or_calls),
        cmocka_unit_test(c030_tool_result_names_its_call),
        cmocka_unit_test(c031_c033_unknown_members_pass_and_null_ones_do_not_exist),
        cmocka_unit_test(c032_developer_is_system_where_it_is_unknown),
        cmocka_unit_test(arguments_are_objects_or_strings_as_the_template_wants),
        cmocka_unit_test(calls_are_checked_with_their_path),
        cmocka_unit_test(legacy_call_becomes_a_tool_call),
        cmocka_unit_test(reasoning_goes_where_templates_read_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
