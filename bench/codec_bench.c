/*
 * codec_bench: GB/s of raw bytes that one core encodes and decodes in each KV format. Markdown on standard output.
 *
 * Items are pages of 16 tokens over 8 layers of 4 KV heads; a few of them in turn, so that they come from the
 * second-level cache at best. Every figure is the best of its repetitions; each round trip is checked before
 * it is timed. memcpy of the same items is the first row.
 */

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "common/rng.h"
#include "kernels/half.h"
#include "worker/kv/format.h"

enum { N_LAYER = 8, N_KV = 4, PAGE = 16, N_ITEM = 16, REPEAT = 40 };

struct items {
    struct wk_kv_layout layout;
    uint8_t *raw, *enc, *back; /* N_ITEM each */
    uint32_t n_raw, n_enc;
    struct wk_kv_format *format;
};

static void fill(struct items *t, uint32_t d, enum kn_dtype type)
{
    uint32_t n = N_LAYER * 2 * N_KV * PAGE * d; /* numbers of an item: layers lie without gaps */
    struct ps_rng rng;

    ps_rng_seed(&rng, 1);
    for (uint32_t i = 0; i < N_ITEM; i++) {
        uint8_t *at = t->raw + (size_t)i * t->n_raw;

        for (uint32_t j = 0; j < n; j++, at += kn_dtype_bytes(type)) {
            float v =
                (float)(sqrt(-2 * log(1 - ps_rng_unit(&rng))) * cos(6.28 * ps_rng_unit(&rng)));
            uint16_t h = kn_f32_bf16(v);

            memcpy(at, type == KN_BF16 ? (const void *)&h : (const void *)&v, kn_dtype_bytes(type));
        }
    }
}

static void encode_all(struct items *t)
{
    for (uint32_t i = 0; i < N_ITEM; i++)
        PS_ASSERT(wk_kv_format_encode(t->format, 0, t->raw + (size_t)i * t->n_raw,
                                      t->enc + (size_t)i * t->n_enc) == WK_FORMAT_OK);
}

static void decode_all(struct items *t)
{
    for (uint32_t i = 0; i < N_ITEM; i++)
        wk_kv_format_decode(t->format, 0, t->enc + (size_t)i * t->n_enc,
                            t->back + (size_t)i * t->n_raw);
}

static double gb_per_s(struct items *t, void (*all)(struct items *t))
{
    uint64_t best = UINT64_MAX;
    struct ps_clock clock;

    ps_clock_real(&clock);
    for (int i = 0; i < REPEAT; i++) {
        uint64_t t0 = ps_now_us(&clock);

        all(t);
        best = ps_min_u64(best, ps_now_us(&clock) - t0);
    }
    return (double)t->n_raw * N_ITEM / (double)ps_max_u64(best, 1) * 1e-3;
}

/* The error energy of the first item is that of its format: a fast wrong answer is no result. */
static void check(const struct items *t, enum wk_kv_codec codec, enum kn_dtype type)
{
    double err = 0, sum = 0, limit = codec == WK_KV_FP8 ? 0.001 : codec == WK_KV_TQ4 ? 0.011 : 0;

    for (uint32_t i = 0; i < t->n_raw / kn_dtype_bytes(type); i++) {
        double x, y;
        float f[2];

        if (type == KN_F32) {
            memcpy(&f[0], t->raw + i * 4, 4);
            memcpy(&f[1], t->back + i * 4, 4);
        } else {
            uint16_t h[2];

            memcpy(&h[0], t->raw + i * 2, 2);
            memcpy(&h[1], t->back + i * 2, 2);
            f[0] = kn_bf16_f32(h[0]);
            f[1] = kn_bf16_f32(h[1]);
        }
        x = (double)f[0];
        y = (double)f[1];
        err += (x - y) * (x - y);
        sum += x * x;
    }
    PS_ASSERT(sum > 0 && err <= limit * sum);
}

static void bench(enum wk_kv_codec codec, uint32_t d, enum kn_dtype type)
{
    struct ps_buf err = PS_BUF_INIT;
    struct items t;
    double enc, dec;

    wk_kv_layout_init(&t.layout);
    wk_kv_layout_add_attn(&t.layout, N_LAYER, N_KV, d, type, PAGE);
    wk_kv_layout_seal(&t.layout);
    PS_ASSERT(wk_kv_format_create(&t.format, codec, &t.layout, &err) == WK_FORMAT_OK);
    t.n_raw = t.layout.group[0].item_bytes;
    t.n_enc = wk_kv_format_bytes(t.format, 0);
    t.raw = ps_alloc_aligned(4096, (size_t)t.n_raw * N_ITEM);
    t.back = ps_alloc_aligned(4096, (size_t)t.n_raw * N_ITEM);
    t.enc = ps_alloc_aligned(4096, (size_t)t.n_enc * N_ITEM);
    fill(&t, d, type);
    encode_all(&t);
    decode_all(&t);
    check(&t, codec, type);
    enc = gb_per_s(&t, encode_all);
    dec = gb_per_s(&t, decode_all);
    printf("| %s | %s | %u | %.2f | %.2f | %.2f |\n", wk_kv_codec_name(codec),
           type == KN_BF16 ? "bf16" : "f32", d, (double)t.n_raw / t.n_enc, enc, dec);
    wk_kv_format_destroy(t.format);
    ps_free(t.raw);
    ps_free(t.back);
    ps_free(t.enc);
    ps_buf_fini(&err);
}

int main(void)
{
    static const uint32_t widths[] = {64, 128, 256};

    printf("| format | rows of | head dimension | raw / stored | encode, GB/s of raw | decode, "
           "GB/s of raw |\n"
           "|---|---|---|---|---|---|\n");
    bench(WK_KV_RAW, 128, KN_BF16);
    for (int codec = WK_KV_FP8; codec < WK_KV_N_CODECS; codec++) {
        for (uint32_t i = 0; i < PS_ARRAY_LEN(widths); i++) {
            bench((enum wk_kv_codec)codec, widths[i], KN_BF16);
            bench((enum wk_kv_codec)codec, widths[i], KN_F32);
        }
    }
    return 0;
}
