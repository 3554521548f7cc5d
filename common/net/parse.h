#pragma once

/*
 * From bytes to requests, without sockets: head scanner, head parser, body reader, path rules.
 *
 * Private to common/net; pure functions of their input, no clock, no I/O. What a byte sequence means
 * never depends on how it was cut into reads: the scanner is a machine over single bytes that finds
 * the end of the head and enforces line rules and limits, llhttp then sees the whole head at once,
 * and the body reader is again a machine over bytes.
 *
 * Invariants
 *   P1 a head that two servers could read differently is a fault: both this code and llhttp accept it,
 *      or it is refused.
 *   P2 after a fault or the end of a message no further byte is looked at.
 *   P3 the memory of a request is its head, once, plus its body up to the limit.
 */

#include "common/net/http.h"

enum {
    PS_READ_DONE,
    PS_READ_MORE,  /* everything was used, the message goes on */
    PS_READ_FAULT, /* *out_fault says which */
};

/* ---- where the head ends ---- */

struct ps_scan {
    size_t pos;        /* bytes looked at, from where the input begins */
    size_t line_start; /* of the current line */
    size_t start;      /* of the request line: 2 when one empty line came before it */
    uint32_t n_lines;  /* finished, the request line included */
    bool cr;           /* the last byte was CR */
};

/* p[0..n) is all input since the last message. DONE: the head is p[start..pos). */
PS_MUST int ps_scan_head(struct ps_scan *s, const struct ps_http_limits *l, const char *p, size_t n,
                         enum ps_http_fault *out_fault);

/* ---- one request ---- */

struct ps_header {
    char *name, *value; /* NUL-terminated, name in lower case, value without white space around */
    uint32_t name_len, value_len;
    bool odd_space; /* white space other than one SP after the colon */
};

struct ps_http_req {
    struct ps_http_head head;
    struct ps_conn *conn; /* NULL in tests of the parser */
    void *ud;
    struct ps_http_req *next_dead;
    struct ps_buf body;
    bool dead;    /* answered or gone: freed at the end of the turn */
    bool begun;   /* a stream's head was queued */
    bool chunked; /* the answer is sent in chunks */
    bool keep;    /* the client lets the connection live on */
    uint32_t n_headers;
    struct ps_header *headers;
    char *text; /* the head's bytes, cut into strings in place */
    char *path; /* decoded */
};

/* head is one whole head as found by the scanner, n_lines as it counted. */
PS_MUST int ps_req_parse(struct ps_http_req **out, const char *head, size_t len, uint32_t n_lines,
                         enum ps_http_fault *out_fault);
void ps_req_free(struct ps_http_req *r); /* NULL is fine */
const char *ps_req_header(const struct ps_http_req *r, const char *lower_name);

/* ---- target ---- */

static inline int ps_hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

/*
 * Decodes and normalises an absolute path: %xx decoded, // collapsed, a trailing / dropped. False for
 * bad escapes, control characters and dot segments; out is "" then. out holds len + 1 bytes.
 */
bool ps_path_clean(const char *raw, size_t len, char *out);
bool ps_host_ok(const char *s, size_t len);

/* ---- body ---- */

struct ps_body {
    uint64_t left;  /* bytes of the body, or of the current chunk, still to come */
    uint64_t total; /* of chunks so far, the current one included */
    uint64_t limit;
    uint32_t n_line; /* bytes of the current size, extension or trailer part */
    bool has_part;   /* of an extension: its name or value is not empty */
    uint8_t state;
};

void ps_body_init_length(struct ps_body *b, uint64_t length);
void ps_body_init_chunked(struct ps_body *b, uint64_t limit);
/* Takes what belongs to the body from p; into (NULL: discard) receives it. */
PS_MUST int ps_body_feed(struct ps_body *b, const char *p, size_t n, size_t *out_used,
                         struct ps_buf *into, enum ps_http_fault *out_fault);
