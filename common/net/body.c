#include "common/net/parse.h"

/*
 * Body framing: a declared length, or chunks.
 *
 *   SIZE -> EXT_* -> SIZE_LF -> DATA -> DATA_CR -> DATA_LF -> SIZE ...
 *                      | size 0
 *                      v
 *                  LINE -> NAME -> VALUE -> LINE_LF -> LINE ...     trailers, checked and discarded
 *                    |
 *                    v
 *                  LAST_LF -> END
 *
 * llhttp reads heads but not chunks: it has no limits for a size line, an extension or trailers. A
 * test compares the two on mutated bodies: what is accepted here llhttp accepts with the same bytes.
 */
enum {
    LENGTH, /* no chunks: left bytes, then END */
    SIZE,
    EXT_NAME,
    EXT_VALUE,
    EXT_QUOTED,
    EXT_QUOTED_END,
    SIZE_LF,
    DATA,
    DATA_CR,
    DATA_LF,
    LINE,
    NAME,
    VALUE,
    LINE_LF,
    LAST_LF,
    END,
};

enum {
    SIZE_BYTES_MAX = 64, /* digits of one chunk size, leading zeros included */
    EXT_BYTES_MAX = 256,
    TRAILER_BYTES_MAX = 4096,
};

void ps_body_init_length(struct ps_body *b, uint64_t length)
{
    *b = (struct ps_body){.left = length, .limit = length, .state = length > 0 ? LENGTH : END};
}

void ps_body_init_chunked(struct ps_body *b, uint64_t limit)
{
    PS_ASSERT(limit <= UINT64_MAX / 32); /* so that one more digit cannot overflow */
    *b = (struct ps_body){.limit = limit, .state = SIZE};
}

static bool is_token(unsigned char c)
{
    if ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'))
        return true;
    switch (c) {
    case '!':
    case '#':
    case '$':
    case '%':
    case '&':
    case '\'':
    case '*':
    case '+':
    case '-':
    case '.':
    case '^':
    case '_':
    case '`':
    case '|':
    case '~':
        return true;
    default:
        return false;
    }
}

static bool is_text(unsigned char c)
{
    return (c >= ' ' && c < 127) || c == '\t';
}

static void end_size(struct ps_body *b)
{
    b->n_line = 0;
    b->has_part = false;
    b->state = SIZE_LF;
}

/* A digit of the size, or what ends it. */
static bool feed_size(struct ps_body *b, unsigned char c, enum ps_http_fault *out_fault)
{
    int v = ps_hex_value((char)c);

    if (v >= 0) {
        b->left = b->left * 16 + (uint64_t)v;
        if (b->left > b->limit - b->total) {
            *out_fault = PS_HTTP_BODY_TOO_LARGE;
            return false;
        }
        return ++b->n_line <= SIZE_BYTES_MAX;
    }
    if (b->n_line == 0 || (c != ';' && c != '\r'))
        return false;
    if (c == ';') {
        b->n_line = 0;
        b->state = EXT_NAME;
    } else {
        end_size(b);
    }
    return true;
}

/*
 * Extensions are ignored, but must be some: ;name, ;name=token or ;name="text". White space is refused
 * outside of quotes, because parsers disagree about it.
 */
static bool feed_ext(struct ps_body *b, unsigned char c)
{
    if (++b->n_line > EXT_BYTES_MAX + (c == '\r'))
        return false;
    if (b->state == EXT_QUOTED) {
        b->state = c == '"' ? EXT_QUOTED_END : EXT_QUOTED;
        return is_text(c) && c != '\\';
    }
    if (b->state != EXT_QUOTED_END && is_token(c)) {
        b->has_part = true;
        return true;
    }
    if (b->state == EXT_VALUE && c == '"' && !b->has_part) {
        b->state = EXT_QUOTED;
        b->has_part = true;
        return true;
    }
    if (!b->has_part)
        return false;
    b->has_part = false;
    if (c == ';')
        b->state = EXT_NAME;
    else if (c == '=' && b->state == EXT_NAME)
        b->state = EXT_VALUE;
    else if (c == '\r')
        end_size(b);
    else
        return false;
    return true;
}

static bool feed_trailer(struct ps_body *b, unsigned char c)
{
    if (++b->n_line > TRAILER_BYTES_MAX)
        return false;
    switch (b->state) {
    case LINE:
        if (c == '\r') {
            b->state = LAST_LF;
            return true;
        }
        b->state = NAME;
        return is_token(c);
    case NAME:
        if (c == ':') {
            b->state = VALUE;
            return true;
        }
        return is_token(c);
    case VALUE:
        if (c == '\r') {
            b->state = LINE_LF;
            return true;
        }
        return is_text(c);
    case LINE_LF:
        b->state = LINE;
        return c == '\n';
    default: /* LAST_LF */
        b->state = END;
        return c == '\n';
    }
}

/* One byte that is not body data. False: a fault. */
static bool feed_byte(struct ps_body *b, unsigned char c, enum ps_http_fault *out_fault)
{
    *out_fault = PS_HTTP_BAD_REQUEST;
    switch (b->state) {
    case SIZE:
        return feed_size(b, c, out_fault);
    case EXT_NAME:
    case EXT_VALUE:
    case EXT_QUOTED:
    case EXT_QUOTED_END:
        return feed_ext(b, c);
    case SIZE_LF:
        b->total += b->left;
        b->state = b->left > 0 ? DATA : LINE;
        return c == '\n';
    case DATA_CR:
        b->state = DATA_LF;
        return c == '\r';
    case DATA_LF:
        b->state = SIZE;
        return c == '\n';
    default:
        return feed_trailer(b, c);
    }
}

int ps_body_feed(struct ps_body *b, const char *p, size_t n, size_t *out_used, struct ps_buf *into,
                 enum ps_http_fault *out_fault)
{
    size_t i = 0;

    while (i < n && b->state != END) {
        if (b->state == LENGTH || b->state == DATA) {
            size_t some = (size_t)ps_min_u64(b->left, n - i);

            if (into != NULL)
                ps_buf_add(into, p + i, some);
            i += some;
            b->left -= some;
            if (b->left == 0)
                b->state = b->state == LENGTH ? END : DATA_CR;
            continue;
        }
        if (!feed_byte(b, (unsigned char)p[i], out_fault))
            return PS_READ_FAULT;
        i++;
    }
    *out_used = i;
    return b->state == END ? PS_READ_DONE : PS_READ_MORE;
}
