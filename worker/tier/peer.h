#pragma once

/*
 * Peers: items of other workers, over plain TCP.
 *
 * One thread per process serves and pulls (poll loop, non-blocking sockets). A peer is asked which
 * leading keys of a path it has, then for their bytes, in pieces of up to 2 MiB with a checksum per
 * item. Both sides prove that they know the cluster's secret before anything else is said; without
 * a secret only loopback addresses are served and dialled. Blocks move only between equal space_id,
 * arith_id, layout, codec.
 *
 * The serving side reads items out of its own store: it asks the scheduler (serve below) to lend
 * buffers of T1, because only that thread may look at the tree.
 */

#include "common/buf.h"
#include "worker/tier/tier.h"

struct wk_peers; /* the thread, its sockets, the serving side */

/* A peer wants these keys. The peers' thread posts it to the inbox given below; the store fills
 * n_found and bufs and calls wk_peers_answer; when the bytes are sent, the same request comes back
 * through the same inbox with is_over set, and the store lets go of the buffers. */
struct wk_peer_ask {
    struct wk_tier_io io; /* GET or FIND; io.part[i].key filled; ud: the store's */
    bool is_over;
    bool wants_bytes;
    void *conn; /* the thread's */
};

struct wk_peers_conf {
    const char *listen;      /* "": serve nobody; "host:port", port 0: any free one */
    const char *secret_file; /* "": loopback only */
    struct wk_tier_ident ident;
    struct wk_tier_inbox *inbox; /* ends of our own ios */
    struct wk_tier_inbox *asks;  /* wk_peer_ask.io of others, both ways as said above */
    const struct ps_clock *clock;
    bool no_thread; /* tests: wk_peers_pump */
};

PS_MUST int wk_peers_create(struct wk_peers **out, const struct wk_peers_conf *conf,
                            struct ps_buf *err);
const char *wk_peers_address(const struct wk_peers *p); /* "127.0.0.1:41234", "" */
/* The store has looked: ask->io.n_found leading parts have their buf set (wants_bytes) or are known. */
void wk_peers_answer(struct wk_peers *p, struct wk_peer_ask *ask);
/* The store is done with a request that is over. Also with one that it took and has not answered when
 * the peers are destroyed: that one does not come back. */
void wk_peers_ask_free(struct wk_peer_ask *ask);
/* A tier that is this peer: FIND and GET. It dials when first needed, again after a pause when lost. */
PS_MUST int wk_tier_peer_create(struct wk_tier **out, struct wk_peers *p, const char *address,
                                struct ps_buf *err);
/* Without a thread: one turn; returns how many ios and asks it posted. Waits for the network only when
 * there is nothing else to do. */
uint32_t wk_peers_pump(struct wk_peers *p, uint32_t wait_ms);
/* After every tier of it is closed, on the thread that takes from asks. E_BUSY is not possible: sockets
 * are closed, buffers come back. Then only requests that are over are left in asks; answer none. */
void wk_peers_destroy(struct wk_peers *p); /* NULL is fine */
