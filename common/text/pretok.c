#include "common/text/pretok.h"

#include <string.h>
#include <strings.h>

#include "common/text/regex.h"
#include "common/text/scan.h"
#include "common/text/uprop.h"

enum {
    STAGES_MAX = 16,
    NEST_MAX = 4,
    BATCH = 512, /* pieces handed out at a time: 4 KiB of offsets stay in the first-level cache */
};

enum behavior { ISOLATED, REMOVED, WITH_PREVIOUS, WITH_NEXT, CONTIGUOUS };

enum stage_kind {
    STAGE_SCAN,   /* a pattern (or a sequence of them) that scan.h knows */
    STAGE_REGEX,  /* any other Split */
    STAGE_DIGITS, /* runs of numeric characters */
    STAGE_PREFIX, /* a space before every piece that has none */
};

struct stage {
    enum stage_kind kind;
    enum behavior behavior;
    bool invert;
    ps_scan_fn scan;
    struct ps_regex *regex; /* owned */
    char *pattern;          /* owned; of an isolated regex Split, else NULL */
};

struct ps_pretok {
    struct stage stages[STAGES_MAX];
    uint32_t n;
    bool byte_level; /* seen; it must be the last stage */
};

struct spans {
    struct ps_span *v;
    bool *is_match; /* of the stage at work, before its behaviour is applied */
    size_t n, cap;
};

struct ps_pretok_ctx {
    const struct ps_pretok *t;
    struct ps_regex_ctx *regex;
    const char *s; /* the text the spans point into */
    size_t n, at;  /* at: next byte (scanner) or next span (stages) */
    struct spans a, b, found;
    struct ps_buf prefixed;
    struct ps_span batch[BATCH];
};

static bool fail(struct ps_buf *err, const char *what)
{
    ps_buf_addf(err, "pre_tokenizer: %s", what);
    return false;
}

static struct stage *add_stage(struct ps_pretok *t, enum stage_kind kind, struct ps_buf *err)
{
    struct stage *g;

    if (t->n == STAGES_MAX) {
        fail(err, "too many stages");
        return NULL;
    }
    if (t->byte_level) {
        fail(err, "a stage after ByteLevel is not supported");
        return NULL;
    }
    g = &t->stages[t->n++];
    memset(g, 0, sizeof(*g));
    g->kind = kind;
    return g;
}

static bool parse_behavior(const struct ps_json *v, enum behavior *out)
{
    static const struct {
        const char *name;
        enum behavior behavior;
    } names[] = {{"isolated", ISOLATED},
                 {"removed", REMOVED},
                 {"mergedwithprevious", WITH_PREVIOUS},
                 {"merged_with_previous", WITH_PREVIOUS},
                 {"mergedwithnext", WITH_NEXT},
                 {"merged_with_next", WITH_NEXT},
                 {"contiguous", CONTIGUOUS}};
    const struct ps_json *b = ps_json_member(v, "behavior", PS_JSON_STR);
    size_t len;

    if (b == NULL)
        return false;
    for (size_t i = 0; i < PS_ARRAY_LEN(names); i++)
        if (strcasecmp(ps_json_str(b, &len), names[i].name) == 0) {
            *out = names[i].behavior;
            return true;
        }
    return false;
}

static bool parse_split(struct ps_pretok *t, const struct ps_json *v, struct ps_buf *err)
{
    const struct ps_json *p = ps_json_member(v, "pattern", PS_JSON_OBJ), *text;
    const struct ps_json *invert = ps_json_member(v, "invert", PS_JSON_BOOL);
    struct stage *g = add_stage(t, STAGE_REGEX, err);
    struct ps_buf why = PS_BUF_INIT;
    bool literal = false;
    size_t len;

    if (g == NULL)
        return false;
    if (!parse_behavior(v, &g->behavior))
        return fail(err, "Split: unknown behavior");
    g->invert = invert != NULL && ps_json_bool(invert);
    text = ps_json_member(p, "Regex", PS_JSON_STR);
    if (text == NULL) {
        text = ps_json_member(p, "String", PS_JSON_STR);
        literal = true;
    }
    if (text == NULL)
        return fail(err, "Split: pattern is neither a Regex nor a String");
    (void)ps_json_str(text, &len);
    if (literal && len == 0)
        return fail(err, "Split: the pattern is empty");
    g->regex = ps_regex_create(ps_json_str(text, &len), len, literal, &why);
    if (g->regex == NULL) {
        ps_buf_addf(err, "pre_tokenizer: Split: %s", why.data);
        ps_buf_fini(&why);
        return false;
    }
    if (!literal && g->behavior == ISOLATED && !g->invert)
        g->pattern = ps_strndup(ps_json_str(text, &len), len);
    return true;
}

static bool parse_byte_level(struct ps_pretok *t, const struct ps_json *v, struct ps_buf *err)
{
    const struct ps_json *prefix = ps_json_member(v, "add_prefix_space", PS_JSON_BOOL);
    const struct ps_json *use = ps_json_member(v, "use_regex", PS_JSON_BOOL);

    if (t->byte_level)
        return fail(err, "ByteLevel stands twice");
    if (prefix == NULL)
        return fail(err, "ByteLevel: add_prefix_space is missing");
    if (ps_json_bool(prefix) && add_stage(t, STAGE_PREFIX, err) == NULL)
        return false;
    if (use == NULL || ps_json_bool(use)) {
        struct stage *g = add_stage(t, STAGE_SCAN, err);

        if (g == NULL)
            return false;
        g->scan = ps_scan_defs[PS_SCAN_GPT2].fn;
    }
    t->byte_level = true;
    return true;
}

static bool parse_stage(struct ps_pretok *t, const struct ps_json *v, uint32_t depth,
                        struct ps_buf *err)
{
    const struct ps_json *type = ps_json_member(v, "type", PS_JSON_STR), *m;
    const char *name;
    size_t len;

    if (type == NULL || depth > NEST_MAX)
        return fail(err, type == NULL ? "a stage has no type" : "nested too deep");
    name = ps_json_str(type, &len);
    if (strcmp(name, "Split") == 0)
        return parse_split(t, v, err);
    if (strcmp(name, "ByteLevel") == 0)
        return parse_byte_level(t, v, err);
    if (strcmp(name, "Digits") == 0) {
        struct stage *g = add_stage(t, STAGE_DIGITS, err);

        if (g == NULL)
            return false;
        m = ps_json_member(v, "individual_digits", PS_JSON_BOOL);
        g->behavior = m != NULL && ps_json_bool(m) ? ISOLATED : CONTIGUOUS;
        return true;
    }
    if (strcmp(name, "Sequence") == 0) {
        m = ps_json_member(v, "pretokenizers", PS_JSON_ARR);
        if (m == NULL)
            return fail(err, "Sequence: no list of pretokenizers");
        for (size_t i = 0; i < ps_json_n(m); i++)
            if (!parse_stage(t, ps_json_at(m, i), depth + 1, err))
                return false;
        return true;
    }
    ps_buf_addf(err, "pre_tokenizer: %.40s is not supported", name);
    return false;
}

static void stage_fini(struct stage *g)
{
    ps_regex_destroy(g->regex);
    ps_free(g->pattern);
    memset(g, 0, sizeof(*g));
}

/* Replaces the stages from i on by a scanner when their patterns are a known sequence. */
static void recognise(struct ps_pretok *t, uint32_t i)
{
    for (uint32_t k = 0; k < PS_SCAN_N; k++) {
        const struct ps_scan_def *d = &ps_scan_defs[k];
        uint32_t n = 0;

        while (n < PS_ARRAY_LEN(d->patterns) && d->patterns[n] != NULL && i + n < t->n &&
               t->stages[i + n].pattern != NULL &&
               strcmp(t->stages[i + n].pattern, d->patterns[n]) == 0)
            n++;
        if (n == 0 || (n < PS_ARRAY_LEN(d->patterns) && d->patterns[n] != NULL))
            continue;
        for (uint32_t j = 0; j < n; j++)
            stage_fini(&t->stages[i + j]);
        t->stages[i].kind = STAGE_SCAN;
        t->stages[i].scan = d->fn;
        memmove(&t->stages[i + 1], &t->stages[i + n], (t->n - i - n) * sizeof(t->stages[0]));
        t->n -= n - 1;
        return;
    }
}

struct ps_pretok *ps_pretok_create(const struct ps_json *v, struct ps_buf *err)
{
    struct ps_pretok *t = ps_calloc(1, sizeof(*t));

    if (v == NULL || ps_json_type(v) == PS_JSON_NULL) {
        fail(err, "there is none; a byte-level one is needed");
        goto bad;
    }
    if (!parse_stage(t, v, 0, err))
        goto bad;
    if (!t->byte_level) {
        fail(err, "only byte-level tokenizers are supported, ByteLevel is missing");
        goto bad;
    }
    for (uint32_t i = 0; i < t->n; i++)
        recognise(t, i);
    return t;
bad:
    ps_pretok_destroy(t);
    return NULL;
}

void ps_pretok_destroy(struct ps_pretok *t)
{
    if (t == NULL)
        return;
    for (uint32_t i = 0; i < t->n; i++)
        stage_fini(&t->stages[i]);
    ps_free(t);
}

bool ps_pretok_is_scanner(const struct ps_pretok *t)
{
    return t->n == 1 && t->stages[0].kind == STAGE_SCAN;
}

struct ps_pretok_ctx *ps_pretok_ctx_create(const struct ps_pretok *t)
{
    struct ps_pretok_ctx *c = ps_calloc(1, sizeof(*c));

    c->t = t;
    for (uint32_t i = 0; i < t->n; i++)
        if (t->stages[i].kind == STAGE_REGEX && c->regex == NULL)
            c->regex = ps_regex_ctx_create();
    return c;
}

static void spans_fini(struct spans *x)
{
    ps_free(x->v);
    ps_free(x->is_match);
}

void ps_pretok_ctx_destroy(struct ps_pretok_ctx *c)
{
    if (c == NULL)
        return;
    ps_regex_ctx_destroy(c->regex);
    spans_fini(&c->a);
    spans_fini(&c->b);
    spans_fini(&c->found);
    ps_buf_fini(&c->prefixed);
    ps_free(c);
}

static void spans_add(struct spans *x, size_t from, size_t to, bool is_match)
{
    if (x->n == x->cap) {
        x->cap = x->cap ? x->cap * 2 : 256;
        x->v = ps_realloc(x->v, x->cap * sizeof(*x->v));
        x->is_match = ps_realloc(x->is_match, x->cap * sizeof(*x->is_match));
    }
    x->v[x->n] = (struct ps_span){(uint32_t)from, (uint32_t)to};
    x->is_match[x->n++] = is_match;
}

/* All matches and gaps of [from, to), empty matches included: they count for the behaviours. */
static bool find_regex(struct ps_pretok_ctx *c, const struct stage *g, struct ps_span in)
{
    const char *s = c->s + in.from;
    size_t n = in.to - in.from, at = 0, done = 0, last = SIZE_MAX, from, to;

    while (at <= n) {
        int r = ps_regex_find(g->regex, c->regex, s, n, at, &from, &to);
        uint32_t cp;

        if (r == PS_REGEX_E_NONE)
            break;
        if (r != PS_REGEX_MATCH)
            return false;
        if (from == to && from == last) { /* an empty match right behind a match does not count */
            if (at >= n)
                break;
            at += ps_u8_next((const uint8_t *)s + at, &cp);
            continue;
        }
        if (from > done)
            spans_add(&c->found, in.from + done, in.from + from, g->invert);
        spans_add(&c->found, in.from + from, in.from + to, !g->invert);
        done = last = to;
        at = to;
        if (from == to) {
            if (at >= n)
                break;
            at += ps_u8_next((const uint8_t *)s + at, &cp);
        }
    }
    if (done < n)
        spans_add(&c->found, in.from + done, in.to, g->invert);
    return true;
}

/* The reference asks another table here than its patterns do, one of Unicode 17. */
static bool is_numeric(uint32_t cp)
{
    return (ps_uprop(cp) & PS_UP_NUM) != 0 || (cp >= 0x11DE0 && cp <= 0x11DE9) ||
           (cp >= 0x16FF4 && cp <= 0x16FF6);
}

static void find_digits(struct ps_pretok_ctx *c, struct ps_span in)
{
    const uint8_t *s = (const uint8_t *)c->s;
    uint32_t gap = in.from, len, cp;

    for (uint32_t p = in.from; p < in.to; p += len) {
        len = ps_u8_next(s + p, &cp);
        if (!is_numeric(cp))
            continue;
        if (gap < p)
            spans_add(&c->found, gap, p, false);
        spans_add(&c->found, p, p + len, true);
        gap = p + len;
    }
    if (gap < in.to)
        spans_add(&c->found, gap, in.to, false);
}

/* Turns matches and gaps (found) into pieces, appended to out without the empty ones. */
static void apply_behavior(const struct spans *found, enum behavior how, struct spans *out)
{
    size_t base = out->n;
    bool prev = false; /* whether the neighbour on the merging side is a match */
    size_t kept;

    for (size_t k = 0; k < found->n; k++) {
        /* Merging with the next one is merging with the previous one, seen from the end. */
        size_t i = how == WITH_NEXT ? found->n - 1 - k : k;
        struct ps_span x = found->v[i];
        bool is = found->is_match[i];
        bool merge = how == CONTIGUOUS                            ? is == prev
                     : (how == WITH_PREVIOUS || how == WITH_NEXT) ? is && !prev
                                                                  : false;

        prev = is;
        if (how == REMOVED && is)
            continue;
        if (merge && out->n > base) {
            if (how == WITH_NEXT)
                out->v[out->n - 1].from = x.from;
            else
                out->v[out->n - 1].to = x.to;
        } else {
            spans_add(out, x.from, x.to, false);
        }
    }
    for (size_t i = base, j = out->n; how == WITH_NEXT && i + 1 < j; i++, j--) {
        struct ps_span x = out->v[i];

        out->v[i] = out->v[j - 1];
        out->v[j - 1] = x;
    }
    kept = base;
    for (size_t i = base; i < out->n; i++)
        if (out->v[i].from < out->v[i].to)
            out->v[kept++] = out->v[i];
    out->n = kept;
}

static void run_scan(struct ps_pretok_ctx *c, ps_scan_fn scan, struct ps_span in, struct spans *out)
{
    const uint8_t *s = (const uint8_t *)c->s + in.from;
    size_t n = in.to - in.from;

    for (size_t p = 0; p < n;) {
        size_t q = scan(s, p, n);

        spans_add(out, in.from + p, in.from + q, false);
        p = q;
    }
}

/* Writes all pieces, with their new spaces, one after another into a text of their own. */
static void run_prefix(struct ps_pretok_ctx *c, const struct spans *in, struct spans *out)
{
    ps_buf_clear(&c->prefixed);
    for (size_t i = 0; i < in->n; i++) {
        const char *p = c->s + in->v[i].from;
        size_t from = c->prefixed.len;

        if (*p != ' ')
            ps_buf_add_byte(&c->prefixed, ' ');
        ps_buf_add(&c->prefixed, p, in->v[i].to - in->v[i].from);
        spans_add(out, from, c->prefixed.len, false);
    }
    c->s = c->prefixed.data;
    c->n = c->prefixed.len;
}

static bool run_stage(struct ps_pretok_ctx *c, const struct stage *g, const struct spans *in,
                      struct spans *out)
{
    out->n = 0;
    if (g->kind == STAGE_PREFIX) {
        run_prefix(c, in, out);
        return true;
    }
    for (size_t i = 0; i < in->n; i++) {
        c->found.n = 0;
        if (g->kind == STAGE_SCAN) {
            run_scan(c, g->scan, in->v[i], out);
            continue;
        }
        if (g->kind == STAGE_DIGITS)
            find_digits(c, in->v[i]);
        else if (!find_regex(c, g, in->v[i]))
            return false;
        apply_behavior(&c->found, g->behavior, out);
    }
    return true;
}

bool ps_pretok_start(struct ps_pretok_ctx *c, const char *s, size_t n)
{
    struct spans *in = &c->a, *out = &c->b;

    PS_ASSERT(n < UINT32_MAX / 2);
    c->s = s;
    c->n = n;
    c->at = 0;
    if (ps_pretok_is_scanner(c->t))
        return true;
    in->n = 0;
    if (n > 0)
        spans_add(in, 0, n, false);
    for (uint32_t i = 0; i < c->t->n; i++) {
        struct spans *old = in;

        if (!run_stage(c, &c->t->stages[i], in, out))
            return false;
        in = out;
        out = old;
    }
    if (in != &c->a) {
        struct spans x = c->a;

        c->a = c->b;
        c->b = x;
    }
    return true;
}

uint32_t ps_pretok_next(struct ps_pretok_ctx *c, const struct ps_span **out_spans,
                        const char **out_base, const char **out_end)
{
    uint32_t k = 0;

    *out_base = c->s;
    *out_end = c->s + c->n;
    if (!ps_pretok_is_scanner(c->t)) {
        k = (uint32_t)ps_min_size(c->a.n - c->at, BATCH);
        *out_spans = k > 0 ? c->a.v + c->at : NULL;
        c->at += k;
        return k;
    }
    while (k < BATCH && c->at < c->n) {
        size_t q = c->t->stages[0].scan((const uint8_t *)c->s, c->at, c->n);

        PS_DASSERT(q > c->at && q <= c->n);
        c->batch[k++] = (struct ps_span){(uint32_t)c->at, (uint32_t)q};
        c->at = q;
    }
    *out_spans = c->batch;
    return k;
}
