#pragma once

/*
 * The client core: thousands of completion streams on one thread, by epoll and non-blocking sockets.
 *
 * Owned by one thread; only bn_client_poll waits. It talks to the addresses it was given and to no
 * other: names are not resolved, redirects not followed. Connections are kept and used again, the
 * last used first; a kept one that the server closed before a byte of the answer came is opened anew
 * once. A call has a deadline, and every call that was taken ends by `done` exactly once, except
 * those that destroy drops.
 *
 * Every SSE event gets the time at which its bytes were read. At its end a call is checked: what the
 * usage counts and the ids that came must equal what was asked, else the call has an error.
 */

#include "bench/load/sample.h"
#include "common/base.h"
#include "common/buf.h"

enum {
    BN_CLIENT_OK,
    BN_CLIENT_E_FULL,    /* as many calls run as the client may have */
    BN_CLIENT_E_ADDRESS, /* not HOST:PORT with a numeric IPv4 host or localhost */
    BN_CLIENT_E_FILES,   /* the process may not open that many connections */
};

enum { BN_TARGETS_MAX = 64, BN_STREAMS_MAX = 1 << 16 };

enum bn_error {
    BN_OK,
    BN_ERR_CONNECT, /* no connection */
    BN_ERR_CLOSED,  /* the connection ended before the answer did */
    BN_ERR_TIMEOUT,
    BN_ERR_HTTP_4XX,
    BN_ERR_HTTP_5XX,
    BN_ERR_STREAM,    /* an error told inside the stream */
    BN_ERR_MALFORMED, /* neither HTTP nor a completion stream */
    BN_ERR_COUNT,     /* other token counts than asked for */
    BN_N_ERRORS,
};

struct bn_call {
    /* asked: filled by the owner */
    struct ps_buf body; /* JSON, kept by the owner until done */
    uint32_t n_prompt, n_output;
    bool with_ids;
    uint64_t from_us;       /* times count from here: when the request was due */
    uint32_t *ids;          /* room for n_output, or NULL */
    struct bn_sample *gaps; /* gets the time between two events with tokens; or NULL */
    void *ud;
    /* found */
    enum bn_error error;
    uint16_t status;
    char said[160];                     /* what the server, or the check, says of the error */
    uint64_t first_us, last_us, end_us; /* first and last event with tokens, end of the answer */
    uint64_t n_cached;
    uint32_t n_ids, n_events;
    /* the client's own */
    uint64_t n_prompt_told, n_output_told;
    bool has_usage, has_done;
    char finish[16];
};

typedef void (*bn_done_fn)(struct bn_call *call, void *ud);

struct bn_client_conf {
    const char *const *targets; /* HOST:PORT; calls go to them in turn */
    uint32_t n_targets, n_streams_max;
    uint64_t timeout_us; /* of a call */
    const char *api_key; /* "" for none */
    bn_done_fn done;     /* may send the next call */
    void *ud;
};

struct bn_client;

PS_MUST int bn_client_create(struct bn_client **out, const struct bn_client_conf *conf);
void bn_client_destroy(struct bn_client *c); /* NULL is fine */
PS_MUST int bn_client_send(struct bn_client *c, struct bn_call *call);
/* Waits until something happened, at most wait_us; 0 or a negative errno of epoll. */
PS_MUST int bn_client_poll(struct bn_client *c, uint64_t wait_us);
uint32_t bn_client_n_running(const struct bn_client *c);
uint64_t bn_now_us(void); /* the clock of all times above */
const char *bn_error_name(enum bn_error e);
