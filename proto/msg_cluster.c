#include <string.h>

#include "proto/cluster.pb-c.h"
#include "proto/msg_internal.h"

/* Copies a bounded string that will be logged and served: no control characters, no cut. */
static bool take_text(char *dst, size_t size, const char *src)
{
    size_t n = strlen(src);

    if (n >= size)
        return false;
    for (size_t i = 0; i < n; i++) {
        if ((unsigned char)src[i] < 0x20 || src[i] == 0x7f || src[i] == '"')
            return false;
    }
    memcpy(dst, src, n + 1);
    return true;
}

static int take_hello(const Penstock__Hello *p, struct pb_hello *h)
{
    struct pb_worker_info *w = &h->info;

    h->nonce = p->nonce;
    w->uid = p->uid;
    w->incarnation = p->incarnation;
    w->space_id = p->space_id;
    w->arith_id = p->arith_id;
    if (p->tokenizer_digest.len != sizeof(w->tokenizer_digest))
        return PB_MSG_E_BAD;
    memcpy(w->tokenizer_digest, p->tokenizer_digest.data, sizeof(w->tokenizer_digest));
    if (!take_text(w->model, sizeof(w->model), p->model) ||
        !take_text(w->device, sizeof(w->device), p->device) ||
        !take_text(w->dtype, sizeof(w->dtype), p->dtype))
        return PB_MSG_E_BAD;
    w->context = p->context;
    w->n_vocab = p->n_vocab;
    w->page_tokens = p->page_tokens;
    w->stride_tokens = p->stride_tokens;
    w->n_slots = p->n_slots;
    w->kv_pages_total = p->kv_pages_total;
    w->max_waiting = p->max_waiting;
    w->exact = p->exact;
    if (h->nonce == 0 || w->uid == 0 || w->incarnation == 0 || w->context == 0 || w->n_vocab == 0)
        return PB_MSG_E_BAD;
    return PB_MSG_OK;
}

static int decode_hello(const struct pb_raw *pb, ProtobufCAllocator *a, struct pb_msg *m)
{
    Penstock__Hello *p = penstock__hello__unpack(a, pb->left, pb->p);
    int r;

    if (p == NULL)
        return PB_MSG_E_BAD;
    r = take_hello(p, &m->hello);
    penstock__hello__free_unpacked(p, a);
    return r;
}

static int decode_admin(const struct pb_raw *pb, ProtobufCAllocator *a, struct pb_msg *m)
{
    Penstock__Admin *p = penstock__admin__unpack(a, pb->left, pb->p);
    int r = PB_MSG_E_BAD;

    if (p == NULL)
        return PB_MSG_E_BAD;
    if (p->op >= PENSTOCK__ADMIN__OP__DRAIN && p->op <= PENSTOCK__ADMIN__OP__FLUSH) {
        m->admin = (struct pb_admin){p->id, (enum pb_admin_op)p->op};
        r = PB_MSG_OK;
    }
    penstock__admin__free_unpacked(p, a);
    return r;
}

static int decode_small(const struct pb_raw *pb, ProtobufCAllocator *a, struct pb_msg *m)
{
    if (m->head.kind == PB_WELCOME) {
        Penstock__Welcome *p = penstock__welcome__unpack(a, pb->left, pb->p);

        if (p == NULL)
            return PB_MSG_E_BAD;
        m->welcome = (struct pb_welcome){p->nonce, p->interval_ms};
        penstock__welcome__free_unpacked(p, a);
    } else if (m->head.kind == PB_WHO) {
        Penstock__Who *p = penstock__who__unpack(a, pb->left, pb->p);

        if (p == NULL)
            return PB_MSG_E_BAD;
        m->echo_epoch = p->echo_epoch;
        penstock__who__free_unpacked(p, a);
    } else if (m->head.kind == PB_ADMIN_REPLY) {
        Penstock__AdminReply *p = penstock__admin_reply__unpack(a, pb->left, pb->p);

        if (p == NULL)
            return PB_MSG_E_BAD;
        m->admin = (struct pb_admin){.id = p->id};
        penstock__admin_reply__free_unpacked(p, a);
    } else {
        Penstock__Bye *p = penstock__bye__unpack(a, pb->left, pb->p);

        PS_ASSERT(m->head.kind == PB_BYE);
        if (p == NULL)
            return PB_MSG_E_BAD;
        penstock__bye__free_unpacked(p, a);
    }
    return PB_MSG_OK;
}

int pb_cluster_decode(const struct pb_raw *pb, ProtobufCAllocator *a, struct pb_msg *out)
{
    switch (out->head.kind) {
    case PB_HELLO:
        return decode_hello(pb, a, out);
    case PB_BEAT:
        return pb_beat_decode(pb, a, &out->beat);
    case PB_ADMIN:
        return decode_admin(pb, a, out);
    default:
        return decode_small(pb, a, out);
    }
}

/* The generated structs hold pointers to non-const text; packing only reads it. */
static void encode_hello(struct ps_buf *out, const struct pb_msg *m)
{
    struct pb_worker_info w = m->hello.info;
    Penstock__Hello p = PENSTOCK__HELLO__INIT;

    p.nonce = m->hello.nonce;
    p.uid = w.uid;
    p.incarnation = w.incarnation;
    p.space_id = w.space_id;
    p.arith_id = w.arith_id;
    p.tokenizer_digest.data = w.tokenizer_digest;
    p.tokenizer_digest.len = sizeof(w.tokenizer_digest);
    p.model = w.model;
    p.device = w.device;
    p.dtype = w.dtype;
    p.context = w.context;
    p.n_vocab = w.n_vocab;
    p.page_tokens = w.page_tokens;
    p.stride_tokens = w.stride_tokens;
    p.n_slots = w.n_slots;
    p.kv_pages_total = w.kv_pages_total;
    p.max_waiting = w.max_waiting;
    p.exact = w.exact;
    pb_pack_add(out, &m->head, &p.base);
}

static void encode_admin(struct ps_buf *out, const struct pb_msg *m)
{
    Penstock__Admin p = PENSTOCK__ADMIN__INIT;
    Penstock__AdminReply q = PENSTOCK__ADMIN_REPLY__INIT;

    p.id = q.id = m->admin.id;
    p.op = (Penstock__Admin__Op)m->admin.op;
    pb_pack_add(out, &m->head, m->head.kind == PB_ADMIN ? &p.base : &q.base);
}

void pb_cluster_encode(struct ps_buf *out, const struct pb_msg *m)
{
    Penstock__Welcome welcome = PENSTOCK__WELCOME__INIT;
    Penstock__Who who = PENSTOCK__WHO__INIT;
    Penstock__Bye bye = PENSTOCK__BYE__INIT;

    switch (m->head.kind) {
    case PB_HELLO:
        encode_hello(out, m);
        break;
    case PB_BEAT:
        pb_beat_encode(out, &m->head, &m->beat);
        break;
    case PB_WELCOME:
        welcome.nonce = m->welcome.nonce;
        welcome.interval_ms = m->welcome.interval_ms;
        pb_pack_add(out, &m->head, &welcome.base);
        break;
    case PB_WHO:
        who.echo_epoch = m->echo_epoch;
        pb_pack_add(out, &m->head, &who.base);
        break;
    case PB_BYE:
        pb_pack_add(out, &m->head, &bye.base);
        break;
    default:
        encode_admin(out, m);
        break;
    }
}
