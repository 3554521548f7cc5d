#pragma once

/*
 * Private to common/net: a server, its listeners, its connections.
 *
 * Life of a connection. The only writer of state is ps_conn_goto().
 *
 *            +--------------------------- answered, keep-alive -----------+
 *            v                                                            |
 *   (new) -> HEAD --head--> BODY --body--> BUSY --------------------------+
 *            | ^             |  answered early            | connection: close
 *            | +-- drained --+--> DRAIN                   |
 *            |                      |                     v
 *            +------- fault --------+----------------> LINGER --> DEAD --> freed by libuv's close
 *
 *   HEAD   reading a head, or idle: nothing of it has come
 *   BODY   the request is open, its body is read
 *   BUSY   the request is open, its body was handed up; further input waits in `in`, up to PIPE_BYTES
 *   DRAIN  answered, the rest of the body is read and thrown away
 *   LINGER nothing is read for its meaning any more: output goes out, then FIN, then EOF or a limit
 *   DEAD   the handle is closing; no callback of the user comes any more
 *
 * Any state may go to DEAD. Closing a connection with an open request calls on_gone first.
 */

#include <uv.h>

#include "common/map.h"
#include "common/net/parse.h"
#include "common/net/turn.h"
#include "common/net/wheel.h"

enum {
    PS_PIPE_BYTES = 64 * 1024,  /* input kept while an answer is made */
    PS_DRAIN_BYTES = 64 * 1024, /* body thrown away to keep a connection after an early answer */
    PS_READ_BYTES = 64 * 1024,  /* one read */
    PS_KEEP_CAP = 4 * 1024,     /* buffers larger than this are given back when they are empty */
    PS_REFUSED_MAX = 64,        /* connections over the limit that are told so; the rest is cut */
};

enum ps_conn_state {
    PS_CONN_HEAD,
    PS_CONN_BODY,
    PS_CONN_BUSY,
    PS_CONN_DRAIN,
    PS_CONN_LINGER,
    PS_CONN_DEAD,
};

struct ps_conn {
    struct ps_http *srv;
    struct ps_conn *prev, *next; /* all of a server */
    uv_tcp_t tcp;
    uv_write_t write;
    struct ps_wheel_node timer;

    enum ps_conn_state state;
    struct ps_http_req *req; /* the open one, in BODY and BUSY */
    struct ps_scan scan;
    struct ps_body body;
    struct ps_buf in;     /* input that waits: part of a head, or the next request */
    struct ps_buf out;    /* output to be written at the end of the turn */
    struct ps_buf flight; /* output libuv is writing */
    uint64_t addr_key;
    char peer[46];

    /* Times of the loop, ms; what they start depends on the state, see ps_conn_due(). */
    uint64_t since_ms;    /* the state began; in HEAD: the first byte came */
    uint64_t progress_ms; /* input of a body */
    uint64_t stall_ms;    /* output moved */
    size_t stall_bytes;   /* what libuv still held then */
    uint64_t body_bytes;  /* body read so far */
    uint64_t discarded;   /* input thrown away in LINGER */

    struct ps_conn *next_mark, *next_resume;
    bool marked; /* on the list of connections that have output or news for the end of the turn */
    bool on_resume; /* on the list of those that go on reading at the start of the next turn */
    bool reading;
    bool had_request; /* a request was read: idle, not a first byte, is what it waits for */
    bool writing;     /* flight is under way */
    bool over_soft;   /* output passed the soft limit: on_drained is owed */
    bool doomed;      /* to be cut with a reset at the start of the next turn */
    bool close_after; /* HEAD with output left: close when it is out */
    bool eof, fin;    /* theirs seen, ours sent */
    bool refused;     /* over a connection limit */
    bool keep;        /* the answer being made leaves the connection open */
    bool running;     /* input is being read: an answer need not ask for a resume */
    bool graced;      /* its time was up, but input was waiting */
    bool closed;      /* libuv is done with it: freed when no list holds it */
};

struct ps_listener {
    uv_tcp_t tcp;
    struct ps_http *srv;
    struct ps_listener *next;
};

struct ps_http {
    struct ps_loop *loop;
    struct ps_http_limits limits;
    struct ps_http_handler on;
    void *ud;
    struct ps_turn turn;
    struct ps_wheel wheel;
    struct ps_listener *listeners;
    struct ps_conn *conns; /* newest first */
    uint32_t n_conns, n_refused;
    uint32_t n_handles;  /* libuv still knows them; the server's memory lives as long */
    struct ps_map addrs; /* ps_conn.addr_key -> open connections */
    struct ps_conn *marked, *resume;
    struct ps_http_req *dead_reqs;
    bool closing, destroyed;
    uint64_t date_s;
    char date[32];
    char *read_buf;
};

/* conn.c: life and input */
void ps_conn_start(struct ps_conn *c);
void ps_conn_goto(struct ps_conn *c, enum ps_conn_state to);
void ps_conn_close(struct ps_conn *c, bool reset); /* on_gone if a request is open */
void ps_conn_resume(struct ps_conn *c);            /* goes on with input that waits */
void ps_conn_drop_req(struct ps_conn *c);          /* it is over: freed at the end of the turn */
void ps_conn_lose_req(struct ps_conn *c);          /* the same, and the user hears on_gone */
void ps_conn_hear_eof(struct ps_conn *c);
bool ps_conn_blocked(const struct ps_conn *c); /* input waits for output, or for the answer */
void ps_conn_release(struct ps_conn *c);       /* frees it unless a list or libuv holds it */

/* wait.c: time */
void ps_conn_arm(struct ps_conn *c);
void ps_conn_on_timer(struct ps_wheel_node *n, void *ud);

/* write.c: output */
void ps_conn_mark(struct ps_conn *c); /* look at it at the end of the turn */
void ps_conn_flush(struct ps_conn *c);
size_t ps_conn_pending(const struct ps_conn *c);

/* reply.c */
void ps_conn_fault(struct ps_conn *c, enum ps_http_fault f); /* answer, then LINGER */

/* listener.c */
void ps_listener_close(struct ps_listener *l);
void ps_addr_drop(struct ps_conn *c); /* it no longer counts */

/* http.c */
void ps_http_mark_resume(struct ps_conn *c);
void ps_http_handle_closed(struct ps_http *s);
const char *ps_http_date(struct ps_http *s);
uint64_t ps_http_now_ms(const struct ps_http *s);
