/*
 * Drives chat templates from standard input, one JSON object a line, for template_test.py:
 *   {"template": TEXT or null, "config": OBJECT}            -> {"r": N, "text": ERROR, "caps": {..}}
 *   {"messages": .., "prepare": BOOL, "tools": .., "documents": .., "kwargs": .., "generate": BOOL}
 *                                                           -> {"r": N, "text": TEXT}
 * With prepare, messages go through the router's preparation first. The clock stands at
 * Friday 26 July 2024, 13:05:09.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/buf.h"
#include "common/json/json.h"
#include "common/text/template.h"
#include "router/request/messages.h"

static const struct tm day = {.tm_year = 124,
                              .tm_mon = 6,
                              .tm_mday = 26,
                              .tm_hour = 13,
                              .tm_min = 5,
                              .tm_sec = 9,
                              .tm_wday = 5,
                              .tm_yday = 207};

/* The member as JSON text, NULL when it is absent or null. */
static const char *text_of(const struct ps_json *line, const char *key, struct ps_buf *out)
{
    const struct ps_json *v = ps_json_get(line, key);

    ps_buf_clear(out);
    if (v == NULL || ps_json_type(v) == PS_JSON_NULL)
        return NULL;
    ps_json_write(out, v, true);
    return out->data;
}

static bool flag(const struct ps_json *line, const char *key)
{
    const struct ps_json *v = ps_json_get(line, key);

    return v != NULL && ps_json_type(v) == PS_JSON_BOOL && ps_json_bool(v);
}

static void answer(int r, const struct ps_buf *text, const struct ps_tmpl_caps *caps)
{
    struct ps_buf out = PS_BUF_INIT;

    ps_buf_addf(&out, "{\"r\": %d, \"text\": ", r);
    ps_json_add_str(&out, text->data != NULL ? text->data : "", text->len);
    if (caps != NULL)
        ps_buf_addf(&out,
                    ", \"caps\": {\"content_parts\": %d, \"parts_only\": %d, \"null_content\": %d, "
                    "\"args_object\": %d, \"developer_role\": %d}",
                    caps->content_parts, caps->parts_only, caps->null_content, caps->args_object,
                    caps->developer_role);
    ps_buf_add_str(&out, "}\n");
    (void)fwrite(out.data, 1, out.len, stdout);
    (void)fflush(stdout);
    ps_buf_fini(&out);
}

static void load(struct ps_tmpl **t, const struct ps_json *line)
{
    const struct ps_json *src = ps_json_get(line, "template");
    struct ps_buf config = PS_BUF_INIT, err = PS_BUF_INIT;
    const char *config_text = text_of(line, "config", &config), *text = NULL;
    size_t len = 0;
    int r;

    if (ps_json_type(src) == PS_JSON_STR)
        text = ps_json_str(src, &len);
    ps_tmpl_destroy(*t);
    *t = NULL;
    r = ps_tmpl_create(t, text, len, config_text, config.len, &err);
    answer(r, &err, *t != NULL ? ps_tmpl_caps(*t) : NULL);
    ps_buf_fini(&config);
    ps_buf_fini(&err);
}

static void render(const struct ps_tmpl *t, const struct ps_json *line)
{
    struct ps_buf messages = PS_BUF_INIT, tools = PS_BUF_INIT, documents = PS_BUF_INIT;
    struct ps_buf kwargs = PS_BUF_INIT, out = PS_BUF_INIT;
    struct rt_msg_fail f;
    int r = RT_MSG_OK;

    if (flag(line, "prepare"))
        r = rt_msg_prepare(ps_json_get(line, "messages"), ps_tmpl_caps(t), &messages, &f);
    else
        (void)text_of(line, "messages", &messages);
    if (r != RT_MSG_OK) {
        ps_buf_addf(&out, "%s %s: %s", f.code, f.param, f.text);
        r = -1;
    } else {
        r = ps_tmpl_render(t, messages.data, messages.len, text_of(line, "tools", &tools),
                           text_of(line, "documents", &documents), text_of(line, "kwargs", &kwargs),
                           flag(line, "generate"), &day, &out);
    }
    answer(r, &out, NULL);
    ps_buf_fini(&messages);
    ps_buf_fini(&tools);
    ps_buf_fini(&documents);
    ps_buf_fini(&kwargs);
    ps_buf_fini(&out);
}

int main(void)
{
    const struct ps_json_limits lim = {.max_depth = 130, .max_values = 10000000};
    struct ps_json_doc *doc;
    struct ps_tmpl *t = NULL;
    char *line = NULL;
    size_t cap = 0, off;
    ssize_t n;

    while ((n = getline(&line, &cap, stdin)) > 0) {
        if (ps_json_parse(&doc, line, (size_t)n, &lim, &off) != PS_JSON_OK) {
            (void)fprintf(stderr, "tmpl_tool: bad JSON at byte %zu\n", off);
            return 1;
        }
        if (ps_json_get(ps_json_root(doc), "template") != NULL)
            load(&t, ps_json_root(doc));
        else if (t != NULL)
            render(t, ps_json_root(doc));
        else
            return 1;
        ps_json_free(doc);
    }
    ps_tmpl_destroy(t);
    free(line);
    return 0;
}
