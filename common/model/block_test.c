#include "common/model/block.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void fill(uint32_t *ids, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        ids[i] = i * 2654435761u;
}

static void chain_is_the_iterated_block_hash(void **state)
{
    uint32_t ids[40];
    uint64_t out[3] = {0, 0, 99}, h;

    (void)state;
    fill(ids, 40);
    assert_int_equal(ps_block_chain(7, ids, 40, out), 2);
    h = ps_block_hash(7, ids);
    assert_true(out[0] == h);
    assert_true(out[1] == ps_block_hash(h, ids + 16));
    assert_true(out[2] == 99); /* a block that is not full has no hash */
}

static void hash_depends_on_seed_every_id_and_order(void **state)
{
    uint32_t ids[16];
    uint64_t h;

    (void)state;
    fill(ids, 16);
    h = ps_block_hash(1, ids);
    assert_true(h != ps_block_hash(2, ids));
    for (uint32_t i = 0; i < 16; i++) {
        ids[i] ^= 0x01000000; /* the high byte of an id counts as well */
        assert_true(h != ps_block_hash(1, ids));
        ids[i] ^= 0x01000000;
    }
    ids[0] = ids[1];
    assert_true(h != ps_block_hash(1, ids));
}

static void seed_depends_on_space_adapter_and_salt(void **state)
{
    uint64_t s = ps_block_seed(1, 2, 3);

    (void)state;
    assert_true(s != ps_block_seed(0, 2, 3));
    assert_true(s != ps_block_seed(1, 0, 3));
    assert_true(s != ps_block_seed(1, 2, 0));
    assert_true(s != ps_block_seed(2, 1, 3));
    assert_true(s == ps_block_seed(1, 2, 3));
}

/* Hashes name blocks on the wire and, later, on disks: they never change. */
static void hashes_are_fixed_for_ever(void **state)
{
    uint32_t ids[16];

    (void)state;
    fill(ids, 16);
    assert_true(ps_block_hash(0, ids) == UINT64_C(0x91a256f5366faedf));
    assert_true(ps_block_hash(UINT64_C(0x123456789abcdef0), ids) == UINT64_C(0x23916a3ed3e4e0a4));
    assert_true(ps_block_seed(1, 2, 3) == UINT64_C(0x7c68b4906e7ea780));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chain_is_the_iterated_block_hash),
        cmocka_unit_test(hash_depends_on_seed_every_id_and_order),
        cmocka_unit_test(seed_depends_on_space_adapter_and_salt),
        cmocka_unit_test(hashes_are_fixed_for_ever),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
