#include "worker/kv/format.h"

#include <math.h>

#include "common/rng.h"
#include "common/test.h"
#include "kernels/half.h"

enum { N_LAYER = 3, N_KV = 2, PAGE = 16 };

static struct wk_kv_layout layout_of(uint32_t d, enum kn_dtype type)
{
    struct wk_kv_layout l;

    wk_kv_layout_init(&l);
    wk_kv_layout_add_attn(&l, N_LAYER, N_KV, d, type, PAGE);
    wk_kv_layout_seal(&l);
    return l;
}

static struct wk_kv_format *format_of(enum wk_kv_codec codec, const struct wk_kv_layout *l)
{
    struct ps_buf err = PS_BUF_INIT;
    struct wk_kv_format *f = NULL;

    assert_int_equal(wk_kv_format_create(&f, codec, l, &err), WK_FORMAT_OK);
    assert_int_equal(err.len, 0);
    return f;
}

static void put(enum kn_dtype type, uint8_t *at, float v)
{
    uint16_t h = kn_f32_bf16(v);

    memcpy(at, type == KN_BF16 ? (const void *)&h : (const void *)&v, kn_dtype_bytes(type));
}

static float get(enum kn_dtype type, const uint8_t *at)
{
    uint16_t h;
    float v;

    memcpy(&h, at, 2);
    memcpy(&v, at, type == KN_BF16 ? 2 : 4);
    return type == KN_BF16 ? kn_bf16_f32(h) : v;
}

/* Every number of the item is its own; what lies between the layers is not touched. */
static uint8_t *item_of(const struct wk_kv_layout *l, uint64_t seed)
{
    enum kn_dtype type = l->comp[0].hot_fmt;
    uint8_t *item = ps_calloc(1, l->group[0].item_bytes);
    struct ps_rng rng;

    ps_rng_seed(&rng, seed);
    for (uint32_t c = 0; c < l->n_comp; c++) {
        uint32_t n = l->comp[c].n_head * (PAGE / l->comp[c].ratio) * l->comp[c].row_bytes /
                     (uint32_t)kn_dtype_bytes(type);

        for (uint32_t i = 0; i < WK_MAX_LAYER; i++) {
            if (l->comp[c].layer_off[i] == UINT32_MAX || l->comp[c].group > 0)
                continue;
            for (uint32_t j = 0; j < n; j++)
                put(type, item + l->comp[c].layer_off[i] + j * kn_dtype_bytes(type),
                    (float)(ps_rng_unit(&rng) - 0.5));
        }
    }
    return item;
}

static void raw_is_the_item_itself(void **state)
{
    struct wk_kv_layout l = layout_of(20, KN_F16);
    struct wk_kv_format *f = format_of(WK_KV_RAW, &l);
    uint32_t n = l.group[0].item_bytes;
    uint8_t *item = ps_alloc(n), *out = ps_calloc(1, n), *back = ps_calloc(1, n);

    (void)state;
    memset(item, 0xff, n); /* NaN or not: raw does not look */
    assert_int_equal(wk_kv_format_bytes(f, 0), n);
    assert_int_equal(wk_kv_format_encode(f, 0, item, out), WK_FORMAT_OK);
    wk_kv_format_decode(f, 0, out, back);
    assert_memory_equal(item, out, n);
    assert_memory_equal(item, back, n);
    assert_true(wk_kv_format_is_exact(f) && wk_kv_format_id(f) == 0);
    wk_kv_format_destroy(f);
    wk_kv_format_destroy(NULL);
    ps_free(item);
    ps_free(out);
    ps_free(back);
}

static void sizes_are_codes_and_scales_in_whole_blocks(void **state)
{
    static const uint32_t d_of[] = {64, 128, 256, 32, 24};

    (void)state;
    for (size_t i = 0; i < PS_ARRAY_LEN(d_of); i++) {
        struct wk_kv_layout l = layout_of(d_of[i], KN_BF16);
        uint32_t rows = N_LAYER * 2 * N_KV * PAGE;
        struct wk_kv_format *f = format_of(WK_KV_FP8, &l);

        assert_int_equal(wk_kv_format_bytes(f, 0), (rows * (d_of[i] + 2) + 4095) / 4096 * 4096);
        wk_kv_format_destroy(f);
        if (d_of[i] < 64)
            continue;
        f = format_of(WK_KV_TQ4, &l);
        assert_int_equal(wk_kv_format_bytes(f, 0), (rows * (d_of[i] / 2 + 2) + 4095) / 4096 * 4096);
        wk_kv_format_destroy(f);
    }
}

/* Largest error of a row, as a share of its largest magnitude. */
static void check_close(const struct wk_kv_layout *l, const uint8_t *a, const uint8_t *b,
                        double share)
{
    const struct wk_kv_comp *c = &l->comp[0];
    enum kn_dtype type = c->hot_fmt;

    for (uint32_t i = 0; i < N_LAYER * 2u * N_KV * PAGE; i++) {
        size_t at = c->layer_off[i / (2 * N_KV * PAGE)] + i % (2 * N_KV * PAGE) * c->row_bytes;
        double worst = 0, most = 0;

        for (uint32_t j = 0; j < c->row_bytes; j += (uint32_t)kn_dtype_bytes(type)) {
            double x = (double)get(type, a + at + j), y = (double)get(type, b + at + j);

            worst = fmax(worst, fabs(x - y));
            most = fmax(most, fabs(x));
        }
        assert_true(most > 0.2 && worst < share * most);
    }
}

static void each_row_comes_back_where_it_was(void **state)
{
    static const struct {
        enum wk_kv_codec codec;
        enum kn_dtype type;
        uint32_t d;
        double share;
    } cases[] = {
        {WK_KV_FP8, KN_BF16, 32, 0.04}, {WK_KV_FP8, KN_F32, 24, 0.04},
        {WK_KV_FP8, KN_BF16, 20, 0.04}, {WK_KV_TQ4, KN_BF16, 64, 0.35},
        {WK_KV_TQ4, KN_F32, 128, 0.35}, {WK_KV_TQ4, KN_BF16, 256, 0.35},
    };

    (void)state;
    for (size_t i = 0; i < PS_ARRAY_LEN(cases); i++) {
        struct wk_kv_layout l = layout_of(cases[i].d, cases[i].type);
        struct wk_kv_format *f = format_of(cases[i].codec, &l);
        uint32_t n = l.group[0].item_bytes, m = wk_kv_format_bytes(f, 0);
        uint8_t *item = item_of(&l, 1), *enc[2], *back = ps_alloc(n);

        enc[0] = ps_alloc_aligned(64, m);
        enc[1] = ps_alloc_aligned(64, m);
        memset(enc[0], 0x11, m);
        memset(enc[1], 0xee, m); /* the same bytes, whatever lay there */
        memset(back, 0x77, n);
        assert_true(m <= n && m % 4096 == 0 && !wk_kv_format_is_exact(f));
        assert_int_equal(wk_kv_format_encode(f, 0, item, enc[0]), WK_FORMAT_OK);
        assert_int_equal(wk_kv_format_encode(f, 0, item, enc[1]), WK_FORMAT_OK);
        assert_memory_equal(enc[0], enc[1], m);
        wk_kv_format_decode(f, 0, enc[0], back);
        check_close(&l, item, back, cases[i].share);
        for (uint32_t j = l.comp[0].layer_off[N_LAYER - 1] + 2u * N_KV * PAGE * l.comp[0].row_bytes;
             j < n; j++)
            assert_int_equal(back[j], 0);
        wk_kv_format_destroy(f);
        ps_free(item);
        ps_free(enc[0]);
        ps_free(enc[1]);
        ps_free(back);
    }
}

/* Equal rows in every place: what differs between heads' codes is their signs, and nothing else does. */
static void tq4_rotates_each_head_its_own_way(void **state)
{
    struct wk_kv_layout l = layout_of(64, KN_F32);
    struct wk_kv_format *f = format_of(WK_KV_TQ4, &l);
    uint32_t head = PAGE * (32 + 2), n_head = N_LAYER * 2 * N_KV;
    uint8_t *item = ps_calloc(1, l.group[0].item_bytes);
    uint8_t *out = ps_alloc_aligned(64, wk_kv_format_bytes(f, 0));

    (void)state;
    for (uint32_t i = 0; i < n_head * PAGE * 64; i++)
        put(KN_F32, item + i * 4, (float)(i % 64 * 29 % 64) - 31.5f);
    assert_int_equal(wk_kv_format_encode(f, 0, item, out), WK_FORMAT_OK);
    for (uint32_t i = 0; i < n_head; i++) {
        for (uint32_t j = 1; j < PAGE; j++)
            assert_memory_equal(out + i * head, out + i * head + j * 32, 32);
        for (uint32_t j = 0; j < i; j++)
            assert_memory_not_equal(out + i * head, out + j * head, 32);
    }
    wk_kv_format_destroy(f);
    ps_free(item);
    ps_free(out);
}

/* A component of another kind among the rows, and a group of its own: both stay as they are. */
static void only_attention_rows_lose_anything(void **state)
{
    struct wk_kv_format *f;
    struct wk_kv_layout l;
    uint8_t *item, *out, *again, *back;
    uint32_t n;

    (void)state;
    wk_kv_layout_init(&l);
    wk_kv_layout_add_attn(&l, 2, N_KV, 64, KN_BF16, PAGE);
    wk_kv_layout_add_attn(&l, 2, 1, 21, KN_BF16, PAGE); /* no head dimension of tq4 */
    memcpy(l.comp[1].name, "index", 6);
    l.comp[1].ratio = PAGE; /* 84 bytes a layer: no multiple of 16 */
    wk_kv_layout_add_attn(&l, 2, 1, 64, KN_BF16, 64);
    wk_kv_layout_seal(&l);
    f = format_of(WK_KV_TQ4, &l);
    n = l.group[0].item_bytes;
    item = item_of(&l, 3);
    out = ps_alloc_aligned(64, n);
    again = ps_alloc_aligned(64, n);
    back = ps_alloc(n);
    memset(again, 0xee, n);
    memset(out, 0x11, n);
    memset(back, 0x77, n);
    assert_int_equal(wk_kv_format_encode(f, 0, item, again), WK_FORMAT_OK);
    assert_int_equal(wk_kv_format_encode(f, 0, item, out), WK_FORMAT_OK);
    assert_memory_equal(again, out, wk_kv_format_bytes(f, 0));
    ps_free(again);
    wk_kv_format_decode(f, 0, out, back);
    assert_memory_not_equal(item, back, 64);
    assert_memory_equal(item + l.comp[1].layer_off[0], back + l.comp[1].layer_off[0],
                        n - l.comp[1].layer_off[0]);
    assert_int_equal(wk_kv_format_bytes(f, 1), l.group[1].item_bytes);
    ps_free(item);
    ps_free(out);
    ps_free(back);
    n = l.group[1].item_bytes;
    item = ps_alloc(n);
    out = ps_alloc_aligned(64, n);
    memset(item, 0xff, n);
    assert_int_equal(wk_kv_format_encode(f, 1, item, out), WK_FORMAT_OK);
    assert_memory_equal(item, out, n);
    memset(item, 0, n);
    wk_kv_format_decode(f, 1, out, item);
    assert_memory_equal(item, out, n);
    ps_free(item);
    ps_free(out);
    wk_kv_format_destroy(f);
}

static void refused(enum wk_kv_codec codec, const struct wk_kv_layout *l, const char *why)
{
    struct ps_buf err = PS_BUF_INIT;
    struct wk_kv_format *f = NULL;

    assert_int_equal(wk_kv_format_create(&f, codec, l, &err), WK_FORMAT_E_UNSUPPORTED);
    assert_null(f);
    assert_non_null(strstr(err.data, why));
    ps_buf_fini(&err);
}

static void what_has_no_lossy_form_is_refused_with_a_sentence(void **state)
{
    struct wk_kv_layout l = layout_of(32, KN_BF16), h = layout_of(64, KN_F16), m;

    (void)state;
    refused(WK_KV_TQ4, &l, "head dimension of 64, 128 or 256; this model has 32");
    refused(WK_KV_FP8, &h, "fp8 needs K and V of bf16 or f32");
    wk_kv_layout_init(&m);
    wk_kv_layout_add_attn(&m, 2, N_KV, 64, KN_BF16, PAGE);
    memcpy(m.comp[0].name, "mla\0", 5);
    wk_kv_layout_seal(&m);
    refused(WK_KV_FP8, &m, "fp8 needs K and V rows of attention");
    m.comp[0].shape = WK_KV_STATE;
    refused(WK_KV_TQ4, &m, "this model caches none");
}

static void an_item_with_nan_or_infinity_is_refused(void **state)
{
    static const float bad[] = {NAN, INFINITY};
    struct wk_kv_layout l = layout_of(64, KN_BF16);

    (void)state;
    for (int codec = WK_KV_FP8; codec < WK_KV_N_CODECS; codec++) {
        struct wk_kv_format *f = format_of((enum wk_kv_codec)codec, &l);
        uint8_t *out = ps_alloc_aligned(64, wk_kv_format_bytes(f, 0));

        for (uint32_t i = 0; i < 2; i++) {
            uint8_t *item = item_of(&l, 4);

            put(KN_BF16, item + l.comp[0].layer_off[N_LAYER - 1] + 130, bad[i]);
            assert_int_equal(wk_kv_format_encode(f, 0, item, out), WK_FORMAT_E_NUMBERS);
            ps_free(item);
        }
        wk_kv_format_destroy(f);
        ps_free(out);
    }
}

static void formats_have_names_and_ids_of_their_own(void **state)
{
    struct wk_kv_layout l = layout_of(64, KN_BF16);
    struct wk_kv_format *a = format_of(WK_KV_FP8, &l), *b = format_of(WK_KV_TQ4, &l);

    (void)state;
    assert_true(wk_kv_format_id(a) != 0 && wk_kv_format_id(b) != 0);
    assert_true(wk_kv_format_id(a) != wk_kv_format_id(b));
    assert_string_equal(wk_kv_codec_name(WK_KV_RAW), "raw");
    assert_string_equal(wk_kv_codec_name(WK_KV_FP8), "fp8");
    assert_string_equal(wk_kv_codec_name(WK_KV_TQ4), "tq4");
    wk_kv_format_destroy(a);
    wk_kv_format_destroy(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(raw_is_the_item_itself),
        cmocka_unit_test(sizes_are_codes_and_scales_in_whole_blocks),
        cmocka_unit_test(each_row_comes_back_where_it_was),
        cmocka_unit_test(tq4_rotates_each_head_its_own_way),
        cmocka_unit_test(only_attention_rows_lose_anything),
        cmocka_unit_test(what_has_no_lossy_form_is_refused_with_a_sentence),
        cmocka_unit_test(an_item_with_nan_or_infinity_is_refused),
        cmocka_unit_test(formats_have_names_and_ids_of_their_own),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
