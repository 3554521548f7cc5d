#include "worker/kv/layout.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void rows_of_all_layers_and_heads_are_disjoint_and_inside_the_item(void **state)
{
    struct wk_kv_layout l;
    struct kn_kv_view v;
    uint8_t *seen;
    uint32_t comp;

    (void)state;
    wk_kv_layout_init(&l);
    comp = wk_kv_layout_add_attn(&l, 3, 2, 20, KN_BF16, 16); /* rows of 40 bytes: no power of two */
    wk_kv_layout_seal(&l);
    assert_int_equal(l.group[0].item_bytes % 4096, 0);
    seen = ps_calloc(1, l.group[0].item_bytes);
    for (uint32_t layer = 0; layer < 3; layer++) {
        v = wk_kv_layout_view(&l, comp, layer, seen, NULL, 0);
        assert_int_equal(v.layer_off % 256, 0);
        assert_int_equal(v.item_stride, l.group[0].item_bytes);
        assert_int_equal(1u << v.page_shift, 16);
        for (uint32_t head = 0; head < 4; head++) {
            for (uint32_t t = 0; t < 16; t++) {
                size_t at = v.layer_off + head * v.head_stride + t * v.row_stride;

                for (size_t i = 0; i < 40; i++) {
                    assert_true(at + i < l.group[0].item_bytes);
                    assert_int_equal(seen[at + i]++, 0);
                }
            }
        }
    }
    ps_free(seen);
}

static void components_of_one_page_size_share_a_group(void **state)
{
    struct wk_kv_layout l;

    (void)state;
    wk_kv_layout_init(&l);
    wk_kv_layout_add_attn(&l, 2, 2, 64, KN_F32, 16);
    wk_kv_layout_add_attn(&l, 1, 2, 64, KN_F32, 16);
    wk_kv_layout_add_attn(&l, 1, 1, 64, KN_F32, 64);
    wk_kv_layout_seal(&l);
    assert_int_equal(l.n_group, 2);
    assert_int_equal(l.group[0].n_comp, 2);
    assert_true(l.comp[1].layer_off[0] >= l.comp[0].layer_off[1] + 2u * 2 * 16 * 64 * 4);
    assert_int_equal(l.comp[2].layer_off[0], 0);
}

static void states_make_a_group_of_snapshots(void **state)
{
    struct wk_kv_layout l;
    uint32_t comp;

    (void)state;
    wk_kv_layout_init(&l);
    wk_kv_layout_add_attn(&l, 2, 2, 64, KN_BF16, 16);
    comp = wk_kv_layout_add_state(&l, "conv", 3, 300);
    wk_kv_layout_add_state(&l, "gdn", 3, 5000);
    wk_kv_layout_seal(&l);
    assert_int_equal(l.n_group, 2);
    assert_int_equal(l.group[1].page_tokens, 0);
    assert_int_equal(l.group[1].n_comp, 2);
    assert_int_equal(l.comp[comp].layer_off[0], 0);
    assert_int_equal(l.comp[comp].layer_off[1], 512);
    assert_int_equal(l.comp[comp + 1].layer_off[0], 3 * 512);
    assert_int_equal(l.group[1].item_bytes % 4096, 0);
    assert_true(l.group[1].item_bytes >= l.comp[comp + 1].layer_off[2] + 5000);
}

static void rings_lie_beside_states_with_room_for_what_may_be_unwritten(void **state)
{
    struct wk_kv_layout l, other;
    uint32_t ring, conv;

    (void)state;
    for (uint32_t rewind = 0; rewind < 2; rewind++) {
        wk_kv_layout_init(&l);
        wk_kv_layout_add_attn(&l, 2, 2, 64, KN_BF16, 16);
        ring = wk_kv_layout_add_ring(&l, "raw", 3, 2, 96, 128, 8 * rewind);
        conv = wk_kv_layout_add_state(&l, "conv", 3, 300);
        wk_kv_layout_seal(&l);
        if (rewind == 0)
            other = l;
    }
    assert_int_equal(l.n_group, 2);
    assert_int_equal(l.group[1].n_comp, 2);
    assert_int_equal(l.comp[ring].group, 1);
    assert_int_equal(l.comp[ring].layer_off[0], 0);
    assert_true(l.comp[ring].layer_off[1] >= 2 * 96 * (128 + 8));
    assert_true(l.comp[conv].layer_off[0] >= l.comp[ring].layer_off[2] + 2 * 96 * (128 + 8));
    assert_true(l.group[1].item_bytes >= l.comp[conv].layer_off[2] + 300);
    assert_true(other.layout_id != l.layout_id);
    assert_true(other.comp[ring].layer_off[1] < l.comp[ring].layer_off[1]);
}

static void layout_id_tells_layouts_apart(void **state)
{
    struct wk_kv_layout a, b, c;

    (void)state;
    wk_kv_layout_init(&a);
    wk_kv_layout_init(&b);
    wk_kv_layout_init(&c);
    wk_kv_layout_add_attn(&a, 2, 2, 64, KN_BF16, 16);
    wk_kv_layout_add_attn(&b, 2, 2, 64, KN_BF16, 16);
    wk_kv_layout_add_attn(&c, 2, 2, 64, KN_BF16, 32);
    wk_kv_layout_seal(&a);
    wk_kv_layout_seal(&b);
    wk_kv_layout_seal(&c);
    assert_true(a.layout_id == b.layout_id);
    assert_true(a.layout_id != c.layout_id);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_of_all_layers_and_heads_are_disjoint_and_inside_the_item),
        cmocka_unit_test(components_of_one_page_size_share_a_group),
        cmocka_unit_test(states_make_a_group_of_snapshots),
        cmocka_unit_test(rings_lie_beside_states_with_room_for_what_may_be_unwritten),
        cmocka_unit_test(layout_id_tells_layouts_apart),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
