#include "bench/load/event.h"

#include <string.h>

struct cur {
    const char *p, *end;
};

static void skip_ws(struct cur *c)
{
    while (c->p < c->end && (*c->p == ' ' || *c->p == '\t' || *c->p == '\n' || *c->p == '\r'))
        c->p++;
}

static bool take(struct cur *c, char ch)
{
    skip_ws(c);
    if (c->p == c->end || *c->p != ch)
        return false;
    c->p++;
    return true;
}

/* A string's raw inside; escapes stay as they are written. */
static bool take_str(struct cur *c, const char **s, size_t *n)
{
    if (!take(c, '"'))
        return false;
    *s = c->p;
    while (c->p < c->end && *c->p != '"')
        c->p += *c->p == '\\' && c->end - c->p > 1 ? 2 : 1;
    if (c->p >= c->end)
        return false;
    *n = (size_t)(c->p - *s);
    c->p++;
    return true;
}

static bool take_u64(struct cur *c, uint64_t *out)
{
    uint64_t v = 0;
    int n = 0;

    skip_ws(c);
    while (c->p < c->end && *c->p >= '0' && *c->p <= '9') {
        if (++n > 18)
            return false;
        v = v * 10 + (uint64_t)(*c->p++ - '0');
    }
    *out = v;
    return n > 0;
}

/* A value of any shape: brackets are counted outside of strings. */
static bool skip_value(struct cur *c)
{
    uint64_t depth = 0;
    const char *s;
    size_t n;

    skip_ws(c);
    while (c->p < c->end) {
        switch (*c->p) {
        case '"':
            if (!take_str(c, &s, &n))
                return false;
            break;
        case '{':
        case '[':
            depth++;
            c->p++;
            break;
        case '}':
        case ']':
            if (depth == 0)
                return false;
            depth--;
            c->p++;
            break;
        case ',':
            if (depth == 0)
                return false;
            c->p++;
            break;
        default: /* a scalar, a colon, white space */
            s = c->p;
            while (c->p < c->end && strchr("\"{}[],", *c->p) == NULL)
                c->p++;
            if (c->p == s)
                return false; /* NUL, which strchr finds */
        }
        if (depth == 0)
            return true;
    }
    return false;
}

static bool key_is(const char *s, size_t n, const char *key)
{
    return n == strlen(key) && memcmp(s, key, n) == 0;
}

static void copy_text(char *out, size_t out_bytes, const char *s, size_t n)
{
    n = ps_min_size(n, out_bytes - 1);
    memcpy(out, s, n);
    out[n] = '\0';
}

struct job {
    struct bn_event *out;
    uint32_t *ids;
    size_t ids_max;
};

typedef bool (*member_fn)(struct cur *c, const char *key, size_t n, struct job *j);

static bool is_next(struct cur *c, char ch)
{
    skip_ws(c);
    return c->p < c->end && *c->p == ch;
}

/* Walks an object; anything that is none is skipped (null, a number). */
static bool read_object(struct cur *c, member_fn fn, struct job *j)
{
    const char *key;
    size_t n;

    if (!is_next(c, '{'))
        return skip_value(c);
    c->p++;
    if (take(c, '}'))
        return true;
    do {
        if (!take_str(c, &key, &n) || !take(c, ':') || !fn(c, key, n, j))
            return false;
    } while (take(c, ','));
    return take(c, '}');
}

static bool read_ids(struct cur *c, struct job *j)
{
    uint64_t id;

    if (!is_next(c, '['))
        return skip_value(c);
    c->p++;
    if (take(c, ']'))
        return true;
    do {
        if (!take_u64(c, &id) || id > UINT32_MAX)
            return false;
        if (j->out->n_ids < j->ids_max)
            j->ids[j->out->n_ids] = (uint32_t)id;
        j->out->n_ids++;
    } while (take(c, ','));
    return take(c, ']');
}

static bool choice_member(struct cur *c, const char *key, size_t n, struct job *j)
{
    const char *s;
    size_t len;

    if (key_is(key, n, "token_ids"))
        return read_ids(c, j);
    if (key_is(key, n, "text") && is_next(c, '"')) {
        if (!take_str(c, &s, &len))
            return false;
        j->out->has_text = len > 0;
        return true;
    }
    if (key_is(key, n, "finish_reason") && is_next(c, '"')) {
        if (!take_str(c, &s, &len))
            return false;
        copy_text(j->out->finish, sizeof(j->out->finish), s, len);
        return true;
    }
    return skip_value(c);
}

static bool read_choices(struct cur *c, struct job *j)
{
    if (!is_next(c, '['))
        return skip_value(c);
    c->p++;
    if (take(c, ']'))
        return true;
    j->out->has_choice = true;
    if (!read_object(c, choice_member, j))
        return false;
    while (take(c, ',')) {
        if (!skip_value(c))
            return false;
    }
    return take(c, ']');
}

static bool details_member(struct cur *c, const char *key, size_t n, struct job *j)
{
    return key_is(key, n, "cached_tokens") ? take_u64(c, &j->out->n_cached) : skip_value(c);
}

static bool usage_member(struct cur *c, const char *key, size_t n, struct job *j)
{
    if (key_is(key, n, "prompt_tokens"))
        return take_u64(c, &j->out->n_prompt);
    if (key_is(key, n, "completion_tokens"))
        return take_u64(c, &j->out->n_completion);
    if (key_is(key, n, "prompt_tokens_details"))
        return read_object(c, details_member, j);
    return skip_value(c);
}

static bool error_member(struct cur *c, const char *key, size_t n, struct job *j)
{
    const char *s;
    size_t len;

    if (!key_is(key, n, "message") || !is_next(c, '"'))
        return skip_value(c);
    if (!take_str(c, &s, &len))
        return false;
    copy_text(j->out->error, sizeof(j->out->error), s, len);
    return true;
}

static bool top_member(struct cur *c, const char *key, size_t n, struct job *j)
{
    if (key_is(key, n, "choices"))
        return read_choices(c, j);
    if (key_is(key, n, "usage")) {
        j->out->has_usage = is_next(c, '{');
        return read_object(c, usage_member, j);
    }
    if (key_is(key, n, "error")) {
        j->out->has_error = !is_next(c, 'n');
        return read_object(c, error_member, j);
    }
    return skip_value(c);
}

int bn_event_read(const char *s, size_t n, struct bn_event *out, uint32_t *ids, size_t ids_max)
{
    struct bn_event e = {0};
    struct job j = {.out = &e, .ids = ids, .ids_max = ids_max};
    struct cur c = {.p = s, .end = s + n};

    if (!is_next(&c, '{') || !read_object(&c, top_member, &j))
        return BN_EVENT_E_BAD;
    skip_ws(&c);
    if (c.p != c.end)
        return BN_EVENT_E_BAD;
    *out = e;
    return BN_EVENT_OK;
}
