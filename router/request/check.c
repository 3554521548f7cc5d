#include "router/request/check.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

bool rt_check_bad(struct rt_check *c, enum rt_fail_row row, const char *fmt, ...)
{
    char text[sizeof(c->fail->text)], param[sizeof(c->fail->param)];
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    (void)snprintf(param, sizeof(param), "%s%s", c->prefix, c->name);
    rt_fail_set(c->fail, row, param, "%s", text);
    return false;
}

bool rt_check_bad_type(struct rt_check *c, const char *want)
{
    return rt_check_bad(c, RT_E5_TYPE, "'%s%s' must be %s", c->prefix, c->name, want);
}

static bool bad_range(struct rt_check *c, double min, double max)
{
    return rt_check_bad(c, RT_E6_VALUE, "'%s%s' must be between %.10g and %.10g", c->prefix,
                        c->name, min, max);
}

bool rt_check_int(struct rt_check *c, const struct ps_json *v, double min, double max, int64_t *out)
{
    bool any = min >= max && min == 0;
    int64_t i;

    if (ps_json_type(v) == PS_JSON_INT) {
        i = ps_json_int(v);
    } else if (ps_json_type(v) == PS_JSON_REAL && ps_json_num(v) == floor(ps_json_num(v))) {
        /* 2^63 itself is a double and is no int64. */
        if (ps_json_is_big_int(v) || fabs(ps_json_num(v)) >= 0x1p63)
            return rt_check_bad(c, RT_E6_VALUE, "'%s%s' is out of range", c->prefix, c->name);
        i = (int64_t)ps_json_num(v);
    } else {
        return rt_check_bad_type(c, "an integer");
    }
    if (i == RT_ABSENT || (!any && ((double)i < min || (double)i > max)))
        return any ? rt_check_bad(c, RT_E6_VALUE, "'%s%s' is out of range", c->prefix, c->name)
                   : bad_range(c, min, max);
    *out = i;
    return true;
}

bool rt_check_float(struct rt_check *c, const struct ps_json *v, double min, double max,
                    double *out)
{
    double d;

    if (ps_json_type(v) != PS_JSON_INT && ps_json_type(v) != PS_JSON_REAL)
        return rt_check_bad_type(c, "a number");
    d = ps_json_num(v);
    if (!isfinite(d))
        return rt_check_bad(c, RT_E6_VALUE, "'%s%s' is out of range", c->prefix, c->name);
    if ((min < max || min > 0) && (d < min || d > max))
        return bad_range(c, min, max);
    *out = d;
    return true;
}

bool rt_check_bool(struct rt_check *c, const struct ps_json *v, int8_t *out)
{
    if (ps_json_type(v) != PS_JSON_BOOL)
        return rt_check_bad_type(c, "a boolean");
    *out = ps_json_bool(v) ? 1 : 0;
    return true;
}

bool rt_check_str(struct rt_check *c, const struct ps_json *v, struct rt_str *out)
{
    if (ps_json_type(v) != PS_JSON_STR)
        return rt_check_bad_type(c, "a string");
    out->s = ps_json_str(v, &out->len);
    return true;
}

bool rt_check_ids(struct rt_check *c, const struct ps_json *v, uint32_t n_vocab, size_t n_max,
                  uint32_t **out, uint32_t *out_n)
{
    uint32_t *ids;
    int64_t id;
    size_t n;

    if (ps_json_type(v) != PS_JSON_ARR)
        return rt_check_bad_type(c, "an array of token ids");
    n = ps_json_n(v);
    if (n > n_max)
        return rt_check_bad(c, RT_E6_VALUE, "'%s%s' has more than %zu items", c->prefix, c->name,
                            n_max);
    if (n == 0) {
        *out = NULL;
        *out_n = 0;
        return true;
    }
    ids = ps_alloc(n * sizeof(ids[0]));
    for (size_t i = 0; i < n; i++) {
        if (!rt_check_int(c, ps_json_at(v, i), 0, 0, &id)) {
            ps_free(ids);
            return false;
        }
        if (id < 0 || id >= (int64_t)n_vocab) {
            ps_free(ids);
            return rt_check_bad(c, RT_E6_VALUE,
                                "'%s%s' holds token id %lld, which is out of vocabulary (0 to %u)",
                                c->prefix, c->name, (long long)id, n_vocab - 1);
        }
        ids[i] = (uint32_t)id;
    }
    *out = ids;
    *out_n = (uint32_t)n;
    return true;
}

static bool is_filled(const struct ps_json *v)
{
    size_t len;

    switch (ps_json_type(v)) {
    case PS_JSON_ARR:
    case PS_JSON_OBJ:
        return ps_json_n(v) > 0;
    case PS_JSON_STR:
        (void)ps_json_str(v, &len);
        return len > 0;
    case PS_JSON_NULL:
    case PS_JSON_BOOL:
    case PS_JSON_INT:
    case PS_JSON_REAL:
        break;
    }
    return true;
}

static bool is_off(const struct rt_field *f, const struct ps_json *v)
{
    double d;

    if (ps_json_type(v) == PS_JSON_BOOL)
        return !ps_json_bool(v);
    if (ps_json_type(v) != PS_JSON_INT && ps_json_type(v) != PS_JSON_REAL)
        return false;
    d = ps_json_num(v);
    return d == f->min || d == f->max;
}

static bool refused(struct rt_check *c)
{
    return rt_check_bad(c, RT_E8_UNSUPPORTED, "'%s%s' is not supported by this server", c->prefix,
                        c->name);
}

static bool read_field(struct rt_check *c, const struct rt_field *f, const struct ps_json *v)
{
    char *p = c->dst != NULL ? (char *)c->dst + f->offset : NULL;
    int8_t flag = 0;

    switch (f->kind) {
    case RT_F_BOOL:
        return rt_check_bool(c, v, (int8_t *)p);
    case RT_F_INT:
        return rt_check_int(c, v, f->min, f->max, (int64_t *)(void *)p);
    case RT_F_FLOAT:
        return rt_check_float(c, v, f->min, f->max, (double *)(void *)p);
    case RT_F_STR:
        return rt_check_str(c, v, (struct rt_str *)(void *)p);
    case RT_F_OBJ:
        if (ps_json_type(v) != PS_JSON_OBJ)
            return rt_check_bad_type(c, "an object");
        *(const struct ps_json **)(void *)p = v;
        return true;
    case RT_F_CUSTOM:
        return f->fn(c, v);
    case RT_F_IGNORE:
        c->n_ignored++;
        return true;
    case RT_F_REFUSE:
        return refused(c);
    case RT_F_REFUSE_TRUE:
        return rt_check_bool(c, v, &flag) && (flag == 0 || refused(c));
    case RT_F_REFUSE_FILLED:
        return !is_filled(v) || refused(c);
    case RT_F_OFF:
        return is_off(f, v) || refused(c);
    }
    return true;
}

static const struct rt_field *find(const struct rt_fields *tables, size_t n_tables,
                                   const char *name)
{
    for (size_t t = 0; t < n_tables; t++) {
        for (size_t i = 0; i < tables[t].n; i++) {
            if (strcmp(tables[t].rows[i].name, name) == 0)
                return &tables[t].rows[i];
        }
    }
    return NULL;
}

bool rt_check_object(struct rt_check *c, const struct ps_json *obj, const struct rt_fields *tables,
                     size_t n_tables)
{
    const struct rt_field *f;
    const struct ps_json *v;
    const char *key;
    void *it = NULL;

    PS_ASSERT(ps_json_type(obj) == PS_JSON_OBJ);
    while ((v = ps_json_next(obj, &it, &key)) != NULL) {
        f = find(tables, n_tables, key);
        c->name = f != NULL ? f->name : "";
        if (f == NULL && c->strict) {
            c->name = key;
            return rt_check_bad(c, RT_E8_UNSUPPORTED, "Unknown parameter: '%.200s'", key);
        }
        if (f == NULL)
            c->n_ignored++;
        else if (ps_json_type(v) != PS_JSON_NULL && !read_field(c, f, v))
            return false;
    }
    return true;
}

bool rt_check_body(const char *body, size_t len, struct ps_json_doc **out, struct rt_fail *f)
{
    static const struct ps_json_limits limits = {.max_depth = 128, .max_values = 1000000};
    struct ps_json_doc *doc = NULL;
    size_t off = 0;

    switch (len > 0 ? ps_json_parse(&doc, body, len, &limits, &off) : PS_JSON_E_SYNTAX) {
    case PS_JSON_OK:
        break;
    case PS_JSON_E_UTF8:
        rt_fail_set(f, RT_E2_INVALID_UTF8, NULL, "The body is not valid UTF-8 at byte %zu", off);
        return false;
    case PS_JSON_E_DEPTH:
        rt_fail_set(f, RT_E1_INVALID_JSON, NULL, "The body is nested deeper than %u levels",
                    limits.max_depth);
        return false;
    case PS_JSON_E_COUNT:
        rt_fail_set(f, RT_E1_INVALID_JSON, NULL, "The body holds more than %u values",
                    limits.max_values);
        return false;
    default:
        if (len == 0)
            rt_fail_set(f, RT_E1_INVALID_JSON, NULL, "The body is empty; a JSON object is needed");
        else
            rt_fail_set(f, RT_E1_INVALID_JSON, NULL, "The body is not valid JSON at byte %zu", off);
        return false;
    }
    if (ps_json_type(ps_json_root(doc)) != PS_JSON_OBJ) {
        rt_fail_set(f, RT_E3_NOT_OBJECT, NULL, "The body must be a JSON object");
        ps_json_free(doc);
        return false;
    }
    *out = doc;
    return true;
}
