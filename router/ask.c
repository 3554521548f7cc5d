#include "router/ask.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "common/json/json.h"
#include "common/text/utf8.h"
#include "router/api/api.h"

bool rt_ask_id_ok(const char *s, size_t len)
{
    if (len == 0 || len > RT_REQUEST_ID_MAX)
        return false;
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)s[i];

        if (c >= 0x80 || (!isalnum(c) && (c == '\0' || strchr("._:/+=@-", c) == NULL)))
            return false;
    }
    return true;
}

void rt_ask_take_id(struct rt_ask *a, const char *s, size_t len)
{
    if (!rt_ask_id_ok(s, len))
        return;
    memcpy(a->request_id, s, len);
    a->request_id[len] = '\0';
    a->own_id = true;
}

static void add_headers(const struct rt_ask *a, struct ps_buf *out, const char *extra)
{
    ps_buf_add_str(out, extra);
    ps_buf_addf(out, "x-request-id: %s\r\n", a->request_id);
    ps_buf_add_str(out, a->cors);
}

static void reply(struct rt_ask *a, uint16_t status, const char *type, const char *extra,
                  const void *body, size_t len, bool close)
{
    struct ps_buf head = PS_BUF_INIT;

    PS_ASSERT(a->req != NULL);
    add_headers(a, &head, extra);
    ps_http_set_ud(a->req, NULL);
    ps_http_reply(a->req, status, type, head.data, body, len, close);
    ps_buf_fini(&head);
    ps_free(a);
}

void rt_ask_reply(struct rt_ask *a, uint16_t status, const char *type, const char *extra,
                  const void *body, size_t len)
{
    reply(a, status, type, extra, body, len, false);
}

void rt_ask_json(struct rt_ask *a, uint16_t status, const struct ps_buf *body)
{
    reply(a, status, "application/json", "", body->data, body->len, false);
}

static void add_text(struct ps_buf *out, const char *s)
{
    struct ps_buf clean = PS_BUF_INIT; /* the text may have been cut inside a character */

    ps_buf_reserve(&clean, strlen(s));
    (void)ps_utf8_repair(&clean, s, strlen(s), true);
    ps_json_add_str(out, clean.data, clean.len);
    ps_buf_fini(&clean);
}

void rt_fail_write(struct ps_buf *out, const struct rt_fail *f)
{
    const struct rt_fail_def *d = rt_fail_def(f->row);

    ps_buf_add_str(out, "{\"error\":{\"message\":");
    add_text(out, f->text);
    ps_buf_addf(out, ",\"type\":\"%s\",\"param\":", d->type);
    if (f->param[0] != '\0')
        add_text(out, f->param);
    else
        ps_buf_add_str(out, "null");
    ps_buf_addf(out, ",\"code\":\"%s\"}}", d->code);
}

void rt_ask_fail(struct rt_ask *a, const struct rt_fail *f)
{
    const struct rt_fail_def *d = rt_fail_def(f->row);
    unsigned retry_s = f->retry_after_s != 0 ? f->retry_after_s : d->retry_after_s;
    struct ps_buf body = PS_BUF_INIT, extra = PS_BUF_INIT;

    ps_buf_reserve(&extra, 0);
    if (retry_s > 0)
        ps_buf_addf(&extra, "retry-after: %u\r\n", retry_s);
    if (retry_s > 0 && f->row == RT_E26_RATE)
        ps_buf_addf(&extra, "retry-after-ms: %u\r\n", retry_s * 1000);
    if (d->should_retry >= 0)
        ps_buf_addf(&extra, "x-should-retry: %s\r\n", d->should_retry ? "true" : "false");
    if (f->row == RT_E21_KEY)
        ps_buf_add_str(&extra, "www-authenticate: Bearer realm=\"api\"\r\n");
    if (f->row == RT_E24_METHOD && f->allow != NULL)
        ps_buf_addf(&extra, "allow: %s\r\n", f->allow);
    rt_fail_write(&body, f);
    reply(a, d->http, "application/json", extra.data, body.data, body.len, d->close);
    ps_buf_fini(&body);
    ps_buf_fini(&extra);
}

void rt_ask_begin(struct rt_ask *a, const char *type)
{
    struct ps_buf head = PS_BUF_INIT;

    add_headers(a, &head, "cache-control: no-cache\r\nx-accel-buffering: no\r\n");
    ps_http_begin(a->req, 200, type, head.data);
    ps_buf_fini(&head);
}

void rt_ask_end(struct rt_ask *a, const void *p, size_t len)
{
    ps_http_set_ud(a->req, NULL);
    ps_http_end(a->req, p, len);
    ps_free(a);
}
