#include "worker/kv/tree.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "common/rng.h"

enum { PT = 16, N = 24, STRIDE = 2, SPACE = 77 };
enum { ROWS = WK_KV_ROWS_GROUP, SNAP = WK_KV_SNAP_GROUP };

struct world {
    struct wk_kv_pool *t0, *t1;
    struct wk_announce *announce;
    struct wk_kv_tree *tree;
    uint32_t n_t0;
};

struct size {
    uint32_t n_t0, n_t1, n_t2, n_extra;
    bool has_snapshots;
};

/* 1.5 MiB a page and 3 MiB a snapshot: slabs of 4 pages or 2 snapshots. */
static void open_world(struct world *w, struct size s)
{
    struct wk_kv_layout l;
    struct wk_kv_tree_conf conf = {.page_tokens = PT,
                                   .n_group = s.has_snapshots ? 2 : 1,
                                   .n_t2 = {s.n_t2, s.has_snapshots ? s.n_t2 : 0},
                                   .n_extra = s.n_extra,
                                   .stride_pages = STRIDE,
                                   .space_id = SPACE};

    wk_kv_layout_init(&l);
    wk_kv_layout_add_attn(&l, 24, 8, 128, KN_BF16, PT);
    if (s.has_snapshots)
        wk_kv_layout_add_state(&l, "gdn", 24, 128 * 1024);
    wk_kv_layout_seal(&l);
    w->n_t0 = s.n_t0;
    w->t0 = conf.t0 = wk_kv_pool_create(&l, s.n_t0);
    w->t1 = conf.t1 = s.n_t1 > 0 ? wk_kv_pool_create(&l, s.n_t1) : NULL;
    w->announce = conf.announce = wk_announce_create(1024);
    w->tree = wk_kv_tree_create(&conf);
}

static void open_simple(struct world *w, uint32_t n_pages)
{
    open_world(w, (struct size){.n_t0 = n_pages});
}

static void close_world(struct world *w)
{
    wk_kv_tree_check(w->tree);
    wk_kv_tree_destroy(w->tree);
    assert_int_equal(wk_kv_pool_n_free(w->t0, ROWS), w->n_t0);
    if (w->t1 != NULL)
        assert_int_equal(wk_kv_pool_n_free(w->t1, ROWS), wk_kv_pool_n_total(w->t1, ROWS));
    wk_kv_pool_destroy(w->t0);
    wk_kv_pool_destroy(w->t1);
    wk_announce_destroy(w->announce);
}

static uint32_t take(struct world *w, enum wk_kv_tier tier, uint32_t group)
{
    uint32_t item;

    assert_int_equal(wk_kv_tree_take(w->tree, tier, group, &item), WK_KV_OK);
    return item;
}

/* Computes and publishes pages [from, n) of ids as a sequence would; the path stays pinned. */
static void put_more(struct world *w, uint64_t seed, const uint32_t *ids, uint32_t from, uint32_t n,
                     uint32_t *nodes)
{
    uint32_t parent = from > 0 ? nodes[from - 1] : WK_KV_NO_NODE;
    uint64_t hash = seed;

    for (uint32_t i = 0; i < n; i++) {
        uint32_t item;
        bool adopted;

        hash = wk_kv_tree_hash(w->tree, hash, ids + i * PT);
        if (i < from)
            continue;
        item = take(w, WK_KV_T0, ROWS);
        nodes[i] = wk_kv_tree_publish(w->tree, seed, parent, hash, ids + i * PT, item, &adopted);
        assert_int_not_equal(nodes[i], WK_KV_NO_NODE);
        if (!adopted)
            wk_kv_tree_give(w->tree, WK_KV_T0, ROWS, item);
        parent = nodes[i];
    }
    wk_kv_tree_check(w->tree);
}

static void put(struct world *w, uint64_t seed, const uint32_t *ids, uint32_t n, uint32_t *nodes)
{
    put_more(w, seed, ids, 0, n, nodes);
}

static void unpin_path(struct world *w, const uint32_t *nodes, uint32_t n)
{
    while (n > 0)
        wk_kv_tree_unpin(w->tree, nodes[--n]);
    wk_kv_tree_check(w->tree);
}

static struct wk_kv_match match(struct world *w, uint64_t seed, const uint32_t *ids, uint32_t n,
                                uint32_t *nodes)
{
    uint64_t hashes[N], h = seed;
    struct wk_kv_match m;

    for (uint32_t i = 0; i < n / PT; i++)
        hashes[i] = h = wk_kv_tree_hash(w->tree, h, ids + i * PT);
    wk_kv_tree_match(w->tree, seed, ids, n, hashes, nodes, &m);
    return m;
}

static uint32_t found(struct world *w, const uint32_t *ids, uint32_t n_pages)
{
    uint32_t nodes[N];

    return match(w, 1, ids, n_pages * PT, nodes).n_found;
}

static void count_up(uint32_t *ids, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        ids[i] = i;
}

/* A copy in T1 or T2, as the cleaner makes it. */
static void clean(struct world *w, enum wk_kv_tier tier, uint32_t node, uint32_t group)
{
    wk_kv_tree_io_begin(w->tree, node, group);
    wk_kv_tree_set(w->tree, tier, node, group, take(w, tier, group));
    wk_kv_tree_io_end(w->tree, node, group);
}

static void a_prefix_is_found_page_by_page_and_its_tail_token_by_token(void **state)
{
    struct world w;
    uint32_t ids[4 * PT], nodes[N], got[N];
    struct wk_kv_match m;

    (void)state;
    open_simple(&w, N);
    count_up(ids, 4 * PT);
    put(&w, 1, ids, 3, nodes);
    m = match(&w, 1, ids, 3 * PT, got);
    assert_int_equal(m.n_found, 3);
    assert_int_equal(m.n_hot, 3);
    assert_int_equal(m.n_tail, 0);
    assert_memory_equal(got, nodes, 3 * sizeof(*got));
    ids[2 * PT + 5] = 999;
    m = match(&w, 1, ids, 4 * PT, got);
    assert_int_equal(m.n_found, 2);
    assert_int_equal(m.n_tail, 5);
    assert_int_equal(m.tail_node, nodes[2]);
    assert_false(m.tail_idle);
    m = match(&w, 1, ids, 2 * PT + 5, got); /* all is there: one token is left to compute */
    assert_int_equal(m.n_found, 2);
    assert_int_equal(m.n_tail, 4);
    ids[0] = 999;
    m = match(&w, 1, ids, 4 * PT, got);
    assert_int_equal(m.n_found + m.n_tail, 0);
    unpin_path(&w, nodes, 3);
    ids[0] = 0;
    m = match(&w, 1, ids, 4 * PT, got);
    assert_int_equal(m.n_idle, 2);
    assert_true(m.tail_idle);
    close_world(&w);
}

static void tenants_never_meet(void **state)
{
    struct world w;
    uint32_t ids[2 * PT], nodes[N], got[N];

    (void)state;
    open_simple(&w, N);
    count_up(ids, 2 * PT);
    put(&w, 1, ids, 2, nodes);
    assert_int_equal(match(&w, 2, ids, 2 * PT, got).n_found, 0);
    assert_int_equal(match(&w, 2, ids, 2 * PT - 3, got).n_tail, 0);
    unpin_path(&w, nodes, 2);
    close_world(&w);
}

static void a_hash_is_only_a_hint(void **state)
{
    struct world w;
    uint32_t ids[2][PT], node[3], got[1];
    const uint64_t same = 77;
    struct wk_kv_match m;
    bool adopted;

    (void)state;
    open_simple(&w, N);
    count_up(ids[0], PT);
    count_up(ids[1], PT);
    ids[1][9] = 1;
    for (uint32_t i = 0; i < 2; i++) { /* two blocks of one hash, as an attacker would make them */
        node[i] = wk_kv_tree_publish(w.tree, 1, WK_KV_NO_NODE, same, ids[i],
                                     take(&w, WK_KV_T0, ROWS), &adopted);
        assert_true(adopted);
    }
    /* The same tokens below another parent are another block, whatever the hash says. */
    node[2] =
        wk_kv_tree_publish(w.tree, 1, node[0], same, ids[0], take(&w, WK_KV_T0, ROWS), &adopted);
    assert_true(adopted);
    for (uint32_t i = 0; i < 2; i++) {
        wk_kv_tree_match(w.tree, 1, ids[i], PT, &same, got, &m);
        assert_int_equal(m.n_found, 1);
        assert_int_equal(got[0], node[i]);
    }
    ids[0][15] = 1234;
    wk_kv_tree_match(w.tree, 1, ids[0], PT, &same, got, &m);
    assert_int_equal(m.n_found, 0);
    unpin_path(&w, node, 3);
    close_world(&w);
}

static void publishing_twice_gives_the_node_that_was_there(void **state)
{
    struct world w;
    uint32_t ids[2 * PT], a[N], b[N];

    (void)state;
    open_simple(&w, N);
    count_up(ids, 2 * PT);
    put(&w, 1, ids, 2, a);
    put(&w, 1, ids, 2, b);
    assert_memory_equal(a, b, 2 * sizeof(*a));
    assert_int_equal(wk_kv_tree_n_pins(w.tree, a[0]), 2);
    unpin_path(&w, a, 2);
    assert_int_equal(wk_kv_tree_n_idle(w.tree, WK_KV_T0, ROWS), 0);
    unpin_path(&w, b, 2);
    assert_int_equal(wk_kv_tree_n_idle(w.tree, WK_KV_T0, ROWS), 2);
    assert_int_equal(wk_kv_tree_n_avail(w.tree, WK_KV_T0, ROWS), N);
    close_world(&w);
}

static void eviction_takes_the_oldest_leaf_and_never_what_is_held(void **state)
{
    struct world w;
    uint32_t a_ids[3 * PT], b_ids[3 * PT], a[3], b[3], item[3], none;

    (void)state;
    open_simple(&w, 6);
    count_up(a_ids, 3 * PT);
    count_up(b_ids, 3 * PT);
    b_ids[0] = 500;
    put(&w, 1, a_ids, 3, a);
    put(&w, 1, b_ids, 3, b);
    for (uint32_t i = 0; i < 3; i++)
        item[i] = wk_kv_tree_cell(w.tree, a[i], ROWS)->t0;
    unpin_path(&w, a, 3);
    for (uint32_t left = 3; left-- > 0;) { /* leaf first */
        assert_int_equal(take(&w, WK_KV_T0, ROWS), item[left]);
        assert_int_equal(found(&w, a_ids, 3), left);
    }
    assert_int_equal(wk_kv_tree_take(w.tree, WK_KV_T0, ROWS, &none), WK_KV_E_FULL);
    assert_int_equal(found(&w, b_ids, 3), 3);
    assert_int_equal(wk_kv_tree_n_nodes(w.tree), 3);
    assert_int_equal(wk_kv_tree_n_lost(w.tree, WK_KV_T0), 3);
    for (uint32_t i = 0; i < 3; i++)
        wk_kv_tree_give(w.tree, WK_KV_T0, ROWS, item[i]);
    unpin_path(&w, b, 3);
    close_world(&w);
}

static void eviction_prefers_what_leaves_a_copy_below(void **state)
{
    struct world w;
    uint32_t ids[4 * PT], nodes[4], item;

    (void)state;
    open_world(&w, (struct size){.n_t0 = 4, .n_t1 = 4, .n_t2 = 4});
    count_up(ids, 4 * PT);
    put(&w, 1, ids, 4, nodes);
    unpin_path(&w, nodes, 4);
    clean(&w, WK_KV_T1, nodes[1], ROWS);
    item = take(&w, WK_KV_T0, ROWS);
    assert_int_equal(wk_kv_tree_cell(w.tree, nodes[1], ROWS)->t0, WK_KV_NO_ITEM);
    assert_int_equal(found(&w, ids, 4), 4);
    assert_int_equal(wk_kv_tree_n_evicted(w.tree, WK_KV_T0), 1);
    assert_int_equal(wk_kv_tree_n_lost(w.tree, WK_KV_T0), 0);
    wk_kv_tree_give(w.tree, WK_KV_T0, ROWS, item);
    close_world(&w);
}

/* Random sequences share, fork, come again and evict. A node without a copy would be a hole: something
 * above a page that is still there was evicted before it. */
static void eviction_never_leaves_a_hole_in_a_path(void **state)
{
    enum { STEPS = 4000, LIVE = 4, DEPTH = 4, ROOM = 30 };
    struct world w;
    struct ps_rng r;
    uint32_t live[LIVE][DEPTH], n_live[LIVE] = {0}, n_seen = 0;

    (void)state;
    ps_rng_seed(&r, 5);
    open_simple(&w, ROOM);
    for (uint32_t step = 0; step < STEPS; step++) {
        uint32_t i = (uint32_t)ps_rng_below(&r, LIVE), ids[DEPTH * PT] = {0}, n;

        unpin_path(&w, live[i], n_live[i]);
        for (uint32_t k = 0; k < DEPTH; k++)
            ids[k * PT] = (uint32_t)ps_rng_below(&r, 1 + ps_rng_below(&r, 4));
        n = 1 + (uint32_t)ps_rng_below(&r, DEPTH);
        n_live[i] = match(&w, 1, ids, n * PT, live[i]).n_found;
        for (uint32_t k = 0; k < n_live[i]; k++)
            wk_kv_tree_pin(w.tree, live[i][k]);
        wk_kv_tree_touch(w.tree, live[i], n_live[i]);
        n_seen += n_live[i];
        put_more(&w, 1, ids, n_live[i], n, live[i]);
        n_live[i] = n;
        assert_int_equal(wk_kv_tree_n_nodes(w.tree) + wk_kv_tree_n_free(w.tree, WK_KV_T0, ROWS),
                         ROOM);
    }
    assert_true(wk_kv_tree_n_evicted(w.tree, WK_KV_T0) > STEPS / 10 && n_seen > STEPS);
    for (uint32_t i = 0; i < LIVE; i++)
        unpin_path(&w, live[i], n_live[i]);
    close_world(&w);
}

static void what_comes_back_soon_after_it_was_lost_counts_as_used(void **state)
{
    struct world w;
    uint32_t ids[3 * PT], nodes[3], item[6];

    (void)state;
    open_simple(&w, 6);
    count_up(ids, 3 * PT);
    put(&w, 1, ids, 3, nodes);
    assert_int_equal(wk_kv_tree_uses(w.tree, nodes[1]), 0);
    unpin_path(&w, nodes, 3);
    for (uint32_t i = 0; i < 6; i++)
        item[i] = take(&w, WK_KV_T0, ROWS);
    for (uint32_t i = 0; i < 6; i++)
        wk_kv_tree_give(w.tree, WK_KV_T0, ROWS, item[i]);
    put(&w, 1, ids, 2, nodes);
    assert_int_equal(wk_kv_tree_uses(w.tree, nodes[0]), 1);
    assert_int_equal(wk_kv_tree_uses(w.tree, nodes[1]), 1);
    put(&w, 2, ids, 1, nodes + 2); /* another tenant's is another page */
    assert_int_equal(wk_kv_tree_uses(w.tree, nodes[2]), 0);
    wk_kv_tree_unpin(w.tree, nodes[2]);
    unpin_path(&w, nodes, 2);
    close_world(&w);
}

static void copying_is_no_use(void **state)
{
    struct world w;
    uint32_t ids[3 * PT], nodes[3], coldest;

    (void)state;
    open_world(&w, (struct size){.n_t0 = 3, .n_t1 = 4});
    count_up(ids, 3 * PT);
    put(&w, 1, ids, 3, nodes);
    unpin_path(&w, nodes, 3);
    wk_kv_tree_io_begin(w.tree, nodes[2], ROWS);
    assert_int_equal(wk_kv_tree_coldest(w.tree, WK_KV_T0, ROWS), nodes[1]); /* not what moves */
    assert_int_equal(wk_kv_tree_n_avail(w.tree, WK_KV_T0, ROWS), 2);
    wk_kv_tree_io_end(w.tree, nodes[2], ROWS);
    coldest = wk_kv_tree_coldest(w.tree, WK_KV_T0, ROWS);
    assert_int_equal(coldest, nodes[2]);
    assert_int_equal(wk_kv_tree_warmer(w.tree, WK_KV_T0, ROWS, coldest), nodes[1]);
    close_world(&w);
}

static void what_moves_below_t0_holds_nothing_of_t0(void **state)
{
    struct world w;
    uint32_t ids[PT], node, item;

    (void)state;
    open_world(&w, (struct size){.n_t0 = 1, .n_t1 = 2, .n_t2 = 2});
    count_up(ids, PT);
    put(&w, 1, ids, 1, &node);
    unpin_path(&w, &node, 1);
    clean(&w, WK_KV_T1, node, ROWS);
    wk_kv_tree_io_begin(w.tree, node, ROWS);
    wk_kv_tree_low_io_begin(w.tree, node, ROWS);
    assert_int_equal(wk_kv_tree_n_avail(w.tree, WK_KV_T0, ROWS), 0);
    wk_kv_tree_io_end(w.tree, node, ROWS);
    wk_kv_tree_check(w.tree);
    assert_int_equal(wk_kv_tree_n_avail(w.tree, WK_KV_T0, ROWS), 1);
    assert_int_equal(wk_kv_tree_n_avail(w.tree, WK_KV_T1, ROWS), 1); /* that copy moves */
    item = take(&w, WK_KV_T0, ROWS);
    assert_int_equal(wk_kv_tree_cell(w.tree, node, ROWS)->hot, WK_KV_COLD);
    wk_kv_tree_give(w.tree, WK_KV_T0, ROWS, item);
    wk_kv_tree_low_io_end(w.tree, node, ROWS);
    assert_int_equal(wk_kv_tree_n_avail(w.tree, WK_KV_T1, ROWS), 2);
    close_world(&w);
}

static void a_page_is_found_while_any_tier_has_it(void **state)
{
    struct world w;
    uint32_t ids[2 * PT], nodes[2], got[N];
    struct wk_kv_match m;

    (void)state;
    open_world(&w, (struct size){.n_t0 = 4, .n_t1 = 4, .n_t2 = 4, .n_extra = 4});
    count_up(ids, 2 * PT);
    put(&w, 1, ids, 2, nodes);
    unpin_path(&w, nodes, 2);
    clean(&w, WK_KV_T1, nodes[1], ROWS);
    clean(&w, WK_KV_T2, nodes[1], ROWS);
    wk_kv_tree_set_t3(w.tree, nodes[1], ROWS, true);
    wk_kv_tree_set_peer(w.tree, nodes[1], ROWS, true, 3);
    for (uint32_t tier = WK_KV_T0; tier <= WK_KV_T2; tier++) {
        wk_kv_tree_clear(w.tree, (enum wk_kv_tier)tier, nodes[1], ROWS);
        m = match(&w, 1, ids, 2 * PT, got);
        assert_int_equal(m.n_found, 2);
        assert_int_equal(m.n_hot, 1);
        assert_int_equal(m.n_tail, 0);
    }
    wk_kv_tree_set_t3(w.tree, nodes[1], ROWS, false);
    assert_int_equal(found(&w, ids, 2), 2);
    wk_kv_tree_check(w.tree);
    wk_kv_tree_set_peer(w.tree, nodes[1], ROWS, false, 0);
    assert_int_equal(found(&w, ids, 2), 1);
    assert_int_equal(wk_kv_tree_n_nodes(w.tree), 1);
    close_world(&w);
}

static void matching_stops_at_a_hollow_page_until_it_is_computed_again(void **state)
{
    struct world w;
    uint32_t ids[3 * PT], nodes[3], again[3];

    (void)state;
    open_simple(&w, 8);
    count_up(ids, 3 * PT);
    put(&w, 1, ids, 3, nodes);
    unpin_path(&w, nodes, 3);
    wk_kv_tree_clear(w.tree, WK_KV_T0, nodes[1], ROWS);
    assert_int_equal(found(&w, ids, 3), 1);
    assert_int_equal(wk_kv_tree_n_nodes(w.tree), 3);
    put(&w, 1, ids, 2, again);
    assert_memory_equal(again, nodes, 2 * sizeof(*nodes));
    assert_int_equal(found(&w, ids, 3), 3);
    unpin_path(&w, again, 2);
    wk_kv_tree_clear(w.tree, WK_KV_T0, nodes[0], ROWS);
    wk_kv_tree_clear(w.tree, WK_KV_T0, nodes[1], ROWS);
    assert_int_equal(wk_kv_tree_n_nodes(w.tree), 3);
    wk_kv_tree_clear(w.tree, WK_KV_T0, nodes[2], ROWS); /* the last thing that held all three */
    assert_int_equal(wk_kv_tree_n_nodes(w.tree), 0);
    close_world(&w);
}

static void a_load_that_fails_leaves_nothing_and_one_that_is_overtaken_changes_nothing(void **state)
{
    struct world w;
    uint32_t ids[PT], node, item, other, again;
    uint64_t hash;
    bool adopted;

    (void)state;
    open_world(&w, (struct size){.n_t0 = 4, .n_t1 = 4, .n_extra = 4});
    count_up(ids, PT);
    hash = wk_kv_tree_hash(w.tree, 1, ids);
    node = wk_kv_tree_add(w.tree, 1, WK_KV_NO_NODE, hash, ids);
    wk_kv_tree_set_t3(w.tree, node, ROWS, true);
    wk_kv_tree_pin(w.tree, node);
    for (uint32_t round = 0; round < 2; round++) {
        item = take(&w, WK_KV_T0, ROWS);
        wk_kv_tree_io_begin(w.tree, node, ROWS);
        wk_kv_tree_load_begin(w.tree, node, ROWS, item);
        assert_int_equal(wk_kv_tree_cell(w.tree, node, ROWS)->hot, WK_KV_LOADING);
        if (round == 0) {
            wk_kv_tree_load_end(w.tree, node, ROWS, false);
            wk_kv_tree_io_end(w.tree, node, ROWS);
            assert_int_equal(wk_kv_tree_n_free(w.tree, WK_KV_T0, ROWS), 4);
        }
        wk_kv_tree_check(w.tree);
    }
    other = take(&w, WK_KV_T0, ROWS); /* somebody computed it meanwhile */
    again = wk_kv_tree_publish(w.tree, 1, WK_KV_NO_NODE, hash, ids, other, &adopted);
    assert_true(adopted && again == node);
    assert_int_equal(wk_kv_tree_cell(w.tree, node, ROWS)->hot, WK_KV_READY);
    assert_int_equal(wk_kv_pool_holders(w.t0, ROWS, item), 1); /* the load still writes to it */
    wk_kv_tree_unpin(w.tree, node);
    wk_kv_tree_unpin(w.tree, node);
    assert_int_equal(wk_kv_tree_n_idle(w.tree, WK_KV_T0, ROWS), 0);
    wk_kv_tree_load_end(w.tree, node, ROWS, false);
    wk_kv_tree_io_end(w.tree, node, ROWS);
    assert_int_equal(wk_kv_pool_holders(w.t0, ROWS, item), 0);
    assert_int_equal(wk_kv_tree_cell(w.tree, node, ROWS)->t0, other);
    assert_int_equal(wk_kv_tree_n_idle(w.tree, WK_KV_T0, ROWS), 1);
    close_world(&w);
}

static void flush_forgets_and_holders_keep_what_they_hold(void **state)
{
    struct world w;
    uint32_t ids[3 * PT], a[3], b[2], other[2 * PT];

    (void)state;
    open_world(&w, (struct size){.n_t0 = N, .n_t1 = 8, .n_t2 = 8, .n_extra = 4});
    count_up(ids, 3 * PT);
    count_up(other, 2 * PT);
    other[3] = 7;
    put(&w, 1, ids, 3, a);
    put(&w, 1, other, 2, b);
    clean(&w, WK_KV_T1, a[0], ROWS);
    clean(&w, WK_KV_T2, a[2], ROWS);
    wk_kv_tree_set_t3(w.tree, a[1], ROWS, true);
    unpin_path(&w, b, 2);
    unpin_path(&w, a + 2, 1);
    wk_kv_tree_io_begin(w.tree, a[2], ROWS);
    wk_kv_tree_flush(w.tree);
    wk_kv_tree_check(w.tree);
    assert_int_equal(wk_kv_tree_epoch(w.tree), 1);
    assert_int_equal(wk_kv_tree_n_free(w.tree, WK_KV_T0, ROWS), N - 3);
    assert_int_equal(wk_kv_tree_n_free(w.tree, WK_KV_T1, ROWS), 8);
    assert_int_equal(wk_kv_tree_n_free(w.tree, WK_KV_T2, ROWS), 7); /* the io names it */
    assert_int_equal(found(&w, ids, 2) + found(&w, other, 2), 0);
    for (uint32_t i = 0; i < 3; i++)
        assert_true(wk_kv_tree_is_flushed(w.tree, a[i]));
    put(&w, 1, ids, 2, b); /* the same path may come again beside the forgotten one */
    assert_int_equal(found(&w, ids, 2), 2);
    wk_kv_tree_set_t3(w.tree, a[2], ROWS, true); /* a late answer */
    wk_kv_tree_io_end(w.tree, a[2], ROWS);
    assert_int_equal(wk_kv_tree_n_free(w.tree, WK_KV_T2, ROWS), 8);
    unpin_path(&w, a, 2);
    assert_int_equal(wk_kv_tree_n_nodes(w.tree), 2);
    unpin_path(&w, b, 2);
    close_world(&w);
}

static void snapshots_have_their_own_order_and_outlive_nothing(void **state)
{
    struct world w;
    uint32_t ids[2 * PT], nodes[2], item;

    (void)state;
    open_world(&w, (struct size){.n_t0 = 8, .n_t1 = 8, .n_t2 = 4, .has_snapshots = true});
    count_up(ids, 2 * PT);
    put(&w, 1, ids, 2, nodes);
    item = take(&w, WK_KV_T0, SNAP);
    assert_true(wk_kv_tree_put_snapshot(w.tree, nodes[1], item));
    wk_kv_tree_check(w.tree);
    item = take(&w, WK_KV_T0, SNAP);
    assert_false(wk_kv_tree_put_snapshot(w.tree, nodes[1], item));
    wk_kv_tree_give(w.tree, WK_KV_T0, SNAP, item);
    assert_int_equal(wk_kv_tree_n_idle(w.tree, WK_KV_T0, SNAP), 1); /* pins hold rows */
    clean(&w, WK_KV_T1, nodes[1], SNAP);
    wk_kv_tree_clear(w.tree, WK_KV_T0, nodes[1], SNAP);
    assert_true(wk_kv_tree_has_copy(w.tree, nodes[1], SNAP));
    unpin_path(&w, nodes, 2);
    wk_kv_tree_clear(w.tree, WK_KV_T0, nodes[1], ROWS);
    assert_int_equal(wk_kv_tree_n_nodes(w.tree), 2); /* its snapshot keeps it */
    assert_int_equal(found(&w, ids, 2), 1);
    wk_kv_tree_clear(w.tree, WK_KV_T1, nodes[1], SNAP);
    assert_int_equal(wk_kv_tree_n_nodes(w.tree), 1);
    close_world(&w);
}

static void a_group_without_room_gets_whole_slabs_of_the_other(void **state)
{
    struct world w;
    uint32_t a_ids[6 * PT], b_ids[2 * PT], a[6], b[2], item, other;

    (void)state;
    open_world(&w, (struct size){.n_t0 = 8, .has_snapshots = true}); /* two slabs */
    count_up(a_ids, 6 * PT);
    count_up(b_ids, 2 * PT);
    b_ids[0] = 500;
    put(&w, 1, a_ids, 6, a);
    put(&w, 1, b_ids, 2, b);
    assert_int_equal(wk_kv_tree_n_avail(w.tree, WK_KV_T0, SNAP), 0);
    assert_int_equal(wk_kv_tree_take(w.tree, WK_KV_T0, SNAP, &item), WK_KV_E_FULL);
    unpin_path(&w, a, 6); /* the first slab is all idle, the second half */
    assert_int_equal(wk_kv_tree_n_avail(w.tree, WK_KV_T0, SNAP), 2);
    item = take(&w, WK_KV_T0, SNAP);
    other = take(&w, WK_KV_T0, SNAP);
    wk_kv_tree_check(w.tree);
    assert_int_equal(wk_kv_tree_n_avail(w.tree, WK_KV_T0, SNAP), 0);
    assert_int_equal(found(&w, b_ids, 2), 2);
    wk_kv_tree_give(w.tree, WK_KV_T0, SNAP, item);
    wk_kv_tree_give(w.tree, WK_KV_T0, SNAP, other);
    assert_int_equal(wk_kv_tree_n_avail(w.tree, WK_KV_T0, ROWS), 6);
    unpin_path(&w, b, 2);
    close_world(&w);
}

static void nodes_known_from_elsewhere_make_room_coldest_first(void **state)
{
    struct world w;
    uint32_t ids[9 * PT], node = WK_KV_NO_NODE, first = WK_KV_NO_NODE, paths[2], mine[2];
    uint64_t hash;

    (void)state;
    open_world(&w, (struct size){.n_t0 = 4, .n_extra = 4});
    count_up(ids, 9 * PT);
    for (uint32_t i = 0; i < 8; i++) { /* eight roots: all nodes there are */
        hash = wk_kv_tree_hash(w.tree, 1, ids + i * PT);
        node = wk_kv_tree_add(w.tree, 1, WK_KV_NO_NODE, hash, ids + i * PT);
        wk_kv_tree_set_peer(w.tree, node, ROWS, true, 0);
        if (i == 0)
            first = node;
    }
    wk_kv_tree_check(w.tree);
    paths[0] = first;
    wk_kv_tree_touch(w.tree, paths, 1);
    put(&w, 1, ids + 8 * PT, 1, mine);
    assert_int_equal(wk_kv_tree_n_nodes(w.tree), 8);
    assert_int_equal(found(&w, ids, 1), 1);      /* touched */
    assert_int_equal(found(&w, ids + PT, 1), 0); /* the coldest */
    wk_kv_tree_unpin(w.tree, mine[0]);
    close_world(&w);
}

static void digests_chain_over_the_whole_path(void **state)
{
    struct world w;
    uint32_t ids[3 * PT], nodes[3];
    uint8_t want[4][PS_SHA256_BYTES], other[PS_SHA256_BYTES];
    struct wk_kv_key key;

    (void)state;
    open_simple(&w, N);
    count_up(ids, 3 * PT);
    put(&w, 1, ids, 3, nodes);
    wk_kv_tree_root_digest(w.tree, 1, want[0]);
    wk_kv_tree_root_digest(w.tree, 2, other);
    assert_memory_not_equal(want[0], other, sizeof(other));
    for (uint32_t i = 0; i < 3; i++)
        wk_kv_digest(want[i], ids + i * PT, PT, want[i + 1]);
    for (uint32_t k = 0; k < 4; k++) {
        const uint32_t order[4] = {1, 2, 0, 2}; /* from the middle, below it, above it, known */
        uint32_t i = order[k];

        wk_kv_tree_key(w.tree, nodes[i], ROWS, &key);
        assert_memory_equal(key.digest, want[i + 1], PS_SHA256_BYTES);
        assert_memory_equal(key.parent, want[i], PS_SHA256_BYTES);
        assert_memory_equal(key.ids, ids + i * PT, PT * sizeof(*ids));
        assert_int_equal(key.first_pos, i * PT);
        assert_int_equal(key.n_tok, PT);
    }
    unpin_path(&w, nodes, 3);
    close_world(&w);
}

static void strides_are_announced_whole_with_their_slowest_tier(void **state)
{
    struct world w;
    uint32_t ids[4 * PT], nodes[4], n;
    struct wk_kv_event e[8];

    (void)state;
    open_world(&w, (struct size){.n_t0 = N, .n_t1 = 8, .n_extra = 4});
    count_up(ids, 4 * PT);
    put(&w, 1, ids, 3, nodes); /* one stride and a half */
    assert_int_equal(wk_announce_seq(w.announce), 1);
    unpin_path(&w, nodes, 3);
    put(&w, 1, ids, 4, nodes);
    unpin_path(&w, nodes, 4);
    clean(&w, WK_KV_T1, nodes[0], ROWS);
    assert_int_equal(wk_announce_seq(w.announce), 2);
    wk_kv_tree_clear(w.tree, WK_KV_T0, nodes[0],
                     ROWS); /* moved: the stride is as slow as its first */
    wk_kv_tree_set_peer(w.tree, nodes[0], ROWS, true, 1);
    wk_kv_tree_clear(w.tree, WK_KV_T1, nodes[0], ROWS); /* only a peer has it: both strides go */
    put(&w, 1, ids, 1, nodes);                          /* and come again */
    unpin_path(&w, nodes, 1);
    wk_kv_tree_check(w.tree);
    assert_int_equal(wk_announce_replay(w.announce, 2, e, 8, &n), WK_ANNOUNCE_OK);
    assert_int_equal(n, 5);
    assert_true(e[0].kind == WK_KV_MOVED && e[0].from == WK_KV_T0 && e[0].tier == WK_KV_T1);
    assert_true(e[1].kind == WK_KV_REMOVED && e[1].hash == e[0].hash);
    assert_true(e[2].kind == WK_KV_REMOVED && e[2].hash != e[0].hash);
    assert_true(e[3].kind == WK_KV_STORED && e[3].hash == e[1].hash && e[3].tier == WK_KV_T0);
    assert_true(e[4].kind == WK_KV_STORED && e[4].hash == e[2].hash);
    close_world(&w);
}

static void of_two_strides_with_one_hash_one_is_announced(void **state)
{
    struct world w;
    uint32_t ids[2][2 * PT], nodes[2][2], n;
    struct wk_kv_event e[8];
    bool adopted;

    (void)state;
    open_simple(&w, N);
    for (uint32_t i = 0; i < 2; i++) {
        count_up(ids[i], 2 * PT);
        ids[i][0] = 100 + i;
        for (uint32_t k = 0; k < 2; k++)
            nodes[i][k] = wk_kv_tree_publish(w.tree, 1, k == 0 ? WK_KV_NO_NODE : nodes[i][0], 5 + k,
                                             ids[i] + k * PT, take(&w, WK_KV_T0, ROWS), &adopted);
        wk_kv_tree_check(w.tree);
    }
    assert_int_equal(wk_announce_seq(w.announce), 1);
    unpin_path(&w, nodes[0], 2);
    wk_kv_tree_clear(w.tree, WK_KV_T0, nodes[0][1], ROWS);
    wk_kv_tree_check(w.tree);
    assert_int_equal(wk_announce_replay(w.announce, 1, e, 8, &n), WK_ANNOUNCE_OK);
    assert_int_equal(n, 2); /* the other one took its place */
    assert_true(e[0].kind == WK_KV_REMOVED && e[1].kind == WK_KV_STORED && e[1].hash == 6);
    unpin_path(&w, nodes[1], 2);
    close_world(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_prefix_is_found_page_by_page_and_its_tail_token_by_token),
        cmocka_unit_test(tenants_never_meet),
        cmocka_unit_test(a_hash_is_only_a_hint),
        cmocka_unit_test(publishing_twice_gives_the_node_that_was_there),
        cmocka_unit_test(eviction_takes_the_oldest_leaf_and_never_what_is_held),
        cmocka_unit_test(eviction_prefers_what_leaves_a_copy_below),
        cmocka_unit_test(eviction_never_leaves_a_hole_in_a_path),
        cmocka_unit_test(what_comes_back_soon_after_it_was_lost_counts_as_used),
        cmocka_unit_test(copying_is_no_use),
        cmocka_unit_test(what_moves_below_t0_holds_nothing_of_t0),
        cmocka_unit_test(a_page_is_found_while_any_tier_has_it),
        cmocka_unit_test(matching_stops_at_a_hollow_page_until_it_is_computed_again),
        cmocka_unit_test(
            a_load_that_fails_leaves_nothing_and_one_that_is_overtaken_changes_nothing),
        cmocka_unit_test(flush_forgets_and_holders_keep_what_they_hold),
        cmocka_unit_test(snapshots_have_their_own_order_and_outlive_nothing),
        cmocka_unit_test(a_group_without_room_gets_whole_slabs_of_the_other),
        cmocka_unit_test(nodes_known_from_elsewhere_make_room_coldest_first),
        cmocka_unit_test(digests_chain_over_the_whole_path),
        cmocka_unit_test(strides_are_announced_whole_with_their_slowest_tier),
        cmocka_unit_test(of_two_strides_with_one_hash_one_is_announced),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
