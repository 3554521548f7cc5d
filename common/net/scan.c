#include "common/net/parse.h"

#include <string.h>

enum { HTAB = 9, LF = 10, CR = 13, SP = 32, DEL = 127 };

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/*
 * The request line ends in a version we speak. Looked at before the rest of the head comes, so that
 * an HTTP/2 preface and a line that is no request are answered at once.
 */
static bool check_request_line(const char *line, size_t len, enum ps_http_fault *out_fault)
{
    static const char prefix[] = " HTTP/";
    const size_t n_tail = sizeof(prefix) - 1 + 3;
    const char *v;

    *out_fault = PS_HTTP_BAD_REQUEST;
    if (len <= n_tail || memcmp(line + len - n_tail, prefix, sizeof(prefix) - 1) != 0)
        return false;
    v = memchr(line, SP, len); /* one space after the method, and the next one is the last */
    if (memchr(v + 1, SP, len - (size_t)(v + 1 - line)) != line + len - n_tail)
        return false;
    v = line + len - 3;
    if (!is_digit(v[0]) || v[1] != '.' || !is_digit(v[2]))
        return false;
    if (v[0] != '1' || (v[2] != '0' && v[2] != '1')) {
        *out_fault = PS_HTTP_VERSION;
        return false;
    }
    return true;
}

enum line_end { LINE_NEXT, LINE_LAST, LINE_FAULT };

static enum line_end end_line(struct ps_scan *s, const struct ps_http_limits *l, const char *p,
                              enum ps_http_fault *out_fault)
{
    size_t len = s->pos - 2 - s->line_start;

    if (len == 0 && s->n_lines == 0) {
        *out_fault = PS_HTTP_BAD_REQUEST;
        if (s->start > 0)
            return LINE_FAULT; /* one empty line before a request is tolerated, two are not */
        s->start = s->line_start = s->pos;
        return LINE_NEXT;
    }
    if (len == 0)
        return LINE_LAST;
    if (s->n_lines == 0 && !check_request_line(p + s->line_start, len, out_fault))
        return LINE_FAULT;
    if (s->n_lines > l->n_headers) { /* lines before this one: the request line and n_headers */
        *out_fault = PS_HTTP_HEAD_TOO_LARGE;
        return LINE_FAULT;
    }
    s->n_lines++;
    s->line_start = s->pos;
    return LINE_NEXT;
}

static bool byte_ok(const struct ps_scan *s, unsigned char c)
{
    if (c == DEL || (c < SP && c != HTAB))
        return false; /* controls and a bare LF */
    /* 8-bit bytes may stand in values (clients do send names of people and places there); in a header's
     * name llhttp refuses them. */
    if ((c == HTAB || c > DEL) && s->n_lines == 0)
        return false;
    /* White space at the start of a line is folding, or a request line that is none. */
    return !(s->pos == s->line_start && (c == SP || c == HTAB));
}

int ps_scan_head(struct ps_scan *s, const struct ps_http_limits *l, const char *p, size_t n,
                 enum ps_http_fault *out_fault)
{
    for (; s->pos < n; s->pos++) {
        unsigned char c = (unsigned char)p[s->pos];
        size_t len = s->pos - s->line_start + 1;

        if (s->pos - s->start >= l->head_bytes) {
            *out_fault = PS_HTTP_HEAD_TOO_LARGE;
            return PS_READ_FAULT;
        }
        if (s->cr) {
            enum line_end e;

            *out_fault = PS_HTTP_BAD_REQUEST;
            if (c != LF)
                return PS_READ_FAULT;
            s->cr = false;
            s->pos++;
            e = end_line(s, l, p, out_fault);
            if (e == LINE_LAST)
                return PS_READ_DONE;
            if (e == LINE_FAULT)
                return PS_READ_FAULT;
            s->pos--; /* the loop steps */
            continue;
        }
        if (c == CR) {
            s->cr = true;
            continue;
        }
        if (!byte_ok(s, c)) {
            *out_fault = PS_HTTP_BAD_REQUEST;
            return PS_READ_FAULT;
        }
        if (len > (s->n_lines == 0 ? l->target_bytes : l->header_bytes)) {
            *out_fault = s->n_lines == 0 ? PS_HTTP_URI_TOO_LONG : PS_HTTP_HEAD_TOO_LARGE;
            return PS_READ_FAULT;
        }
    }
    return PS_READ_MORE;
}
