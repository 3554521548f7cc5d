#include "router/api/api.h"

#include <stdio.h>
#include <string.h>

#include "common/hash.h"
#include "common/rng.h"
#include "router/conf_def.h"
#include "router/stats.h"

static void random_id(char *out) /* 32 hex digits and the end */
{
    uint8_t bytes[16];

    ps_random_bytes(bytes, sizeof(bytes));
    ps_hex(out, bytes, sizeof(bytes));
}

static struct rt_ask *ask_create(struct rt_api *api, struct ps_http_req *r)
{
    struct rt_ask *a = ps_calloc(1, sizeof(*a));
    const char *id = ps_http_header(r, "x-request-id");

    if (id == NULL)
        id = ps_http_header(r, "x-correlation-id");
    a->api = api;
    a->req = r;
    a->start_us = ps_now_us(api->loop->router->clock);
    a->tail = "";
    random_id(a->request_id);
    if (id != NULL)
        rt_ask_take_id(a, id, strlen(id));
    rt_guard_cors(api->loop->router, a, ps_http_header(r, "origin"));
    ps_http_set_ud(r, a);
    return a;
}

/* ---- what a head says ---- */

static void preflight(struct rt_ask *a)
{
    const char *wanted = ps_http_header(a->req, "access-control-request-headers");
    struct ps_buf extra = PS_BUF_INIT;

    ps_buf_add_str(&extra, "allow: GET, HEAD, POST, OPTIONS\r\n");
    if (a->cors[0] != '\0') {
        ps_buf_add_str(&extra, "access-control-allow-methods: GET, POST, DELETE, OPTIONS\r\n"
                               "access-control-max-age: 3600\r\n");
        if (wanted != NULL && strlen(wanted) <= 2048 &&
            strspn(wanted, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_, ") ==
                strlen(wanted))
            ps_buf_addf(&extra, "access-control-allow-headers: %s\r\n", wanted);
    }
    rt_ask_reply(a, 204, NULL, extra.data, NULL, 0);
    ps_buf_fini(&extra);
}

static uint8_t method_bit(const char *method)
{
    if (strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0)
        return RT_GET;
    return strcmp(method, "POST") == 0 ? RT_POST : 0;
}

static bool is_open(const struct rt_router *r, const struct rt_route *route)
{
    return route != NULL && ((route->flags & RT_ROUTE_OPEN) != 0 ||
                             ((route->flags & RT_ROUTE_METRICS) != 0 && !r->conf->metrics_auth));
}

static bool check_key(struct rt_ask *a, struct rt_fail *f)
{
    struct rt_router *r = a->api->loop->router;

    if (rt_keys_check(r->keys, ps_http_header(a->req, "authorization"),
                      ps_http_header(a->req, "x-api-key"), ps_http_header(a->req, "api-key"),
                      &a->key) != RT_KEYS_BAD)
        return true;
    ps_counter_add(r->metrics->key_failures, 1);
    rt_fail_set(f, RT_E21_KEY, NULL, "A valid API key is needed");
    return false;
}

/* In this order: nobody learns without a key what lies behind a path. */
static bool admit(struct rt_ask *a, const struct ps_http_head *h, struct rt_fail *f)
{
    struct rt_router *r = a->api->loop->router;
    const struct rt_route *route = NULL;

    if (h->path_bad) {
        rt_fail_set(f, RT_E17_BAD_HTTP, NULL, "The path of the request is not well formed");
        return false;
    }
    route = rt_route_find(h->path, &a->tail);
    a->route = route;
    if ((route == NULL || (route->flags & RT_ROUTE_ANYHOST) == 0) &&
        !rt_guard_host(r, ps_http_header(a->req, "host"))) {
        rt_fail_set(f, RT_E22_FORBIDDEN, NULL, "This Host name is not served here");
        return false;
    }
    if (!is_open(r, route) && !check_key(a, f))
        return false;
    if (strcmp(h->method, "CONNECT") == 0 || strcmp(h->method, "TRACE") == 0) {
        rt_fail_set(f, RT_E24_METHOD, NULL, "Method %s is not allowed", h->method);
        f->allow = "GET, HEAD, POST, OPTIONS";
        return false;
    }
    if (route == NULL) {
        rt_fail_set(f, RT_E23_UNKNOWN_URL, NULL, "Unknown request URL: %s %.200s", h->method,
                    h->path);
        return false;
    }
    if (route->handle == NULL) {
        rt_fail_set(f, RT_E25_NOT_IMPLEMENTED, NULL, "%s is not implemented by this server",
                    route->path);
        return false;
    }
    if ((route->methods & method_bit(h->method)) == 0) {
        rt_fail_set(f, RT_E24_METHOD, NULL, "Method %s is not allowed for this URL", h->method);
        f->allow = rt_route_allow(route);
        return false;
    }
    return (route->flags & RT_ROUTE_JSON) == 0 ||
           rt_guard_media(ps_http_header(a->req, "content-type"),
                          ps_http_header(a->req, "content-encoding"), f);
}

static bool on_head(struct ps_http_req *req, const struct ps_http_head *h, void *ud)
{
    struct rt_loop *l = ud;
    struct rt_ask *a = ask_create(l->api, req);
    struct rt_fail f;

    if (strcmp(h->method, "OPTIONS") == 0 && !h->path_bad) {
        preflight(a);
        return false;
    }
    if (admit(a, h, &f))
        return true;
    rt_ask_fail(a, &f);
    return false;
}

static void on_body(struct ps_http_req *req, const char *body, size_t len, void *ud)
{
    struct rt_loop *l = ud;
    struct rt_ask *a = ps_http_ud(req);

    PS_ASSERT(a != NULL && a->route != NULL);
    a->start_us =
        ps_now_us(l->router->clock); /* times are told from the last byte of the request */
    a->route->handle(a, body, len);
}

static void on_gone(struct ps_http_req *req, void *ud)
{
    struct rt_ask *a = ps_http_ud(req);

    (void)ud;
    if (a == NULL)
        return;
    if (a->call != NULL)
        rt_call_gone(a->call);
    else if (a->job != NULL)
        rt_job_gone(a->job);
    ps_free(a);
}

static void on_drained(struct ps_http_req *req, void *ud)
{
    struct rt_ask *a = ps_http_ud(req);

    (void)ud;
    if (a != NULL && a->call != NULL)
        rt_call_drained(a->call);
}

static void on_fault(enum ps_http_fault fault, uint16_t *out_status, struct ps_buf *body, void *ud)
{
    static const struct {
        enum rt_fail_row row;
        const char *text;
    } faults[] = {
        [PS_HTTP_BAD_REQUEST] = {RT_E17_BAD_HTTP, "The request is not well-formed HTTP"},
        [PS_HTTP_URI_TOO_LONG] = {RT_E14_URI, "The request line is too long"},
        [PS_HTTP_HEAD_TOO_LARGE] = {RT_E15_HEADERS, "The request's headers are too large"},
        [PS_HTTP_BODY_TOO_LARGE] = {RT_E13_BODY, "The request's body is too large"},
        [PS_HTTP_VERSION] = {RT_E18_VERSION, "This HTTP version is not supported"},
        [PS_HTTP_TE_UNKNOWN] = {RT_E19_TE, "This transfer coding is not implemented"},
        [PS_HTTP_EXPECT] = {RT_E20_EXPECT, "This expectation cannot be met"},
        [PS_HTTP_TIMEOUT] = {RT_E30_CLIENT_TIMEOUT, "The request came too slowly"},
        [PS_HTTP_OVERLOAD] = {RT_E27_QUEUE_FULL, "Too many connections"},
    };
    struct rt_fail f;

    (void)ud;
    PS_ASSERT((size_t)fault < PS_ARRAY_LEN(faults));
    rt_fail_set(&f, faults[fault].row, NULL, "%s", faults[fault].text);
    *out_status = fault == PS_HTTP_OVERLOAD ? 503 : rt_fail_def(f.row)->http;
    rt_fail_write(body, &f);
}

static void on_fault_headers(struct ps_buf *lines, void *ud)
{
    char id[33];

    (void)ud;
    random_id(id);
    ps_buf_addf(lines, "x-request-id: %s\r\n", id);
}

const struct ps_http_handler rt_api_handler = {
    .on_head = on_head,
    .on_body = on_body,
    .on_gone = on_gone,
    .on_drained = on_drained,
    .on_fault = on_fault,
    .on_fault_headers = on_fault_headers,
};

static void on_timer(void *ud)
{
    rt_calls_care(ud);
}

void rt_api_init(struct rt_loop *l)
{
    struct rt_api *api = ps_calloc(1, sizeof(*api));
    struct ps_http_limits limits;

    ps_http_limits_default(&limits);
    api->out_soft_bytes = limits.out_soft_bytes;
    api->loop = l;
    api->dirty_tail = &api->dirty;
    api->timer = ps_timer_create(l->loop, on_timer, api);
    rt_tokenizer_info_make(&l->router->model, &api->tokenizer_info);
    l->api = api;
}

void rt_api_tick(struct rt_loop *l)
{
    rt_calls_flush(l->api);
}

void rt_api_fini(struct rt_loop *l)
{
    struct rt_api *api = l->api;

    if (api == NULL)
        return;
    PS_ASSERT(api->calls == NULL); /* the server was destroyed before: everybody is gone */
    ps_timer_destroy(api->timer);
    ps_buf_fini(&api->scratch);
    ps_buf_fini(&api->tokenizer_info);
    ps_free(api);
    l->api = NULL;
}
