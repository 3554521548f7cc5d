#pragma once

/*
 * Unicode properties the tokenizer asks about, one table lookup per code point.
 *
 * The table is made at build time by uprop_gen.c from utf8proc, completed by what Unicode assigned
 * after utf8proc's version: token ids must not depend on the age of a host's library. Constant data,
 * any thread. Text given to ps_u8_next is valid UTF-8 (checked once, where a segment is encoded).
 */

#include "common/base.h"

enum {
    PS_UP_UPPER = 1 << 0,  /* Lu Lt */
    PS_UP_LOWER = 1 << 1,  /* Ll */
    PS_UP_LETTER = 1 << 2, /* Lm Lo */
    PS_UP_MARK = 1 << 3,
    PS_UP_NUM = 1 << 4,   /* Nd Nl No */
    PS_UP_SPACE = 1 << 5, /* White_Space: U+180E is not one of them */
    PS_UP_PUNCT = 1 << 6,
    PS_UP_SYMBOL = 1 << 7,
    PS_UP_WORD = 1 << 8,         /* \w: Alphabetic, M, Nd, Pc, Join_Control */
    PS_UP_NFC_CHECK = 1 << 9,    /* may change under NFC together with its neighbours */
    PS_UP_NFC_MARK = 1 << 10,    /* NFC_CHECK, but unchanged when it stands alone after a starter */
    PS_UP_NFC_BARRIER = 1 << 11, /* NFC_CHECK, and not known to the normaliser we are equal to */
    PS_UP_L = PS_UP_UPPER | PS_UP_LOWER | PS_UP_LETTER,
};

extern const uint16_t ps_uprop_block[0x1100];
extern const uint16_t ps_uprop_row[][256]; /* row 0 holds U+0000 to U+00FF */

static inline uint32_t ps_uprop(uint32_t cp)
{
    return ps_uprop_row[ps_uprop_block[cp >> 8]][cp & 0xFF];
}

/* Length of the character at s and its code point; s is valid and not at its end. */
static inline uint32_t ps_u8_next(const uint8_t *s, uint32_t *out_cp)
{
    if (s[0] < 0x80) {
        *out_cp = s[0];
        return 1;
    }
    if (s[0] < 0xE0) {
        *out_cp = (s[0] & 0x1FU) << 6 | (s[1] & 0x3FU);
        return 2;
    }
    if (s[0] < 0xF0) {
        *out_cp = (s[0] & 0x0FU) << 12 | (s[1] & 0x3FU) << 6 | (s[2] & 0x3FU);
        return 3;
    }
    *out_cp = (s[0] & 0x07U) << 18 | (s[1] & 0x3FU) << 12 | (s[2] & 0x3FU) << 6 | (s[3] & 0x3FU);
    return 4;
}

/* Properties and length of the character at s. */
static inline uint32_t ps_u8_prop(const uint8_t *s, uint32_t *out_len)
{
    uint32_t cp;

    if (PS_LIKELY(s[0] < 0x80)) {
        *out_len = 1;
        return ps_uprop_row[0][s[0]];
    }
    *out_len = ps_u8_next(s, &cp);
    return ps_uprop(cp);
}

/* Properties of the character that ends right before p; 0 at the start of the text. */
static inline uint32_t ps_u8_prop_before(const uint8_t *s, size_t p, uint32_t *out_len)
{
    size_t q = p;

    *out_len = 0;
    if (p == 0)
        return 0;
    do
        q--;
    while (q > 0 && (s[q] & 0xC0) == 0x80);
    return ps_u8_prop(s + q, out_len);
}
