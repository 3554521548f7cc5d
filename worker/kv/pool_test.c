#include "worker/kv/pool.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "common/rng.h"

static struct wk_kv_layout layout_of(uint32_t n_groups)
{
    struct wk_kv_layout l;

    wk_kv_layout_init(&l);
    wk_kv_layout_add_attn(&l, 24, 8, 128, KN_BF16, 16); /* 1.5 MiB an item */
    if (n_groups > 1)
        wk_kv_layout_add_attn(&l, 10, 4, 128, KN_BF16, 32);
    wk_kv_layout_seal(&l);
    return l;
}

static void drop_of_last_holder_frees_item(void **state)
{
    struct wk_kv_layout l = layout_of(1);
    struct wk_kv_pool *p = wk_kv_pool_create(&l, 3);
    uint32_t a, b, c, d = 77;

    (void)state;
    assert_int_equal(wk_kv_pool_take(p, 0, &a), WK_KV_OK);
    assert_int_equal(wk_kv_pool_take(p, 0, &b), WK_KV_OK);
    assert_int_equal(wk_kv_pool_take(p, 0, &c), WK_KV_OK);
    assert_true(a != b && b != c && a != c);
    assert_int_equal(wk_kv_pool_take(p, 0, &d), WK_KV_E_FULL);
    assert_int_equal(d, 77);
    wk_kv_pool_share(p, 0, b);
    wk_kv_pool_drop(p, 0, b);
    assert_int_equal(wk_kv_pool_n_free(p, 0), 0);
    wk_kv_pool_drop(p, 0, b);
    assert_int_equal(wk_kv_pool_n_free(p, 0), 1);
    assert_int_equal(wk_kv_pool_take(p, 0, &d), WK_KV_OK);
    assert_int_equal(d, b);
    wk_kv_pool_destroy(p);
}

static void slabs_are_4_to_16_mib_and_hold_whole_items(void **state)
{
    struct wk_kv_layout l = layout_of(2);
    struct wk_kv_pool *p = wk_kv_pool_create(&l, 100);
    uint64_t bytes = wk_kv_pool_slab_bytes(p);

    (void)state;
    assert_true(bytes >= UINT64_C(4) << 20 && bytes <= UINT64_C(16) << 20);
    assert_int_equal(bytes % l.group[0].item_bytes, 0);
    assert_int_equal(bytes % l.group[1].item_bytes, 0);
    wk_kv_pool_destroy(p);
}

/* Items never overlap as byte ranges, whatever mix of groups holds the arena; all comes back. */
static void random_mix_of_groups_never_overlaps_and_returns_whole(void **state)
{
    enum { N = 45, STEPS = 20000 };
    struct wk_kv_layout l = layout_of(2);
    struct wk_kv_pool *p = wk_kv_pool_create(&l, N);
    uint32_t unit = 4096, n_units = (uint32_t)((uint64_t)N * l.group[0].item_bytes / unit);
    uint8_t *used = ps_calloc(n_units, 1);
    uint32_t held[2][4 * N], n_held[2] = {0, 0}, total1 = wk_kv_pool_n_total(p, 1);
    struct ps_rng r;

    (void)state;
    ps_rng_seed(&r, 1);
    for (uint32_t i = 0; i < STEPS; i++) {
        uint32_t g = (uint32_t)ps_rng_below(&r, 2), item;
        uint32_t n = l.group[g].item_bytes / unit;
        bool grow =
            ps_rng_below(&r, 1000) < 500 + (i / 500 % 2 == 0 ? 80u : 0u) - (i / 500 % 2 ? 80u : 0u);

        if (grow) {
            uint32_t before = wk_kv_pool_n_free(p, g);

            if (wk_kv_pool_take(p, g, &item) == WK_KV_E_FULL) {
                assert_int_equal(before, 0);
                continue;
            }
            assert_true(before > 0);
            for (uint32_t k = 0; k < n; k++)
                assert_int_equal(used[item * n + k]++, 0);
            held[g][n_held[g]++] = item;
        } else if (n_held[g] > 0) {
            uint32_t at = (uint32_t)ps_rng_below(&r, n_held[g]);

            item = held[g][at];
            held[g][at] = held[g][--n_held[g]];
            for (uint32_t k = 0; k < n; k++)
                used[item * n + k] = 0;
            wk_kv_pool_drop(p, g, item);
        }
    }
    for (uint32_t g = 0; g < 2; g++) {
        while (n_held[g] > 0)
            wk_kv_pool_drop(p, g, held[g][--n_held[g]]);
    }
    assert_int_equal(wk_kv_pool_n_free(p, 0), N);
    assert_int_equal(wk_kv_pool_n_free(p, 1), total1);
    ps_free(used);
    wk_kv_pool_destroy(p);
}

/* n_reclaim against a count of every slab, through random takes, drops and idle marks. */
static void reclaim_counts_what_loose_slabs_would_give(void **state)
{
    enum { N = 48, STEPS = 20000, ITEMS_MAX = 4 * N };
    struct wk_kv_layout l = layout_of(2);
    struct wk_kv_pool *p = wk_kv_pool_create(&l, N);
    uint8_t is[2][ITEMS_MAX] = {{0}}; /* 0 free, 1 used, 2 idle */
    uint32_t total[2], slab_bytes = (uint32_t)wk_kv_pool_slab_bytes(p);
    struct ps_rng r;

    (void)state;
    ps_rng_seed(&r, 9);
    for (uint32_t g = 0; g < 2; g++) {
        total[g] = wk_kv_pool_n_total(p, g);
        assert_true(total[g] <= ITEMS_MAX && slab_bytes % l.group[g].item_bytes == 0);
    }
    for (uint32_t step = 0; step < STEPS; step++) {
        uint32_t g = (uint32_t)ps_rng_below(&r, 2), i = (uint32_t)ps_rng_below(&r, total[g]), item;

        if (is[g][i] == 0) {
            if (wk_kv_pool_take(p, g, &item) == WK_KV_OK)
                is[g][item] = 1;
        } else if (ps_rng_below(&r, 3) > 0) {
            is[g][i] = (uint8_t)(3 - is[g][i]);
            wk_kv_pool_set_idle(p, g, i, is[g][i] == 2);
        } else if (is[g][i] == 1) {
            wk_kv_pool_drop(p, g, i);
            is[g][i] = 0;
        }
        for (g = 0; g < 2; g++) { /* of slabs that the other group has */
            uint32_t per = slab_bytes / l.group[1 - g].item_bytes, want = 0;

            for (uint32_t first = 0; first < total[1 - g]; first += per) {
                uint32_t n[3] = {0}, end = ps_min_u32(first + per, total[1 - g]);

                for (i = first; i < end; i++)
                    n[is[1 - g][i]]++;
                if (n[1] == 0 && n[2] > 0)
                    want +=
                        ps_min_u32(slab_bytes / l.group[g].item_bytes,
                                   total[g] - first / per * (slab_bytes / l.group[g].item_bytes));
            }
            assert_int_equal(wk_kv_pool_n_reclaim(p, g), want);
        }
    }
    wk_kv_pool_destroy(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(drop_of_last_holder_frees_item),
        cmocka_unit_test(slabs_are_4_to_16_mib_and_hold_whole_items),
        cmocka_unit_test(random_mix_of_groups_never_overlaps_and_returns_whole),
        cmocka_unit_test(reclaim_counts_what_loose_slabs_would_give),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
