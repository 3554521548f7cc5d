#pragma once

/*
 * For the tests of T2: a few paths of pages, what their items hold, and ios over them.
 *
 * An item's bytes follow from its key, so bytes that belong to another key, or were mixed of two
 * writes, are told apart wherever they turn up.
 */

#include "common/test.h"

#include <poll.h>
#include <stdatomic.h>

#include "common/rng.h"
#include "common/uring/uring_script.h"
#include "worker/tier/disk.h"

enum {
    WORLD_PAGE = 16,
    WORLD_PAGES = 12, /* 0 and 1 begin paths, page i follows page i / 2 - 1 */
    WORLD_GROUPS = 2,
    WORLD_SLOTS = 6,
    WORLD_IOS = 8,
    WORLD_ITEM_MAX = 68 << 10,
};

static const uint32_t world_item_bytes[WORLD_GROUPS] = {8 << 10, WORLD_ITEM_MAX};

struct world_io {
    struct wk_tier_io io;
    struct wk_tier_part parts[3];
    uint32_t pages[3];
    uint8_t *bufs[3];
    bool is_out;
};

struct world {
    struct ps_clock clock;
    struct ps_rng rng;
    struct wk_tier_inbox inbox;
    struct wk_tier_disk_conf conf;
    struct ps_script_disk *disk; /* NULL: a real file */
    struct wk_tier *tier;
    struct wk_kv_key keys[WORLD_GROUPS][WORLD_PAGES];
    uint32_t ids[WORLD_PAGES][WORLD_PAGE];
    struct world_io ios[WORLD_IOS];
    uint8_t *items[WORLD_GROUPS][WORLD_PAGES]; /* what they hold */
};

static inline void world_fill(const struct wk_kv_key *key, uint8_t *out)
{
    struct ps_rng rng;

    ps_rng_seed(&rng, key->hash * 31 + key->group);
    for (uint32_t i = 0; i < world_item_bytes[key->group]; i += 8) {
        uint64_t v = ps_rng_u64(&rng);

        memcpy(out + i, &v, sizeof(v));
    }
}

static inline bool world_holds(struct world *w, uint32_t group, uint32_t page, const uint8_t *buf)
{
    return memcmp(buf, w->items[group][page], world_item_bytes[group]) == 0;
}

static inline uint32_t world_parent(uint32_t page)
{
    return page < 2 ? UINT32_MAX : (page - 2) / 2;
}

static inline void world_make_keys(struct world *w, uint64_t seed)
{
    for (uint32_t p = 0; p < WORLD_PAGES; p++) {
        struct wk_kv_key *k = &w->keys[0][p];
        uint32_t up = world_parent(p);

        for (uint32_t i = 0; i < WORLD_PAGE; i++)
            w->ids[p][i] = p * 1000 + i;
        k->seed = seed;
        k->n_tok = WORLD_PAGE;
        k->ids = w->ids[p];
        if (up == UINT32_MAX) {
            wk_kv_root_digest(w->conf.ident.space_id, seed, k->parent);
        } else {
            memcpy(k->parent, w->keys[0][up].digest, PS_SHA256_BYTES);
            k->first_pos = w->keys[0][up].first_pos + WORLD_PAGE;
        }
        wk_kv_digest(k->parent, k->ids, k->n_tok, k->digest);
        k->hash = ps_hash64(k->digest, PS_SHA256_BYTES, 1);
        w->keys[1][p] = *k;
        w->keys[1][p].group = 1;
        for (uint32_t g = 0; g < WORLD_GROUPS; g++) {
            w->items[g][p] = ps_alloc(world_item_bytes[g]);
            world_fill(&w->keys[g][p], w->items[g][p]);
        }
    }
}

static inline struct world *world_create(uint64_t seed)
{
    struct world *w = ps_calloc(1, sizeof(*w));

    ps_clock_manual(&w->clock, 1000000);
    ps_rng_seed(&w->rng, seed);
    wk_tier_inbox_init(&w->inbox, NULL);
    w->conf.ident = (struct wk_tier_ident){
        .space_id = 11,
        .arith_id = 12,
        .layout_id = 13,
        .n_group = WORLD_GROUPS,
        .page_tokens = WORLD_PAGE,
        .item_bytes = {world_item_bytes[0], world_item_bytes[1]},
        .n_ranks = 1,
    };
    for (uint32_t g = 0; g < WORLD_GROUPS; g++)
        w->conf.n_slot[g] = WORLD_SLOTS;
    w->conf.depth = 4;
    w->conf.inbox = &w->inbox;
    w->conf.clock = &w->clock;
    for (uint32_t i = 0; i < WORLD_IOS; i++) {
        for (uint32_t j = 0; j < 3; j++)
            w->ios[i].bufs[j] = ps_alloc_aligned(4096, WORLD_ITEM_MAX);
    }
    world_make_keys(w, 7);
    return w;
}

static inline void world_destroy(struct world *w)
{
    for (uint32_t i = 0; i < WORLD_IOS; i++) {
        for (uint32_t j = 0; j < 3; j++)
            ps_free(w->ios[i].bufs[j]);
    }
    ps_script_disk_destroy(w->disk);
    wk_tier_inbox_fini(&w->inbox);
    for (uint32_t p = 0; p < WORLD_PAGES; p++) {
        ps_free(w->items[0][p]);
        ps_free(w->items[1][p]);
    }
    ps_free(w);
}

/* Another history with a new disk; what takes long to make stays. */
static inline void world_begin_again(struct world *w, uint64_t seed)
{
    assert_null(w->tier);
    ps_script_disk_destroy(w->disk);
    w->disk = NULL;
    ps_rng_seed(&w->rng, seed);
}

/* The scripted disk of this world, and a tier over it. */
static inline int world_open(struct world *w)
{
    struct ps_buf err = PS_BUF_INIT;
    int r;

    if (w->conf.path == NULL) {
        if (w->disk == NULL)
            w->disk = ps_script_disk_create(ps_rng_u64(&w->rng), WORLD_GROUPS, 1 << 19);
        w->conf.script = ps_script_ring_create(w->disk, w->conf.depth);
    }
    r = wk_tier_disk_create(&w->tier, &w->conf, &err);
    if (r != WK_TIER_OK) {
        assert_true(err.len > 0);
        w->tier = NULL;
        if (w->conf.script != NULL)
            assert_int_equal(ps_uring_destroy(w->conf.script, 0), PS_URING_OK);
    }
    ps_buf_fini(&err);
    return r;
}

/* i-th io gets a part for page, in this slot. Call for each part, then submit. */
static inline void world_part(struct world *w, uint32_t i, enum wk_tier_op op, uint32_t group,
                              uint32_t page, uint32_t slot)
{
    struct world_io *o = &w->ios[i];
    struct wk_tier_part *p;

    if (o->io.n_part == 0)
        o->io = (struct wk_tier_io){.op = op, .part = o->parts};
    o->pages[o->io.n_part] = page;
    p = &o->parts[o->io.n_part];
    *p = (struct wk_tier_part){.key = w->keys[group][page], .slot = slot};
    if (op != WK_TIER_ERASE)
        p->buf = o->bufs[o->io.n_part];
    if (op == WK_TIER_PUT)
        memcpy(p->buf, w->items[group][page], world_item_bytes[group]);
    else if (op == WK_TIER_GET)
        memset(p->buf, 0xa5, 4096);
    o->io.n_part++;
}

static inline int world_submit(struct world *w, uint32_t i)
{
    int r = w->tier->ops->submit(w->tier, &w->ios[i].io);

    if (r == WK_TIER_OK)
        w->ios[i].is_out = true;
    else
        w->ios[i].io.n_part = 0;
    return r;
}

/* The next io that came back, or NULL. Its n_part is kept in *out_n; it may be filled again. */
static inline struct world_io *world_take(struct world *w, uint32_t *out_n)
{
    struct wk_tier_io *io = wk_tier_take(&w->inbox);
    struct world_io *o;

    if (io == NULL)
        return NULL;
    o = PS_CONTAINER(io, struct world_io, io);
    assert_true(o->is_out);
    assert_true(io->begin_us != 0 && io->end_us >= io->begin_us && io->tier == w->tier);
    o->is_out = false;
    *out_n = io->n_part;
    io->n_part = 0;
    for (uint32_t i = 0; i < *out_n; i++)
        assert_int_not_equal(o->parts[i].status, WK_TIER_PENDING);
    return o;
}

/* One io with one part, waited for; the buffer of a GET that is DONE was compared. */
static inline enum wk_tier_status world_do(struct world *w, enum wk_tier_op op, uint32_t group,
                                           uint32_t page, uint32_t slot)
{
    struct world_io *o = NULL;
    uint32_t n = 0;

    world_part(w, 0, op, group, page, slot);
    assert_int_equal(world_submit(w, 0), WK_TIER_OK);
    for (uint32_t i = 0; o == NULL && i < 5000; i++) {
        if (w->conf.script != NULL)
            (void)w->tier->ops->pump(w->tier, 1);
        o = world_take(w, &n);
        if (o == NULL && w->conf.script == NULL)
            (void)poll(NULL, 0, 1);
    }
    assert_ptr_equal(o, &w->ios[0]);
    if (op == WK_TIER_GET && o->parts[0].status == WK_TIER_DONE)
        assert_true(world_holds(w, group, page, o->parts[0].buf));
    return o->parts[0].status;
}

static inline int world_close(struct world *w)
{
    int r = w->tier->ops->close(w->tier, 5000);

    if (r == WK_TIER_OK && w->conf.script != NULL)
        assert_int_equal(ps_uring_destroy(w->conf.script, 0), PS_URING_OK);
    w->tier = NULL;
    return r;
}

/* What the scan tells, as page numbers by group and slot (UINT32_MAX: nothing there). Checks that
 * parents come first and nothing comes twice. Returns how many there are. */
static inline uint32_t world_scan(struct world *w, uint32_t out[WORLD_GROUPS][WORLD_SLOTS])
{
    bool told[WORLD_GROUPS][WORLD_PAGES] = {{0}};
    struct wk_disk_found f;
    uint32_t n = 0;
    int r = WK_DISK_SCAN_E_NONE;

    memset(out, 0xff, sizeof(uint32_t) * WORLD_GROUPS * WORLD_SLOTS);
    for (uint32_t i = 0; r != WK_DISK_SCAN_E_OVER; i++) {
        uint32_t page, up;

        assert_true(i < 5000);
        r = wk_tier_disk_scan(w->tier, &f);
        if (r == WK_DISK_SCAN_E_NONE) {
            (void)w->tier->ops->pump(w->tier, 1); /* nothing, where there is a thread */
            (void)poll(NULL, 0, w->conf.script == NULL);
        }
        if (r != WK_DISK_SCAN_OK)
            continue;
        for (page = 0; page < WORLD_PAGES; page++) {
            if (memcmp(w->keys[0][page].digest, f.key.digest, PS_SHA256_BYTES) == 0)
                break;
        }
        assert_true(page < WORLD_PAGES && f.key.ids == f.ids);
        assert_memory_equal(f.ids, w->ids[page], sizeof(w->ids[page]));
        assert_int_equal(f.key.hash, w->keys[0][page].hash);
        assert_int_equal(f.key.first_pos, w->keys[0][page].first_pos);
        up = world_parent(page);
        assert_true(up == UINT32_MAX || told[0][up] || told[1][up]);
        assert_false(told[f.key.group][page]);
        told[f.key.group][page] = true;
        assert_int_equal(out[f.key.group][f.slot], UINT32_MAX);
        out[f.key.group][f.slot] = page;
        n++;
    }
    for (uint32_t s = 0; s < WORLD_GROUPS * WORLD_SLOTS; s++)
        assert_true(wk_tier_disk_may_write(w->tier, s % WORLD_GROUPS, s / WORLD_GROUPS));
    return n;
}
