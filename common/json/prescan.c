#include "common/json/prescan.h"

#include <stdlib.h>
#include <string.h>

#include "common/text/utf8.h"

enum want {
    WANT_VALUE,
    WANT_VALUE_OR_END, /* after '[' */
    WANT_KEY,
    WANT_KEY_OR_END, /* after '{' */
    WANT_COLON,
    WANT_COMMA_OR_END,
    WANT_NOTHING, /* the root is complete */
};

struct frame {
    bool is_obj;
    bool only_ints;  /* array: so far; its integers are then not counted */
    uint32_t n_ints; /* array: integers that count as soon as something else appears */
};

struct scan {
    const char *text;
    size_t len, i;
    enum want want;
    uint32_t depth, n_values;
    const struct ps_json_limits *lim;
    struct ps_buf *copy;
    size_t n_copied; /* text[0..n_copied) is in copy, rewritten */
    bool copied;
    struct frame frames[PS_JSON_DEPTH_MAX];
};

bool ps_json_fits_int64(const char *text, size_t len)
{
    bool neg = len > 0 && text[0] == '-';
    size_t n = len - neg;

    if (n != 19)
        return n < 19;
    return memcmp(text + neg, neg ? "9223372036854775808" : "9223372036854775807", 19) <= 0;
}

/* Replaces text[from..to) by s in the copy. Calls come in ascending order. */
static void rewrite(struct scan *c, size_t from, size_t to, const char *s)
{
    PS_ASSERT(from >= c->n_copied && to >= from && to <= c->len);
    ps_buf_add(c->copy, c->text + c->n_copied, from - c->n_copied);
    ps_buf_add_str(c->copy, s);
    c->n_copied = to;
    c->copied = true;
}

static int add_values(struct scan *c, uint32_t n)
{
    if (n > c->lim->max_values - c->n_values)
        return PS_JSON_E_COUNT;
    c->n_values += n;
    return PS_JSON_OK;
}

static int count_value(struct scan *c, bool is_int)
{
    struct frame *f = c->depth > 0 ? &c->frames[c->depth - 1] : NULL;
    uint32_t n = 1;

    if (f != NULL && !f->is_obj && f->only_ints) {
        if (is_int) {
            f->n_ints++;
            return PS_JSON_OK;
        }
        f->only_ints = false;
        if (f->n_ints >= UINT32_MAX - 1)
            return PS_JSON_E_COUNT;
        n += f->n_ints;
    }
    return add_values(c, n);
}

/* The four digits after \u at text[at]; negative when they are not. */
static int32_t hex4(const struct scan *c, size_t at)
{
    int32_t v = 0;

    if (c->len - at < 4)
        return -1;
    for (size_t k = at; k < at + 4; k++) {
        uint8_t d = (uint8_t)c->text[k];

        if (d >= '0' && d <= '9')
            v = v << 4 | (d - '0');
        else if ((d | 0x20) >= 'a' && (d | 0x20) <= 'f')
            v = v << 4 | ((d | 0x20) - 'a' + 10);
        else
            return -1;
    }
    return v;
}

/* At a backslash. start: first byte of the string's content. */
static int scan_escape(struct scan *c, size_t start, bool is_key)
{
    size_t at = c->i;
    int32_t u, low;

    if (c->len - at < 2)
        return PS_JSON_E_SYNTAX;
    if (c->text[at + 1] != 'u') {
        if (c->text[at + 1] == '\0' || strchr("\"\\/bfnrt", c->text[at + 1]) == NULL)
            return PS_JSON_E_SYNTAX;
        c->i += 2;
        return PS_JSON_OK;
    }
    u = hex4(c, at + 2);
    if (u < 0)
        return PS_JSON_E_SYNTAX;
    c->i += 6;
    if (u >= 0xD800 && u <= 0xDBFF && c->len - c->i >= 6 && c->text[c->i] == '\\' &&
        c->text[c->i + 1] == 'u') {
        low = hex4(c, c->i + 2);
        if (low >= 0xDC00 && low <= 0xDFFF) {
            c->i += 6;
            return PS_JSON_OK;
        }
    }
    if ((u >= 0xD800 && u <= 0xDFFF) || (u == 0 && is_key))
        rewrite(c, at, at + 6, "\\uFFFD");
    else if (u == PS_JSON_MARK && at == start && !is_key)
        rewrite(c, at, at, "\\u0001S");
    return PS_JSON_OK;
}

/* At the opening quote. */
static int scan_string(struct scan *c, bool is_key)
{
    size_t start = ++c->i;

    while (c->i < c->len) {
        uint8_t b = (uint8_t)c->text[c->i];
        uint32_t cp, n;
        int r;

        if (b == '"') {
            c->i++;
            return PS_JSON_OK;
        }
        if (b == '\\') {
            r = scan_escape(c, start, is_key);
            if (r != PS_JSON_OK)
                return r;
        } else if (b < 0x20) {
            return PS_JSON_E_SYNTAX;
        } else if (b < 0x80) {
            c->i++;
        } else {
            n = ps_utf8_decode(c->text + c->i, c->len - c->i, &cp);
            if (n == 0)
                return PS_JSON_E_UTF8;
            c->i += n;
        }
    }
    return PS_JSON_E_SYNTAX;
}

static size_t skip_digits(const struct scan *c, size_t i)
{
    while (i < c->len && c->text[i] >= '0' && c->text[i] <= '9')
        i++;
    return i;
}

/* An integer beyond int64: kept as its digits, when a double can hold it. */
static int keep_big_int(struct scan *c, size_t from, size_t to)
{
    char s[340]; /* the largest double has 309 digits */
    size_t len = to - from;

    if (len > 310)
        return PS_JSON_E_SYNTAX;
    memcpy(s, "\"\\u0001I", 8);
    memcpy(s + 8, c->text + from, len);
    s[8 + len] = '\0';
    if (!(strtod(s + 8, NULL) <= 0x1.fffffffffffffp1023 &&
          strtod(s + 8, NULL) >= -0x1.fffffffffffffp1023))
        return PS_JSON_E_SYNTAX;
    memcpy(s + 8 + len, "\"", 2);
    rewrite(c, from, to, s);
    return PS_JSON_OK;
}

static int scan_number(struct scan *c)
{
    size_t from = c->i, i = from, digits;
    bool is_int = true;
    int r;

    if (c->text[i] == '-')
        i++;
    digits = i;
    i = skip_digits(c, i);
    if (i == digits || (c->text[digits] == '0' && i - digits > 1))
        return PS_JSON_E_SYNTAX;
    if (i < c->len && c->text[i] == '.') {
        is_int = false;
        digits = ++i;
        i = skip_digits(c, i);
        if (i == digits)
            return PS_JSON_E_SYNTAX;
    }
    if (i < c->len && (c->text[i] | 0x20) == 'e') {
        is_int = false;
        i++;
        if (i < c->len && (c->text[i] == '+' || c->text[i] == '-'))
            i++;
        digits = i;
        i = skip_digits(c, i);
        if (i == digits)
            return PS_JSON_E_SYNTAX;
    }
    if (is_int && !ps_json_fits_int64(c->text + from, i - from)) {
        r = keep_big_int(c, from, i);
        if (r != PS_JSON_OK)
            return r;
    }
    c->i = i;
    return count_value(c, is_int);
}

static int scan_word(struct scan *c, const char *word)
{
    size_t n = strlen(word);

    if (c->len - c->i < n || memcmp(c->text + c->i, word, n) != 0)
        return PS_JSON_E_SYNTAX;
    c->i += n;
    return count_value(c, false);
}

static int open_frame(struct scan *c, bool is_obj)
{
    int r = count_value(c, false);

    if (r != PS_JSON_OK)
        return r;
    if (c->depth >= c->lim->max_depth)
        return PS_JSON_E_DEPTH;
    c->frames[c->depth++] = (struct frame){.is_obj = is_obj, .only_ints = !is_obj};
    c->want = is_obj ? WANT_KEY_OR_END : WANT_VALUE_OR_END;
    c->i++;
    return PS_JSON_OK;
}

static void end_value(struct scan *c)
{
    c->want = c->depth > 0 ? WANT_COMMA_OR_END : WANT_NOTHING;
}

static void close_frame(struct scan *c)
{
    c->depth--;
    c->i++;
    end_value(c);
}

static int scan_value(struct scan *c)
{
    int r;

    switch (c->text[c->i]) {
    case '{':
        return open_frame(c, true);
    case '[':
        return open_frame(c, false);
    case '"':
        r = count_value(c, false);
        if (r == PS_JSON_OK)
            r = scan_string(c, false);
        break;
    case 't':
        r = scan_word(c, "true");
        break;
    case 'f':
        r = scan_word(c, "false");
        break;
    case 'n':
        r = scan_word(c, "null");
        break;
    default:
        r = scan_number(c);
        break;
    }
    if (r == PS_JSON_OK)
        end_value(c);
    return r;
}

static int scan_comma_or_end(struct scan *c)
{
    bool is_obj = c->frames[c->depth - 1].is_obj;

    if (c->text[c->i] == ',') {
        c->want = is_obj ? WANT_KEY : WANT_VALUE;
        c->i++;
        return PS_JSON_OK;
    }
    if (c->text[c->i] != (is_obj ? '}' : ']'))
        return PS_JSON_E_SYNTAX;
    close_frame(c);
    return PS_JSON_OK;
}

/* At a byte that is not white space. Always advances or fails. */
static int scan_token(struct scan *c)
{
    char b = c->text[c->i];
    uint32_t cp;
    int r;

    if ((uint8_t)b >= 0x80) /* outside a string: wrong either way, but say what it is */
        return ps_utf8_decode(c->text + c->i, c->len - c->i, &cp) == 0 ? PS_JSON_E_UTF8
                                                                       : PS_JSON_E_SYNTAX;
    switch (c->want) {
    case WANT_VALUE_OR_END:
        if (b == ']') {
            close_frame(c);
            return PS_JSON_OK;
        }
        return scan_value(c);
    case WANT_VALUE:
        return scan_value(c);
    case WANT_KEY_OR_END:
        if (b == '}') {
            close_frame(c);
            return PS_JSON_OK;
        }
        /* fall through */
    case WANT_KEY:
        r = b == '"' ? scan_string(c, true) : PS_JSON_E_SYNTAX;
        if (r == PS_JSON_OK)
            c->want = WANT_COLON;
        return r;
    case WANT_COLON:
        if (b != ':')
            return PS_JSON_E_SYNTAX;
        c->want = WANT_VALUE;
        c->i++;
        return PS_JSON_OK;
    case WANT_COMMA_OR_END:
        return scan_comma_or_end(c);
    case WANT_NOTHING:
        break;
    }
    return PS_JSON_E_SYNTAX;
}

int ps_json_prescan(const char *text, size_t len, const struct ps_json_limits *lim,
                    struct ps_buf *copy, bool *out_copied, size_t *out_err_off)
{
    struct scan c; /* not zeroed: the frames are 4 KiB, and each is set when it is opened */
    int r = PS_JSON_OK;

    PS_ASSERT(lim->max_depth <= PS_JSON_DEPTH_MAX);
    c.text = text;
    c.len = len;
    c.i = 0;
    c.want = WANT_VALUE;
    c.depth = 0;
    c.n_values = 0;
    c.lim = lim;
    c.copy = copy;
    c.n_copied = 0;
    c.copied = false;
    for (;;) {
        while (c.i < len &&
               (text[c.i] == ' ' || text[c.i] == '\n' || text[c.i] == '\r' || text[c.i] == '\t'))
            c.i++;
        if (c.i == len)
            break;
        r = scan_token(&c);
        if (r != PS_JSON_OK)
            break;
    }
    if (r == PS_JSON_OK && c.want != WANT_NOTHING)
        r = PS_JSON_E_SYNTAX;
    if (r != PS_JSON_OK) {
        *out_err_off = ps_min_size(c.i, len);
        return r;
    }
    if (c.copied)
        rewrite(&c, len, len, "");
    *out_copied = c.copied;
    return PS_JSON_OK;
}
