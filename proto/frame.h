#pragma once

/*
 * One frame = 32-byte header, protobuf, raw little-endian arrays; one part of a ZeroMQ message.
 *
 *   0 magic u16 | 2 version u8 | 3 kind u8 | 4 flags u16 | 6 protobuf bytes u16
 *   8 epoch u32 | 12 seq u32 | 16 router incarnation u64 | 24 worker incarnation u64
 *
 * The epoch names one link between two incarnations; both sides drop frames whose three numbers are
 * not current, Hello, Welcome and Who excepted. seq counts the frames that one side sent within the
 * epoch: a delayed frame is known by it. Flags are zero; a frame with a flag that this version does
 * not know is refused. Arrays are never protobuf repeated fields, so 16 bits hold every message.
 *
 * Pure functions, any thread. Nothing here trusts a length.
 */

#include "common/base.h"
#include "common/buf.h"

enum {
    PB_HEAD_BYTES = 32,
    PB_FRAME_MAX = 64 << 20, /* what sockets take (ZMQ_MAXMSGSIZE) */
    PB_SEND_MAX =
        PB_FRAME_MAX - 4096, /* what senders make: above it the peer cuts the connection */
    PB_VERSION = 1,
};

enum pb_kind {
    PB_HELLO = 1,
    PB_WELCOME = 2,
    PB_WHO = 3,
    PB_BYE = 4,
    PB_BEAT = 5,
    PB_SUBMIT = 8,
    PB_ACCEPT = 9,
    PB_REJECT = 10,
    PB_TOKENS = 11,
    PB_FINISHED = 12,
    PB_FINACK = 13,
    PB_CANCEL = 14,
    PB_RESEND = 15,
    PB_OPENLIST = 16,
    PB_OPENQUERY = 17,
    PB_ADMIN = 24,
    PB_ADMIN_REPLY = 25,
    /* 26 Abort, 27 Lookup and, for the kv channel, 32 KvEvents, 33 Replay, 34 Snapshot, 35 Digest,
     * 36 FetchGrant are reserved: numbers are never given a second meaning. */
};

struct pb_head {
    uint8_t kind;
    uint32_t epoch, seq;
    uint64_t rinc, winc;
};

struct pb_raw { /* reads forward; each get fails instead of passing the end */
    const uint8_t *p;
    size_t left;
};

enum {
    PB_FRAME_OK,
    PB_FRAME_E_BAD, /* not a frame of this version */
};

/* Appends a header to b and returns its offset; pb_frame_end_head stores the protobuf's length. */
size_t pb_frame_begin(struct ps_buf *b, const struct pb_head *h);
void pb_frame_end_head(struct ps_buf *b, size_t at);
/* Splits a frame; pb and raw point into data. */
PS_MUST int pb_frame_split(const uint8_t *data, size_t len, struct pb_head *out_head,
                           struct pb_raw *out_pb, struct pb_raw *out_raw);

uint32_t pb_load_u32(const uint8_t *p);
uint64_t pb_load_u64(const uint8_t *p);
bool pb_raw_u32(struct pb_raw *r, uint32_t *out);
bool pb_raw_f32(struct pb_raw *r, float *out);
bool pb_raw_skip(struct pb_raw *r, uint64_t n_items, size_t item_bytes, const uint8_t **out);
bool pb_raw_u32s(struct pb_raw *r, uint32_t *out, uint32_t n);
bool pb_raw_f32s(struct pb_raw *r, float *out, uint32_t n);
void pb_add_u32s(struct ps_buf *b, const uint32_t *v, uint32_t n);
void pb_add_f32(struct ps_buf *b, float v);
