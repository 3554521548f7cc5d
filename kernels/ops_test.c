/*
 * Every operator of every ISA this machine has against the reference, bit for bit, and the reference
 * against f64. `--full`: all shapes. `--bench`: how fast, instead.
 */
#include "kernels/ops_world.h"

#include <stdio.h>
#include <string.h>

#include "common/test.h"

void arith_id_is_one_for_all(void **state PS_UNUSED)
{
    struct world *w = the_world;
    uint64_t id = w->ref->arith_id(w->ref_dev);

    for (uint32_t i = 0; i < w->n_dev; i++)
        assert_int_equal(w->cpu->arith_id(w->dev[i]), id);
}

static void unknown_isa_is_unsupported(void **state PS_UNUSED)
{
    struct kn_dev_conf conf = {.n_threads = 1, .isa = "sse9"};
    struct kn_dev *d = NULL;

    assert_int_equal(the_world->cpu->open(&d, &conf), KN_E_UNSUPPORTED);
    assert_null(d);
}

static void device_memory_is_zero_and_aligned(void **state PS_UNUSED)
{
    static const size_t n_bytes[] = {1, 100, 3 << 20};
    const struct kn_backend *b = the_world->cpu;
    struct kn_dev *d = the_world->dev[0];

    for (size_t i = 0; i < PS_ARRAY_LEN(n_bytes); i++) {
        void *p = NULL;
        uint8_t in = 7, out = 0;

        assert_int_equal(b->mem_alloc(d, n_bytes[i], &p), KN_OK);
        assert_int_equal((uintptr_t)p % 64, 0);
        for (size_t j = 0; j < n_bytes[i]; j++)
            assert_int_equal(((uint8_t *)p)[j], 0);
        assert_int_equal(b->to_dev(d, (uint8_t *)p + n_bytes[i] - 1, &in, 1), 0);
        assert_int_equal(b->sync(d), 0);
        assert_int_equal(b->to_host(d, &out, (uint8_t *)p + n_bytes[i] - 1, 1), 0);
        assert_int_equal(out, in);
        b->mem_free(d, p, n_bytes[i]);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(arith_id_is_one_for_all),
        cmocka_unit_test(unknown_isa_is_unsupported),
        cmocka_unit_test(device_memory_is_zero_and_aligned),
        cmocka_unit_test(elementary_functions_equal_reference_and_truth),
        cmocka_unit_test(add_norm_equals_reference_and_truth),
        cmocka_unit_test(silu_mul_equals_reference_and_truth),
        cmocka_unit_test(embed_and_gather_copy_rows),
        cmocka_unit_test(qkv_rope_write_equals_reference_and_truth),
        cmocka_unit_test(no_kv_write_leaves_pages_alone),
        cmocka_unit_test(denormals_are_zero_and_the_callers_state_stays),
        cmocka_unit_test(packing_in_parts_is_packing_at_once),
        cmocka_unit_test(linear_equals_reference_and_truth),
        cmocka_unit_test(linear_rows_do_not_depend_on_batch),
        cmocka_unit_test(attn_equals_reference_and_truth),
        cmocka_unit_test(attn_rows_do_not_depend_on_chunk_or_batch),
    };
    struct world w;
    int r;

    if (argc > 1 && strcmp(argv[1], "--bench") == 0)
        return ops_bench();
    world_open(&w, argc > 1 && strcmp(argv[1], "--full") == 0);
    the_world = &w;
    r = cmocka_run_group_tests(tests, NULL, NULL);
    world_close(&w);
    return r;
}
