#pragma once

/*
 * One HTTP request on its way through the API: who asks, by which route, and how it is answered.
 *
 * Made when the head has been read, freed with the last byte of the answer or when the client goes
 * away. Belongs to the loop's thread. Every answer passes through here, so that request ids, CORS and
 * the shape of errors have one home.
 *
 * Invariant: an ask is answered exactly once, or gone.
 */

#include "common/buf.h"
#include "common/net/http.h"
#include "router/fail.h"
#include "router/keys.h"

struct rt_api;
struct rt_call;
struct rt_route;

enum { RT_REQUEST_ID_MAX = 128 };

struct rt_ask {
    struct rt_api *api;
    struct ps_http_req *req;
    const struct rt_route *route;
    const char *tail; /* what follows a prefix route's path: a model's name */
    struct rt_key key;
    struct rt_call *call; /* generating: hears when the client goes */
    struct rt_job *job;   /* text work for it is under way */
    char request_id[RT_REQUEST_ID_MAX + 1];
    bool own_id;    /* the client gave the id */
    char cors[320]; /* whole header lines, "" when the origin is not to see the answer */
    uint64_t start_us;
};

/* True when s may be echoed: 1 to 128 of a harmless set. */
bool rt_ask_id_ok(const char *s, size_t len);
/* Sets the id from the client's text if it is acceptable. */
void rt_ask_take_id(struct rt_ask *a, const char *s, size_t len);

/* Answers; the ask is freed. extra: whole header lines or "". */
void rt_ask_reply(struct rt_ask *a, uint16_t status, const char *type, const char *extra,
                  const void *body, size_t len);
void rt_ask_json(struct rt_ask *a, uint16_t status, const struct ps_buf *body);
void rt_ask_fail(struct rt_ask *a, const struct rt_fail *f);
/* Streams: the head now, writes by ps_http_write, then end (frees the ask). */
void rt_ask_begin(struct rt_ask *a, const char *type);
void rt_ask_end(struct rt_ask *a, const void *p, size_t len);

/* The error object, without a line end. */
void rt_fail_write(struct ps_buf *out, const struct rt_fail *f);
