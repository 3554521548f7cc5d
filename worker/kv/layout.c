#include "worker/kv/layout.h"

#include "common/hash.h"

#include <string.h>

enum {
    LAYER_ALIGN = 256, /* a layer begins on its own cache lines and vector loads */
    ITEM_ALIGN = 4096, /* whole pages of memory, and whole blocks of direct I/O */
    MIN_PAGE_TOKENS = 16,
};

static uint32_t align_up(uint64_t n, uint32_t to)
{
    uint64_t up = (n + to - 1) / to * to;

    PS_ASSERT(up <= UINT32_MAX);
    return (uint32_t)up;
}

void wk_kv_layout_init(struct wk_kv_layout *l)
{
    memset(l, 0, sizeof(*l));
}

/* The group with this page size: components that share one are moved and evicted together. */
static uint32_t group_for(struct wk_kv_layout *l, uint32_t page_tokens)
{
    for (uint32_t i = 0; i < l->n_group; i++) {
        if (l->group[i].page_tokens == page_tokens)
            return i;
    }
    PS_ASSERT(l->n_group < WK_MAX_GROUP);
    l->group[l->n_group].page_tokens = page_tokens;
    return l->n_group++;
}

uint32_t wk_kv_layout_add_attn(struct wk_kv_layout *l, uint32_t n_layer, uint32_t n_kv_head,
                               uint32_t d_head, enum kn_dtype fmt, uint32_t page_tokens)
{
    struct wk_kv_comp *c;

    PS_ASSERT(l->layout_id == 0 && l->n_comp < WK_MAX_COMP);
    PS_ASSERT(n_layer > 0 && n_layer <= WK_MAX_LAYER && n_kv_head > 0 &&
              n_kv_head <= UINT16_MAX / 2);
    PS_ASSERT(page_tokens >= MIN_PAGE_TOKENS && (page_tokens & (page_tokens - 1)) == 0);
    c = &l->comp[l->n_comp];
    memcpy(c->name, "attn", 5);
    c->shape = WK_KV_ROWS;
    c->shard = WK_KV_BY_HEAD;
    c->group = (uint8_t)group_for(l, page_tokens);
    c->hot_fmt = (uint8_t)fmt;
    c->n_layer = (uint16_t)n_layer;
    c->n_head = (uint16_t)(2 * n_kv_head);
    c->row_bytes = align_up((uint64_t)d_head * kn_dtype_bytes(fmt), 1);
    c->ratio = 1;
    c->boundary = 1;
    for (uint32_t i = 0; i < WK_MAX_LAYER; i++)
        c->layer_off[i] = i < n_layer ? 0 : UINT32_MAX;
    l->group[c->group].n_comp++;
    return l->n_comp++;
}

/* What a family keeps of one position: all of it shares the group of snapshots. */
static struct wk_kv_comp *add_snapshot(struct wk_kv_layout *l, const char *name,
                                       enum wk_kv_shape shape, uint32_t n_layer, uint32_t n_head,
                                       uint32_t row_bytes)
{
    size_t name_len = strlen(name);
    struct wk_kv_comp *c;

    PS_ASSERT(l->layout_id == 0 && l->n_comp > 0 && l->n_comp < WK_MAX_COMP);
    PS_ASSERT(n_layer > 0 && n_layer <= WK_MAX_LAYER && row_bytes > 0);
    PS_ASSERT(n_head > 0 && n_head <= UINT16_MAX);
    c = &l->comp[l->n_comp++];
    PS_ASSERT(name_len < sizeof(c->name));
    memcpy(c->name, name, name_len + 1);
    c->shape = (uint8_t)shape;
    c->shard = WK_KV_BY_HEAD;
    c->group = (uint8_t)group_for(l, 0);
    PS_ASSERT(c->group == 1);
    c->hot_fmt = KN_F32;
    c->n_layer = (uint16_t)n_layer;
    c->n_head = (uint16_t)n_head;
    c->row_bytes = row_bytes;
    c->boundary = 1;
    for (uint32_t i = 0; i < WK_MAX_LAYER; i++)
        c->layer_off[i] = i < n_layer ? 0 : UINT32_MAX;
    l->group[c->group].n_comp++;
    return c;
}

uint32_t wk_kv_layout_add_state(struct wk_kv_layout *l, const char *name, uint32_t n_layer,
                                uint32_t n_bytes)
{
    (void)add_snapshot(l, name, WK_KV_STATE, n_layer, 1, n_bytes);
    return l->n_comp - 1;
}

uint32_t wk_kv_layout_add_ring(struct wk_kv_layout *l, const char *name, uint32_t n_layer,
                               uint32_t n_head, uint32_t row_bytes, uint32_t window,
                               uint32_t rewind)
{
    struct wk_kv_comp *c = add_snapshot(l, name, WK_KV_RING, n_layer, n_head, row_bytes);

    PS_ASSERT(window > 0 && rewind <= UINT32_MAX - window);
    c->ratio = 1;
    c->window = window;
    c->rewind = rewind;
    return l->n_comp - 1;
}

static uint32_t head_bytes(const struct wk_kv_layout *l, const struct wk_kv_comp *c)
{
    uint64_t n_row = 1;

    if (c->shape == WK_KV_ROWS)
        n_row = l->group[c->group].page_tokens / c->ratio;
    else if (c->shape == WK_KV_RING)
        n_row = (uint64_t)c->window + c->rewind;
    return align_up(n_row * ((uint64_t)c->row_bytes + c->scale_bytes), 1);
}

/* Everything that decides where a byte lies, one number after the other: padding is never hashed. */
static uint64_t digest(const struct wk_kv_layout *l)
{
    uint64_t h = ps_hash64("kv layout 1", 11, 0);

    for (uint32_t i = 0; i < l->n_group; i++) {
        uint32_t w[2] = {l->group[i].page_tokens, l->group[i].item_bytes};

        h = ps_hash64(w, sizeof(w), h);
    }
    for (uint32_t i = 0; i < l->n_comp; i++) {
        const struct wk_kv_comp *c = &l->comp[i];
        uint32_t w[12] = {c->shape,   c->shard,  c->group,     c->hot_fmt,
                          c->n_layer, c->n_head, c->row_bytes, c->scale_bytes,
                          c->ratio,   c->window, c->rewind,    c->boundary};

        h = ps_hash64(c->name, sizeof(c->name), h);
        h = ps_hash64(w, sizeof(w), h);
        h = ps_hash64(c->layer_off, sizeof(c->layer_off), h);
    }
    return h != 0 ? h : 1; /* 0 means: not sealed */
}

void wk_kv_layout_seal(struct wk_kv_layout *l)
{
    uint64_t at[WK_MAX_GROUP] = {0};

    PS_ASSERT(l->layout_id == 0 && l->n_comp > 0);
    for (uint32_t i = 0; i < l->n_comp; i++) {
        struct wk_kv_comp *c = &l->comp[i];

        for (uint32_t j = 0; j < WK_MAX_LAYER; j++) {
            if (c->layer_off[j] == UINT32_MAX)
                continue;
            at[c->group] = align_up(at[c->group], LAYER_ALIGN);
            c->layer_off[j] = (uint32_t)at[c->group];
            at[c->group] += (uint64_t)c->n_head * head_bytes(l, c);
        }
    }
    for (uint32_t i = 0; i < l->n_group; i++)
        l->group[i].item_bytes = align_up(at[i], ITEM_ALIGN);
    l->layout_id = digest(l);
}

struct kn_kv_view wk_kv_layout_view(const struct wk_kv_layout *l, uint32_t comp, uint32_t layer,
                                    uint8_t *arena, const uint32_t *table, uint32_t table_stride)
{
    const struct wk_kv_comp *c = &l->comp[comp];
    const struct wk_kv_group *g = &l->group[c->group];

    PS_ASSERT(l->layout_id != 0 && comp < l->n_comp && layer < WK_MAX_LAYER);
    PS_ASSERT(c->layer_off[layer] != UINT32_MAX && c->shape == WK_KV_ROWS);
    return (struct kn_kv_view){
        .arena = arena,
        .item_stride = g->item_bytes,
        .table = table,
        .table_stride = table_stride,
        .layer_off = c->layer_off[layer],
        .head_stride = head_bytes(l, c),
        .row_stride = c->row_bytes,
        .scale_off = c->scale_bytes > 0 ? g->page_tokens / c->ratio * c->row_bytes : 0,
        .page_shift = (uint8_t)__builtin_ctz(g->page_tokens),
        .fmt = c->hot_fmt,
        .ratio = (uint16_t)c->ratio,
    };
}
