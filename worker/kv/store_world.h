#pragma once

/*
 * A world around the store, for its tests: an executor that is nothing but an arena, a virtual clock,
 * a scripted disk and a scripted shared directory. A page's right bytes follow from the tokens of its
 * path alone, so every page that a test attaches can be compared.
 */

#include <stdio.h>
#include <stdlib.h>

#include "common/rng.h"
#include "common/test.h"
#include "common/uring/uring_script.h"
#include "worker/kv/store.h"

enum { WORLD_PT_MAX = 64, WORLD_ITEM = 4096, WORLD_PAGES_MAX = 64 };

struct world_exec {
    struct wk_exec base;
    uint8_t *arena;
    uint64_t n_read, n_write;
};

static inline int world_kv_read(struct wk_exec *e, uint32_t group, uint32_t item, void *host)
{
    struct world_exec *x = (struct world_exec *)e;

    assert_true(group == 0 && item < e->n_pages);
    memcpy(host, x->arena + (size_t)item * WORLD_ITEM, WORLD_ITEM);
    x->n_read++;
    return 0;
}

static inline int world_kv_write(struct wk_exec *e, uint32_t group, uint32_t item, const void *host)
{
    struct world_exec *x = (struct world_exec *)e;

    assert_true(group == 0 && item < e->n_pages);
    memcpy(x->arena + (size_t)item * WORLD_ITEM, host, WORLD_ITEM);
    x->n_write++;
    return 0;
}

static const struct wk_exec_ops world_exec_ops = {.kv_read = world_kv_read,
                                                  .kv_write = world_kv_write};

struct world {
    struct ps_clock clock;
    struct wk_kv_layout layout;
    struct world_exec exec;
    struct wk_store_conf conf;
    uint32_t pt; /* tokens of a page */
    struct wk_store *store;
    struct wk_kv_tree *tree;
};

/* One kind of row, 4 KiB a page of 16 or 64 tokens: 1 layer, 2 x 4 heads (1 head) of 8 numbers. */
static inline void world_init_pages(struct world *w, uint32_t pt, uint32_t n_t0, uint32_t n_t1)
{
    memset(w, 0, sizeof(*w));
    ps_clock_manual(&w->clock, 1000000);
    w->pt = pt;
    wk_kv_layout_init(&w->layout);
    wk_kv_layout_add_attn(&w->layout, 1, WORLD_PT_MAX / pt, 8, KN_F32, pt);
    wk_kv_layout_seal(&w->layout);
    assert_int_equal(w->layout.group[0].item_bytes, WORLD_ITEM);
    w->exec.base = (struct wk_exec){.ops = &world_exec_ops, .depth = 1, .n_pages = n_t0};
    w->exec.arena = ps_calloc(n_t0, WORLD_ITEM);
    w->conf = (struct wk_store_conf){.layout = &w->layout,
                                     .clock = &w->clock,
                                     .exec = &w->exec.base,
                                     .space_id = 11,
                                     .arith_id = 12,
                                     .stride_tokens = 64,
                                     .t1_bytes = (uint64_t)n_t1 * WORLD_ITEM,
                                     .t2_path = "",
                                     .t3_path = "",
                                     .peer_listen = "",
                                     .peer_secret_file = "",
                                     .no_threads = true};
}

static inline void world_init(struct world *w, uint32_t n_t0, uint32_t n_t1)
{
    world_init_pages(w, 16, n_t0, n_t1);
}

static inline void world_open(struct world *w)
{
    struct ps_buf err = PS_BUF_INIT;

    if (wk_store_create(&w->store, &w->conf, &err) != WK_TIER_OK)
        fail_msg("store: %s", err.data);
    ps_buf_fini(&err);
    w->tree = wk_store_tree(w->store);
    wk_store_set_prefill_rate(w->store, 100);
}

static inline void world_close(struct world *w, uint32_t flush_ms)
{
    wk_store_destroy(w->store, flush_ms);
    w->store = NULL;
    if (w->conf.t2_script != NULL)
        assert_int_equal(ps_uring_destroy(w->conf.t2_script, 0), PS_URING_OK);
    w->conf.t2_script = NULL;
}

static inline void world_fini(struct world *w)
{
    if (w->store != NULL)
        world_close(w, 0);
    ps_free(w->exec.arena);
}

/* ---- a sequence: attaches, waits, computes the rest, publishes, lets go ---- */

struct path {
    uint64_t seed;
    uint32_t n; /* pages */
    uint32_t pt;
    uint32_t ids[WORLD_PAGES_MAX * WORLD_PT_MAX];
    uint64_t hashes[WORLD_PAGES_MAX];
    uint64_t content[WORLD_PAGES_MAX]; /* what the page's bytes follow from */
};

/* Pages named by letters: equal letters at the same place are equal pages. */
static inline void path_make(const struct world *w, struct path *p, uint64_t seed,
                             const char *letters)
{
    p->seed = seed;
    p->pt = w->pt;
    p->n = (uint32_t)strlen(letters);
    assert_true(p->n <= WORLD_PAGES_MAX);
    for (uint32_t i = 0; i < p->n; i++) {
        uint32_t *ids = p->ids + (size_t)i * p->pt;

        for (uint32_t k = 0; k < p->pt; k++)
            ids[k] = (uint32_t)letters[i] * 100 + k;
        p->hashes[i] = wk_kv_tree_hash(w->tree, i == 0 ? seed : p->hashes[i - 1], ids);
        p->content[i] = ps_hash64(ids, p->pt * sizeof(*ids),
                                  i == 0 ? seed * 1000 + w->conf.arith_id : p->content[i - 1]);
    }
}

static inline uint64_t page_word(uint64_t content, uint32_t k)
{
    uint64_t x = content + k * UINT64_C(0x9e3779b97f4a7c15);

    x = (x ^ (x >> 32)) * UINT64_C(0xd6e8feb86659fd93);
    return x ^ (x >> 32);
}

static inline void page_bytes(const struct path *p, uint32_t i, uint8_t out[WORLD_ITEM])
{
    for (uint32_t k = 0; k < WORLD_ITEM / 8; k++) {
        uint64_t x = page_word(p->content[i], k);

        memcpy(out + (size_t)k * 8, &x, sizeof(x));
    }
}

struct run {
    const struct path *p;
    uint32_t nodes[WORLD_PAGES_MAX];
    uint32_t n_attached;   /* pinned */
    uint32_t n_hot, n_use; /* when it began */
};

/* False: there is no room for it. */
static inline bool run_begin(struct world *w, struct run *r, const struct path *p)
{
    struct wk_kv_match m;

    memset(r, 0, sizeof(*r));
    r->p = p;
    wk_kv_tree_match(w->tree, p->seed, p->ids, p->n * p->pt, p->hashes, r->nodes, &m);
    r->n_hot = m.n_hot;
    r->n_use = wk_store_worth(w->store, r->nodes, &m);
    if (wk_store_need(w->store, r->nodes, m.n_hot, r->n_use) + m.n_idle >
        wk_kv_tree_n_avail(w->tree, WK_KV_T0, 0))
        return false;
    wk_store_touch(w->store, r->nodes, r->n_use);
    wk_store_attach(w->store, r->nodes, r->n_use);
    r->n_attached = r->n_use;
    return true;
}

static inline enum wk_store_state run_state(const struct world *w, const struct run *r)
{
    for (uint32_t i = 0; i < r->n_attached; i++) {
        enum wk_store_state s = wk_store_state(w->store, r->nodes[i]);

        if (s != WK_STORE_READY)
            return s;
    }
    return WK_STORE_READY;
}

static inline void run_check_bytes(const struct world *w, const struct run *r)
{
    uint8_t want[WORLD_ITEM];

    for (uint32_t i = 0; i < r->n_attached; i++) {
        const struct wk_kv_cell *c = wk_kv_tree_cell(w->tree, r->nodes[i], 0);

        assert_int_equal(c->hot, WK_KV_READY);
        page_bytes(r->p, i, want);
        assert_memory_equal(w->exec.arena + (size_t)c->t0 * WORLD_ITEM, want, WORLD_ITEM);
    }
}

/* Computes and publishes what it did not attach; stops when there is no item. */
static inline void run_compute(struct world *w, struct run *r)
{
    while (r->n_attached < r->p->n) {
        uint32_t i = r->n_attached, item;
        bool adopted;

        if (wk_kv_tree_take(w->tree, WK_KV_T0, 0, &item) != WK_KV_OK)
            return;
        page_bytes(r->p, i, w->exec.arena + (size_t)item * WORLD_ITEM);
        PS_ASSERT(i == 0 || !wk_kv_tree_is_flushed(w->tree, r->nodes[i - 1]));
        r->nodes[i] =
            wk_kv_tree_publish(w->tree, r->p->seed, i == 0 ? WK_KV_NO_NODE : r->nodes[i - 1],
                               r->p->hashes[i], r->p->ids + (size_t)i * r->p->pt, item, &adopted);
        if (adopted)
            wk_store_published(w->store, r->nodes[i]);
        else
            wk_kv_tree_give(w->tree, WK_KV_T0, 0, item);
        r->n_attached++;
    }
}

static inline void run_end(struct world *w, struct run *r)
{
    wk_store_detach(w->store, r->nodes, r->n_attached);
    r->n_attached = 0;
}

static inline void world_turn(struct world *w)
{
    (void)wk_store_tick(w->store);
    (void)wk_store_pump(w->store, 64);
    ps_clock_advance(&w->clock, 1000);
}

static inline void world_settle(struct world *w, uint32_t n_turns)
{
    for (uint32_t i = 0; i < n_turns; i++)
        world_turn(w);
    (void)wk_store_tick(w->store);
    wk_store_check(w->store);
}

/* One request from begin to end. Returns the pages it did not have to compute. */
static inline uint32_t world_request(struct world *w, const struct path *p)
{
    struct run r;
    uint32_t n_use;

    assert_true(run_begin(w, &r, p));
    n_use = r.n_use;
    for (uint32_t i = 0; i < 200 && run_state(w, &r) == WK_STORE_MOVING; i++)
        world_turn(w);
    if (run_state(w, &r) != WK_STORE_READY) {
        run_end(w, &r);
        return 0;
    }
    run_check_bytes(w, &r);
    run_compute(w, &r);
    assert_int_equal(r.n_attached, p->n);
    run_end(w, &r);
    world_settle(w, 2);
    return n_use;
}
