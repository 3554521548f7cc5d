#pragma once

/* Shared by the codec's files: the bounded allocator and the packing of one protobuf message. */

#include <protobuf-c/protobuf-c.h>

#include "common/buf.h"
#include "proto/msg.h"

struct pb_cap { /* bytes that one unpack may still allocate */
    size_t left;
};

void pb_cap_init(ProtobufCAllocator *a, struct pb_cap *cap, size_t frame_bytes);
void pb_pack_add(struct ps_buf *out, const struct pb_head *h, const ProtobufCMessage *m);

PS_MUST int pb_cluster_decode(const struct pb_raw *pb, ProtobufCAllocator *a, struct pb_msg *out);
void pb_cluster_encode(struct ps_buf *out, const struct pb_msg *m);
PS_MUST int pb_beat_decode(const struct pb_raw *pb, ProtobufCAllocator *a, struct pb_beat *out);
void pb_beat_encode(struct ps_buf *out, const struct pb_head *h, const struct pb_beat *b);
PS_MUST int pb_generate_decode(const struct pb_raw *pb, struct pb_raw *raw, ProtobufCAllocator *a,
                               struct pb_msg *out);
void pb_generate_encode(struct ps_buf *out, const struct pb_msg *m);
PS_MUST int pb_submit_decode(const struct pb_raw *pb, struct pb_raw *raw, ProtobufCAllocator *a,
                             struct pb_submit **out);
void pb_submit_encode(struct ps_buf *out, const struct pb_head *h, const struct pb_submit *s);
