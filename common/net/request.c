#include "common/net/parse.h"

#include <string.h>
#include <strings.h>

#include <llhttp.h>

enum { N_LENGTH_DIGITS = 16 }; /* 2^53 has 16 */
#define LENGTH_MAX ((uint64_t)1 << 53)

/* ---- llhttp: syntax, and where things are ---- */

struct parse { /* what the callbacks fill; spans point into the request's text */
    llhttp_t ll;
    struct ps_http_req *r;
    char *url;
    size_t url_len;
    uint32_t n_max;
    bool in_value, complete, broken;
};

/* The whole head is one buffer, so every span comes in one piece; two pieces would be a fault. */
static int on_url(llhttp_t *ll, const char *at, size_t len)
{
    struct parse *p = ll->data;

    p->broken |= p->url != NULL;
    p->url = p->r->text + (at - p->r->text);
    p->url_len = len;
    return 0;
}

static int on_field(llhttp_t *ll, const char *at, size_t len)
{
    struct parse *p = ll->data;
    struct ps_header *h = &p->r->headers[p->r->n_headers];

    if (p->r->n_headers == p->n_max) {
        p->broken = true;
        return 0;
    }
    p->r->n_headers++;
    h->name = p->r->text + (at - p->r->text);
    h->name_len = (uint32_t)len;
    return 0;
}

static int on_headers_complete(llhttp_t *ll)
{
    struct parse *p = ll->data;

    p->complete = true;
    /* Asked here: at the end of a message without a body the flags are gone already. */
    p->r->keep = llhttp_should_keep_alive(ll) != 0;
    return 0;
}

static const llhttp_settings_t settings = {
    .on_url = on_url,
    .on_header_field = on_field,
    .on_headers_complete = on_headers_complete,
};

static bool is_space(char c)
{
    return c == ' ' || c == '\t';
}

/*
 * The value runs from the colon to the end of the line. llhttp guarantees the colon right after the
 * name, the scanner the CR LF. White space around goes; where it is odd is remembered.
 */
static bool find_value(struct ps_header *h, const char *end)
{
    char *v = h->name + h->name_len, *cr;
    size_t n_lead = 0, len;

    if (h->name_len == 0 || v >= end || *v != ':')
        return false; /* llhttp takes a name of no characters */
    v++;
    cr = memchr(v, '\r', (size_t)(end - v));
    if (cr == NULL)
        return false;
    len = (size_t)(cr - v);
    while (n_lead < len && is_space(v[n_lead]))
        n_lead++;
    h->odd_space = n_lead > 1 || (n_lead == 1 && v[0] == '\t');
    v += n_lead;
    len -= n_lead;
    while (len > 0 && is_space(v[len - 1])) {
        len--;
        h->odd_space = true;
    }
    h->value = v;
    h->value_len = (uint32_t)len;
    return true;
}

static void lower(char *s, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (s[i] >= 'A' && s[i] <= 'Z')
            s[i] = (char)(s[i] - 'A' + 'a');
}

static bool is(const struct ps_header *h, const char *name)
{
    return strlen(name) == h->name_len && memcmp(h->name, name, h->name_len) == 0;
}

/* ---- framing ---- */

static bool token_is(const char *s, size_t len, const char *word)
{
    return strlen(word) == len && strncasecmp(s, word, len) == 0;
}

/* One coding of a list. Codings we know and do not speak, and honest strangers, are not implemented;
 * what plays with the word chunked is an attempt to be read in two ways. */
static bool coding_is_trick(const char *s, size_t len)
{
    static const char word[] = "chunked";
    const size_t n_word = sizeof(word) - 1;

    if (len == 0)
        return true;
    for (size_t i = 0; i < len; i++)
        if (is_space(s[i]))
            return true;
    if (len == n_word)
        return false; /* chunked itself: counted by the caller; or a stranger of the same length */
    for (size_t i = 0; i + n_word <= len; i++)
        if (strncasecmp(s + i, word, n_word) == 0)
            return true;
    return false;
}

struct framing {
    uint32_t n_host, n_length, n_te_lines, n_chunked, n_other;
    uint64_t length;
    bool bad_te, bad_host, bad_length, bad_expect, expects;
};

static void read_te(struct framing *f, const struct ps_header *h)
{
    const char *s = h->value, *end = s + h->value_len;

    f->n_te_lines++;
    f->bad_te |= h->odd_space;
    for (;;) {
        const char *comma = memchr(s, ',', (size_t)(end - s));
        size_t len = (size_t)((comma != NULL ? comma : end) - s);

        f->bad_te |= coding_is_trick(s, len);
        if (token_is(s, len, "chunked"))
            f->n_chunked++;
        else
            f->n_other++;
        if (comma == NULL)
            return;
        s = comma + 1;
        while (s < end && *s == ' ')
            s++;
    }
}

static void read_length(struct framing *f, const struct ps_header *h)
{
    f->n_length++;
    f->length = 0;
    f->bad_length |= h->value_len == 0 || h->value_len > N_LENGTH_DIGITS;
    for (uint32_t i = 0; i < h->value_len && !f->bad_length; i++) {
        char c = h->value[i];

        if (c < '0' || c > '9')
            f->bad_length = true;
        else
            f->length = f->length * 10 + (uint64_t)(c - '0');
    }
    f->bad_length |= f->length > LENGTH_MAX;
}

static void read_framing(struct framing *f, const struct ps_http_req *r)
{
    for (uint32_t i = 0; i < r->n_headers; i++) {
        const struct ps_header *h = &r->headers[i];

        if (is(h, "host")) {
            f->n_host++;
            f->bad_host |= !ps_host_ok(h->value, h->value_len);
        } else if (is(h, "content-length")) {
            read_length(f, h);
        } else if (is(h, "transfer-encoding")) {
            read_te(f, h);
        } else if (is(h, "expect")) {
            if (token_is(h->value, h->value_len, "100-continue"))
                f->expects = true;
            else
                f->bad_expect = true;
        }
    }
}

/* 0, or the fault + 1. Doubt about the framing comes before everything that could be named nicer. */
static int judge(const struct framing *f, bool http10)
{
    if (f->n_length > 1 || f->bad_length || f->n_host > 1 || f->bad_host)
        return PS_HTTP_BAD_REQUEST + 1;
    if (f->n_te_lines > 0) {
        if (http10 || f->n_length > 0 || f->bad_te || f->n_chunked > 1)
            return PS_HTTP_BAD_REQUEST + 1;
        if (f->n_other > 0)
            return PS_HTTP_TE_UNKNOWN + 1;
    }
    if (f->n_host == 0 && !http10)
        return PS_HTTP_BAD_REQUEST + 1;
    if (f->bad_expect && !http10)
        return PS_HTTP_EXPECT + 1;
    return 0;
}

/* ---- target ---- */

/* Cuts "http://host:1" from an absolute-form target; false when its authority is not sound. */
static bool drop_authority(char **url, size_t *len)
{
    static const char *const schemes[] = {"http://", "https://"};

    for (size_t i = 0; i < PS_ARRAY_LEN(schemes); i++) {
        size_t n = strlen(schemes[i]);
        size_t end = n;

        if (*len <= n || strncasecmp(*url, schemes[i], n) != 0)
            continue;
        while (end < *len && (*url)[end] != '/' && (*url)[end] != '?')
            end++;
        if (!ps_host_ok(*url + n, end - n))
            return false;
        *url += end;
        *len -= end;
        if (*len == 0 || **url != '/') { /* the path is empty: it means "/" */
            (*url)--;
            (*len)++;
            **url = '/';
        }
        return true;
    }
    return false;
}

/*
 * Fills target, path and query. The byte after the target is the space before the version, so that
 * cutting it into a string costs nothing.
 */
static bool read_target(struct ps_http_req *r, char *url, size_t len)
{
    char *q;

    if (len == 0 || memchr(url, '@', len) != NULL || memchr(url, '#', len) != NULL)
        return false;
    if (strcmp(r->head.method, "CONNECT") == 0 || (len == 1 && url[0] == '*')) {
        /* Authority or asterisk: no path. It is handed up as it is, for the method to decide. */
        url[len] = '\0';
        r->head.target = url;
        memcpy(r->path, url, len + 1);
        r->head.path = r->path;
        r->head.query = "";
        r->head.path_bad = url[0] == '*' && strcmp(r->head.method, "OPTIONS") != 0;
        return true;
    }
    if (url[0] != '/' && !drop_authority(&url, &len))
        return false;
    url[len] = '\0';
    r->head.target = url;
    q = memchr(url, '?', len);
    r->head.query = q != NULL ? q + 1 : "";
    r->head.path_bad = !ps_path_clean(url, q != NULL ? (size_t)(q - url) : len, r->path);
    r->head.path = r->path;
    return true;
}

/* ---- the whole ---- */

/* One block: the struct, the header table, the text, the decoded path. */
static struct ps_http_req *req_alloc(const char *head, size_t len, uint32_t n_headers)
{
    size_t table_bytes = n_headers * sizeof(struct ps_header);
    const char *eol = memchr(head, '\r', len);
    size_t line_len = eol != NULL ? (size_t)(eol - head) : len;
    struct ps_http_req *r = ps_alloc(sizeof(*r) + table_bytes + len + 1 + line_len + 1);

    *r = (struct ps_http_req){0};
    r->headers = (struct ps_header *)(r + 1);
    r->text = (char *)r->headers + table_bytes;
    r->path = r->text + len + 1;
    memcpy(r->text, head, len);
    r->text[len] = '\0';
    return r;
}

static bool run_llhttp(struct parse *p, size_t len)
{
    llhttp_errno_t e;

    llhttp_init(&p->ll, HTTP_REQUEST, &settings);
    p->ll.data = p;
    e = llhttp_execute(&p->ll, p->r->text, len);
    /* An upgrade is ignored: the request is answered as if it had not asked. */
    return (e == HPE_OK || e == HPE_PAUSED_UPGRADE) && p->complete && !p->broken && p->url != NULL;
}

int ps_req_parse(struct ps_http_req **out, const char *head, size_t len, uint32_t n_lines,
                 enum ps_http_fault *out_fault)
{
    struct parse p = {.n_max = n_lines - 1};
    struct framing f = {0};
    const char *eol;
    bool ok, http10;
    int verdict;

    PS_ASSERT(n_lines > 0);
    p.r = req_alloc(head, len, p.n_max);
    ok = run_llhttp(&p, len);
    for (uint32_t i = 0; i < p.r->n_headers; i++) {
        struct ps_header *h = &p.r->headers[i];

        if (!find_value(h, p.r->text + len)) {
            p.r->n_headers = i; /* llhttp stopped inside it */
            ok = false;
            break;
        }
        lower(h->name, h->name_len);
    }
    eol = memchr(p.r->text, '\r', len);
    PS_ASSERT(eol != NULL &&
              eol > p.r->text); /* the scanner saw a line ending in HTTP/1.0 or 1.1 */
    http10 = eol[-1] == '0';
    read_framing(&f, p.r);
    verdict = judge(&f, http10);
    /* llhttp refuses codings too; one that is only unknown keeps its name if all lines were seen. */
    ok |= verdict == PS_HTTP_TE_UNKNOWN + 1;
    if (!ok || p.r->n_headers != p.n_max)
        verdict = PS_HTTP_BAD_REQUEST + 1;
    if (verdict == 0) {
        p.r->head.method = llhttp_method_name((llhttp_method_t)llhttp_get_method(&p.ll));
        for (uint32_t i = 0; i < p.r->n_headers; i++) {
            p.r->headers[i].name[p.r->headers[i].name_len] = '\0';
            p.r->headers[i].value[p.r->headers[i].value_len] = '\0';
        }
        if (!read_target(p.r, p.url, p.url_len))
            verdict = PS_HTTP_BAD_REQUEST + 1;
    }
    if (verdict != 0) {
        *out_fault = (enum ps_http_fault)(verdict - 1);
        ps_req_free(p.r);
        return PS_READ_FAULT;
    }
    p.r->head.is_head = strcmp(p.r->head.method, "HEAD") == 0;
    p.r->head.http10 = http10;
    p.r->head.content_length = f.n_te_lines > 0 ? UINT64_MAX : f.length;
    p.r->head.expects_continue = f.expects && !http10 && p.r->head.content_length != 0;
    p.r->head.peer = "";
    *out = p.r;
    return PS_READ_DONE;
}

void ps_req_free(struct ps_http_req *r)
{
    if (r == NULL)
        return;
    ps_buf_fini(&r->body);
    ps_free(r);
}

const char *ps_req_header(const struct ps_http_req *r, const char *lower_name)
{
    size_t len = strlen(lower_name);

    for (uint32_t i = 0; i < r->n_headers; i++)
        if (r->headers[i].name_len == len && memcmp(r->headers[i].name, lower_name, len) == 0)
            return r->headers[i].value;
    return NULL;
}
