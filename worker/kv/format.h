#pragma once

/*
 * Format: how an item is stored below T0. Raw is the same bytes; the others are smaller and lossy.
 *
 * A lossy format is part of space_id, so its blocks never meet raw ones, and a worker that uses one
 * is never exact: what it reads back depends on what was evicted. Only attention rows (K and V heads
 * of bf16 or f32) have lossy forms; ring and state groups always stay raw.
 *
 *   fp8   E4M3 with one fp16 scale (amax / 448) per head row
 *   tq4   TurboQuant: signs, Hadamard, Lloyd-Max codebook of 16 values, one corrected fp16 scale
 *
 * Encoded order is that of the item: [layer][k|v][head] then codes of all rows, then their scales,
 * each sub-array 16-byte aligned. Pure functions over host memory, any thread, no allocation after
 * create. Scalar code defines the bits; vector code equals it.
 */

#include "common/buf.h"
#include "worker/kv/layout.h"

enum wk_kv_codec { WK_KV_RAW, WK_KV_FP8, WK_KV_TQ4, WK_KV_N_CODECS };

enum {
    WK_FORMAT_OK,
    WK_FORMAT_E_UNSUPPORTED, /* this layout has no such form; err says why */
    WK_FORMAT_E_NUMBERS,     /* encode: NaN, infinity, or a row too large for its fp16 scale */
};

struct wk_kv_format;

PS_MUST int wk_kv_format_create(struct wk_kv_format **out, enum wk_kv_codec codec,
                                const struct wk_kv_layout *layout, struct ps_buf *err);
void wk_kv_format_destroy(struct wk_kv_format *f);                         /* NULL is fine */
uint32_t wk_kv_format_bytes(const struct wk_kv_format *f, uint32_t group); /* 4 KiB multiple */
PS_MUST int wk_kv_format_encode(const struct wk_kv_format *f, uint32_t group, const uint8_t *item,
                                uint8_t *out);
void wk_kv_format_decode(const struct wk_kv_format *f, uint32_t group, const uint8_t *in,
                         uint8_t *out_item);
/* Everything that decides the encoded bits: part of space_id. 0 for raw. */
uint64_t wk_kv_format_id(const struct wk_kv_format *f);
bool wk_kv_format_is_exact(const struct wk_kv_format *f);
const char *wk_kv_codec_name(enum wk_kv_codec c);
