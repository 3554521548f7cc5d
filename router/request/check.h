#pragma once

/*
 * Reading a request body: one table of fields, walked once in document order.
 *
 * A row names a field, its kind and where its value goes in the caller's struct; null counts as absent.
 * The first thing that is wrong, in document order, is reported as data (rt_fail) with the field's
 * name. Fields in no table are counted as ignored, or refused when the caller is strict. Pure but for
 * the destination; any thread. Strings are views into the document and live as long as it does.
 *
 * Invariant: a value that was stored is inside its row's range.
 */

#include "common/base.h"
#include "common/json/json.h"
#include "router/fail.h"

#define RT_ABSENT INT64_MIN /* an RT_F_INT that was not given; no row allows it as a value */

struct rt_str { /* an RT_F_STR; s NULL: not given */
    const char *s;
    size_t len;
};

enum rt_field_kind {
    RT_F_BOOL,          /* int8_t: -1 not given, 0, 1 */
    RT_F_INT,           /* int64_t in [min, max]; 16.0 is an integer, 16.5 is not */
    RT_F_FLOAT,         /* double in [min, max]; NAN when not given */
    RT_F_STR,           /* struct rt_str */
    RT_F_OBJ,           /* const struct ps_json *: an object */
    RT_F_CUSTOM,        /* fn decides */
    RT_F_IGNORE,        /* accepted, counted, without effect */
    RT_F_REFUSE,        /* known and not supported: anything but null is a 400 */
    RT_F_REFUSE_TRUE,   /* a boolean that may only be false */
    RT_F_REFUSE_FILLED, /* an array, object or string that may only be empty */
    RT_F_OFF,           /* a number that may only be min or max: the values that mean "off" */
};

struct rt_check;
typedef bool (*rt_field_fn)(struct rt_check *c, const struct ps_json *v);

struct rt_field {
    const char *name;
    enum rt_field_kind kind;
    size_t offset;
    double min, max; /* INT, FLOAT, OFF; both 0: any (for FLOAT: any finite) */
    rt_field_fn fn;  /* CUSTOM */
};

struct rt_fields {
    const struct rt_field *rows;
    size_t n;
};

struct rt_check {
    void *dst; /* what the offsets point into */
    struct rt_fail *fail;
    const char *name;   /* of the field being read: the param of a failure */
    const char *prefix; /* "stream_options." for a nested object, else "" */
    bool strict;        /* unknown fields are refused */
    uint32_t n_ignored;
};

/* The body of a request: a JSON object within our limits. */
PS_MUST bool rt_check_body(const char *body, size_t len, struct ps_json_doc **out,
                           struct rt_fail *f);
/* Reads obj by the tables, the first one that knows a name decides. False: *c->fail is filled. */
PS_MUST bool rt_check_object(struct rt_check *c, const struct ps_json *obj,
                             const struct rt_fields *tables, size_t n_tables);

/* Readers for custom fields; on failure they fill the fail and return false. */
PS_MUST bool rt_check_int(struct rt_check *c, const struct ps_json *v, double min, double max,
                          int64_t *out);
PS_MUST bool rt_check_float(struct rt_check *c, const struct ps_json *v, double min, double max,
                            double *out);
PS_MUST bool rt_check_bool(struct rt_check *c, const struct ps_json *v, int8_t *out);
PS_MUST bool rt_check_str(struct rt_check *c, const struct ps_json *v, struct rt_str *out);
/* An array of token ids below n_vocab, at most n_max of them; *out gets ps_alloc memory, NULL when empty. */
PS_MUST bool rt_check_ids(struct rt_check *c, const struct ps_json *v, uint32_t n_vocab,
                          size_t n_max, uint32_t **out, uint32_t *out_n);
bool rt_check_bad_type(struct rt_check *c, const char *want); /* E5; false */
PS_PRINTF(3, 4)
bool rt_check_bad(struct rt_check *c, enum rt_fail_row row, const char *fmt, ...); /* false */
