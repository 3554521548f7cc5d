#pragma once

/*
 * For the tests of the shared tier: ios over runs of invented paths.
 *
 * A run has two pages of 128 tokens. Paths 2n and 2n + 1 share their first two runs. What a page
 * holds follows from its digest, so a buffer can be checked without remembering what was written.
 */

#include <stdatomic.h>
#include <string.h>

#include "common/rng.h"
#include "common/test.h"
#include "worker/tier/tier.h"

enum {
    WORLD_PAGE_TOKENS = 128,
    WORLD_RUN_PAGES = 2,
    WORLD_RUNS_MAX = 6, /* of a path */
    WORLD_PATHS_MAX = 128,
    WORLD_ITEM_BYTES = 4096,
    WORLD_SNAP_BYTES = 8192,
    WORLD_OBJECT_BYTES = 4096 + WORLD_RUN_PAGES * WORLD_ITEM_BYTES,
    WORLD_FIND_MAX = WORLD_RUNS_MAX,
};

struct world_path {
    bool is_made;
    uint32_t ids[WORLD_RUNS_MAX * WORLD_RUN_PAGES * WORLD_PAGE_TOKENS];
    struct wk_kv_key page[WORLD_RUNS_MAX * WORLD_RUN_PAGES]; /* ids: of whoever copied it */
};

struct world_io {
    struct wk_tier_io io; /* first */
    struct wk_tier_part part[WORLD_FIND_MAX];
    struct world_path path;
    uint8_t *mem; /* 4 KiB aligned */
    bool is_out;  /* submitted and not back */
};

static inline struct wk_tier_ident world_ident(void)
{
    return (struct wk_tier_ident){
        .space_id = 0x1122334455667788,
        .arith_id = 0x99AABBCCDDEEFF00,
        .layout_id = 7,
        .n_group = 2,
        .page_tokens = WORLD_PAGE_TOKENS,
        .item_bytes = {WORLD_ITEM_BYTES, WORLD_SNAP_BYTES},
        .n_ranks = 1,
    };
}

static inline void world_io_init(struct world_io *w)
{
    memset(w, 0, sizeof(*w));
    w->mem = ps_alloc_aligned(4096, WORLD_SNAP_BYTES);
}

static inline void world_io_fini(struct world_io *w)
{
    ps_free(w->mem);
}

static inline void world_path_make(struct world_path *w, uint32_t path)
{
    uint8_t chain[PS_SHA256_BYTES], text[PS_SHA256_BYTES + sizeof(uint32_t) * WORLD_PAGE_TOKENS];
    struct ps_rng rng;

    memset(chain, 0x5A, sizeof(chain));
    for (uint32_t p = 0; p < WORLD_RUNS_MAX * WORLD_RUN_PAGES; p++) {
        struct wk_kv_key *k = &w->page[p];
        uint32_t *ids = w->ids + p * WORLD_PAGE_TOKENS;

        ps_rng_seed(&rng, (uint64_t)(p < 2 * WORLD_RUN_PAGES ? path / 2 * 2 : path) * 100 + p);
        for (uint32_t i = 0; i < WORLD_PAGE_TOKENS; i++)
            ids[i] = (uint32_t)ps_rng_below(&rng, 150000);
        memcpy(text, chain, sizeof(chain));
        memcpy(text + sizeof(chain), ids, sizeof(uint32_t) * WORLD_PAGE_TOKENS);
        memcpy(k->parent, chain, sizeof(chain));
        ps_sha256(text, sizeof(text), chain);
        memcpy(k->digest, chain, sizeof(chain));
        k->seed = 42;
        memcpy(&k->hash, chain + 8, sizeof(k->hash));
        k->first_pos = p * WORLD_PAGE_TOKENS;
        k->n_tok = WORLD_PAGE_TOKENS;
    }
    w->is_made = true;
}

/* Paths are made once; only the test's own thread makes ios. */
static inline void world_keys(struct world_io *w, uint32_t path)
{
    static struct world_path made[WORLD_PATHS_MAX];

    PS_ASSERT(path < WORLD_PATHS_MAX);
    if (!made[path].is_made)
        world_path_make(&made[path], path);
    w->path = made[path];
    for (uint32_t p = 0; p < WORLD_RUNS_MAX * WORLD_RUN_PAGES; p++)
        w->path.page[p].ids = w->path.ids + p * WORLD_PAGE_TOKENS;
}

static inline uint32_t world_part_bytes(const struct wk_tier_part *p)
{
    return p->key.group == 0 ? WORLD_ITEM_BYTES : WORLD_SNAP_BYTES;
}

static inline void world_payload(const struct wk_tier_part *p, uint8_t *out)
{
    struct ps_rng rng;

    ps_rng_seed(&rng, ps_hash64(p->key.digest, PS_SHA256_BYTES, p->key.group));
    for (uint32_t i = 0; i < world_part_bytes(p); i += sizeof(uint64_t)) {
        uint64_t x = ps_rng_u64(&rng);

        memcpy(out + i, &x, sizeof(x));
    }
}

/* GET, PUT, ERASE: the object of this run. FIND: runs 0 to `run`. */
static inline struct wk_tier_io *world_io_make(struct world_io *w, enum wk_tier_op op,
                                               uint32_t path, uint32_t run, uint32_t group)
{
    struct wk_tier_io *io = &w->io;

    PS_ASSERT(!w->is_out && run < WORLD_RUNS_MAX);
    world_keys(w, path);
    memset(io, 0, sizeof(*io));
    io->op = op;
    io->part = w->part;
    io->n_part = op == WK_TIER_FIND ? run + 1 : group == 0 ? WORLD_RUN_PAGES : 1;
    for (uint32_t i = 0; i < io->n_part; i++) {
        struct wk_tier_part *p = &w->part[i];
        uint32_t page = run * WORLD_RUN_PAGES + i;

        if (op == WK_TIER_FIND)
            page = i * WORLD_RUN_PAGES + WORLD_RUN_PAGES - 1;
        else if (group > 0)
            page = run * WORLD_RUN_PAGES + WORLD_RUN_PAGES - 1;
        memset(p, 0, sizeof(*p));
        p->key = w->path.page[page];
        p->key.group = group;
        p->slot = WK_TIER_PARTS_MAX;
        if (op == WK_TIER_GET || op == WK_TIER_PUT)
            p->buf = w->mem + i * world_part_bytes(p);
        if (op == WK_TIER_GET)
            memset(p->buf, 0xEE, world_part_bytes(p));
        if (op == WK_TIER_PUT)
            world_payload(p, p->buf);
    }
    return io;
}

static inline bool world_is_right(const struct world_io *w)
{
    uint8_t want[WORLD_SNAP_BYTES];

    for (uint32_t i = 0; i < w->io.n_part; i++) {
        world_payload(&w->part[i], want);
        if (memcmp(want, w->part[i].buf, world_part_bytes(&w->part[i])) != 0)
            return false;
    }
    return true;
}
