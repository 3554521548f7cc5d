#pragma once

/*
 * Both ends of the wire without a model: a scheduler that computes tokens by a hash of the request's
 * seed, on the real worker link, and a driver that dispatches on the real fleet and checks every token's
 * value and index, every total, and the order of events that fleet.h promises.
 *
 * Each writes what it holds open into a table in shared memory, where an observer compares them.
 */

#include <stdatomic.h>

#include "common/rng.h"
#include "router/fleet/fleet.h"
#include "worker/link.h"

enum {
    WIRE_VOCAB = 5000,
    WIRE_CONTEXT = 16384,
    WIRE_TABLE_SLOTS = 512,
    WIRE_OPEN_MAX = 200,    /* of one worker */
    WIRE_STREAMS_MAX = 256, /* of one driver */
};

struct wire_entry {
    uint64_t tag, req;
    uint32_t attempt;
    _Atomic uint32_t used;
};

struct wire_table {
    uint64_t tag;
    _Atomic uint64_t n_completed, n_wrong, n_lost, n_rejected, n_cancelled, n_tokens, n_open;
    _Atomic uint64_t fill[8];
    struct wire_entry entries[WIRE_TABLE_SLOTS];
};
_Static_assert(sizeof(struct wire_table) == 128 + 24 * WIRE_TABLE_SLOTS, "read by wire_test.py");

struct wire_table *
wire_table_open(const char *path); /* NULL: private memory; a file is empty or zeroed */
uint32_t wire_token(uint64_t seed, uint32_t i);

struct wire_worker;
struct wire_worker_conf {
    const char **routers;
    uint32_t n_routers;
    uint64_t uid;
    const char *inject, *secret_file, *server_key_file, *table_path;
    uint32_t step_us;
};

struct wire_worker *wire_worker_start(const struct wire_worker_conf *c);
/* Leaves politely; everything is asserted to be closed when `empty`. */
void wire_worker_stop(struct wire_worker *w, bool empty);
uint32_t wire_worker_n_joined(struct wire_worker *w);
bool wire_worker_idle(struct wire_worker *w); /* the link: nothing open, nothing unacknowledged */
bool wire_worker_drained(struct wire_worker *w);
struct wire_table *wire_worker_table(struct wire_worker *w);

struct wire_drive;
struct wire_drive_conf {
    uint16_t port;
    uint64_t seed;
    uint32_t n_streams, n_long; /* n_long of 1,000 requests take many seconds */
    const char *inject, *table_path, *secret_file, *allow_file;
};

struct wire_drive *wire_drive_start(const struct wire_drive_conf *c, struct ps_buf *err);
struct rt_fleet *wire_drive_fleet(struct wire_drive *d);
struct wire_table *wire_drive_table(struct wire_drive *d);
/* One turn: events, then new requests up to n_streams when `more`. Sleeps up to 5 ms. */
void wire_drive_turn(struct wire_drive *d, bool more);
uint32_t wire_drive_n_open(const struct wire_drive *d);
void wire_drive_describe(const struct wire_drive *d); /* open streams to stderr, for a stuck run */
uint32_t wire_drive_n_live(const struct wire_drive *d); /* workers that take requests */
/* True when no reservation is left on any worker. */
bool wire_drive_unreserved(const struct wire_drive *d);
void wire_drive_stop(struct wire_drive *d);
