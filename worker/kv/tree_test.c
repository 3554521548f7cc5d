#include "worker/kv/tree.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "common/rng.h"

enum { PT = 16, N = 24 };

struct world {
    struct wk_kv_pool *pool;
    struct wk_kv_tree *tree;
};

static void open_world(struct world *w, uint32_t n_pages)
{
    struct wk_kv_layout l;

    wk_kv_layout_init(&l);
    wk_kv_layout_add_attn(&l, 1, 1, 16, KN_F32, PT);
    wk_kv_layout_seal(&l);
    w->pool = wk_kv_pool_create(&l, n_pages);
    w->tree = wk_kv_tree_create(w->pool, PT);
}

static void close_world(struct world *w, uint32_t n_pages)
{
    wk_kv_tree_destroy(w->tree);
    assert_int_equal(wk_kv_pool_n_free(w->pool, 0), n_pages);
    wk_kv_pool_destroy(w->pool);
}

/* Computes and publishes n pages of ids as a sequence would; the path stays held. */
static void put(struct world *w, uint64_t seed, const uint32_t *ids, uint32_t n, uint32_t *pages)
{
    uint32_t parent = WK_KV_NO_PAGE;
    uint64_t hash = seed;

    for (uint32_t i = 0; i < n; i++) {
        uint32_t page, there;

        hash = wk_kv_tree_hash(w->tree, hash, ids + i * PT);
        assert_int_equal(wk_kv_tree_take(w->tree, &page), WK_KV_OK);
        there = wk_kv_tree_publish(w->tree, seed, parent, hash, ids + i * PT, page);
        if (there != page) {
            wk_kv_tree_pin(w->tree, there);
            wk_kv_tree_drop(w->tree, page);
        }
        pages[i] = parent = there;
    }
}

static void drop_path(struct world *w, const uint32_t *pages, uint32_t n)
{
    while (n > 0)
        wk_kv_tree_drop(w->tree, pages[--n]);
}

static struct wk_kv_match match(struct world *w, uint64_t seed, const uint32_t *ids, uint32_t n,
                                uint32_t *pages)
{
    uint64_t hashes[N], h = seed;
    struct wk_kv_match m;

    for (uint32_t i = 0; i < n / PT; i++)
        hashes[i] = h = wk_kv_tree_hash(w->tree, h, ids + i * PT);
    wk_kv_tree_match(w->tree, seed, ids, n, hashes, pages, &m);
    return m;
}

static void count_up(uint32_t *ids, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        ids[i] = i;
}

static void a_prefix_is_found_page_by_page_and_its_tail_token_by_token(void **state)
{
    struct world w;
    uint32_t ids[4 * PT], pages[N], got[N];
    struct wk_kv_match m;

    (void)state;
    open_world(&w, N);
    count_up(ids, 4 * PT);
    put(&w, 1, ids, 3, pages);
    m = match(&w, 1, ids, 3 * PT, got);
    assert_int_equal(m.n_pages, 3);
    assert_int_equal(m.n_tail, 0);
    assert_memory_equal(got, pages, 3 * sizeof(*got));
    ids[2 * PT + 5] = 999;
    m = match(&w, 1, ids, 4 * PT, got);
    assert_int_equal(m.n_pages, 2);
    assert_int_equal(m.n_tail, 5);
    assert_int_equal(m.tail_page, pages[2]);
    m = match(&w, 1, ids, 2 * PT + 5, got); /* all is there: one token is left to compute */
    assert_int_equal(m.n_pages, 2);
    assert_int_equal(m.n_tail, 4);
    ids[0] = 999;
    m = match(&w, 1, ids, 4 * PT, got);
    assert_int_equal(m.n_pages + m.n_tail, 0);
    drop_path(&w, pages, 3);
    close_world(&w, N);
}

static void tenants_never_meet(void **state)
{
    struct world w;
    uint32_t ids[2 * PT], pages[N], got[N];

    (void)state;
    open_world(&w, N);
    count_up(ids, 2 * PT);
    put(&w, 1, ids, 2, pages);
    assert_int_equal(match(&w, 2, ids, 2 * PT, got).n_pages, 0);
    assert_int_equal(match(&w, 2, ids, 2 * PT - 3, got).n_tail, 0);
    drop_path(&w, pages, 2);
    close_world(&w, N);
}

static void a_hash_is_only_a_hint(void **state)
{
    struct world w;
    uint32_t ids[2][PT], page[3], got[1];
    const uint64_t same = 77;
    struct wk_kv_match m;

    (void)state;
    open_world(&w, N);
    count_up(ids[0], PT);
    count_up(ids[1], PT);
    ids[1][9] = 1;
    for (uint32_t i = 0; i < 2; i++) { /* two blocks of one hash, as an attacker would make them */
        assert_int_equal(wk_kv_tree_take(w.tree, &page[i]), WK_KV_OK);
        assert_int_equal(wk_kv_tree_publish(w.tree, 1, WK_KV_NO_PAGE, same, ids[i], page[i]),
                         page[i]);
    }
    /* The same tokens below another parent are another block, whatever the hash says. */
    assert_int_equal(wk_kv_tree_take(w.tree, &page[2]), WK_KV_OK);
    assert_int_equal(wk_kv_tree_publish(w.tree, 1, page[0], same, ids[0], page[2]), page[2]);
    for (uint32_t i = 0; i < 2; i++) {
        wk_kv_tree_match(w.tree, 1, ids[i], PT, &same, got, &m);
        assert_int_equal(m.n_pages, 1);
        assert_int_equal(got[0], page[i]);
    }
    ids[0][15] = 1234;
    wk_kv_tree_match(w.tree, 1, ids[0], PT, &same, got, &m);
    assert_int_equal(m.n_pages, 0);
    drop_path(&w, page, 3);
    close_world(&w, N);
}

static void publishing_twice_gives_the_page_that_was_there(void **state)
{
    struct world w;
    uint32_t ids[2 * PT], a[N], b[N];

    (void)state;
    open_world(&w, N);
    count_up(ids, 2 * PT);
    put(&w, 1, ids, 2, a);
    put(&w, 1, ids, 2, b);
    assert_memory_equal(a, b, 2 * sizeof(*a));
    assert_int_equal(wk_kv_tree_n_pins(w.tree, a[0]), 2);
    drop_path(&w, a, 2);
    assert_int_equal(wk_kv_tree_n_evictable(w.tree), 0);
    drop_path(&w, b, 2);
    assert_int_equal(wk_kv_tree_n_evictable(w.tree), 2);
    assert_int_equal(wk_kv_tree_n_avail(w.tree), N);
    close_world(&w, N);
}

static void eviction_takes_the_oldest_leaf_and_never_what_is_held(void **state)
{
    struct world w;
    uint32_t a_ids[3 * PT], b_ids[3 * PT], a[3], b[3], got[N], page;

    (void)state;
    open_world(&w, 6);
    count_up(a_ids, 3 * PT);
    count_up(b_ids, 3 * PT);
    b_ids[0] = 500;
    put(&w, 1, a_ids, 3, a);
    put(&w, 1, b_ids, 3, b);
    drop_path(&w, a, 3);
    for (uint32_t left = 3; left-- > 0;) { /* leaf first */
        assert_int_equal(wk_kv_tree_take(w.tree, &page), WK_KV_OK);
        assert_int_equal(page, a[left]);
        assert_int_equal(match(&w, 1, a_ids, 3 * PT, got).n_pages, left);
    }
    assert_int_equal(wk_kv_tree_take(w.tree, &page), WK_KV_E_FULL);
    assert_int_equal(match(&w, 1, b_ids, 3 * PT, got).n_pages, 3);
    for (uint32_t i = 0; i < 3; i++)
        wk_kv_tree_drop(w.tree, a[i]);
    drop_path(&w, b, 3);
    close_world(&w, 6);
}

static void flush_forgets_and_holders_keep_their_pages(void **state)
{
    struct world w;
    uint32_t ids[2 * PT], a[2], b[2], got[N], other[2 * PT];

    (void)state;
    open_world(&w, N);
    count_up(ids, 2 * PT);
    count_up(other, 2 * PT);
    other[3] = 7;
    put(&w, 1, ids, 2, a);
    put(&w, 1, other, 2, b);
    drop_path(&w, b, 2);
    wk_kv_tree_flush(w.tree);
    assert_int_equal(wk_kv_tree_epoch(w.tree), 1);
    assert_int_equal(wk_kv_tree_n_free(w.tree), N - 2);
    assert_int_equal(match(&w, 1, ids, 2 * PT, got).n_pages, 0);
    drop_path(&w, a, 2);
    assert_int_equal(wk_kv_tree_n_free(w.tree), N);
    close_world(&w, N);
}

/* Random sequences over a small alphabet share, fork, publish, drop and evict; what a match returns
 * always holds the tokens asked for. */
static void random_use_returns_only_pages_with_the_right_tokens(void **state)
{
    enum { STEPS = 6000, LIVE = 5, DEPTH = 4 };
    struct world w;
    struct ps_rng r;
    struct {
        uint32_t pages[DEPTH], n;
    } live[LIVE] = {0};
    uint32_t content[N][PT], parent_of[N];

    (void)state;
    ps_rng_seed(&r, 5);
    open_world(&w, N);
    for (uint32_t step = 0; step < STEPS; step++) {
        uint32_t i = (uint32_t)ps_rng_below(&r, LIVE), ids[DEPTH * PT], got[N], n;
        uint64_t hash = 9;
        struct wk_kv_match m;

        drop_path(&w, live[i].pages, live[i].n);
        live[i].n = 0;
        for (uint32_t k = 0; k < DEPTH * PT; k++)
            ids[k] = k % PT == 0 ? (uint32_t)ps_rng_below(&r, 3) : 0;
        n = 1 + (uint32_t)ps_rng_below(&r, DEPTH);
        m = match(&w, 9, ids, n * PT, got);
        for (uint32_t k = 0; k < m.n_pages; k++) {
            assert_memory_equal(content[got[k]], ids + k * PT, sizeof(content[0]));
            assert_int_equal(parent_of[got[k]], k == 0 ? WK_KV_NO_PAGE : got[k - 1]);
            wk_kv_tree_pin(w.tree, got[k]);
        }
        for (uint32_t k = 0; k < n; k++) {
            hash = wk_kv_tree_hash(w.tree, hash, ids + k * PT);
            if (k < m.n_pages) {
                live[i].pages[live[i].n++] = got[k];
                continue;
            }
            if (wk_kv_tree_take(w.tree, &got[k]) != WK_KV_OK)
                break;
            memcpy(content[got[k]], ids + k * PT, sizeof(content[0]));
            parent_of[got[k]] = k == 0 ? WK_KV_NO_PAGE : got[k - 1];
            assert_int_equal(
                wk_kv_tree_publish(w.tree, 9, parent_of[got[k]], hash, ids + k * PT, got[k]),
                got[k]);
            live[i].pages[live[i].n++] = got[k];
        }
    }
    assert_true(wk_kv_tree_n_evicted(w.tree) > STEPS / 10);
    for (uint32_t i = 0; i < LIVE; i++)
        drop_path(&w, live[i].pages, live[i].n);
    close_world(&w, N);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_prefix_is_found_page_by_page_and_its_tail_token_by_token),
        cmocka_unit_test(tenants_never_meet),
        cmocka_unit_test(a_hash_is_only_a_hint),
        cmocka_unit_test(publishing_twice_gives_the_page_that_was_there),
        cmocka_unit_test(eviction_takes_the_oldest_leaf_and_never_what_is_held),
        cmocka_unit_test(flush_forgets_and_holders_keep_their_pages),
        cmocka_unit_test(random_use_returns_only_pages_with_the_right_tokens),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
