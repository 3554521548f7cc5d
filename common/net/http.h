#pragma once

/*
 * HTTP/1.1 server on a libuv loop: listeners, connections, strict parsing, bounded everything.
 *
 * One ps_http per loop thread; several may listen on one port (SO_REUSEPORT). All callbacks run on
 * the loop's thread. A request is handled strictly in order, one at a time per connection: the next
 * pipelined one is parsed only after the answer to this one has been queued. Framing that is
 * doubtful is answered (4xx, close) here and never reaches the user. Errors found here are rendered
 * by the user's on_fault callback, so that their JSON shape has one home.
 *
 * Invariants
 *   H1 a request's on_gone or its last write ends it, never both; after that it must not be answered.
 *      Its memory (head, body) stays readable until the end of the turn.
 *   H2 an SSE event handed to ps_http_write is never split over two HTTP chunks.
 *   H3 memory per connection <= head limit + body limit + output limit (or one write, where that is
 *      more) + 64 KiB of input that waits
 *      (buffers double, so up to twice that). Only ps_http_reply may queue more: what it was given.
 *   H4 nothing is answered on a connection after an answer that said "connection: close".
 *   H5 on_gone and on_drained never come from inside a call of the user's, but for ps_http_destroy.
 *   H6 output is written at the end of the turn, after the tick: what one turn queues is one write.
 *
 * Errors: ps_http_create and ps_http_listen return negative errno from libuv (EADDRINUSE, EACCES;
 * EADDRNOTAVAIL also for a host that has no address).
 */

#include "common/base.h"
#include "common/buf.h"
#include "common/clock.h"

struct ps_http;     /* server on one loop */
struct ps_http_req; /* one request being read or answered */
struct ps_loop;     /* common/net/loop.h */

/* Of one server. n_conns_per_addr 0: no limit. */
struct ps_http_limits {
    uint32_t target_bytes, header_bytes, head_bytes, n_headers;
    uint64_t body_bytes;
    uint32_t n_conns, n_conns_per_addr;
    uint32_t out_soft_bytes, out_hard_bytes;
    uint32_t first_byte_ms, head_ms, body_base_ms, body_min_bytes_per_s, body_idle_ms;
    uint32_t idle_ms, write_stall_ms, linger_ms, linger_bytes;
};

/* What went wrong before the user saw the request; names follow the error table of the HTTP contract. */
enum ps_http_fault {
    PS_HTTP_BAD_REQUEST,    /* 400 bad_http_request */
    PS_HTTP_URI_TOO_LONG,   /* 414 */
    PS_HTTP_HEAD_TOO_LARGE, /* 431 */
    PS_HTTP_BODY_TOO_LARGE, /* 413 */
    PS_HTTP_VERSION,        /* 505 */
    PS_HTTP_TE_UNKNOWN,     /* 501 not_implemented */
    PS_HTTP_EXPECT,         /* 417 */
    PS_HTTP_TIMEOUT,        /* 408 client_timeout */
    PS_HTTP_OVERLOAD,       /* 503: too many connections */
};

/* A head that was read and is well formed. Strings are NUL-terminated and live as long as the request. */
struct ps_http_head {
    const char *method; /* "GET" */
    const char *target; /* as sent: path and query, authority removed */
    /* Percent-decoded and normalised: no //, no trailing / but for "/" itself, no dot segments. "" when
     * path_bad; the target itself for CONNECT and for "*". */
    const char *path;
    const char *query; /* after '?', "" when none */
    bool is_head;      /* the method was HEAD: the body is not sent, its length is */
    bool path_bad;     /* dot segments or bad percent escapes: answer 400 */
    bool http10;
    bool expects_continue;
    uint64_t content_length; /* UINT64_MAX when chunked; 0 when none */
    const char *peer;        /* numeric address */
};

struct ps_http_handler {
    /*
     * The head is complete. Return true to read the body (sends 100 Continue when expected; on_body
     * follows); false when the request was answered already in this call (a refusal): the body is
     * drained up to 64 KiB, else the connection closes.
     */
    bool (*on_head)(struct ps_http_req *r, const struct ps_http_head *h, void *ud);
    /* The whole body (may be empty), which stays where it is until the request ends. The user answers now
     * or later. */
    void (*on_body)(struct ps_http_req *r, const char *body, size_t len, void *ud);
    /*
     * The client went away (EOF, half-close, reset, write stall, output limit) before the answer was
     * complete, or its body was too slow, too large or malformed (on_fault follows then). r is dead
     * after this.
     */
    void (*on_gone)(struct ps_http_req *r, void *ud);
    /* Everything queued for a stream has been written after ps_http_pending exceeded the soft limit. */
    void (*on_drained)(struct ps_http_req *r, void *ud);
    /* Renders a transport fault: status and JSON body; headers are added by the server. */
    void (*on_fault)(enum ps_http_fault f, uint16_t *out_status, struct ps_buf *body, void *ud);
    /* May be NULL. Adds whole "name: value\r\n" lines to the answer to a fault. */
    void (*on_fault_headers)(struct ps_buf *lines, void *ud);
};

void ps_http_limits_default(struct ps_http_limits *l);
PS_MUST int ps_http_create(struct ps_http **out, struct ps_loop *loop,
                           const struct ps_http_limits *l, const struct ps_http_handler *h,
                           void *ud);
/* port 0 picks one; *out_port tells. reuse_port: several loops share the port. */
PS_MUST int ps_http_listen(struct ps_http *s, const char *host, uint16_t port, bool reuse_port,
                           uint16_t *out_port);
void ps_http_stop_listening(struct ps_http *s);
void ps_http_close_idle(struct ps_http *s); /* draining: idle keep-alive connections go */
void ps_http_set_closing(struct ps_http *s, bool closing); /* every answer says connection: close */
uint32_t ps_http_n_conns(const struct ps_http *s);
uint64_t ps_http_pending_bytes(const struct ps_http *s); /* output buffered over all connections */
/* Closes everything; on_gone is called for open requests. Not from a callback of this server. */
void ps_http_destroy(struct ps_http *s);

/* Request side. Header lookup by lower-case name; NULL when absent; the first one when repeated. */
const struct ps_http_head *ps_http_head(const struct ps_http_req *r);
const char *ps_http_header(const struct ps_http_req *r, const char *lower_name);
void ps_http_set_ud(struct ps_http_req *r, void *req_ud);
void *ps_http_ud(const struct ps_http_req *r);

/* Answers. Header names are given in lower case; extra is "name: value\r\n" lines or "". */
void ps_http_reply(struct ps_http_req *r, uint16_t status, const char *content_type,
                   const char *extra_headers, const void *body, size_t len, bool close);
/* A stream: head, then writes (each becomes one chunk, or raw bytes to an HTTP/1.0 client), then end. */
void ps_http_begin(struct ps_http_req *r, uint16_t status, const char *content_type,
                   const char *extra_headers);
void ps_http_write(struct ps_http_req *r, const void *p, size_t len);
/* p (may be NULL) and the terminating chunk leave in one write. r is dead after this. */
void ps_http_end(struct ps_http_req *r, const void *p, size_t len);
/* Cuts the connection without the terminating chunk, so that the client sees an incomplete body. r is dead. */
void ps_http_abort(struct ps_http_req *r);
size_t
ps_http_pending(const struct ps_http_req *r); /* bytes queued and not yet accepted by the kernel */
bool ps_http_begun(const struct ps_http_req *r);
