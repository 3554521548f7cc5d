#include "common/text/scan.h"

#include "common/text/uprop.h"

/*
 * The patterns are ordered alternatives; each scanner tries them in the pattern's order, so every
 * function below reads like its pattern from left to right. Two shapes recur. A greedy class run is a
 * loop. `\s*[\r\n]+|\s+(?!\S)|\s+` looks at one maximal run of white space: if it holds a line end,
 * the piece ends behind the last one; else, if text follows, the run gives up its last character
 * (unless that is all of it), which then leads the next piece.
 */

#define CONTRACTION "'s|'t|'re|'ve|'m|'ll|'d"

static inline bool is_newline(uint8_t c)
{
    return c == '\r' || c == '\n';
}

/* End of the run of characters with (bits) or without (!bits) these properties. */
static inline size_t run_with(const uint8_t *s, size_t p, size_t n, uint32_t bits)
{
    uint32_t len;

    while (p < n && (ps_u8_prop(s + p, &len) & bits) != 0)
        p += len;
    return p;
}

static inline size_t run_without(const uint8_t *s, size_t p, size_t n, uint32_t bits)
{
    uint32_t len;

    while (p < n && (ps_u8_prop(s + p, &len) & bits) == 0)
        p += len;
    return p;
}

static inline size_t newlines(const uint8_t *s, size_t p, size_t n)
{
    while (p < n && is_newline(s[p]))
        p++;
    return p;
}

static inline bool has_at(const uint8_t *s, size_t p, size_t n, uint32_t bits)
{
    uint32_t len;

    return p < n && (ps_u8_prop(s + p, &len) & bits) != 0;
}

static inline bool lacks_at(const uint8_t *s, size_t p, size_t n, uint32_t bits)
{
    uint32_t len;

    return p < n && (ps_u8_prop(s + p, &len) & bits) == 0;
}

/* `'s|'t|'re|'ve|'m|'ll|'d`: length of the match at p, where an apostrophe stands; 0: none. */
static inline size_t contraction(const uint8_t *s, size_t p, size_t n, bool fold)
{
    uint8_t lower = fold ? 0x20 : 0;
    uint8_t a, b;

    if (p + 1 >= n)
        return 0;
    a = s[p + 1];
    if (fold && a == 0xC5 && p + 2 < n && s[p + 2] == 0xBF)
        return 3; /* U+017F folds to s */
    if (fold && (a < 'A' || a > 'z'))
        return 0;
    a |= lower;
    if (a == 's' || a == 't' || a == 'm' || a == 'd')
        return 2;
    if (p + 2 >= n)
        return 0;
    b = s[p + 2] | lower;
    if (((a == 'r' || a == 'v') && b == 'e') || (a == 'l' && b == 'l'))
        return 3;
    return 0;
}

/* `\s*[\r\n]+|\s+(?!\S)|\s+`, or without its first alternative; white space stands at p. */
static inline size_t spaces(const uint8_t *s, size_t p, size_t n, bool lines)
{
    size_t last = p, line_end = 0;
    uint32_t len;
    size_t q = p;

    while (q < n && (ps_u8_prop(s + q, &len) & PS_UP_SPACE) != 0) {
        last = q;
        if (is_newline(s[q]))
            line_end = q + 1;
        q += len;
    }
    PS_DASSERT(q > p);
    if (lines && line_end > 0)
        return line_end;
    return q == n || last == p ? q : last;
}

static size_t scan_gpt2(const uint8_t *s, size_t p, size_t n)
{
    size_t q = p + (s[p] == ' ');
    uint32_t len, c;

    if (s[p] == '\'') {
        size_t k = contraction(s, p, n, false);

        if (k > 0)
            return p + k;
    }
    if (q < n) {
        c = ps_u8_prop(s + q, &len);
        if ((c & PS_UP_L) != 0)
            return run_with(s, q + len, n, PS_UP_L);
        if ((c & PS_UP_NUM) != 0)
            return run_with(s, q + len, n, PS_UP_NUM);
        if ((c & PS_UP_SPACE) == 0)
            return run_without(s, q + len, n, PS_UP_SPACE | PS_UP_L | PS_UP_NUM);
    }
    return spaces(s, p, n, false);
}

/*
 * (?i:CONTRACTION)|[^\r\n\p{L}\p{N}]?W+|\p{N}{1,digits}| ?[^\sW\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
 * where W is \p{L}, or [\p{L}\p{M}].
 */
static inline size_t scan_lines(const uint8_t *s, size_t p, size_t n, uint32_t word,
                                uint32_t digits)
{
    uint32_t len, c;
    size_t q;

    if (s[p] == '\'') {
        size_t k = contraction(s, p, n, true);

        if (k > 0)
            return p + k;
    }
    c = ps_u8_prop(s + p, &len);
    if ((c & word) != 0)
        return run_with(s, p + len, n, word);
    q = p + len;
    if ((c & PS_UP_NUM) != 0) {
        for (uint32_t i = 1; i < digits && has_at(s, q, n, PS_UP_NUM); i++) {
            ps_u8_prop(s + q, &len);
            q += len;
        }
        return q;
    }
    if (!is_newline(s[p]) && has_at(s, q, n, word))
        return run_with(s, q, n, word);
    if (s[p] == ' ' && lacks_at(s, q, n, PS_UP_SPACE | word | PS_UP_NUM))
        return newlines(s, run_without(s, q, n, PS_UP_SPACE | word | PS_UP_NUM), n);
    if ((c & PS_UP_SPACE) == 0)
        return newlines(s, run_without(s, q, n, PS_UP_SPACE | word | PS_UP_NUM), n);
    return spaces(s, p, n, true);
}

static size_t scan_qwen2(const uint8_t *s, size_t p, size_t n)
{
    return scan_lines(s, p, n, PS_UP_L, 1);
}

static size_t scan_qwen35(const uint8_t *s, size_t p, size_t n)
{
    return scan_lines(s, p, n, PS_UP_L | PS_UP_MARK, 1);
}

static size_t scan_llama3(const uint8_t *s, size_t p, size_t n)
{
    return scan_lines(s, p, n, PS_UP_L, 3);
}

/*
 * DeepSeek splits three times: digits in threes, then runs of kana and ideographs, then the rest.
 * What the first two cut off bounds the third's subject, so a character of the other kind is an end
 * of text to it. The kinds never mix within a piece; `side` is the kind the piece starts with.
 */
enum side { SIDE_TEXT, SIDE_CJK, SIDE_NUM, SIDE_END };

static inline enum side side_at(const uint8_t *s, size_t p, size_t n, uint32_t *out_prop,
                                uint32_t *out_len)
{
    uint32_t cp;

    *out_prop = 0;
    *out_len = 0;
    if (p >= n)
        return SIDE_END;
    if (s[p] < 0x80) {
        *out_len = 1;
        *out_prop = ps_uprop_row[0][s[p]];
        return (*out_prop & PS_UP_NUM) != 0 ? SIDE_NUM : SIDE_TEXT;
    }
    *out_len = ps_u8_next(s + p, &cp);
    *out_prop = ps_uprop(cp);
    if ((*out_prop & PS_UP_NUM) != 0)
        return SIDE_NUM;
    if ((cp >= 0x4E00 && cp <= 0x9FA5) || (cp >= 0x3040 && cp <= 0x30FF))
        return SIDE_CJK;
    return SIDE_TEXT;
}

static size_t side_run(const uint8_t *s, size_t p, size_t n, enum side side, uint32_t bits)
{
    uint32_t c, len;

    while (side_at(s, p, n, &c, &len) == side && (c & bits) != 0)
        p += len;
    return p;
}

static inline bool is_ascii_letter(uint8_t c)
{
    return (c | 0x20) >= 'a' && (c | 0x20) <= 'z';
}

/* White space of one subject: other sides end it, and digits and ideographs are never space. */
static size_t deepseek_spaces(const uint8_t *s, size_t p, size_t n)
{
    size_t q = run_with(s, p, n, PS_UP_SPACE);
    uint32_t c, len;

    return spaces(s, p, side_at(s, q, n, &c, &len) == SIDE_TEXT ? n : q, true);
}

static size_t scan_deepseek(const uint8_t *s, size_t p, size_t n)
{
    const uint32_t word = PS_UP_L | PS_UP_MARK, sign = PS_UP_PUNCT | PS_UP_SYMBOL;
    uint32_t c, len, next_c, next_len;
    enum side side = side_at(s, p, n, &c, &len);
    size_t q = p + len;

    if (side == SIDE_NUM) {
        for (uint32_t i = 1; i < 3 && side_at(s, q, n, &c, &len) == SIDE_NUM; i++)
            q += len;
        return q;
    }
    if (s[p] < 0x80 && (c & sign) != 0 && q < n && is_ascii_letter(s[q])) {
        while (q < n && is_ascii_letter(s[q]))
            q++;
        return q;
    }
    if ((c & word) != 0)
        return side_run(s, q, n, side, word);
    if (!is_newline(s[p]) && (c & sign) == 0 && side_at(s, q, n, &next_c, &next_len) == side &&
        (next_c & word) != 0)
        return side_run(s, q, n, side, word);
    if (s[p] == ' ' && side_at(s, q, n, &next_c, &next_len) == side && (next_c & sign) != 0)
        return newlines(s, side_run(s, q, n, side, sign), n);
    if ((c & sign) != 0) {
        q = side_run(s, q, n, side, sign);
        return side == SIDE_TEXT ? newlines(s, q, n) : q;
    }
    if ((c & PS_UP_SPACE) != 0)
        return deepseek_spaces(s, p, n);
    /* No alternative starts with this character (controls, unassigned): a gap up to the next match. */
    while (side_at(s, q, n, &c, &len) == side && (c & (word | sign | PS_UP_SPACE)) == 0) {
        if (side_at(s, q + len, n, &next_c, &next_len) == side && (next_c & word) != 0)
            break;
        q += len;
    }
    return q;
}

#define LINES(contractions, prefix, word, digits, other) \
    "(?i:" contractions ")|" prefix word "+|" digits "| ?[^\\s" other "]+[\\r\\n]*|" \
    "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

const struct ps_scan_def ps_scan_defs[PS_SCAN_N] = {
    [PS_SCAN_GPT2] = {"gpt2",
                      {CONTRACTION "| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"},
                      scan_gpt2},
    [PS_SCAN_QWEN2] = {"qwen2",
                       {LINES(CONTRACTION, "[^\\r\\n\\p{L}\\p{N}]?", "\\p{L}", "\\p{N}",
                              "\\p{L}\\p{N}")},
                       scan_qwen2},
    [PS_SCAN_QWEN35] = {"qwen35",
                        {LINES(CONTRACTION, "[^\\r\\n\\p{L}\\p{N}]?", "[\\p{L}\\p{M}]", "\\p{N}",
                               "\\p{L}\\p{M}\\p{N}")},
                        scan_qwen35},
    [PS_SCAN_LLAMA3] = {"llama3",
                        {LINES(CONTRACTION, "[^\\r\\n\\p{L}\\p{N}]?", "\\p{L}", "\\p{N}{1,3}",
                               "\\p{L}\\p{N}")},
                        scan_llama3},
    [PS_SCAN_DEEPSEEK] = {"deepseek",
                          {"\\p{N}{1,3}", "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
                           "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|"
                           "[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|"
                           "\\s*[\r\n]+|\\s+(?!\\S)|\\s+"},
                          scan_deepseek},
};
