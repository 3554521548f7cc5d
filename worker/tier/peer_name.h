#pragma once

/*
 * Where a peer is: "host:port", the host a number, a name, or a number in brackets.
 *
 * A number is known at once. A name is looked up in a thread of its own each time it is dialled,
 * because a peer that was started again may be elsewhere, and the resolver blocks for as long as it
 * likes. Belongs to one thread; no verb blocks, except wk_peer_name_listen.
 */

#include <sys/socket.h>

#include "common/base.h"

enum {
    WK_PEER_NAME_OK,
    WK_PEER_NAME_E_BAD,    /* not host:port */
    WK_PEER_NAME_E_WAIT,   /* lookup: not known yet, ask again */
    WK_PEER_NAME_E_ABSENT, /* no such name just now */
};

struct wk_peer_addr {
    struct sockaddr_storage sa;
    socklen_t len;
};

enum { WK_PEER_ADDR_TEXT = 72 };

struct wk_peer_name;

PS_MUST int wk_peer_name_create(struct wk_peer_name **out, const char *text); /* E_BAD */
/* A lookup that is under way ends by itself, later. */
void wk_peer_name_destroy(struct wk_peer_name *n); /* NULL is fine */
/* Can only ever be this host: a loopback number, or "localhost". */
bool wk_peer_name_is_loopback(const struct wk_peer_name *n);
/* Starts a lookup or looks at the one that is under way; names of several addresses take turns. */
PS_MUST int wk_peer_name_lookup(struct wk_peer_name *n, struct wk_peer_addr *out);
/* For a listener, at start: may block for a name. E_ABSENT. */
PS_MUST int wk_peer_name_listen(const struct wk_peer_name *n, struct wk_peer_addr *out);

bool wk_peer_addr_is_loopback(const struct wk_peer_addr *a);
/* "host:port"; out has WK_PEER_ADDR_TEXT bytes. */
const char *wk_peer_addr_text(const struct wk_peer_addr *a, char *out);
