#include "common/json/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "common/json/prescan.h"

/*
 * struct ps_json is never defined: a value is jansson's json_t under another name. What jansson
 * cannot hold is a string that begins with MARK (see prescan.h) and is taken apart here.
 */
struct ps_json_doc {
    json_t *root;
};

/* A parsed document is only read, but jansson's iteration functions do not take const. */
static json_t *raw(const struct ps_json *v)
{
    return (json_t *)(uintptr_t)v;
}

int ps_json_parse(struct ps_json_doc **out, const char *text, size_t len,
                  const struct ps_json_limits *lim, size_t *out_err_off)
{
    size_t n_bom = len >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0 ? 3 : 0;
    struct ps_buf copy = PS_BUF_INIT;
    struct ps_json_doc *d;
    json_error_t err;
    json_t *root;
    bool copied;
    int r;

    r = ps_json_prescan(text + n_bom, len - n_bom, lim, &copy, &copied, out_err_off);
    if (r != PS_JSON_OK) {
        *out_err_off += n_bom;
        ps_buf_fini(&copy);
        return r;
    }
    root = json_loadb(copied ? copy.data : text + n_bom, copied ? copy.len : len - n_bom,
                      JSON_ALLOW_NUL | JSON_DECODE_ANY, &err);
    ps_buf_fini(&copy);
    if (root == NULL) {
        /* Only a real that overflows is left; err.position is near it unless bytes were rewritten. */
        PS_ASSERT(json_error_code(&err) == json_error_numeric_overflow);
        *out_err_off = ps_min_size((size_t)err.position + n_bom, len);
        return PS_JSON_E_SYNTAX;
    }
    d = ps_alloc(sizeof(*d));
    d->root = root;
    *out = d;
    return PS_JSON_OK;
}

void ps_json_free(struct ps_json_doc *d)
{
    if (d == NULL)
        return;
    json_decref(d->root);
    ps_free(d);
}

const struct ps_json *ps_json_root(const struct ps_json_doc *d)
{
    return (const struct ps_json *)d->root;
}

/* 'I', 'S', or 0 for a string that is stored as it is. */
static char mark_of(const json_t *s)
{
    const char *p = json_string_value(s);

    return json_string_length(s) >= 2 && p[0] == PS_JSON_MARK ? p[1] : '\0';
}

enum ps_json_type ps_json_type(const struct ps_json *v)
{
    switch (json_typeof(raw(v))) {
    case JSON_OBJECT:
        return PS_JSON_OBJ;
    case JSON_ARRAY:
        return PS_JSON_ARR;
    case JSON_STRING:
        return mark_of(raw(v)) == 'I' ? PS_JSON_REAL : PS_JSON_STR;
    case JSON_INTEGER:
        return PS_JSON_INT;
    case JSON_REAL:
        return PS_JSON_REAL;
    case JSON_TRUE:
    case JSON_FALSE:
        return PS_JSON_BOOL;
    case JSON_NULL:
        break;
    }
    return PS_JSON_NULL;
}

bool ps_json_is_big_int(const struct ps_json *v)
{
    return json_is_string(raw(v)) && mark_of(raw(v)) == 'I';
}

int64_t ps_json_int(const struct ps_json *v)
{
    PS_ASSERT(json_is_integer(raw(v)));
    return json_integer_value(raw(v));
}

double ps_json_num(const struct ps_json *v)
{
    if (ps_json_is_big_int(v))
        return strtod(json_string_value(raw(v)) + 2, NULL);
    PS_ASSERT(json_is_number(raw(v)));
    return json_number_value(raw(v));
}

bool ps_json_bool(const struct ps_json *v)
{
    PS_ASSERT(json_is_boolean(raw(v)));
    return json_is_true(raw(v));
}

const char *ps_json_str(const struct ps_json *v, size_t *out_len)
{
    char mark;

    PS_ASSERT(json_is_string(raw(v)));
    mark = mark_of(raw(v));
    PS_ASSERT(mark != 'I');
    *out_len = json_string_length(raw(v)) - (mark == 'S' ? 2 : 0);
    return json_string_value(raw(v)) + (mark == 'S' ? 2 : 0);
}

size_t ps_json_n(const struct ps_json *v)
{
    PS_ASSERT(json_is_array(raw(v)) || json_is_object(raw(v)));
    return json_is_array(raw(v)) ? json_array_size(raw(v)) : json_object_size(raw(v));
}

const struct ps_json *ps_json_at(const struct ps_json *v, size_t i)
{
    PS_ASSERT(json_is_array(raw(v)) && i < json_array_size(raw(v)));
    return (const struct ps_json *)json_array_get(raw(v), i);
}

const struct ps_json *ps_json_get(const struct ps_json *v, const char *key)
{
    PS_ASSERT(json_is_object(raw(v)));
    return (const struct ps_json *)json_object_get(raw(v), key);
}

const struct ps_json *ps_json_member(const struct ps_json *v, const char *key,
                                     enum ps_json_type type)
{
    const struct ps_json *m;

    if (v == NULL || ps_json_type(v) != PS_JSON_OBJ)
        return NULL;
    m = ps_json_get(v, key);
    return m != NULL && ps_json_type(m) == type ? m : NULL;
}

const struct ps_json *ps_json_next(const struct ps_json *obj, void **it, const char **out_key)
{
    PS_ASSERT(json_is_object(raw(obj)));
    *it = *it == NULL ? json_object_iter(raw(obj)) : json_object_iter_next(raw(obj), *it);
    if (*it == NULL)
        return NULL;
    *out_key = json_object_iter_key(*it);
    return (const struct ps_json *)json_object_iter_value(*it);
}

void ps_json_add_str(struct ps_buf *out, const char *s, size_t len)
{
    size_t n_added = 0;

    ps_buf_add_byte(out, '"');
    for (size_t i = 0; i < len; i++) {
        static const char short_names[] = "btn\0fr"; /* for 0x08 to 0x0D; 0x0B has none */
        uint8_t c = (uint8_t)s[i];

        if (c >= 0x20 && c != '"' && c != '\\')
            continue;
        ps_buf_add(out, s + n_added, i - n_added);
        n_added = i + 1;
        if (c >= 0x20)
            ps_buf_addf(out, "\\%c", c);
        else if (c >= 0x08 && c <= 0x0D && short_names[c - 0x08] != '\0')
            ps_buf_addf(out, "\\%c", short_names[c - 0x08]);
        else
            ps_buf_addf(out, "\\u%04x", c);
    }
    ps_buf_add(out, s + n_added, len - n_added);
    ps_buf_add_byte(out, '"');
}

/* "d.ddde[+-]xx" with the fewest digits that read back equal. */
static void shortest(double v, char *text, size_t text_bytes)
{
    /* In the normal range every number of up to 15 digits survives, so fewer need no trial. */
    int n_digits = fabs(v) < 0x1p-1022 ? 1 : 15;

    for (; n_digits <= 17; n_digits++) {
        snprintf(text, text_bytes, "%.*e", n_digits - 1, v);
        if (strtod(text, NULL) == v)
            return;
    }
}

/*
 * Python's repr: plain notation for exponents from -4 to 15, at least one digit after the point,
 * and an exponent of at least two digits otherwise.
 */
void ps_json_add_double(struct ps_buf *out, double v)
{
    char text[40], digits[20];
    long exp10;
    char *e;
    size_t n = 0;

    PS_ASSERT(isfinite(v));
    shortest(v, text, sizeof(text));
    e = strchr(text, 'e');
    PS_ASSERT(e != NULL);
    exp10 = strtol(e + 1, NULL, 10);
    for (const char *p = text; p < e; p++) {
        if (*p >= '0' && *p <= '9')
            digits[n++] = *p;
    }
    while (n > 1 && digits[n - 1] == '0')
        n--;
    digits[n] = '\0';
    if (signbit(v))
        ps_buf_add_byte(out, '-');
    if (exp10 < -4 || exp10 >= 16) {
        ps_buf_add_byte(out, digits[0]);
        if (n > 1)
            ps_buf_addf(out, ".%s", digits + 1);
        ps_buf_addf(out, "e%c%02ld", exp10 < 0 ? '-' : '+', labs(exp10));
    } else if (exp10 < 0) {
        ps_buf_addf(out, "0.%.*s%s", (int)(-exp10 - 1), "000", digits);
    } else if ((size_t)exp10 + 1 >= n) {
        ps_buf_addf(out, "%s%.*s.0", digits, (int)((size_t)exp10 + 1 - n), "000000000000000");
    } else {
        ps_buf_addf(out, "%.*s.%s", (int)(exp10 + 1), digits, digits + exp10 + 1);
    }
}

static void write_scalar(struct ps_buf *out, const struct ps_json *v)
{
    const json_t *j = raw(v);
    const char *s;
    size_t len;

    switch (ps_json_type(v)) {
    case PS_JSON_NULL:
        ps_buf_add_str(out, "null");
        break;
    case PS_JSON_BOOL:
        ps_buf_add_str(out, json_is_true(j) ? "true" : "false");
        break;
    case PS_JSON_INT:
        ps_buf_addf(out, "%lld", (long long)json_integer_value(j));
        break;
    case PS_JSON_REAL:
        if (json_is_string(j))
            ps_buf_add_str(out, json_string_value(j) + 2);
        else
            ps_json_add_double(out, json_real_value(j));
        break;
    case PS_JSON_STR:
        s = ps_json_str(v, &len);
        ps_json_add_str(out, s, len);
        break;
    case PS_JSON_ARR:
    case PS_JSON_OBJ:
        PS_ASSERT(false); /* not a scalar */
    }
}

struct level {
    const struct ps_json *v;
    void *it; /* object */
    size_t i; /* members written */
};

/* The next member of an open container, with its comma and key; NULL when it is complete. */
static const struct ps_json *next_member(struct ps_buf *out, struct level *l, bool python_style)
{
    const struct ps_json *v;
    const char *key = NULL;

    if (ps_json_type(l->v) == PS_JSON_ARR)
        v = l->i < ps_json_n(l->v) ? ps_json_at(l->v, l->i) : NULL;
    else
        v = ps_json_next(l->v, &l->it, &key);
    if (v == NULL)
        return NULL;
    if (l->i++ > 0)
        ps_buf_add_str(out, python_style ? ", " : ",");
    if (key != NULL) {
        ps_json_add_str(out, key, strlen(key));
        ps_buf_add_str(out, python_style ? ": " : ":");
    }
    return v;
}

void ps_json_write(struct ps_buf *out, const struct ps_json *v, bool python_style)
{
    struct level levels[PS_JSON_DEPTH_MAX];
    uint32_t depth = 0;

    for (;;) {
        enum ps_json_type type = ps_json_type(v);

        if (type == PS_JSON_ARR || type == PS_JSON_OBJ) {
            PS_ASSERT(depth < PS_JSON_DEPTH_MAX);
            levels[depth++] = (struct level){.v = v};
            ps_buf_add_byte(out, type == PS_JSON_ARR ? '[' : '{');
        } else {
            write_scalar(out, v);
        }
        v = NULL;
        while (depth > 0 && v == NULL) {
            struct level *l = &levels[depth - 1];

            v = next_member(out, l, python_style);
            if (v == NULL) {
                ps_buf_add_byte(out, ps_json_type(l->v) == PS_JSON_ARR ? ']' : '}');
                depth--;
            }
        }
        if (v == NULL)
            return;
    }
}
