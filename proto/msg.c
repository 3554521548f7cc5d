#include "proto/msg.h"

#include <string.h>

#include "common/hash.h"
#include "proto/msg_internal.h"

static void *cap_alloc(void *ud, size_t n_bytes)
{
    struct pb_cap *cap = ud;

    if (n_bytes > cap->left)
        return NULL;
    cap->left -= n_bytes;
    return ps_alloc(n_bytes);
}

static void cap_free(void *ud, void *p)
{
    (void)ud;
    ps_free(p);
}

void pb_cap_init(ProtobufCAllocator *a, struct pb_cap *cap, size_t frame_bytes)
{
    PS_ASSERT(frame_bytes <= PB_FRAME_MAX);
    cap->left = 8 * frame_bytes + (64 << 10);
    *a = (ProtobufCAllocator){cap_alloc, cap_free, cap};
}

void pb_pack_add(struct ps_buf *out, const struct pb_head *h, const ProtobufCMessage *m)
{
    size_t at = pb_frame_begin(out, h);
    size_t n = protobuf_c_message_get_packed_size(m);

    protobuf_c_message_pack(m, (uint8_t *)ps_buf_grow(out, n));
    pb_frame_end_head(out, at);
}

/* Of cluster.proto, which has no raw arrays; the others are of generate.proto. */
static bool is_cluster_kind(uint8_t kind)
{
    switch (kind) {
    case PB_HELLO:
    case PB_WELCOME:
    case PB_WHO:
    case PB_BYE:
    case PB_BEAT:
    case PB_ADMIN:
    case PB_ADMIN_REPLY:
        return true;
    default:
        return false;
    }
}

int pb_msg_peek(const uint8_t *data, size_t len, struct pb_head *out)
{
    struct pb_raw pb, raw;

    return pb_frame_split(data, len, out, &pb, &raw) == PB_FRAME_OK ? PB_MSG_OK : PB_MSG_E_BAD;
}

int pb_msg_decode(const uint8_t *data, size_t len, struct pb_msg *out)
{
    struct pb_raw pb, raw;
    ProtobufCAllocator a;
    struct pb_cap cap;
    struct pb_msg m;
    int r;

    memset(&m, 0, sizeof(m));
    if (pb_frame_split(data, len, &m.head, &pb, &raw) != PB_FRAME_OK)
        return PB_MSG_E_BAD;
    pb_cap_init(&a, &cap, len);
    if (!is_cluster_kind(m.head.kind))
        r = pb_generate_decode(&pb, &raw, &a, &m);
    else
        r = raw.left == 0 ? pb_cluster_decode(&pb, &a, &m) : PB_MSG_E_BAD;
    if (r != PB_MSG_OK)
        return r;
    *out = m;
    return PB_MSG_OK;
}

void pb_msg_fini(struct pb_msg *m)
{
    if (m->head.kind == PB_SUBMIT) {
        pb_submit_destroy(m->submit);
        m->submit = NULL;
    }
}

void pb_msg_encode(struct ps_buf *out, const struct pb_msg *m)
{
    if (is_cluster_kind(m->head.kind))
        pb_cluster_encode(out, m);
    else
        pb_generate_encode(out, m);
}

uint64_t pb_digest_id(uint64_t req, uint32_t attempt)
{
    return ps_hash64(&req, sizeof(req), attempt);
}

uint64_t pb_digest_n(uint64_t req, uint32_t attempt, uint32_t n_sent)
{
    return ps_hash64(&req, sizeof(req), ((uint64_t)attempt << 32) | n_sent);
}
