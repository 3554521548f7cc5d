#pragma once

/*
 * For tests: a tokenizer of 256 bytes under their own numbers and the tokens a test names.
 *
 * Extra tokens begin at 256, in the order given; those of the form <|...|> are special.
 */

#include "common/json/json.h"
#include "common/test.h"
#include "common/text/tokenizer.h"

enum { FIX_FIRST_EXTRA = 256 };

/* Byte-level vocabularies name every byte by one character. */
static inline uint32_t fix_char(uint32_t byte)
{
    uint32_t next = 0x100;

    for (uint32_t i = 0; i <= byte; i++) {
        bool own = (i >= 0x21 && i <= 0x7E) || (i >= 0xA1 && i <= 0xAC) || i >= 0xAE;

        if (i == byte)
            return own ? i : next;
        next += !own;
    }
    return next;
}

static inline struct ps_tok *fix_tok(const char *const *extra, uint32_t n_extra)
{
    struct ps_buf b = PS_BUF_INIT, err = PS_BUF_INIT;
    struct ps_tok *t = NULL;
    bool first = true;

    ps_buf_add_str(&b, "{\"added_tokens\":[");
    for (uint32_t i = 0; i < n_extra; i++) {
        if (strncmp(extra[i], "<|", 2) != 0)
            continue;
        ps_buf_addf(&b,
                    "%s{\"id\":%u,\"content\":\"%s\",\"normalized\":false,\"special\":true,"
                    "\"single_word\":false,\"lstrip\":false,\"rstrip\":false}",
                    first ? "" : ",", FIX_FIRST_EXTRA + i, extra[i]);
        first = false;
    }
    ps_buf_add_str(&b, "],\"normalizer\":null,\"pre_tokenizer\":{\"type\":\"ByteLevel\","
                       "\"add_prefix_space\":false,\"trim_offsets\":false,\"use_regex\":false},"
                       "\"post_processor\":null,\"decoder\":{\"type\":\"ByteLevel\"},"
                       "\"model\":{\"type\":\"BPE\",\"vocab\":{");
    for (uint32_t i = 0; i < 256; i++) {
        ps_buf_addf(&b, "%s\"\\u%04x\":%u", i > 0 ? "," : "", (unsigned)fix_char(i), (unsigned)i);
    }
    for (uint32_t i = 0; i < n_extra; i++) {
        if (strncmp(extra[i], "<|", 2) == 0)
            continue;
        ps_buf_add_str(&b, ",\"");
        for (const char *p = extra[i]; *p != '\0'; p++)
            ps_buf_addf(&b, "\\u%04x", (unsigned)fix_char((uint8_t)*p));
        ps_buf_addf(&b, "\":%u", FIX_FIRST_EXTRA + i);
    }
    ps_buf_add_str(&b, "},\"merges\":[]}}");
    if (ps_tok_parse(&t, b.data, b.len, NULL, 0, &err) != PS_TOK_OK)
        fail_msg("%s", err.data);
    ps_buf_fini(&b);
    ps_buf_fini(&err);
    return t;
}
