#include "worker/kv/format.h"

#include <string.h>

#include "common/hash.h"
#include "worker/kv/codec_fp8.h"
#include "worker/kv/codec_tq4.h"

enum {
    SUB_ALIGN = 16,    /* codes and scales begin where vectors can be loaded */
    ITEM_ALIGN = 4096, /* whole blocks of direct I/O */
    LOSSY_GROUP = 0,   /* rows of tokens; ring and state groups stay raw */
    PACKING_VERSION = 1,
};

/* One layer of one component: a span of the item and what became of it. Both are in rising order. */
struct part {
    uint32_t item_off, item_bytes, at, n_bytes;
    uint32_t layer, n_head, n_row, d; /* n_head 0: copied as it is */
    uint8_t type;                     /* enum kn_dtype */
};

struct wk_kv_format {
    enum wk_kv_codec codec;
    uint64_t id;
    uint32_t n_group, item_bytes[WK_MAX_GROUP], bytes[WK_MAX_GROUP];
    struct part *parts; /* of LOSSY_GROUP; none when raw */
    uint32_t n_part;
};

static uint32_t align_up(uint64_t n, uint32_t to)
{
    uint64_t up = (n + to - 1) / to * to;

    PS_ASSERT(up <= UINT32_MAX);
    return (uint32_t)up;
}

const char *wk_kv_codec_name(enum wk_kv_codec c)
{
    static const char *const names[] = {
        [WK_KV_RAW] = "raw", [WK_KV_FP8] = "fp8", [WK_KV_TQ4] = "tq4"};

    PS_ASSERT(c < WK_KV_N_CODECS);
    return names[c];
}

static bool is_attn(const struct wk_kv_comp *c)
{
    return c->group == LOSSY_GROUP && c->shape == WK_KV_ROWS &&
           strncmp(c->name, "attn", sizeof(c->name)) == 0;
}

static uint32_t codes_bytes(enum wk_kv_codec codec, const struct part *p)
{
    return p->n_row * (codec == WK_KV_FP8 ? p->d : p->d / 2);
}

static uint32_t scales_bytes(const struct part *p)
{
    return p->n_row * (uint32_t)sizeof(uint16_t);
}

static uint32_t head_bytes(enum wk_kv_codec codec, const struct part *p)
{
    return codes_bytes(codec, p) + scales_bytes(p);
}

/* Is there a lossy form of this layout? */
static int check(enum wk_kv_codec codec, const struct wk_kv_layout *l, struct ps_buf *err)
{
    const char *name = wk_kv_codec_name(codec);
    uint32_t n = 0;

    for (uint32_t i = 0; i < l->n_comp; i++) {
        const struct wk_kv_comp *c = &l->comp[i];
        bool known = c->hot_fmt == KN_BF16 || c->hot_fmt == KN_F32;
        uint32_t d;

        if (!is_attn(c))
            continue;
        n++;
        if (!known || c->scale_bytes > 0) {
            ps_buf_addf(err, "KV format %s needs K and V of bf16 or f32; this model has others",
                        name);
            return WK_FORMAT_E_UNSUPPORTED;
        }
        d = c->row_bytes / (uint32_t)kn_dtype_bytes(c->hot_fmt);
        if (codec == WK_KV_TQ4 && !wk_tq4_has(d)) {
            ps_buf_addf(err,
                        "KV format tq4 needs a head dimension of 64, 128 or 256; this model has %u",
                        d);
            return WK_FORMAT_E_UNSUPPORTED;
        }
    }
    if (n > 0)
        return WK_FORMAT_OK;
    ps_buf_addf(err, "KV format %s needs K and V rows of attention; this model caches none", name);
    return WK_FORMAT_E_UNSUPPORTED;
}

static void add_part(struct wk_kv_format *f, const struct wk_kv_layout *l,
                     const struct wk_kv_comp *c, uint32_t layer)
{
    uint32_t n_row = c->shape == WK_KV_ROWS ? l->group[c->group].page_tokens / c->ratio : 1, at = 0;
    struct part *p = &f->parts[f->n_part];

    if (f->n_part > 0)
        at = p[-1].at + p[-1].n_bytes;
    *p = (struct part){.item_off = c->layer_off[layer], .at = at, .layer = layer};
    p->item_bytes = c->n_head * n_row * (c->row_bytes + c->scale_bytes);
    p->n_bytes = align_up(p->item_bytes, SUB_ALIGN);
    PS_ASSERT(f->n_part == 0 || p->item_off >= p[-1].item_off + p[-1].item_bytes);
    if (is_attn(c)) {
        p->n_head = c->n_head;
        p->n_row = n_row;
        p->type = c->hot_fmt;
        p->d = c->row_bytes / (uint32_t)kn_dtype_bytes(c->hot_fmt);
        /* pages are of 16 * 2^k tokens, so that every sub-array is a multiple of 16 bytes */
        PS_ASSERT(p->n_head % 2 == 0 && n_row % SUB_ALIGN == 0);
        p->n_bytes = p->n_head * head_bytes(f->codec, p);
    }
    f->n_part++;
}

static void add_parts(struct wk_kv_format *f, const struct wk_kv_layout *l)
{
    const struct part *last;

    f->parts = ps_calloc((size_t)l->n_comp * WK_MAX_LAYER, sizeof(*f->parts));
    for (uint32_t i = 0; i < l->n_comp; i++) {
        for (uint32_t j = 0; j < WK_MAX_LAYER && l->comp[i].group == LOSSY_GROUP; j++) {
            if (l->comp[i].layer_off[j] != UINT32_MAX)
                add_part(f, l, &l->comp[i], j);
        }
    }
    last = &f->parts[f->n_part - 1];
    f->bytes[LOSSY_GROUP] = align_up((uint64_t)last->at + last->n_bytes, ITEM_ALIGN);
}

int wk_kv_format_create(struct wk_kv_format **out, enum wk_kv_codec codec,
                        const struct wk_kv_layout *layout, struct ps_buf *err)
{
    struct wk_kv_format *f;

    PS_ASSERT(layout->layout_id != 0 && codec < WK_KV_N_CODECS);
    if (codec != WK_KV_RAW && check(codec, layout, err) != WK_FORMAT_OK)
        return WK_FORMAT_E_UNSUPPORTED;
    f = ps_calloc(1, sizeof(*f));
    f->codec = codec;
    f->n_group = layout->n_group;
    for (uint32_t i = 0; i < layout->n_group; i++)
        f->bytes[i] = f->item_bytes[i] = layout->group[i].item_bytes;
    if (codec != WK_KV_RAW) {
        uint32_t signs = codec == WK_KV_TQ4 ? WK_TQ4_SIGN_VERSION : 0;
        uint32_t words[3] = {codec, PACKING_VERSION, signs};

        f->id = ps_hash64(words, sizeof(words), ps_hash64("kv format 1", 11, 0));
        f->id = f->id != 0 ? f->id : 1; /* 0 is raw */
        add_parts(f, layout);
    }
    *out = f;
    return WK_FORMAT_OK;
}

void wk_kv_format_destroy(struct wk_kv_format *f)
{
    if (f == NULL)
        return;
    ps_free(f->parts);
    ps_free(f);
}

uint32_t wk_kv_format_bytes(const struct wk_kv_format *f, uint32_t group)
{
    PS_ASSERT(group < f->n_group);
    return f->bytes[group];
}

uint64_t wk_kv_format_id(const struct wk_kv_format *f)
{
    return f->id;
}

bool wk_kv_format_is_exact(const struct wk_kv_format *f)
{
    return f->codec == WK_KV_RAW;
}

static bool encode_head(enum wk_kv_codec codec, const struct part *p, const uint64_t *signs,
                        const uint8_t *rows, uint8_t *codes, uint16_t *scales)
{
    if (codec == WK_KV_FP8)
        return wk_fp8_encode(p->type, rows, p->n_row, p->d, codes, scales);
    return wk_tq4_encode(p->type, signs, rows, p->n_row, p->d, codes, scales);
}

static void decode_head(enum wk_kv_codec codec, const struct part *p, const uint64_t *signs,
                        const uint8_t *codes, const uint16_t *scales, uint8_t *rows)
{
    if (codec == WK_KV_FP8)
        wk_fp8_decode(p->type, codes, scales, p->n_row, p->d, rows);
    else
        wk_tq4_decode(p->type, signs, codes, scales, p->n_row, p->d, rows);
}

/* Heads [0, n / 2) are K, the others V. */
static void head_signs(enum wk_kv_codec codec, const struct part *p, uint32_t head, uint64_t *signs)
{
    uint32_t half = p->n_head / 2;

    if (codec == WK_KV_TQ4)
        wk_tq4_signs(p->layer, head % half, head >= half, signs);
}

static int encode_part(enum wk_kv_codec codec, const struct part *p, const uint8_t *in,
                       uint8_t *out)
{
    uint32_t in_bytes = p->item_bytes / ps_max_u32(p->n_head, 1);
    uint32_t scales_at = codes_bytes(codec, p), out_bytes = head_bytes(codec, p);
    uint64_t signs[WK_TQ4_SIGN_WORDS] = {0};

    if (p->n_head == 0) {
        memcpy(out, in, p->item_bytes);
        memset(out + p->item_bytes, 0, p->n_bytes - p->item_bytes);
    }
    for (uint32_t h = 0; h < p->n_head; h++, in += in_bytes, out += out_bytes) {
        head_signs(codec, p, h, signs);
        if (!encode_head(codec, p, signs, in, out, (uint16_t *)(void *)(out + scales_at)))
            return WK_FORMAT_E_NUMBERS;
    }
    return WK_FORMAT_OK;
}

static void decode_part(enum wk_kv_codec codec, const struct part *p, const uint8_t *in,
                        uint8_t *out)
{
    uint32_t out_bytes = p->item_bytes / ps_max_u32(p->n_head, 1);
    uint32_t scales_at = codes_bytes(codec, p), in_bytes = head_bytes(codec, p);
    uint64_t signs[WK_TQ4_SIGN_WORDS] = {0};

    if (p->n_head == 0)
        memcpy(out, in, p->item_bytes);
    for (uint32_t h = 0; h < p->n_head; h++, in += in_bytes, out += out_bytes) {
        head_signs(codec, p, h, signs);
        decode_head(codec, p, signs, in, (const uint16_t *)(const void *)(in + scales_at), out);
    }
}

/* Every byte of out is written: what is stored and hashed never depends on what lay there before. */
int wk_kv_format_encode(const struct wk_kv_format *f, uint32_t group, const uint8_t *item,
                        uint8_t *out)
{
    uint32_t end = 0;

    PS_ASSERT(group < f->n_group && (uintptr_t)out % SUB_ALIGN == 0);
    if (f->codec == WK_KV_RAW || group != LOSSY_GROUP) {
        memcpy(out, item, f->item_bytes[group]);
        return WK_FORMAT_OK;
    }
    for (uint32_t i = 0; i < f->n_part; i++) {
        const struct part *p = &f->parts[i];

        if (encode_part(f->codec, p, item + p->item_off, out + p->at) != WK_FORMAT_OK)
            return WK_FORMAT_E_NUMBERS;
        end = p->at + p->n_bytes;
    }
    memset(out + end, 0, f->bytes[group] - end);
    return WK_FORMAT_OK;
}

void wk_kv_format_decode(const struct wk_kv_format *f, uint32_t group, const uint8_t *in,
                         uint8_t *out_item)
{
    uint32_t end = 0;

    PS_ASSERT(group < f->n_group && (uintptr_t)in % SUB_ALIGN == 0);
    if (f->codec == WK_KV_RAW || group != LOSSY_GROUP) {
        memcpy(out_item, in, f->item_bytes[group]);
        return;
    }
    for (uint32_t i = 0; i < f->n_part; i++) {
        const struct part *p = &f->parts[i];

        memset(out_item + end, 0, p->item_off - end); /* between layers */
        decode_part(f->codec, p, in + p->at, out_item + p->item_off);
        end = p->item_off + p->item_bytes;
    }
    memset(out_item + end, 0, f->item_bytes[group] - end);
}
