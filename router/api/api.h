#pragma once

/*
 * The HTTP API of one loop: routes, and what its dialects share. Private to router/api and its callers.
 *
 * Belongs to the loop's thread. Paths are matched after normalisation; who asks is decided before what
 * is asked for, so that nobody learns without a key which routes exist.
 */

#include "router/answer/call.h"
#include "router/ask.h"
#include "router/router.h"

struct rt_api {
    struct rt_loop *loop;
    struct rt_call *calls; /* all open ones */
    struct rt_call *dirty, **dirty_tail;
    struct ps_buf scratch;  /* the events of one flush */
    size_t out_soft_bytes;  /* unsent output of a stream from which on its tokens wait */
    struct ps_timer *timer; /* late heads and keep-alive; runs while a call is open */
    bool timer_on;
    struct ps_buf tokenizer_info; /* made once: the answer of that route */
};

enum rt_method { RT_GET = 1, RT_POST = 2 };

enum rt_route_flag {
    RT_ROUTE_OPEN = 1,    /* no key */
    RT_ROUTE_PREFIX = 2,  /* the path and everything below it */
    RT_ROUTE_JSON = 4,    /* takes a JSON body: its media type is checked */
    RT_ROUTE_ANYHOST = 8, /* probes come under any Host name */
    RT_ROUTE_METRICS = 16 /* open unless --metrics-auth */
};

struct rt_route {
    const char *path;
    uint8_t methods; /* bits; GET answers HEAD too */
    uint8_t flags;
    /* The body is complete (empty for GET). NULL: known, but not implemented (E25). */
    void (*handle)(struct rt_ask *a, const char *body, size_t len);
};

/* routes.c: NULL when unknown. *out_tail: what follows a prefix route. */
const struct rt_route *rt_route_find(const char *path, const char **out_tail);
/* "GET, HEAD, OPTIONS" */
const char *rt_route_allow(const struct rt_route *r);

/* guard.c: who may ask, from where. False: *f is filled. */
bool rt_guard_host(const struct rt_router *r, const char *host);
void rt_guard_cors(const struct rt_router *r, struct rt_ask *a, const char *origin);
PS_MUST bool rt_guard_media(const char *content_type, const char *encoding, struct rt_fail *f);

/* Handlers. */
void rt_api_chat(struct rt_ask *a, const char *body, size_t len);
void rt_api_completion(struct rt_ask *a, const char *body, size_t len);
void rt_api_models(struct rt_ask *a, const char *body, size_t len);
void rt_api_model(struct rt_ask *a, const char *body, size_t len);
void rt_api_tokenize(struct rt_ask *a, const char *body, size_t len);
void rt_api_detokenize(struct rt_ask *a, const char *body, size_t len);
void rt_api_tokenizer_info(struct rt_ask *a, const char *body, size_t len);
void rt_api_health(struct rt_ask *a, const char *body, size_t len);
void rt_api_ping(struct rt_ask *a, const char *body, size_t len);
void rt_api_ready(struct rt_ask *a, const char *body, size_t len);
void rt_api_live(struct rt_ask *a, const char *body, size_t len);
void rt_api_version(struct rt_ask *a, const char *body, size_t len);
void rt_api_stats(struct rt_ask *a, const char *body, size_t len);
void rt_api_metrics(struct rt_ask *a, const char *body, size_t len);

/* tokenize.c */
struct rt_job;
void rt_job_gone(struct rt_job *j); /* its client went away */
void rt_tokenizer_info_make(const struct rt_model *m, struct ps_buf *out);
