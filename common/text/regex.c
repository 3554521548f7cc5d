#define PCRE2_CODE_UNIT_WIDTH 8

#include "common/text/regex.h"

#include <string.h>

#include <pcre2.h>

enum {
    PATTERN_LEN_MAX = 16384, /* forty times the longest pattern in use */
    /* Published patterns need a few hundred steps a match; a hostile one is stopped in about 1 s. */
    MATCH_LIMIT = 10000000,
    DEPTH_LIMIT = 100000,
    HEAP_LIMIT_KIB = 65536,
    JIT_STACK_MIN = 32 << 10,
    JIT_STACK_MAX = 8 << 20,
};

struct ps_regex {
    pcre2_code *code;
};

struct ps_regex_ctx {
    pcre2_match_data *data;
    pcre2_match_context *limits;
    pcre2_jit_stack *stack;
};

/*
 * PCRE2's \s with UCP also matches U+180E, and its \w is letters, digits and the low line only. As
 * properties they are what Oniguruma means. A negated set cannot stand inside a class.
 */
static const char *property_of(char c, bool in_class, bool *out_refused)
{
    *out_refused = false;
    switch (c) {
    case 's':
        return "\\p{White_Space}";
    case 'S':
        return "\\P{White_Space}";
    case 'd':
        return "\\p{Nd}";
    case 'D':
        return "\\P{Nd}";
    case 'w':
        return in_class ? "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}"
                        : "[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}]";
    case 'W':
        *out_refused = in_class;
        return "[^\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}]";
    case 'h':
    case 'H':
    case 'R':
    case 'X':
    case 'K':
    case 'G':
    case 'g':
    case 'Q':
    case 'E':
    case 'C':
    case 'N':
    case 'O':
    case 'y':
    case 'Y':
        *out_refused = true;
        return NULL;
    default:
        return NULL;
    }
}

/* `(?` at p: groups, look-around and the option i are the same in both engines. */
static bool is_plain_group(const char *s, size_t n, size_t p)
{
    p += 2;
    while (p < n && (s[p] == 'i' || s[p] == '-'))
        p++;
    return p < n && (s[p] == ':' || s[p] == '=' || s[p] == '!' || s[p] == '>' ||
                     (s[p] == '<' && p + 1 < n && (s[p + 1] == '=' || s[p + 1] == '!')) ||
                     (s[p] == ')' && s[p - 1] != '?'));
}

/* Rewrites the pattern into out; returns what cannot be run, NULL when all can. */
static const char *translate(struct ps_buf *out, const char *s, size_t n)
{
    bool in_class = false, refused;
    size_t class_at = 0;

    for (size_t i = 0; i < n; i++) {
        if (s[i] == '\0')
            return "a NUL character";
        if (s[i] == '\\' && i + 1 < n) {
            const char *prop = property_of(s[++i], in_class, &refused);

            if (refused)
                return "an escape that has no equal in PCRE2";
            if (prop != NULL)
                ps_buf_add_str(out, prop);
            else
                ps_buf_add(out, s + i - 1, 2);
            /* The braces of \p{..} and \x{..} are no interval. */
            for (bool braces = i + 1 < n && s[i + 1] == '{'; braces && i + 1 < n;) {
                ps_buf_add_byte(out, s[++i]);
                braces = s[i] != '}';
            }
            continue;
        }
        if (!in_class && s[i] == '[') {
            in_class = true;
            class_at = i + (i + 1 < n && s[i + 1] == '^');
        } else if (in_class && s[i] == ']' && i > class_at + 1) {
            in_class = false;
        } else if (in_class && (s[i] == '[' || (s[i] == '&' && i + 1 < n && s[i + 1] == '&'))) {
            return "a class inside a class";
        } else if (!in_class && s[i] == '(' && i + 1 < n && s[i + 1] == '*') {
            return "a verb";
        } else if (!in_class && s[i] == '(' && i + 1 < n && s[i + 1] == '?' &&
                   !is_plain_group(s, n, i)) {
            return "a special group";
        } else if (!in_class && s[i] == '}' && i + 1 < n && s[i + 1] == '+') {
            return "an interval followed by +";
        }
        ps_buf_add_byte(out, s[i]);
    }
    return NULL;
}

struct ps_regex *ps_regex_create(const char *pattern, size_t len, bool literal, struct ps_buf *why)
{
    uint32_t options = PCRE2_UTF | (literal ? PCRE2_LITERAL : PCRE2_UCP | PCRE2_MULTILINE);
    struct ps_buf text = PS_BUF_INIT;
    struct ps_regex *r = NULL;
    const char *refused;
    pcre2_code *code;
    PCRE2_SIZE at;
    int err;

    if (len > PATTERN_LEN_MAX) {
        ps_buf_addf(why, "a regex is longer than %d bytes", PATTERN_LEN_MAX);
        return NULL;
    }
    ps_buf_reserve(&text, len + 1);
    refused = literal ? NULL : translate(&text, pattern, len);
    if (literal)
        ps_buf_add(&text, pattern, len);
    if (refused != NULL) {
        ps_buf_addf(why, "a regex with %s is not supported", refused);
        goto out;
    }
    code = pcre2_compile((PCRE2_SPTR)text.data, text.len, options, &err, &at, NULL);
    if (code == NULL) {
        PCRE2_UCHAR msg[128] = {0};

        (void)pcre2_get_error_message(err, msg, sizeof(msg));
        ps_buf_addf(why, "a regex does not compile: %s", (const char *)msg);
        goto out;
    }
    (void)pcre2_jit_compile(code, PCRE2_JIT_COMPLETE); /* without it the interpreter runs */
    r = ps_alloc(sizeof(*r));
    r->code = code;
out:
    ps_buf_fini(&text);
    return r;
}

void ps_regex_destroy(struct ps_regex *r)
{
    if (r == NULL)
        return;
    pcre2_code_free(r->code);
    ps_free(r);
}

struct ps_regex_ctx *ps_regex_ctx_create(void)
{
    struct ps_regex_ctx *c = ps_alloc(sizeof(*c));

    c->data = pcre2_match_data_create(1, NULL);
    c->limits = pcre2_match_context_create(NULL);
    c->stack = pcre2_jit_stack_create(JIT_STACK_MIN, JIT_STACK_MAX, NULL);
    PS_ASSERT(c->data != NULL && c->limits != NULL);
    pcre2_set_match_limit(c->limits, MATCH_LIMIT);
    pcre2_set_depth_limit(c->limits, DEPTH_LIMIT);
    pcre2_set_heap_limit(c->limits, HEAP_LIMIT_KIB);
    if (c->stack != NULL) /* NULL: no JIT on this machine */
        pcre2_jit_stack_assign(c->limits, NULL, c->stack);
    return c;
}

void ps_regex_ctx_destroy(struct ps_regex_ctx *c)
{
    if (c == NULL)
        return;
    pcre2_match_data_free(c->data);
    pcre2_match_context_free(c->limits);
    pcre2_jit_stack_free(c->stack);
    ps_free(c);
}

int ps_regex_find(const struct ps_regex *r, struct ps_regex_ctx *c, const char *s, size_t n,
                  size_t p, size_t *out_from, size_t *out_to)
{
    const PCRE2_SIZE *v;
    int rc;

    PS_ASSERT(p <= n);
    rc = pcre2_match(r->code, (PCRE2_SPTR)s, n, p, PCRE2_NO_UTF_CHECK, c->data, c->limits);
    if (rc == PCRE2_ERROR_NOMATCH)
        return PS_REGEX_E_NONE;
    if (rc < 0)
        return PS_REGEX_E_LIMIT;
    v = pcre2_get_ovector_pointer(c->data);
    *out_from = v[0];
    *out_to = v[1];
    PS_ASSERT(*out_from <= *out_to && *out_to <= n);
    return PS_REGEX_MATCH;
}
