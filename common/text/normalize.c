#include "common/text/normalize.h"

#include <stdlib.h>
#include <string.h>

#include <utf8proc.h>

#include "common/text/uprop.h"

enum {
    STEPS_MAX = 16,
    NEST_MAX = 4,
    CONTENT_MAX = 64, /* bytes of a replacement or prefix; one to three in published files */
    GROWTH_MAX = 16,
    GROWTH_FREE = 4096,
};

enum step_kind { STEP_NFC, STEP_REPLACE, STEP_PREPEND };

struct step {
    enum step_kind kind;
    char pattern[CONTENT_MAX], content[CONTENT_MAX];
    size_t pattern_len, content_len;
};

struct ps_norm {
    struct step steps[STEPS_MAX];
    uint32_t n;
};

static bool fail(struct ps_buf *err, const char *what)
{
    ps_buf_addf(err, "normalizer: %s", what);
    return false;
}

static bool copy_text(char out[CONTENT_MAX], size_t *out_len, const struct ps_json *v,
                      struct ps_buf *err)
{
    const char *s;

    if (v == NULL || ps_json_type(v) != PS_JSON_STR)
        return fail(err, "a text is missing (a Replace pattern must be a String)");
    s = ps_json_str(v, out_len);
    if (*out_len > CONTENT_MAX)
        return fail(err, "a text is longer than 64 bytes");
    if (*out_len > 0)
        memcpy(out, s, *out_len);
    return true;
}

static bool parse_step(struct ps_norm *n, const struct ps_json *v, uint32_t depth,
                       struct ps_buf *err)
{
    const struct ps_json *type, *m;
    struct step *g;
    const char *name;
    size_t len;

    if (ps_json_type(v) != PS_JSON_OBJ)
        return fail(err, "a step is not an object");
    type = ps_json_get(v, "type");
    if (type == NULL || ps_json_type(type) != PS_JSON_STR || depth > NEST_MAX)
        return fail(err, "a step has no type or is nested too deep");
    name = ps_json_str(type, &len);
    if (strcmp(name, "Sequence") == 0) {
        m = ps_json_get(v, "normalizers");
        if (m == NULL || ps_json_type(m) != PS_JSON_ARR)
            return fail(err, "Sequence: no list of normalizers");
        for (size_t i = 0; i < ps_json_n(m); i++)
            if (!parse_step(n, ps_json_at(m, i), depth + 1, err))
                return false;
        return true;
    }
    if (n->n == STEPS_MAX)
        return fail(err, "too many steps");
    g = &n->steps[n->n++];
    if (strcmp(name, "NFC") == 0) {
        g->kind = STEP_NFC;
        return true;
    }
    if (strcmp(name, "Prepend") == 0) {
        g->kind = STEP_PREPEND;
        return copy_text(g->content, &g->content_len, ps_json_get(v, "prepend"), err);
    }
    if (strcmp(name, "Replace") == 0) {
        g->kind = STEP_REPLACE;
        m = ps_json_get(v, "pattern");
        if (m == NULL || ps_json_type(m) != PS_JSON_OBJ)
            return fail(err, "Replace: no pattern");
        return copy_text(g->pattern, &g->pattern_len, ps_json_get(m, "String"), err) &&
               copy_text(g->content, &g->content_len, ps_json_get(v, "content"), err);
    }
    ps_buf_addf(err, "normalizer: %.40s is not supported", name);
    return false;
}

struct ps_norm *ps_norm_create(const struct ps_json *v, struct ps_buf *err)
{
    struct ps_norm *n = ps_calloc(1, sizeof(*n));

    if (v == NULL || ps_json_type(v) == PS_JSON_NULL || parse_step(n, v, 0, err))
        return n;
    ps_norm_destroy(n);
    return NULL;
}

void ps_norm_destroy(struct ps_norm *n)
{
    ps_free(n);
}

void ps_norm_scratch_fini(struct ps_norm_scratch *scratch)
{
    ps_buf_fini(&scratch->a);
    ps_buf_fini(&scratch->b);
}

/* The first character at or after p that NFC may change; n when there is none. */
static size_t next_check(const uint8_t *s, size_t p, size_t n)
{
    uint32_t len;

    while (p < n) {
        /* Below U+0300 nothing changes: eight bytes at a time while they are ASCII. */
        while (n - p >= 8) {
            uint64_t w;

            memcpy(&w, s + p, 8);
            if ((w & UINT64_C(0x8080808080808080)) != 0)
                break;
            p += 8;
        }
        if (p == n)
            break;
        if ((ps_u8_prop(s + p, &len) & PS_UP_NFC_CHECK) != 0)
            break;
        p += len;
    }
    return p;
}

static void add_nfc(struct ps_buf *out, const uint8_t *s, size_t n)
{
    utf8proc_uint8_t *text = NULL;
    utf8proc_ssize_t len;

    if (n == 0)
        return;
    len = utf8proc_map(s, (utf8proc_ssize_t)n, &text, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    PS_ASSERT(len >= 0); /* valid UTF-8 of bounded length: only memory can be missing */
    ps_buf_add(out, text, (size_t)len);
    free(text);
}

/* Normalises [from, to) part by part: a barrier is a part by itself. */
static void add_parts(struct ps_buf *out, const uint8_t *s, size_t from, size_t to)
{
    size_t part = from;
    uint32_t len;

    for (size_t p = from; p < to; p += len) {
        if ((ps_u8_prop(s + p, &len) & PS_UP_NFC_BARRIER) == 0)
            continue;
        add_nfc(out, s + part, p - part);
        ps_buf_add(out, s + p, len);
        part = p + len;
    }
    add_nfc(out, s + part, to - part);
}

/* false: nothing changed and out was not written. */
static bool run_nfc(struct ps_buf *out, const uint8_t *s, size_t n)
{
    size_t p = next_check(s, 0, n), done = 0;

    if (p == n)
        return false;
    ps_buf_clear(out);
    while (p < n) {
        size_t from = p, to = p;
        uint32_t len, c, n_check = 0;
        bool lone_mark = false;

        while (to < n && ((c = ps_u8_prop(s + to, &len)) & PS_UP_NFC_CHECK) != 0) {
            lone_mark = n_check++ == 0 && (c & PS_UP_NFC_MARK) != 0 && (c & PS_UP_NFC_BARRIER) == 0;
            to += len;
        }
        /* One mark that never composes stays as it is behind any starter (virama and the like). */
        if (!lone_mark) {
            if (from > done) { /* the starter before them may compose with what follows */
                ps_u8_prop_before(s, from, &len);
                from -= len;
            }
            ps_buf_add(out, s + done, from - done);
            add_parts(out, s, from, to);
            done = to;
        }
        p = next_check(s, to, n);
    }
    ps_buf_add(out, s + done, n - done);
    return true;
}

static bool run_replace(struct ps_buf *out, const struct step *g, const char *s, size_t n,
                        size_t limit)
{
    size_t done = 0;

    ps_buf_clear(out);
    while (g->pattern_len > 0 && done < n) {
        const char *hit = memmem(s + done, n - done, g->pattern, g->pattern_len);

        if (hit == NULL)
            break;
        ps_buf_add(out, s + done, (size_t)(hit - s) - done);
        ps_buf_add(out, g->content, g->content_len);
        done = (size_t)(hit - s) + g->pattern_len;
        if (out->len > limit)
            return false;
    }
    ps_buf_add(out, s + done, n - done);
    return true;
}

bool ps_norm_run(const struct ps_norm *n, struct ps_norm_scratch *scratch, const char *s,
                 size_t len, const char **out_s, size_t *out_len)
{
    size_t limit = len * GROWTH_MAX + GROWTH_FREE;
    struct ps_buf *to = &scratch->a;

    for (uint32_t i = 0; i < n->n; i++) {
        const struct step *g = &n->steps[i];
        bool changed = true;

        if (g->kind == STEP_NFC) {
            changed = run_nfc(to, (const uint8_t *)s, len);
        } else if (g->kind == STEP_PREPEND) {
            ps_buf_clear(to);
            if (len > 0)
                ps_buf_add(to, g->content, g->content_len);
            ps_buf_add(to, s, len);
        } else if (!run_replace(to, g, s, len, limit)) {
            return false;
        }
        if (!changed)
            continue;
        s = to->data;
        len = to->len;
        if (len > limit)
            return false;
        to = to == &scratch->a ? &scratch->b : &scratch->a;
    }
    *out_s = s;
    *out_len = len;
    return true;
}
