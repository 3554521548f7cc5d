#include "common/text/utf8.h"

#include <string.h>

enum scan {
    SCAN_OK,    /* *out_n bytes are one character */
    SCAN_BAD,   /* *out_n bytes are a maximal subpart that can never become one */
    SCAN_SHORT, /* all *out_n bytes that are left may be the start of one */
};

/* Table 3-7 of the Unicode standard: only the second byte has a range of its own. */
static enum scan scan_one(const uint8_t *s, size_t len, uint32_t *out_n)
{
    uint8_t lo = 0x80, hi = 0xBF;
    uint32_t need;

    PS_DASSERT(len > 0);
    *out_n = 1;
    if (s[0] < 0x80)
        return SCAN_OK;
    if (s[0] < 0xC2 || s[0] > 0xF4)
        return SCAN_BAD;
    need = s[0] < 0xE0 ? 2 : s[0] < 0xF0 ? 3 : 4;
    if (s[0] == 0xE0)
        lo = 0xA0; /* overlong */
    else if (s[0] == 0xED)
        hi = 0x9F; /* surrogates */
    else if (s[0] == 0xF0)
        lo = 0x90; /* overlong */
    else if (s[0] == 0xF4)
        hi = 0x8F; /* above U+10FFFF */
    for (uint32_t i = 1; i < need; i++) {
        *out_n = i;
        if (i == len)
            return SCAN_SHORT;
        if (s[i] < lo || s[i] > hi)
            return SCAN_BAD;
        lo = 0x80;
        hi = 0xBF;
    }
    *out_n = need;
    return SCAN_OK;
}

/* Length of the ASCII prefix, eight bytes at a time. */
static size_t ascii_prefix(const char *s, size_t len)
{
    size_t i = 0;

    while (i + sizeof(uint64_t) <= len) {
        uint64_t w;

        memcpy(&w, s + i, sizeof(w));
        if ((w & UINT64_C(0x8080808080808080)) != 0)
            break;
        i += sizeof(w);
    }
    while (i < len && (uint8_t)s[i] < 0x80)
        i++;
    return i;
}

bool ps_utf8_valid(const char *s, size_t len)
{
    size_t i = 0;

    while (i < len) {
        uint32_t n;

        i += ascii_prefix(s + i, len - i);
        if (i == len)
            break;
        if (scan_one((const uint8_t *)s + i, len - i, &n) != SCAN_OK)
            return false;
        i += n;
    }
    return true;
}

uint32_t ps_utf8_decode(const char *s, size_t len, uint32_t *out_cp)
{
    const uint8_t *b = (const uint8_t *)s;
    uint32_t n, cp;

    PS_ASSERT(len > 0);
    if (scan_one(b, len, &n) != SCAN_OK)
        return 0;
    if (n == 1) {
        *out_cp = b[0];
        return 1;
    }
    cp = b[0] & (UINT32_C(0x7F) >> n);
    for (uint32_t i = 1; i < n; i++)
        cp = cp << 6 | (b[i] & 0x3F);
    *out_cp = cp;
    return n;
}

uint32_t ps_utf8_encode(char out[4], uint32_t cp)
{
    uint8_t *b = (uint8_t *)out;
    uint32_t n = cp < 0x80 ? 1 : cp < 0x800 ? 2 : cp < 0x10000 ? 3 : 4;

    PS_ASSERT(cp <= 0x10FFFF && !(cp >= 0xD800 && cp <= 0xDFFF));
    if (n == 1) {
        b[0] = (uint8_t)cp;
        return 1;
    }
    for (uint32_t i = n - 1; i > 0; i--) {
        b[i] = (uint8_t)(0x80 | (cp & 0x3F));
        cp >>= 6;
    }
    b[0] = (uint8_t)((0xF00 >> n & 0xFF) | cp);
    return n;
}

size_t ps_utf8_n_cp(const char *s, size_t len)
{
    size_t n = 0;

    for (size_t i = 0; i < len; i++)
        n += ((uint8_t)s[i] & 0xC0) != 0x80;
    return n;
}

size_t ps_utf8_repair(struct ps_buf *out, const char *s, size_t len, bool final)
{
    static const char replacement[] = "\xEF\xBF\xBD";
    size_t i = 0, n_added = 0; /* s[n_added..i) is good and not yet appended */

    while (i < len) {
        enum scan r;
        uint32_t n;

        i += ascii_prefix(s + i, len - i);
        if (i == len)
            break;
        r = scan_one((const uint8_t *)s + i, len - i, &n);
        if (r == SCAN_OK) {
            i += n;
            continue;
        }
        ps_buf_add(out, s + n_added, i - n_added);
        n_added = i;
        if (r == SCAN_SHORT && !final)
            return i;
        ps_buf_add(out, replacement, 3);
        i += n;
        n_added = i;
    }
    ps_buf_add(out, s + n_added, i - n_added);
    return i;
}
