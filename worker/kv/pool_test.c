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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(drop_of_last_holder_frees_item),
        cmocka_unit_test(slabs_are_4_to_16_mib_and_hold_whole_items),
        cmocka_unit_test(random_mix_of_groups_never_overlaps_and_returns_whole),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
