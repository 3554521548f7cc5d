#pragma once

/*
 * A small blocking HTTP/1.1 client for the terminal: one request a connection, bounded waits.
 */

#include "common/base.h"
#include "common/buf.h"

struct cli_url {
    char host[256];
    char port[8];
};

enum {
    CLI_OK,
    CLI_E_URL,     /* not http://host[:port] */
    CLI_E_CONNECT, /* nobody listens there */
    CLI_E_ANSWER,  /* the answer broke off or is not HTTP */
    CLI_E_STOPPED, /* on_data returned false */
};

PS_MUST int cli_url_parse(struct cli_url *out, const char *url);
/*
 * Sends a request (body NULL: GET) and reads the whole answer. on_data (may be NULL) gets body bytes as
 * they come, chunking removed; otherwise they are appended to out. *out_status is the HTTP status.
 */
PS_MUST int cli_request(const struct cli_url *u, const char *path, const char *api_key,
                        const char *body, size_t body_len, int timeout_s, uint32_t *out_status,
                        struct ps_buf *out, bool (*on_data)(const char *p, size_t n, void *ud),
                        void *ud);
