/*
 * Build-time program: prints the table behind uprop.h as C.
 *
 * Two facts cannot come from a library of the host. Which characters count as letters, digits and so
 * on decides token ids, so code points that the host's utf8proc does not know yet (2.8.0: Unicode
 * 15.0) take their class from `newer`, the assignments of Unicode 15.1 and 16.0. And the NFC of
 * Hugging Face's normaliser is that of Unicode 10: it neither reorders nor composes what was assigned
 * later. Those characters (`late`) divide a text into parts that are normalised one by one.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <utf8proc.h>

#include "common/text/uprop.h"

#define N_CP      0x110000u
#define HANGUL_LO 0xAC00
#define HANGUL_HI 0xD7A3
/* Beyond it no character has a canonical decomposition or a combining class. */
#define NFC_CP_MAX 0x30000

struct range {
    uint32_t lo, hi;
    uint16_t prop;
};

static const struct range newer[] = {
    {0x897, 0x897, PS_UP_MARK},       {0x1B4E, 0x1B4F, PS_UP_PUNCT},
    {0x1B7F, 0x1B7F, PS_UP_PUNCT},    {0x1C89, 0x1C89, PS_UP_UPPER},
    {0x1C8A, 0x1C8A, PS_UP_LOWER},    {0x2427, 0x2429, PS_UP_SYMBOL},
    {0x2FFC, 0x2FFF, PS_UP_SYMBOL},   {0x31E4, 0x31E5, PS_UP_SYMBOL},
    {0x31EF, 0x31EF, PS_UP_SYMBOL},   {0xA7CB, 0xA7CC, PS_UP_UPPER},
    {0xA7CD, 0xA7CD, PS_UP_LOWER},    {0xA7DA, 0xA7DA, PS_UP_UPPER},
    {0xA7DB, 0xA7DB, PS_UP_LOWER},    {0xA7DC, 0xA7DC, PS_UP_UPPER},
    {0x105C0, 0x105F3, PS_UP_LETTER}, {0x10D40, 0x10D49, PS_UP_NUM},
    {0x10D4A, 0x10D4F, PS_UP_LETTER}, {0x10D50, 0x10D65, PS_UP_UPPER},
    {0x10D69, 0x10D6D, PS_UP_MARK},   {0x10D6E, 0x10D6E, PS_UP_PUNCT},
    {0x10D6F, 0x10D6F, PS_UP_LETTER}, {0x10D70, 0x10D85, PS_UP_LOWER},
    {0x10D8E, 0x10D8F, PS_UP_SYMBOL}, {0x10EC2, 0x10EC4, PS_UP_LETTER},
    {0x10EFC, 0x10EFC, PS_UP_MARK},   {0x11380, 0x11389, PS_UP_LETTER},
    {0x1138B, 0x1138B, PS_UP_LETTER}, {0x1138E, 0x1138E, PS_UP_LETTER},
    {0x11390, 0x113B5, PS_UP_LETTER}, {0x113B7, 0x113B7, PS_UP_LETTER},
    {0x113B8, 0x113C0, PS_UP_MARK},   {0x113C2, 0x113C2, PS_UP_MARK},
    {0x113C5, 0x113C5, PS_UP_MARK},   {0x113C7, 0x113CA, PS_UP_MARK},
    {0x113CC, 0x113D0, PS_UP_MARK},   {0x113D1, 0x113D1, PS_UP_LETTER},
    {0x113D2, 0x113D2, PS_UP_MARK},   {0x113D3, 0x113D3, PS_UP_LETTER},
    {0x113D4, 0x113D5, PS_UP_PUNCT},  {0x113D7, 0x113D8, PS_UP_PUNCT},
    {0x113E1, 0x113E2, PS_UP_MARK},   {0x116D0, 0x116E3, PS_UP_NUM},
    {0x11BC0, 0x11BE0, PS_UP_LETTER}, {0x11BE1, 0x11BE1, PS_UP_PUNCT},
    {0x11BF0, 0x11BF9, PS_UP_NUM},    {0x11F5A, 0x11F5A, PS_UP_MARK},
    {0x13460, 0x143FA, PS_UP_LETTER}, {0x16100, 0x1611D, PS_UP_LETTER},
    {0x1611E, 0x1612F, PS_UP_MARK},   {0x16130, 0x16139, PS_UP_NUM},
    {0x16D40, 0x16D6C, PS_UP_LETTER}, {0x16D6D, 0x16D6F, PS_UP_PUNCT},
    {0x16D70, 0x16D79, PS_UP_NUM},    {0x18CFF, 0x18CFF, PS_UP_LETTER},
    {0x1CC00, 0x1CCEF, PS_UP_SYMBOL}, {0x1CCF0, 0x1CCF9, PS_UP_NUM},
    {0x1CD00, 0x1CEB3, PS_UP_SYMBOL}, {0x1E5D0, 0x1E5ED, PS_UP_LETTER},
    {0x1E5EE, 0x1E5EF, PS_UP_MARK},   {0x1E5F0, 0x1E5F0, PS_UP_LETTER},
    {0x1E5F1, 0x1E5FA, PS_UP_NUM},    {0x1E5FF, 0x1E5FF, PS_UP_PUNCT},
    {0x1F8B2, 0x1F8BB, PS_UP_SYMBOL}, {0x1F8C0, 0x1F8C1, PS_UP_SYMBOL},
    {0x1FA89, 0x1FA89, PS_UP_SYMBOL}, {0x1FA8F, 0x1FA8F, PS_UP_SYMBOL},
    {0x1FABE, 0x1FABE, PS_UP_SYMBOL}, {0x1FAC6, 0x1FAC6, PS_UP_SYMBOL},
    {0x1FADC, 0x1FADC, PS_UP_SYMBOL}, {0x1FADF, 0x1FADF, PS_UP_SYMBOL},
    {0x1FAE9, 0x1FAE9, PS_UP_SYMBOL}, {0x1FBCB, 0x1FBEF, PS_UP_SYMBOL},
    {0x2EBF0, 0x2EE5D, PS_UP_LETTER},
};

static const struct range late[] = {
    {0x7FD, 0x7FD, 0},     {0x898, 0x89F, 0},     {0x8CA, 0x8D3, 0},     {0x9FE, 0x9FE, 0},
    {0xC3C, 0xC3C, 0},     {0xD3B, 0xD3C, 0},     {0xEBA, 0xEBA, 0},     {0x1715, 0x1715, 0},
    {0x1ABF, 0x1ACE, 0},   {0x1DF6, 0x1DFA, 0},   {0xA82C, 0xA82C, 0},   {0x10D24, 0x10D27, 0},
    {0x10EAB, 0x10EAC, 0}, {0x10EFD, 0x10EFF, 0}, {0x10F46, 0x10F50, 0}, {0x10F82, 0x10F85, 0},
    {0x11070, 0x11070, 0}, {0x1133B, 0x1133B, 0}, {0x1145E, 0x1145E, 0}, {0x11839, 0x1183A, 0},
    {0x11930, 0x11930, 0}, {0x1193D, 0x1193E, 0}, {0x11943, 0x11943, 0}, {0x119E0, 0x119E0, 0},
    {0x11A34, 0x11A34, 0}, {0x11A47, 0x11A47, 0}, {0x11A99, 0x11A99, 0}, {0x11D42, 0x11D42, 0},
    {0x11D44, 0x11D45, 0}, {0x11D97, 0x11D97, 0}, {0x11F41, 0x11F42, 0}, {0x16FF0, 0x16FF1, 0},
    {0x1E08F, 0x1E08F, 0}, {0x1E130, 0x1E136, 0}, {0x1E2AE, 0x1E2AE, 0}, {0x1E2EC, 0x1E2EF, 0},
    {0x1E4EC, 0x1E4EF, 0},
};

/* Symbols and the two joiners that are \w although their category is not. */
static const struct range word_too[] = {
    {0x200C, 0x200D, 0},   {0x24B6, 0x24E9, 0},   {0x1F130, 0x1F149, 0},
    {0x1F150, 0x1F169, 0}, {0x1F170, 0x1F189, 0},
};

static const struct range space[] = {
    {0x9, 0xD, 0},       {0x20, 0x20, 0},     {0x85, 0x85, 0},     {0xA0, 0xA0, 0},
    {0x1680, 0x1680, 0}, {0x2000, 0x200A, 0}, {0x2028, 0x2029, 0}, {0x202F, 0x202F, 0},
    {0x205F, 0x205F, 0}, {0x3000, 0x3000, 0},
};

static uint16_t prop[N_CP];

static void mark(const struct range *r, size_t n, uint16_t bits)
{
    for (size_t i = 0; i < n; i++)
        for (uint32_t c = r[i].lo; c <= r[i].hi; c++)
            prop[c] = (uint16_t)(prop[c] | bits);
}

static uint16_t of_category(utf8proc_category_t k)
{
    switch (k) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LT:
        return PS_UP_UPPER | PS_UP_WORD;
    case UTF8PROC_CATEGORY_LL:
        return PS_UP_LOWER | PS_UP_WORD;
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
        return PS_UP_LETTER | PS_UP_WORD;
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
        return PS_UP_MARK | PS_UP_WORD;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
        return PS_UP_NUM | PS_UP_WORD;
    case UTF8PROC_CATEGORY_NO:
        return PS_UP_NUM;
    case UTF8PROC_CATEGORY_PC:
        return PS_UP_PUNCT | PS_UP_WORD;
    case UTF8PROC_CATEGORY_PD:
    case UTF8PROC_CATEGORY_PS:
    case UTF8PROC_CATEGORY_PE:
    case UTF8PROC_CATEGORY_PI:
    case UTF8PROC_CATEGORY_PF:
    case UTF8PROC_CATEGORY_PO:
        return PS_UP_PUNCT;
    case UTF8PROC_CATEGORY_SM:
    case UTF8PROC_CATEGORY_SC:
    case UTF8PROC_CATEGORY_SK:
    case UTF8PROC_CATEGORY_SO:
        return PS_UP_SYMBOL;
    default:
        return 0;
    }
}

static void fill_classes(void)
{
    for (uint32_t c = 0; c < N_CP; c++)
        prop[c] = of_category(utf8proc_category((utf8proc_int32_t)c));
    for (size_t i = 0; i < PS_ARRAY_LEN(newer); i++)
        for (uint32_t c = newer[i].lo; c <= newer[i].hi; c++) {
            uint16_t p = newer[i].prop;

            if (utf8proc_category((utf8proc_int32_t)c) != UTF8PROC_CATEGORY_CN)
                continue;
            if ((p & (PS_UP_PUNCT | PS_UP_SYMBOL)) == 0)
                p = (uint16_t)(p | PS_UP_WORD);
            prop[c] = p;
        }
    mark(word_too, PS_ARRAY_LEN(word_too), PS_UP_WORD);
    mark(space, PS_ARRAY_LEN(space), PS_UP_SPACE);
}

/* Whether NFC of the single character c is c. */
static bool is_own_nfc(uint32_t c)
{
    utf8proc_uint8_t in[4], *out = NULL;
    utf8proc_ssize_t n = utf8proc_encode_char((utf8proc_int32_t)c, in);
    utf8proc_ssize_t m = utf8proc_map(in, n, &out, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    bool same = m == n && memcmp(in, out, (size_t)n) == 0;

    free(out);
    return same;
}

static void fill_nfc(void)
{
    static bool second[N_CP]; /* stands after the first place of some decomposition */

    for (uint32_t c = 0; c < NFC_CP_MAX; c++) {
        utf8proc_int32_t d[8];
        int last = UTF8PROC_BOUNDCLASS_START;
        utf8proc_ssize_t n;

        if (c >= 0xD800 && c <= 0xDFFF)
            continue;
        n = utf8proc_decompose_char((utf8proc_int32_t)c, d, 8, UTF8PROC_STABLE | UTF8PROC_DECOMPOSE,
                                    &last);
        for (utf8proc_ssize_t i = 1; i < n && i < 8; i++)
            second[d[i]] = true;
    }
    for (uint32_t c = 0; c < NFC_CP_MAX; c++) {
        bool is_mark, own;

        if (c >= 0xD800 && c <= 0xDFFF)
            continue;
        if (c >= HANGUL_LO && c <= HANGUL_HI)
            continue; /* composed already; what may follow it is checked */
        is_mark = utf8proc_get_property((utf8proc_int32_t)c)->combining_class != 0;
        own = is_own_nfc(c);
        if (is_mark || second[c] || !own)
            prop[c] = (uint16_t)(prop[c] | PS_UP_NFC_CHECK);
        if (is_mark && !second[c] && own)
            prop[c] = (uint16_t)(prop[c] | PS_UP_NFC_MARK);
    }
    mark(late, PS_ARRAY_LEN(late), PS_UP_NFC_CHECK | PS_UP_NFC_BARRIER);
    mark(newer, PS_ARRAY_LEN(newer), PS_UP_NFC_CHECK | PS_UP_NFC_BARRIER);
}

int main(void)
{
    static uint16_t block[N_CP >> 8];
    uint32_t first[N_CP >> 8], n_row = 0;

    fill_classes();
    fill_nfc();
    printf("#include \"common/text/uprop.h\"\n\nconst uint16_t ps_uprop_row[][256] = {\n");
    for (uint32_t b = 0; b < N_CP >> 8; b++) {
        uint32_t r = 0;

        while (r < n_row && memcmp(prop + (first[r] << 8), prop + (b << 8), 256 * 2) != 0)
            r++;
        block[b] = (uint16_t)r;
        if (r < n_row)
            continue;
        first[n_row++] = b;
        printf("{");
        for (uint32_t i = 0; i < 256; i++)
            printf("%u,", (unsigned)prop[(b << 8) + i]);
        printf("},\n");
    }
    printf("};\n\nconst uint16_t ps_uprop_block[0x1100] = {");
    for (uint32_t b = 0; b < N_CP >> 8; b++)
        printf("%s%u,", b % 16 == 0 ? "\n" : "", (unsigned)block[b]);
    printf("\n};\n");
    return fflush(stdout) == 0 && !ferror(stdout) ? 0 : 1;
}
