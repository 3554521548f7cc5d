/* Every text gets the same hash here, so only the comparison of the text tells them apart. */

#include "common/hash.h"

static uint64_t same_hash(const void *p, size_t n_bytes, uint64_t seed)
{
    (void)p;
    (void)n_bytes;
    (void)seed;
    return 7;
}

#define ps_hash64 same_hash
#include "common/text/segcache.c"

#include "common/test.h"

static const uint32_t some_ids[4] = {1, 2, 3, 4};

static void a_hit_needs_the_same_text_and_kind(void **state)
{
    struct ps_segcache *c = ps_segcache_create(4096);
    struct ps_tok_ids ids = {NULL, 0, 0};

    (void)state;
    assert_false(ps_segcache_get(c, "abcd", 4, 0, &ids));
    ps_segcache_put(c, "abcd", 4, 0, some_ids, 4);
    assert_false(ps_segcache_get(c, "abce", 4, 0, &ids));
    assert_false(ps_segcache_get(c, "abc", 3, 0, &ids));
    assert_false(ps_segcache_get(c, "abcd", 4, 2, &ids));
    assert_int_equal(ids.n, 0);
    assert_true(ps_segcache_get(c, "abcd", 4, 0, &ids));
    assert_int_equal(ids.n, 4);
    assert_memory_equal(ids.ids, some_ids, sizeof(some_ids));
    ps_tok_ids_fini(&ids);
    ps_segcache_destroy(c);
}

static void the_newest_text_of_a_slot_stays(void **state)
{
    struct ps_segcache *c = ps_segcache_create(4096);
    struct ps_tok_ids ids = {NULL, 0, 0};
    char text[64] = {0};

    (void)state;
    for (uint32_t i = 0; i < 1000; i++) { /* many times around the ring */
        memcpy(text, &i, sizeof(i));
        ps_segcache_put(c, text, i % sizeof(text) + 1, 0, some_ids, i % 5);
        ids.n = 0;
        assert_true(ps_segcache_get(c, text, i % sizeof(text) + 1, 0, &ids));
        assert_int_equal(ids.n, i % 5);
    }
    ps_tok_ids_fini(&ids);
    ps_segcache_destroy(c);
}

static void what_is_too_large_for_the_ring_is_not_kept(void **state)
{
    struct ps_segcache *c = ps_segcache_create(4096);
    struct ps_tok_ids ids = {NULL, 0, 0};
    char text[600] = {0};

    (void)state;
    ps_segcache_put(c, text, sizeof(text), 0, some_ids, 4);
    assert_false(ps_segcache_get(c, text, sizeof(text), 0, &ids));
    ps_segcache_destroy(c);
}

static void what_was_overwritten_is_gone_and_what_is_in_use_stays(void **state)
{
    struct ps_segcache *c = ps_segcache_create(4096);
    struct ps_tok_ids ids = {NULL, 0, 0};

    (void)state;
    for (int in_use = 0; in_use < 2; in_use++) {
        ps_segcache_put(c, "abcd", 4, 0, some_ids, 4);
        for (int i = 0; i < 100; i++) {
            struct slot mine = c->slots[7];

            ps_segcache_put(c, "other", 5, 0, some_ids, 4); /* takes the slot, too */
            c->slots[7] = mine;
            if (in_use)
                assert_true(ps_segcache_get(c, "abcd", 4, 0, &ids));
        }
        assert_int_equal(ps_segcache_get(c, "abcd", 4, 0, &ids), in_use);
    }
    ps_tok_ids_fini(&ids);
    ps_segcache_destroy(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_hit_needs_the_same_text_and_kind),
        cmocka_unit_test(the_newest_text_of_a_slot_stays),
        cmocka_unit_test(what_is_too_large_for_the_ring_is_not_kept),
        cmocka_unit_test(what_was_overwritten_is_gone_and_what_is_in_use_stays),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
