#include "router/place/place.h"

#include "common/hash.h"
#include "common/model/block.h"

/* Bounded load: 1.25 times the mean is the usual compromise between affinity and balance. */
enum { BOUND_NUM = 5, BOUND_DEN = 4 };

/* The first stride: 64 tokens are enough to tell conversations with different beginnings apart. */
enum { KEY_BLOCKS = 4 };

uint64_t rt_place_key(uint64_t seed, const uint32_t *ids, uint32_t n, uint64_t affinity)
{
    uint64_t chain[KEY_BLOCKS];
    uint32_t n_blocks;

    if (affinity != 0)
        return ps_hash64(&affinity, sizeof(affinity), seed);
    n_blocks = ps_block_chain(seed, ids, ps_min_u32(n, KEY_BLOCKS * PS_BLOCK_TOKENS), chain);
    if (n_blocks == 0)
        return ps_hash64(ids, n * sizeof(ids[0]), seed);
    return chain[n_blocks - 1];
}

struct candidate {
    uint32_t slot;
    uint64_t score, open, limit;
};

static bool avoided(const struct rt_place_req *req, uint32_t slot)
{
    uint32_t i;

    for (i = 0; i < req->n_avoid; i++) {
        if (req->avoid[i] == slot)
            return true;
    }
    return false;
}

/* The best-scoring candidate below both its own limit and the common bound. */
static const struct candidate *choose(const struct candidate *c, uint32_t n, uint64_t bound,
                                      const struct rt_place_req *req, bool take_avoided)
{
    const struct candidate *best = NULL;
    uint32_t i;

    for (i = 0; i < n; i++) {
        if (c[i].open >= c[i].limit || c[i].open >= bound ||
            (!take_avoided && avoided(req, c[i].slot)))
            continue;
        if (best == NULL || c[i].score > best->score)
            best = &c[i];
    }
    return best;
}

static bool matches(const struct rt_place_req *req, const struct rt_worker *w)
{
    return (req->space_id == 0 || req->space_id == w->info.space_id) &&
           (req->arith_id == 0 || req->arith_id == w->info.arith_id);
}

int rt_place_pick(const struct rt_fleet *f, const struct rt_place_req *req, uint32_t *out_slot)
{
    struct candidate c[RT_MAX_WORKERS];
    uint32_t n_slots = rt_fleet_n_slots(f), i, n = 0;
    uint64_t total = 0, bound;
    const struct candidate *best;
    struct rt_worker w;

    for (i = 0; i < n_slots; i++) {
        int64_t open;

        if (!rt_fleet_worker(f, i, &w) || w.state != RT_W_LIVE || !matches(req, &w))
            continue;
        open = (int64_t)w.load.n_running + w.load.n_waiting + w.load.n_suspended + w.resv_req;
        c[n].slot = i;
        c[n].open = open > 0 ? (uint64_t)open : 0;
        c[n].limit = (uint64_t)w.info.n_slots + w.info.max_waiting;
        /* The uid, not the slot: a worker keeps its keys when it comes back. */
        c[n].score = ps_hash64(&w.info.uid, sizeof(w.info.uid), req->key);
        total += c[n].open;
        n++;
    }
    if (n == 0)
        return RT_PLACE_E_NONE;
    bound = ps_div_up_u64((total + 1) * BOUND_NUM, (uint64_t)n * BOUND_DEN);
    best = choose(c, n, bound, req, false);
    if (best == NULL)
        best = choose(c, n, UINT64_MAX, req, false);
    if (best == NULL)
        best = choose(c, n, UINT64_MAX, req, true);
    if (best == NULL)
        return RT_PLACE_E_BUSY;
    *out_slot = best->slot;
    return RT_PLACE_OK;
}
