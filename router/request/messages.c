#include "router/request/messages.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/*
 * Invariants:
 * 1. One pass, in document order; a failure leaves out as it was.
 * 2. A null member is an absent one, except that an assistant's content may be null beside calls.
 * 3. Whatever comes out has a role the template knows and a content of a type it was probed with.
 */

enum role {
    ROLE_SYSTEM,
    ROLE_DEVELOPER,
    ROLE_USER,
    ROLE_ASSISTANT,
    ROLE_TOOL,
    ROLE_FUNCTION,
    N_ROLES
};

static const char *const role_names[N_ROLES] = {"system",    "developer", "user",
                                                "assistant", "tool",      "function"};

/* One message on its way through. */
struct job {
    const struct ps_tmpl_caps *caps;
    struct ps_buf *out;
    struct rt_msg_fail *fail;
    const struct ps_json *msg;
    size_t index;
    enum role role;
    bool has_calls;
    bool first_member; /* nothing was written into the object yet */
};

PS_PRINTF(4, 5)
static int refuse(struct rt_msg_fail *f, const char *code, const char *param, const char *fmt, ...)
{
    va_list ap;

    f->code = code;
    (void)snprintf(f->param, sizeof(f->param), "%s", param);
    va_start(ap, fmt);
    (void)vsnprintf(f->text, sizeof(f->text), fmt, ap);
    va_end(ap);
    return RT_MSG_E_BAD;
}

/* Paths are at most "messages[65535].tool_calls[1000000].function.arguments": they fit. */
PS_PRINTF(3, 4)
static int refuse_at(const struct job *j, const char *code, const char *fmt, ...)
{
    char param[sizeof(j->fail->param)];
    const char *says = "has the wrong type";
    int n = snprintf(param, sizeof(param), "messages[%zu]", j->index);
    va_list ap;

    PS_ASSERT(n > 0 && (size_t)n < sizeof(param));
    va_start(ap, fmt);
    n += vsnprintf(param + n, sizeof(param) - (size_t)n, fmt, ap);
    va_end(ap);
    PS_ASSERT((size_t)n < sizeof(param));
    if (strcmp(code, "missing_required_parameter") == 0)
        says = "is required";
    else if (strcmp(code, "invalid_value") == 0)
        says = "has a value that is not supported";
    else if (strcmp(code, "unsupported_content") == 0)
        says = "is not supported by this model: it takes text only";
    return refuse(j->fail, code, param, "%s %s", param, says);
}

static bool is(const struct ps_json *v, enum ps_json_type type)
{
    return v != NULL && ps_json_type(v) == type;
}

/* A member that is there and not null. */
static const struct ps_json *get(const struct ps_json *obj, const char *key)
{
    const struct ps_json *v = ps_json_get(obj, key);

    return is(v, PS_JSON_NULL) ? NULL : v;
}

static void add_key(struct job *j, const char *key)
{
    if (!j->first_member)
        ps_buf_add_str(j->out, ", ");
    j->first_member = false;
    ps_json_add_str(j->out, key, strlen(key));
    ps_buf_add_str(j->out, ": ");
}

static bool equals(const struct ps_json *str, const char *want)
{
    size_t len;
    const char *s = ps_json_str(str, &len);

    return len == strlen(want) && memcmp(s, want, len) == 0;
}

static int take_role(struct job *j)
{
    const struct ps_json *v = get(j->msg, "role");
    char low[16];
    const char *s;
    size_t len;

    if (v == NULL)
        return refuse_at(j, "missing_required_parameter", ".role");
    if (!is(v, PS_JSON_STR))
        return refuse_at(j, "invalid_type", ".role");
    s = ps_json_str(v, &len);
    for (size_t i = 0; i < len && i < sizeof(low); i++)
        low[i] = s[i] >= 'A' && s[i] <= 'Z' ? (char)(s[i] - 'A' + 'a') : s[i];
    for (j->role = 0; j->role < N_ROLES; j->role++)
        if (len == strlen(role_names[j->role]) && memcmp(low, role_names[j->role], len) == 0)
            return RT_MSG_OK;
    return refuse_at(j, "invalid_value", ".role");
}

static const char *role_out(const struct job *j)
{
    if (j->role == ROLE_DEVELOPER && !j->caps->developer_role)
        return role_names[ROLE_SYSTEM];
    if (j->role == ROLE_FUNCTION)
        return role_names[ROLE_TOOL];
    return role_names[j->role];
}

/* The member that holds a part's text; NULL for a part that is not text. */
static const char *part_text_key(const struct ps_json *type)
{
    if (equals(type, "text") || equals(type, "input_text") || equals(type, "output_text"))
        return "text";
    return equals(type, "refusal") ? "refusal" : NULL;
}

static bool is_media(const struct ps_json *type)
{
    static const char *const media[] = {"image_url",   "input_image", "image",     "input_audio",
                                        "audio_url",   "audio",       "video_url", "video",
                                        "input_video", "file",        "input_file"};

    for (size_t i = 0; i < PS_ARRAY_LEN(media); i++)
        if (equals(type, media[i]))
            return true;
    return false;
}

static int check_part(const struct job *j, const struct ps_json *part, size_t k,
                      const struct ps_json **out_text)
{
    const struct ps_json *type;
    const char *key;

    if (!is(part, PS_JSON_OBJ))
        return refuse_at(j, "invalid_type", ".content[%zu]", k);
    type = get(part, "type");
    if (type == NULL)
        return refuse_at(j, "missing_required_parameter", ".content[%zu].type", k);
    if (!is(type, PS_JSON_STR))
        return refuse_at(j, "invalid_type", ".content[%zu].type", k);
    key = part_text_key(type);
    if (key == NULL)
        return refuse_at(j, is_media(type) ? "unsupported_content" : "invalid_value",
                         ".content[%zu].type", k);
    *out_text = get(part, key);
    if (*out_text == NULL)
        return refuse_at(j, "missing_required_parameter", ".content[%zu].%s", k, key);
    if (!is(*out_text, PS_JSON_STR))
        return refuse_at(j, "invalid_type", ".content[%zu].%s", k, key);
    return RT_MSG_OK;
}

static void add_part(struct ps_buf *out, const struct ps_json *text)
{
    ps_buf_add_str(out, "{\"type\": \"text\", \"text\": ");
    ps_json_write(out, text, true);
    ps_buf_add_byte(out, '}');
}

static int add_parts(struct job *j, const struct ps_json *parts)
{
    struct ps_buf joined = PS_BUF_INIT;
    const struct ps_json *text = NULL;
    const char *s;
    size_t len;
    int r;

    if (j->caps->content_parts)
        ps_buf_add_byte(j->out, '[');
    for (size_t k = 0; k < ps_json_n(parts); k++) {
        r = check_part(j, ps_json_at(parts, k), k, &text);
        if (r != RT_MSG_OK) {
            ps_buf_fini(&joined);
            return r;
        }
        if (j->caps->content_parts) {
            ps_buf_add_str(j->out, k > 0 ? ", " : "");
            add_part(j->out, text);
            continue;
        }
        s = ps_json_str(text, &len);
        ps_buf_add_str(&joined, k > 0 ? "\n" : "");
        ps_buf_add(&joined, s, len);
    }
    if (j->caps->content_parts)
        ps_buf_add_byte(j->out, ']');
    else
        ps_json_add_str(j->out, joined.len > 0 ? joined.data : "", joined.len);
    ps_buf_fini(&joined);
    return RT_MSG_OK;
}

/* Writes the content member; v is NULL when there is none. */
static int add_content(struct job *j, const struct ps_json *v)
{
    const struct ps_json *refusal = get(j->msg, "refusal");

    /* An answer that was refused comes back in histories with its text beside a null content. */
    if (v == NULL && j->role == ROLE_ASSISTANT && is(refusal, PS_JSON_STR))
        v = refusal;
    if (v == NULL && !(j->role == ROLE_ASSISTANT && j->has_calls) && j->role != ROLE_FUNCTION)
        return refuse_at(j, "missing_required_parameter", ".content");
    add_key(j, "content");
    if (v == NULL) {
        ps_buf_add_str(j->out, j->caps->null_content && j->has_calls ? "null" : "\"\"");
        return RT_MSG_OK;
    }
    if (is(v, PS_JSON_ARR))
        return add_parts(j, v);
    if (!is(v, PS_JSON_STR))
        return refuse_at(j, "invalid_type", ".content");
    if (!j->caps->parts_only) {
        ps_json_write(j->out, v, true);
        return RT_MSG_OK;
    }
    ps_buf_add_byte(j->out, '[');
    add_part(j->out, v);
    ps_buf_add_byte(j->out, ']');
    return RT_MSG_OK;
}

/* For a template that takes objects: text that is one JSON object, as that object. */
static bool add_parsed(struct ps_buf *out, const char *s, size_t len)
{
    const struct ps_json_limits lim = {.max_depth = 100, .max_values = 1000000};
    struct ps_json_doc *doc;
    size_t off;
    bool ok;

    if (strspn(s, " \t\r\n") == len) { /* what models write for a call without arguments */
        ps_buf_add_str(out, "{}");
        return true;
    }
    if (ps_json_parse(&doc, s, len, &lim, &off) != PS_JSON_OK)
        return false;
    ok = is(ps_json_root(doc), PS_JSON_OBJ);
    if (ok)
        ps_json_write(out, ps_json_root(doc), true);
    ps_json_free(doc);
    return ok;
}

static void add_arguments(struct job *j, const struct ps_json *v)
{
    struct ps_buf text = PS_BUF_INIT;
    const char *s = "{}";
    size_t len = 2;

    if (v != NULL && ps_json_type(v) == PS_JSON_OBJ) {
        ps_json_write(&text, v, true);
        s = text.data;
        len = text.len;
    } else if (v != NULL) {
        s = ps_json_str(v, &len);
    }
    if (!j->caps->args_object || !add_parsed(j->out, s, len))
        ps_json_add_str(j->out, s, len);
    ps_buf_fini(&text);
}

/* path: of the function object, for messages. */
static int add_function(struct job *j, const struct ps_json *f, const char *path)
{
    const struct ps_json *name, *args, *v;
    bool first = true;
    const char *key;
    void *it = NULL;

    if (f == NULL)
        return refuse_at(j, "missing_required_parameter", "%s", path);
    if (!is(f, PS_JSON_OBJ))
        return refuse_at(j, "invalid_type", "%s", path);
    name = get(f, "name");
    args = get(f, "arguments");
    if (name == NULL)
        return refuse_at(j, "missing_required_parameter", "%s.name", path);
    if (!is(name, PS_JSON_STR))
        return refuse_at(j, "invalid_type", "%s.name", path);
    if (args != NULL && !is(args, PS_JSON_STR) && !is(args, PS_JSON_OBJ))
        return refuse_at(j, "invalid_type", "%s.arguments", path);
    ps_buf_add_byte(j->out, '{');
    while ((v = ps_json_next(f, &it, &key)) != NULL) {
        if (ps_json_type(v) == PS_JSON_NULL)
            continue;
        ps_buf_add_str(j->out, first ? "" : ", ");
        first = false;
        ps_json_add_str(j->out, key, strlen(key));
        ps_buf_add_str(j->out, ": ");
        if (strcmp(key, "arguments") == 0)
            add_arguments(j, args);
        else
            ps_json_write(j->out, v, true);
    }
    if (args == NULL) {
        ps_buf_add_str(j->out, ", \"arguments\": ");
        add_arguments(j, NULL);
    }
    ps_buf_add_byte(j->out, '}');
    return RT_MSG_OK;
}

static int add_call(struct job *j, const struct ps_json *call, size_t k)
{
    const struct ps_json *type, *v;
    bool first = true;
    const char *key;
    char path[64];
    void *it = NULL;
    int r;

    if (!is(call, PS_JSON_OBJ))
        return refuse_at(j, "invalid_type", ".tool_calls[%zu]", k);
    type = get(call, "type");
    if (type != NULL && !is(type, PS_JSON_STR))
        return refuse_at(j, "invalid_type", ".tool_calls[%zu].type", k);
    if (type != NULL && !equals(type, "function"))
        return refuse_at(j, "invalid_value", ".tool_calls[%zu].type", k);
    (void)snprintf(path, sizeof(path), ".tool_calls[%zu].function", k);
    if (get(call, "function") == NULL)
        return refuse_at(j, "missing_required_parameter", "%s", path);
    v = get(call, "id");
    if (v != NULL && !is(v, PS_JSON_STR))
        return refuse_at(j, "invalid_type", ".tool_calls[%zu].id", k);
    ps_buf_add_byte(j->out, '{');
    while ((v = ps_json_next(call, &it, &key)) != NULL) {
        if (ps_json_type(v) == PS_JSON_NULL)
            continue;
        ps_buf_add_str(j->out, first ? "" : ", ");
        first = false;
        ps_json_add_str(j->out, key, strlen(key));
        ps_buf_add_str(j->out, ": ");
        if (strcmp(key, "function") != 0) {
            ps_json_write(j->out, v, true);
            continue;
        }
        r = add_function(j, v, path);
        if (r != RT_MSG_OK)
            return r;
    }
    ps_buf_add_byte(j->out, '}');
    return RT_MSG_OK;
}

static int add_calls(struct job *j, const struct ps_json *calls)
{
    int r;

    if (!is(calls, PS_JSON_ARR))
        return refuse_at(j, "invalid_type", ".tool_calls");
    if (ps_json_n(calls) == 0) /* clients send it beside every answer; templates count its items */
        return RT_MSG_OK;
    add_key(j, "tool_calls");
    ps_buf_add_byte(j->out, '[');
    for (size_t k = 0; k < ps_json_n(calls); k++) {
        ps_buf_add_str(j->out, k > 0 ? ", " : "");
        r = add_call(j, ps_json_at(calls, k), k);
        if (r != RT_MSG_OK)
            return r;
    }
    ps_buf_add_byte(j->out, ']');
    return RT_MSG_OK;
}

/* The form of calls before tools: one call, without an id. */
static int add_legacy_call(struct job *j, const struct ps_json *f)
{
    int r;

    add_key(j, "tool_calls");
    ps_buf_add_str(j->out, "[{\"type\": \"function\", \"function\": ");
    r = add_function(j, f, ".function_call");
    ps_buf_add_str(j->out, "}]");
    return r;
}

/* As transformers: the first of these that is there; written to reasoning_content and thinking. */
static const struct ps_json *find_reasoning(const struct ps_json *msg)
{
    const struct ps_json *v = get(msg, "reasoning_content");

    if (v == NULL)
        v = get(msg, "thinking");
    return v != NULL ? v : get(msg, "reasoning");
}

static int add_member(struct job *j, const char *key, const struct ps_json *v,
                      const struct ps_json *reasoning)
{
    bool called =
        is(get(j->msg, "tool_calls"), PS_JSON_ARR) && ps_json_n(get(j->msg, "tool_calls")) > 0;

    if (strcmp(key, "role") == 0) {
        add_key(j, key);
        ps_json_add_str(j->out, role_out(j), strlen(role_out(j)));
        return RT_MSG_OK;
    }
    if (strcmp(key, "content") == 0)
        return add_content(j, is(v, PS_JSON_NULL) ? NULL : v);
    if (ps_json_type(v) == PS_JSON_NULL)
        return RT_MSG_OK;
    if (j->role == ROLE_ASSISTANT && strcmp(key, "tool_calls") == 0)
        return add_calls(j, v);
    if (j->role == ROLE_ASSISTANT && strcmp(key, "function_call") == 0)
        return called ? RT_MSG_OK : add_legacy_call(j, v);
    if ((strcmp(key, "name") == 0 || strcmp(key, "tool_call_id") == 0) && !is(v, PS_JSON_STR))
        return refuse_at(j, "invalid_type", ".%s", key);
    add_key(j, key);
    ps_json_write(j->out, strcmp(key, "reasoning_content") == 0 ? reasoning : v, true);
    return RT_MSG_OK;
}

static int add_message(struct job *j)
{
    const struct ps_json *v, *calls, *reasoning;
    const char *key;
    void *it = NULL;
    int r;

    if (!is(j->msg, PS_JSON_OBJ))
        return refuse_at(j, "invalid_type", "%s", "");
    r = take_role(j);
    if (r != RT_MSG_OK)
        return r;
    calls = get(j->msg, "tool_calls");
    j->has_calls = j->role == ROLE_ASSISTANT &&
                   (get(j->msg, "function_call") != NULL ||
                    (calls != NULL && !(is(calls, PS_JSON_ARR) && ps_json_n(calls) == 0)));
    reasoning = find_reasoning(j->msg);
    j->first_member = true;
    ps_buf_add_byte(j->out, '{');
    if (reasoning != NULL && get(j->msg, "thinking") == NULL) {
        add_key(j, "thinking");
        ps_json_write(j->out, reasoning, true);
    }
    while ((v = ps_json_next(j->msg, &it, &key)) != NULL) {
        r = add_member(j, key, v, reasoning);
        if (r != RT_MSG_OK)
            return r;
    }
    if (ps_json_get(j->msg, "content") == NULL) {
        r = add_content(j, NULL);
        if (r != RT_MSG_OK)
            return r;
    }
    if (j->role == ROLE_TOOL && get(j->msg, "tool_call_id") == NULL)
        return refuse_at(j, "missing_required_parameter", ".tool_call_id");
    if (reasoning != NULL && get(j->msg, "reasoning_content") == NULL) {
        add_key(j, "reasoning_content");
        ps_json_write(j->out, reasoning, true);
    }
    ps_buf_add_byte(j->out, '}');
    return RT_MSG_OK;
}

int rt_msg_prepare(const struct ps_json *messages, const struct ps_tmpl_caps *caps,
                   struct ps_buf *out, struct rt_msg_fail *fail)
{
    struct job j = {.caps = caps, .out = out, .fail = fail};
    size_t before = out->len, n;
    int r;

    if (messages == NULL || ps_json_type(messages) == PS_JSON_NULL)
        return refuse(fail, "missing_required_parameter", "messages", "messages is required");
    if (ps_json_type(messages) != PS_JSON_ARR)
        return refuse(fail, "invalid_type", "messages", "messages must be an array");
    n = ps_json_n(messages);
    if (n == 0 || n > RT_MSG_MAX)
        return refuse(fail, "invalid_value", "messages",
                      "messages must hold 1 to %d items, not %zu", RT_MSG_MAX, n);
    ps_buf_add_byte(out, '[');
    for (j.index = 0; j.index < n; j.index++) {
        ps_buf_add_str(out, j.index > 0 ? ", " : "");
        j.msg = ps_json_at(messages, j.index);
        r = add_message(&j);
        if (r != RT_MSG_OK) {
            ps_buf_truncate(out, before);
            return r;
        }
    }
    ps_buf_add_byte(out, ']');
    return RT_MSG_OK;
}
