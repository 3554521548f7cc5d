/*
 * What the prefix tree costs, in time and in memory; no KV bytes are allocated.
 *
 *   kv_bench [PAGES ...]      default: 1000000 10000000
 *
 * Paths of 64 pages, distinct but for their first four pages, which 256 of them share. Prints Markdown
 * rows: pages per second for a match of whole paths in random order, for taking a page, publishing and
 * unpinning it, and for taking a page when the coldest must be evicted; and resident bytes a page.
 */

#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "common/model/block.h"
#include "common/rng.h"
#include "worker/kv/tree.h"

enum { PT = 16, PATH = 64, SHARED = 4, GROUP = 256, N_MATCH = 20000, N_EVICT = 500000 };

static double now_s(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + 1e-9 * (double)ts.tv_nsec;
}

static double resident_bytes(void)
{
    FILE *f = fopen("/proc/self/statm", "r");
    unsigned long total = 0, resident = 0;

    if (f == NULL || fscanf(f, "%lu %lu", &total, &resident) != 2)
        resident = 0;
    if (f != NULL)
        (void)fclose(f);
    return (double)resident * (double)sysconf(_SC_PAGESIZE);
}

struct path {
    uint32_t ids[PATH * PT];
    uint64_t hashes[PATH];
    uint32_t nodes[PATH];
};

static void make_path(const struct wk_kv_tree *t, struct path *p, uint32_t number)
{
    struct ps_rng r;

    ps_rng_seed(&r, number / GROUP);
    for (uint32_t i = 0; i < PATH * PT; i++) {
        if (i == SHARED * PT)
            ps_rng_seed(&r, UINT64_C(1) << 40 | number);
        p->ids[i] = (uint32_t)ps_rng_below(&r, 150000);
    }
    for (uint32_t i = 0; i < PATH; i++)
        p->hashes[i] = wk_kv_tree_hash(t, i == 0 ? 1 : p->hashes[i - 1], p->ids + i * PT);
}

static void insert(struct wk_kv_tree *t, struct path *p)
{
    for (uint32_t i = 0; i < PATH; i++) {
        uint32_t item;
        bool adopted;
        int r = wk_kv_tree_take(t, WK_KV_T0, WK_KV_ROWS_GROUP, &item);

        PS_ASSERT(r == WK_KV_OK);
        p->nodes[i] = wk_kv_tree_publish(t, 1, i == 0 ? WK_KV_NO_NODE : p->nodes[i - 1],
                                         p->hashes[i], p->ids + i * PT, item, &adopted);
        if (!adopted)
            wk_kv_tree_give(t, WK_KV_T0, WK_KV_ROWS_GROUP, item);
    }
    for (uint32_t i = PATH; i-- > 0;)
        wk_kv_tree_unpin(t, p->nodes[i]);
}

static double fill(struct wk_kv_tree *t, struct path *p, uint32_t n_paths)
{
    double spent = 0;

    for (uint32_t i = 0; i < n_paths; i++) {
        double began;

        make_path(t, p, i);
        began = now_s();
        insert(t, p);
        spent += now_s() - began;
    }
    return spent;
}

static double match(struct wk_kv_tree *t, struct path *p, uint32_t n_paths)
{
    struct ps_rng r;
    double spent = 0;

    ps_rng_seed(&r, 1);
    for (uint32_t i = 0; i < N_MATCH; i++) {
        struct wk_kv_match m;
        double began;

        make_path(t, p, (uint32_t)ps_rng_below(&r, n_paths));
        began = now_s();
        wk_kv_tree_match(t, 1, p->ids, PATH * PT, p->hashes, p->nodes, &m);
        spent += now_s() - began;
        PS_ASSERT(m.n_hot == PATH);
    }
    return spent;
}

static void take_n(struct wk_kv_tree *t, uint32_t *items, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        int r = wk_kv_tree_take(t, WK_KV_T0, WK_KV_ROWS_GROUP, &items[i]);

        PS_ASSERT(r == WK_KV_OK);
    }
}

static double evict(struct wk_kv_tree *t, uint32_t n)
{
    uint32_t n_free = wk_kv_tree_n_free(t, WK_KV_T0, WK_KV_ROWS_GROUP);
    uint32_t *items = ps_alloc((n_free + n) * sizeof(*items));
    double spent;

    take_n(t, items, n_free);
    spent = now_s();
    take_n(t, items + n_free, n);
    spent = now_s() - spent;
    PS_ASSERT(wk_kv_tree_n_evicted(t, WK_KV_T0) == n);
    for (uint32_t i = 0; i < n_free + n; i++)
        wk_kv_tree_give(t, WK_KV_T0, WK_KV_ROWS_GROUP, items[i]);
    ps_free(items);
    return spent;
}

static void run(uint32_t n_pages)
{
    struct wk_kv_layout l;
    struct wk_kv_tree_conf conf = {.page_tokens = PT, .n_group = 1, .stride_pages = 4};
    uint32_t n_paths = n_pages / (PATH - SHARED + 1), n_evict = ps_min_u32(N_EVICT, n_pages / 2);
    struct path *p = ps_alloc(sizeof(*p));
    struct wk_kv_tree *t;
    double before = resident_bytes(), bytes, insert_s, match_s, evict_s;

    wk_kv_layout_init(&l);
    wk_kv_layout_add_attn(&l, 1, 1, 16, KN_F32, PT);
    wk_kv_layout_seal(&l);
    conf.t0 = wk_kv_pool_create(&l, n_pages);
    conf.announce = wk_announce_create(1 << 16);
    t = wk_kv_tree_create(&conf);
    insert_s = fill(t, p, n_paths);
    bytes = resident_bytes() - before;
    match_s = match(t, p, n_paths);
    printf("| %u | %.2f M | %.2f M |", n_pages, (double)N_MATCH * PATH / match_s / 1e6,
           (double)n_paths * PATH / insert_s / 1e6);
    bytes /= (double)wk_kv_tree_n_nodes(t);
    evict_s = evict(t, n_evict);
    printf(" %.2f M | %.0f |\n", n_evict / evict_s / 1e6, bytes);
    wk_kv_tree_destroy(t);
    wk_kv_pool_destroy(conf.t0);
    wk_announce_destroy(conf.announce);
    ps_free(p);
}

int main(int argc, char **argv)
{
    printf("| pages | match, pages/s | insert, pages/s | evict, pages/s | bytes a page |\n"
           "|---:|---:|---:|---:|---:|\n");
    if (argc < 2) {
        run(1000000);
        run(10000000);
    }
    for (int i = 1; i < argc; i++) {
        unsigned long n = strtoul(argv[i], NULL, 10);

        if (n < 1000 || n > 100000000) {
            (void)fprintf(stderr, "kv_bench [PAGES ...]: between a thousand and 100 million\n");
            return 2;
        }
        run((uint32_t)n);
    }
    return 0;
}
