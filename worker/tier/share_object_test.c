#include "worker/tier/share_object.h"

#include "worker/tier/share_world.h"

struct object {
    struct wk_tier_ident ident;
    struct wk_share_shape shape;
    struct world_io w;
    uint8_t *head, *want;
};

static void make(struct object *o, uint32_t group)
{
    o->ident = world_ident();
    assert_true(wk_share_shape(&o->ident, group, &o->shape));
    world_io_init(&o->w);
    world_io_make(&o->w, WK_TIER_PUT, 3, 2, group);
    o->head = ps_calloc(1, o->shape.head_bytes);
    o->want = ps_calloc(1, o->shape.head_bytes);
    wk_share_head_encode(&o->ident, &o->shape, o->w.part, o->head);
    wk_share_head_seal(&o->shape, o->w.part, o->head);
    wk_share_head_encode(&o->ident, &o->shape, o->w.part, o->want);
}

static void drop(struct object *o)
{
    world_io_fini(&o->w);
    ps_free(o->head);
    ps_free(o->want);
}

static void sealed_header_and_payload_are_taken(void **state)
{
    (void)state;
    for (uint32_t g = 0; g < 2; g++) {
        struct object o;

        make(&o, g);
        assert_int_equal(o.shape.n_part, g == 0 ? 2 : 1);
        assert_int_equal(o.shape.head_bytes % 4096, 0);
        assert_int_equal(o.shape.object_bytes, o.shape.head_bytes + 8192);
        assert_int_equal(wk_share_head_check(&o.shape, o.head, o.want), WK_SHARE_OK);
        assert_true(wk_share_payload_check(&o.shape, o.head, o.w.part));
        drop(&o);
    }
}

/* Also the zeros behind the last field. */
static void any_bit_of_a_header_that_is_wrong_makes_it_bad(void **state)
{
    struct object o;

    (void)state;
    make(&o, 0);
    for (uint32_t bit = 0; bit < o.shape.head_bytes * 8; bit += bit < 3000 * 8 ? 1 : 7) {
        o.head[bit / 8] ^= (uint8_t)(1U << bit % 8);
        assert_int_equal(wk_share_head_check(&o.shape, o.head, o.want), WK_SHARE_E_BAD);
        o.head[bit / 8] ^= (uint8_t)(1U << bit % 8);
    }
    assert_int_equal(wk_share_head_check(&o.shape, o.head, o.want), WK_SHARE_OK);
    drop(&o);
}

static void any_bit_of_a_payload_that_is_wrong_is_noticed(void **state)
{
    struct object o;

    (void)state;
    make(&o, 0);
    for (uint32_t bit = 0; bit < 8192 * 8; bit += 5) {
        o.w.mem[bit / 8] ^= (uint8_t)(1U << bit % 8);
        assert_false(wk_share_payload_check(&o.shape, o.head, o.w.part));
        o.w.mem[bit / 8] ^= (uint8_t)(1U << bit % 8);
    }
    drop(&o);
}

static void check_is_other(struct object *o)
{
    wk_share_head_encode(&o->ident, &o->shape, o->w.part, o->want);
    assert_int_equal(wk_share_head_check(&o->shape, o->head, o->want), WK_SHARE_E_OTHER);
}

static void intact_object_of_another_identity_is_not_taken(void **state)
{
    struct object o;
    struct wk_tier_ident was;

    (void)state;
    make(&o, 0);
    was = o.ident;
    o.ident.space_id++;
    check_is_other(&o);
    o.ident = was;
    o.ident.arith_id++;
    check_is_other(&o);
    o.ident = was;
    o.ident.layout_id++;
    check_is_other(&o);
    o.ident = was;
    o.ident.codec++;
    check_is_other(&o);
    o.ident = was;
    o.ident.rank++;
    check_is_other(&o);
    o.ident = was;
    o.ident.n_ranks++;
    check_is_other(&o);
    drop(&o);
}

static void intact_object_under_another_key_is_not_taken(void **state)
{
    struct object o;

    (void)state;
    make(&o, 0);
    for (uint32_t i = 0; i < 2; i++) {
        struct wk_kv_key *k = &o.w.part[i].key, was = *k;

        k->digest[31] ^= 1;
        check_is_other(&o);
        *k = was;
        k->hash ^= 1;
        check_is_other(&o);
        *k = was;
        k->first_pos += 16;
        check_is_other(&o);
        *k = was;
        k->n_tok--;
        check_is_other(&o);
        *k = was;
        o.w.path.ids[o.w.part[i].key.first_pos + 77]++;
        check_is_other(&o);
        o.w.path.ids[o.w.part[i].key.first_pos + 77]--;
    }
    o.w.part[0].key.seed++;
    check_is_other(&o);
    o.w.part[0].key.seed--;
    o.w.part[0].key.parent[0] ^= 128;
    check_is_other(&o);
    o.w.part[0].key.parent[0] ^= 128;
    wk_share_head_encode(&o.ident, &o.shape, o.w.part, o.want);
    assert_int_equal(wk_share_head_check(&o.shape, o.head, o.want), WK_SHARE_OK);
    drop(&o);
}

static void header_names_the_run_before(void **state)
{
    uint8_t parent[PS_SHA256_BYTES];
    uint32_t first_pos = 1;
    struct object o;

    (void)state;
    make(&o, 0);
    assert_true(wk_share_head_parent(&o.shape, o.head, parent, &first_pos));
    assert_int_equal(first_pos, 512);
    assert_memory_equal(parent, o.w.path.page[3].digest, sizeof(parent));
    o.head[100] ^= 1;
    assert_false(wk_share_head_parent(&o.shape, o.head, parent, &first_pos));
    drop(&o);
}

static void run_is_256_tokens_and_header_grows_with_the_parts(void **state)
{
    struct wk_tier_ident id = world_ident();
    struct wk_share_shape s;

    (void)state;
    id.page_tokens = 16;
    id.item_bytes[0] = 1536 << 10;
    id.item_bytes[1] = UINT32_C(3) << 30;
    assert_int_equal(wk_share_run_pages(&id), 16);
    assert_true(wk_share_shape(&id, 0, &s));
    assert_int_equal(s.n_part, 16);
    assert_int_equal(s.n_chunk, 24);
    assert_int_equal(s.head_bytes, 8192);
    assert_true(wk_share_shape(&id, 1, &s));
    assert_int_equal(s.n_chunk, 48 << 10);
    id.item_bytes[0] = UINT32_C(3) << 30;
    assert_false(wk_share_shape(&id, 0, &s));
    id.page_tokens = 512;
    assert_int_equal(wk_share_run_pages(&id), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sealed_header_and_payload_are_taken),
        cmocka_unit_test(any_bit_of_a_header_that_is_wrong_makes_it_bad),
        cmocka_unit_test(any_bit_of_a_payload_that_is_wrong_is_noticed),
        cmocka_unit_test(intact_object_of_another_identity_is_not_taken),
        cmocka_unit_test(intact_object_under_another_key_is_not_taken),
        cmocka_unit_test(header_names_the_run_before),
        cmocka_unit_test(run_is_256_tokens_and_header_grows_with_the_parts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
