#pragma once

/*
 * JSON in: one pre-scan of the raw bytes, then jansson. JSON out: a small appender.
 *
 * The pre-scan refuses what jansson cannot bound or would treat differently from the contract:
 * depth, number of values (values inside arrays that hold only integers do not count, so that token
 * id prompts are free), invalid UTF-8, NaN and comments. It skips a BOM, replaces lone surrogate
 * escapes (and a NUL in a key) by U+FFFD, and keeps integers beyond int64 as reals that are written
 * back digit for digit. A number that no double can hold is a syntax error. Duplicate keys: the last
 * one wins. jansson's types stay behind this header: users hold struct ps_json values.
 *
 * Owned by one thread; a document is freed as a whole.
 */

#include "common/base.h"
#include "common/buf.h"

enum {
    PS_JSON_OK,
    PS_JSON_E_SYNTAX, /* err_off: byte offset */
    PS_JSON_E_UTF8,
    PS_JSON_E_DEPTH,
    PS_JSON_E_COUNT,
};

enum ps_json_type {
    PS_JSON_NULL,
    PS_JSON_BOOL,
    PS_JSON_INT,  /* fits int64 */
    PS_JSON_REAL, /* finite double; also integers beyond int64 (see ps_json_is_big_int) */
    PS_JSON_STR,
    PS_JSON_ARR,
    PS_JSON_OBJ,
};

enum { PS_JSON_DEPTH_MAX = 512 }; /* no limit may be above this */

struct ps_json_limits {
    uint32_t max_depth;  /* 128 */
    uint32_t max_values; /* 1,000,000 */
};

struct ps_json_doc;
struct ps_json; /* a value inside a document; never freed alone */

PS_MUST int ps_json_parse(struct ps_json_doc **out, const char *text, size_t len,
                          const struct ps_json_limits *lim, size_t *out_err_off);
void ps_json_free(struct ps_json_doc *d); /* NULL is fine */
const struct ps_json *ps_json_root(const struct ps_json_doc *d);

enum ps_json_type ps_json_type(const struct ps_json *v);
bool ps_json_is_big_int(const struct ps_json *v); /* an integer that does not fit int64 */
int64_t ps_json_int(const struct ps_json *v);     /* INT only (asserted) */
double ps_json_num(const struct ps_json *v);      /* INT or REAL */
bool ps_json_bool(const struct ps_json *v);
const char *ps_json_str(const struct ps_json *v,
                        size_t *out_len);  /* NUL-terminated; may hold NULs */
size_t ps_json_n(const struct ps_json *v); /* ARR, OBJ: number of members */
const struct ps_json *ps_json_at(const struct ps_json *v, size_t i); /* ARR */
/* OBJ: member or NULL. A member whose value is null is returned (type NULL). */
const struct ps_json *ps_json_get(const struct ps_json *v, const char *key);
/* The member if v is an OBJ that has it with this type, else NULL. v may be NULL or anything. */
const struct ps_json *ps_json_member(const struct ps_json *v, const char *key,
                                     enum ps_json_type type);
/* OBJ in document order: *it starts NULL; returns the value, NULL at the end. */
const struct ps_json *ps_json_next(const struct ps_json *obj, void **it, const char **out_key);

/* Appends v as JSON: compact (", " and ": " when python_style), key order kept, shortest doubles. */
void ps_json_write(struct ps_buf *out, const struct ps_json *v, bool python_style);

/* Appenders for answers. */
void ps_json_add_str(struct ps_buf *out, const char *s,
                     size_t len); /* with quotes; s is valid UTF-8 */
void ps_json_add_double(struct ps_buf *out,
                        double v); /* shortest form that reads back equal; finite */
