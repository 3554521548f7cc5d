#pragma once

/*
 * Reader of HTTP/1.1 answers, one after the other on a connection: head, body framing, SSE events.
 *
 * Owned by one thread; push never blocks and calls `event` once per SSE event with its joined data
 * lines (valid during the call). Bytes may be cut anywhere. Every line, head and event has a limit;
 * beyond it, and for anything that is not HTTP, push says E_BAD and the reader is of no more use
 * before the next start. A body that is no event stream is kept up to BN_TEXT_MAX bytes, for messages.
 */

#include "common/base.h"
#include "common/buf.h"

enum {
    BN_READER_OK,
    BN_READER_E_BAD, /* no HTTP/1.1, over a limit, or bytes behind the answer's end */
};

enum {
    BN_HEAD_MAX = 64 << 10,
    BN_EVENT_MAX = 64 << 20, /* an event may repeat the ids of a prompt of millions of tokens */
    BN_TEXT_MAX = 4 << 10,
};

enum bn_reader_state {
    BN_READ_STATUS,
    BN_READ_HEADER,
    BN_READ_SIZE, /* of the next chunk */
    BN_READ_CHUNK,
    BN_READ_CHUNK_END,
    BN_READ_TRAILER,
    BN_READ_LENGTH, /* content-length */
    BN_READ_CLOSE,  /* body ends with the connection */
    BN_READ_DONE,
    BN_READ_BAD,
};

typedef void (*bn_event_fn)(const char *data, size_t len, void *ud);

struct bn_reader {
    enum bn_reader_state state;
    uint16_t status; /* 0 before the status line came */
    bool chunked, has_length, sse;
    bool close; /* no further answer on this connection */
    uint64_t left;
    size_t n_head;
    struct ps_buf line, sse_line, event; /* what was cut */
    struct ps_buf text;                  /* the start of a body that is no event stream */
    bool has_data;
    bn_event_fn fn;
    void *ud;
};

void bn_reader_init(struct bn_reader *r, bn_event_fn fn, void *ud);
void bn_reader_fini(struct bn_reader *r);
void bn_reader_start(struct bn_reader *r); /* a new answer is awaited */
PS_MUST int bn_reader_push(struct bn_reader *r, const char *data, size_t len);
/* The peer closed: true when the answer is whole. */
bool bn_reader_end(struct bn_reader *r);
