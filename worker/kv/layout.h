#pragma once

/*
 * KV layout: what a model family caches, declared as components, and where each byte lies.
 *
 * A component is one kind of cache over a set of layers; components of one group are allocated,
 * moved and evicted together as an item. An item of rows is a page, contiguous over all layers, in
 * the order [layer][k|v][head][token][dim], the same bytes in every tier when raw. What a family keeps
 * beside rows (a state, say) shares group 1, whose items are snapshots of it at one position and whose
 * page_tokens is 0. Kernels get strided views and never know the page size at compile time. Constant
 * after wk_kv_layout_seal.
 */

#include "kernels/ops.h"

enum wk_kv_shape { WK_KV_ROWS, WK_KV_RING, WK_KV_STATE };
enum wk_kv_shard {
    WK_KV_BY_HEAD,
    WK_KV_REPLICATED,
    WK_KV_BY_TOKEN
}; /* by token: owner = page % ranks */

enum { WK_MAX_LAYER = 160, WK_MAX_COMP = 8, WK_MAX_GROUP = 4 };

struct wk_kv_comp {
    char name[12]; /* "attn" "mla" "dsa_k" ... */
    uint8_t shape,
        shard; /* ROWS: function of the prefix, one row per `ratio` tokens. RING: last `window` rows. STATE: one value */
    uint8_t group;
    uint8_t hot_fmt; /* enum kn_dtype for raw rows */
    uint16_t n_layer,
        n_head; /* heads on this rank; K and V of attention count as 2 * n_kv_head heads */
    uint32_t row_bytes,
        scale_bytes; /* one head, one layer, one token; out-of-line scales after the rows, else 0 */
    uint32_t ratio, window; /* tokens per row; rows visible, 0: all */
    uint32_t rewind;        /* tokens that may be unwritten again */
    uint32_t boundary;      /* RING/STATE restorable at multiples of this; ROWS: ratio */
    uint32_t layer_off
        [WK_MAX_LAYER]; /* byte offset in the item, 256-byte aligned; UINT32_MAX: layer absent */
};

struct wk_kv_group {
    uint32_t page_tokens; /* 16 * 2^k: 16 on cpu and sim; 0: snapshots */
    uint32_t item_bytes;  /* 4 KiB multiple */
    uint16_t n_comp;
};

struct wk_kv_layout {
    struct wk_kv_comp comp[WK_MAX_COMP];
    struct wk_kv_group group[WK_MAX_GROUP];
    uint32_t n_comp, n_group;
    uint64_t layout_id; /* digest of everything above: part of space_id */
};

void wk_kv_layout_init(struct wk_kv_layout *l);
/* Declares grouped-query attention rows for layers [0, n_layer) in a group with this page size; returns the component. */
uint32_t wk_kv_layout_add_attn(struct wk_kv_layout *l, uint32_t n_layer, uint32_t n_kv_head,
                               uint32_t d_head, enum kn_dtype fmt, uint32_t page_tokens);
/* Declares one value of n_bytes in each of layers [0, n_layer), kept as snapshots. Rows come first. */
uint32_t wk_kv_layout_add_state(struct wk_kv_layout *l, const char *name, uint32_t n_layer,
                                uint32_t n_bytes);
/* Declares the last `window` rows of n_head heads in each of layers [0, n_layer), and rewind more that
 * may be unwritten again; the item has room for both. In one group with the states. */
uint32_t wk_kv_layout_add_ring(struct wk_kv_layout *l, const char *name, uint32_t n_layer,
                               uint32_t n_head, uint32_t row_bytes, uint32_t window,
                               uint32_t rewind);
void wk_kv_layout_seal(struct wk_kv_layout *l); /* computes offsets, item sizes and layout_id */
/* View of one layer of a component of rows. table [row][stride] of page numbers of the component's group. */
struct kn_kv_view wk_kv_layout_view(const struct wk_kv_layout *l, uint32_t comp, uint32_t layer,
                                    uint8_t *arena, const uint32_t *table, uint32_t table_stride);
