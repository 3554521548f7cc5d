#pragma once

/*
 * textkit: chat templates in Rust (minijinja) behind a C interface.
 *
 * A template behaves as in transformers: trim_blocks, lstrip_blocks, loop controls, generation tags,
 * Python's methods and JSON. Immutable after create; any number of threads may render at once. No
 * call blocks, logs or touches files. A panic inside never crosses the boundary (TK_E_PANIC). Memory
 * crosses it only as struct tk_str. What no limit can stop is a hostile template (its nesting can
 * exhaust the stack), so templates come from model directories and never from requests.
 */

#include <stddef.h>
#include <stdint.h>

struct tm;

enum {
    TK_OK,
    TK_E_SYNTAX, /* create: the template does not compile */
    TK_E_RENDER, /* the template failed on this context */
    TK_E_RAISED, /* the template called raise_exception(text): the text alone */
    TK_E_INPUT,  /* the context is not JSON, is deeper than 127, or is not an object */
    TK_E_LIMIT,  /* fuel or output limit */
    TK_E_PANIC,
};

struct tk_template;

struct tk_str { /* filled by the library; not NUL-terminated */
    char *ptr;
    size_t len;
};

struct tk_limits {
    uint64_t fuel;    /* template instructions one render may take */
    size_t out_bytes; /* longest text one render may make */
};

/* err holds the error text when the result is not 0, else it is empty; free it either way. */
int tk_template_create(struct tk_template **out, const char *src, size_t len,
                       const struct tk_limits *limits, struct tk_str *err);
/* out is the text, or the error text when the result is not 0. now: local time for strftime_now. */
int tk_template_render(const struct tk_template *t, const char *ctx_json, size_t len,
                       const struct tm *now, struct tk_str *out);
void tk_template_destroy(struct tk_template *t); /* NULL is fine */
void tk_str_free(struct tk_str *s);              /* leaves it empty */
