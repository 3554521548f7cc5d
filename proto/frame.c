#include "proto/frame.h"

#include <string.h>

enum { MAGIC = 0x5350 }; /* "PS" */

static void store_u16(uint8_t *p, uint16_t v)
{
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}

static void store_u32(uint8_t *p, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> (8 * i));
}

static void store_u64(uint8_t *p, uint64_t v)
{
    for (int i = 0; i < 8; i++)
        p[i] = (uint8_t)(v >> (8 * i));
}

static uint16_t load_u16(const uint8_t *p)
{
    return (uint16_t)(p[0] | (p[1] << 8));
}

uint32_t pb_load_u32(const uint8_t *p)
{
    return (uint32_t)p[0] | ((uint32_t)p[1] << 8) | ((uint32_t)p[2] << 16) | ((uint32_t)p[3] << 24);
}

uint64_t pb_load_u64(const uint8_t *p)
{
    return (uint64_t)pb_load_u32(p) | ((uint64_t)pb_load_u32(p + 4) << 32);
}

size_t pb_frame_begin(struct ps_buf *b, const struct pb_head *h)
{
    size_t at = b->len;
    uint8_t *p = (uint8_t *)ps_buf_grow(b, PB_HEAD_BYTES);

    store_u16(p, MAGIC);
    p[2] = PB_VERSION;
    p[3] = h->kind;
    store_u16(p + 4, 0);
    store_u16(p + 6, 0);
    store_u32(p + 8, h->epoch);
    store_u32(p + 12, h->seq);
    store_u64(p + 16, h->rinc);
    store_u64(p + 24, h->winc);
    return at;
}

void pb_frame_end_head(struct ps_buf *b, size_t at)
{
    size_t n = b->len - at - PB_HEAD_BYTES;

    PS_ASSERT(b->len >= at + PB_HEAD_BYTES && n <= UINT16_MAX);
    store_u16((uint8_t *)b->data + at + 6, (uint16_t)n);
}

int pb_frame_split(const uint8_t *data, size_t len, struct pb_head *out_head, struct pb_raw *out_pb,
                   struct pb_raw *out_raw)
{
    size_t n_pb;

    if (len < PB_HEAD_BYTES || len > PB_FRAME_MAX)
        return PB_FRAME_E_BAD;
    if (load_u16(data) != MAGIC || data[2] != PB_VERSION || load_u16(data + 4) != 0)
        return PB_FRAME_E_BAD;
    n_pb = load_u16(data + 6);
    if (n_pb > len - PB_HEAD_BYTES)
        return PB_FRAME_E_BAD;
    out_head->kind = data[3];
    out_head->epoch = pb_load_u32(data + 8);
    out_head->seq = pb_load_u32(data + 12);
    out_head->rinc = pb_load_u64(data + 16);
    out_head->winc = pb_load_u64(data + 24);
    *out_pb = (struct pb_raw){data + PB_HEAD_BYTES, n_pb};
    *out_raw = (struct pb_raw){data + PB_HEAD_BYTES + n_pb, len - PB_HEAD_BYTES - n_pb};
    return PB_FRAME_OK;
}

bool pb_raw_skip(struct pb_raw *r, uint64_t n_items, size_t item_bytes, const uint8_t **out)
{
    if (n_items > r->left / item_bytes)
        return false;
    *out = r->p;
    r->p += n_items * item_bytes;
    r->left -= n_items * item_bytes;
    return true;
}

bool pb_raw_u32(struct pb_raw *r, uint32_t *out)
{
    const uint8_t *p;

    if (!pb_raw_skip(r, 1, 4, &p))
        return false;
    *out = pb_load_u32(p);
    return true;
}

bool pb_raw_f32(struct pb_raw *r, float *out)
{
    uint32_t bits;

    if (!pb_raw_u32(r, &bits))
        return false;
    memcpy(out, &bits, sizeof(*out));
    return true;
}

bool pb_raw_u32s(struct pb_raw *r, uint32_t *out, uint32_t n)
{
    const uint8_t *p;

    if (!pb_raw_skip(r, n, 4, &p))
        return false;
    for (uint32_t i = 0; i < n; i++)
        out[i] = pb_load_u32(p + 4 * (size_t)i);
    return true;
}

bool pb_raw_f32s(struct pb_raw *r, float *out, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        if (!pb_raw_f32(r, &out[i]))
            return false;
    }
    return true;
}

void pb_add_u32s(struct ps_buf *b, const uint32_t *v, uint32_t n)
{
    uint8_t *p = (uint8_t *)ps_buf_grow(b, 4 * (size_t)n);

    for (uint32_t i = 0; i < n; i++)
        store_u32(p + 4 * (size_t)i, v[i]);
}

void pb_add_f32(struct ps_buf *b, float v)
{
    uint32_t bits;

    memcpy(&bits, &v, sizeof(bits));
    ps_buf_add_u32(b, bits);
}
