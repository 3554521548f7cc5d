#include "bench/load/reader.h"

#include <string.h>
#include <strings.h>

void bn_reader_init(struct bn_reader *r, bn_event_fn fn, void *ud)
{
    memset(r, 0, sizeof(*r));
    r->fn = fn;
    r->ud = ud;
}

void bn_reader_fini(struct bn_reader *r)
{
    ps_buf_fini(&r->line);
    ps_buf_fini(&r->sse_line);
    ps_buf_fini(&r->event);
    ps_buf_fini(&r->text);
}

void bn_reader_start(struct bn_reader *r)
{
    r->state = BN_READ_STATUS;
    r->status = 0;
    r->chunked = r->has_length = r->sse = r->close = r->has_data = false;
    r->left = 0;
    r->n_head = 0;
    ps_buf_clear(&r->line);
    ps_buf_clear(&r->sse_line);
    ps_buf_clear(&r->event);
    ps_buf_clear(&r->text);
}

/*
 * The next whole line without its end, out of `keep` and the data; false when it is still cut, or
 * longer than max (then *bad). The line is valid until the next call.
 */
static bool next_line(struct ps_buf *keep, const char **p, size_t *n, size_t max, const char **line,
                      size_t *len, bool *bad)
{
    const char *nl = memchr(*p, '\n', *n);
    size_t take = nl != NULL ? (size_t)(nl - *p) : *n;

    if (keep->len + take > max) {
        *bad = true;
        return false;
    }
    if (nl == NULL) {
        ps_buf_add(keep, *p, take);
        *p += take;
        *n = 0;
        return false;
    }
    if (keep->len > 0) {
        ps_buf_add(keep, *p, take);
        *line = keep->data;
        *len = keep->len;
        keep->len = 0; /* the bytes stay where they are until the next add */
    } else {
        *line = *p;
        *len = take;
    }
    *p += take + 1;
    *n -= take + 1;
    if (*len > 0 && (*line)[*len - 1] == '\r')
        (*len)--;
    return true;
}

static void sse_line(struct bn_reader *r, const char *s, size_t n)
{
    if (n == 0) {
        if (r->has_data)
            r->fn(r->event.data, r->event.len, r->ud);
        ps_buf_clear(&r->event);
        r->has_data = false;
        return;
    }
    if (n < 5 || memcmp(s, "data:", 5) != 0)
        return; /* a comment, or a field that no completion stream needs */
    s += 5;
    n -= 5;
    if (n > 0 && *s == ' ') {
        s++;
        n--;
    }
    if (r->has_data)
        ps_buf_add_byte(&r->event, '\n');
    ps_buf_add(&r->event, s, n);
    r->has_data = true;
}

static bool body(struct bn_reader *r, const char *p, size_t n)
{
    const char *line;
    bool bad = false;
    size_t len;

    if (!r->sse) {
        ps_buf_add(&r->text, p, ps_min_size(n, BN_TEXT_MAX - r->text.len));
        return true;
    }
    while (n > 0 && next_line(&r->sse_line, &p, &n, BN_EVENT_MAX, &line, &len, &bad)) {
        if (r->event.len + len > BN_EVENT_MAX)
            return false;
        sse_line(r, line, len);
    }
    return !bad;
}

static bool read_status(struct bn_reader *r, const char *s, size_t n)
{
    if (n < 12 || memcmp(s, "HTTP/1.", 7) != 0 || (s[7] != '0' && s[7] != '1') || s[8] != ' ')
        return false;
    for (int i = 9; i < 12; i++) {
        if (s[i] < '0' || s[i] > '9')
            return false;
    }
    if (n > 12 && s[12] != ' ')
        return false;
    r->status = (uint16_t)((s[9] - '0') * 100 + (s[10] - '0') * 10 + (s[11] - '0'));
    r->close = s[7] == '0';
    r->state = BN_READ_HEADER;
    return r->status >= 100;
}

static bool has_name(const char *s, size_t n, const char *name, const char **value, size_t *len)
{
    size_t k = strlen(name);

    if (n <= k || s[k] != ':' || strncasecmp(s, name, k) != 0)
        return false;
    s += k + 1;
    n -= k + 1;
    while (n > 0 && (*s == ' ' || *s == '\t')) {
        s++;
        n--;
    }
    while (n > 0 && (s[n - 1] == ' ' || s[n - 1] == '\t'))
        n--;
    *value = s;
    *len = n;
    return true;
}

static bool is_word(const char *s, size_t n, const char *word)
{
    return n == strlen(word) && strncasecmp(s, word, n) == 0;
}

static bool read_length(struct bn_reader *r, const char *s, size_t n)
{
    uint64_t v = 0;

    if (n == 0 || n > 15 || r->has_length)
        return false;
    for (size_t i = 0; i < n; i++) {
        if (s[i] < '0' || s[i] > '9')
            return false;
        v = v * 10 + (uint64_t)(s[i] - '0');
    }
    r->left = v;
    r->has_length = true;
    return true;
}

static bool end_of_head(struct bn_reader *r)
{
    if (r->status < 200) { /* an interim answer: the real one follows */
        bn_reader_start(r);
    } else if (r->chunked) {
        r->state = BN_READ_SIZE;
    } else if (r->has_length || r->status == 204 || r->status == 304) {
        r->state = r->left > 0 ? BN_READ_LENGTH : BN_READ_DONE;
    } else {
        r->close = true;
        r->state = BN_READ_CLOSE;
    }
    return true;
}

static bool read_header(struct bn_reader *r, const char *s, size_t n)
{
    static const char sse[] = "text/event-stream";
    const char *v;
    size_t len;

    if (n == 0)
        return end_of_head(r);
    if (has_name(s, n, "content-length", &v, &len))
        return !r->chunked && read_length(r, v, len);
    if (has_name(s, n, "transfer-encoding", &v, &len)) {
        r->chunked = true;
        return !r->has_length && is_word(v, len, "chunked");
    }
    if (has_name(s, n, "connection", &v, &len) && is_word(v, len, "close"))
        r->close = true;
    if (has_name(s, n, "content-type", &v, &len))
        r->sse = len >= sizeof(sse) - 1 && strncasecmp(v, sse, sizeof(sse) - 1) == 0;
    return memchr(s, ':', n) != NULL;
}

static bool read_size(struct bn_reader *r, const char *s, size_t n)
{
    uint64_t v = 0;
    size_t i;

    for (i = 0; i < n && s[i] != ';' && s[i] != ' '; i++) {
        int c = s[i] | 0x20;
        int digit = s[i] >= '0' && s[i] <= '9' ? s[i] - '0'
                    : c >= 'a' && c <= 'f'     ? c - 'a' + 10
                                               : -1;

        if (digit < 0 || i >= 12)
            return false;
        v = v * 16 + (uint64_t)digit;
    }
    if (i == 0)
        return false;
    r->left = v;
    r->state = v > 0 ? BN_READ_CHUNK : BN_READ_TRAILER;
    return true;
}

static bool read_line(struct bn_reader *r, const char *s, size_t n)
{
    switch (r->state) {
    case BN_READ_STATUS:
        return read_status(r, s, n);
    case BN_READ_HEADER:
        return read_header(r, s, n);
    case BN_READ_SIZE:
        return read_size(r, s, n);
    case BN_READ_CHUNK_END:
        r->state = BN_READ_SIZE;
        return n == 0;
    default:
        PS_ASSERT(r->state == BN_READ_TRAILER);
        if (n == 0)
            r->state = BN_READ_DONE;
        return true;
    }
}

/* One step: a line of the framing, or a piece of the body. */
static bool step(struct bn_reader *r, const char **p, size_t *n)
{
    const char *line;
    bool bad = false;
    size_t len, take;

    switch (r->state) {
    case BN_READ_CHUNK:
    case BN_READ_LENGTH:
    case BN_READ_CLOSE:
        take = r->state == BN_READ_CLOSE ? *n : (size_t)ps_min_u64(*n, r->left);
        if (!body(r, *p, take))
            return false;
        *p += take;
        *n -= take;
        r->left -= r->state == BN_READ_CLOSE ? 0 : take;
        if (r->state == BN_READ_CHUNK && r->left == 0)
            r->state = BN_READ_CHUNK_END;
        else if (r->state == BN_READ_LENGTH && r->left == 0)
            r->state = BN_READ_DONE;
        return true;
    case BN_READ_DONE:
    case BN_READ_BAD:
        return false;
    default:
        take = *n;
        if (!next_line(&r->line, p, n, BN_HEAD_MAX, &line, &len, &bad))
            return !bad;
        r->n_head += take - *n;
        if (r->state <= BN_READ_HEADER && r->n_head > BN_HEAD_MAX)
            return false;
        return read_line(r, line, len);
    }
}

int bn_reader_push(struct bn_reader *r, const char *data, size_t len)
{
    PS_ASSERT(r->fn != NULL);
    while (len > 0) {
        if (!step(r, &data, &len)) {
            r->state = BN_READ_BAD;
            return BN_READER_E_BAD;
        }
    }
    return BN_READER_OK;
}

bool bn_reader_end(struct bn_reader *r)
{
    if (r->state == BN_READ_CLOSE)
        r->state = BN_READ_DONE;
    return r->state == BN_READ_DONE;
}
