#include "worker/self_bench.h"

#include <string.h>
#include <time.h>

#include "worker/exec/exec_sim.h"
#include "worker/kv/tree.h"

enum { PATH_PAGES = 64, PT = WK_SIM_PAGE_TOKENS }; /* a prompt of 1,024 tokens */

struct bench {
    struct wk_kv_pool *pool;
    struct wk_kv_tree *tree;
    uint32_t ids[PATH_PAGES * PT + 1];
    uint32_t nodes[PATH_PAGES];
    uint64_t hashes[PATH_PAGES];
};

static double now_s(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Path number `path`: no two share a page. */
static void name_path(struct bench *b, uint32_t path)
{
    for (uint32_t i = 0; i < PATH_PAGES * PT; i++)
        b->ids[i] = path + i * 7;
    for (uint32_t i = 0; i < PATH_PAGES; i++)
        b->hashes[i] = wk_kv_tree_hash(b->tree, i == 0 ? 1 : b->hashes[i - 1], b->ids + i * PT);
}

/* As a sequence does it: take, publish, let go deepest first. */
static void insert_path(struct bench *b, uint32_t path)
{
    name_path(b, path);
    for (uint32_t i = 0; i < PATH_PAGES; i++) {
        uint32_t parent = i == 0 ? WK_KV_NO_NODE : b->nodes[i - 1], item;
        int r = wk_kv_tree_take(b->tree, WK_KV_T0, WK_KV_ROWS_GROUP, &item);
        bool adopted;

        PS_ASSERT(r == WK_KV_OK);
        b->nodes[i] =
            wk_kv_tree_publish(b->tree, 1, parent, b->hashes[i], b->ids + i * PT, item, &adopted);
        PS_ASSERT(adopted);
    }
    for (uint32_t i = PATH_PAGES; i-- > 0;)
        wk_kv_tree_unpin(b->tree, b->nodes[i]);
}

static void match_path(struct bench *b, uint32_t path)
{
    struct wk_kv_match m;

    name_path(b, path);
    wk_kv_tree_match(b->tree, 1, b->ids, PATH_PAGES * PT + 1, b->hashes, b->nodes, &m);
    PS_ASSERT(m.n_hot == PATH_PAGES);
}

static double rate(struct bench *b, void (*fn)(struct bench *, uint32_t), uint32_t first,
                   uint32_t n)
{
    double t0 = now_s();

    for (uint32_t i = 0; i < n; i++)
        fn(b, first + i);
    return n * PATH_PAGES / (now_s() - t0);
}

void wk_self_bench_kv(struct wk_bench_kv *out, uint32_t n_pages)
{
    struct bench b = {0};
    struct wk_kv_layout l;
    uint32_t n_paths = n_pages / PATH_PAGES;

    PS_ASSERT(n_paths > 0);
    wk_exec_sim_layout(&l, WK_SIM_ITEM_BYTES_MIN);
    b.pool = wk_kv_pool_create(&l, n_paths * PATH_PAGES);
    b.tree = wk_kv_tree_create(&(struct wk_kv_tree_conf){
        .t0 = b.pool, .page_tokens = PT, .n_group = l.n_group, .stride_pages = 1});
    out->insert_per_s = rate(&b, insert_path, 0, n_paths);
    out->match_per_s = rate(&b, match_path, 0, n_paths);
    out->evict_per_s = rate(&b, insert_path, n_paths, n_paths);
    PS_ASSERT(wk_kv_tree_n_evicted(b.tree, WK_KV_T0) > 0);
    wk_kv_tree_destroy(b.tree);
    wk_kv_pool_destroy(b.pool);
}
