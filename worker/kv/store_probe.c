#include "worker/kv/store_int.h"

#include <string.h>

/* One question to every place that might know more of a prompt than the tree does. */

enum {
    PROBE_MIN_TOKENS = 256,        /* less is computed sooner than asked for */
    PROBE_DEADLINE_US = 50 * 1000, /* a request is never held up for longer */
    PROBES_MAX = 64,
    ASK_SNAPSHOTS = WK_STORE_LANES, /* T3's second question: which runs end with a snapshot */
    QUESTIONS_MAX,
};

struct question { /* to one lane */
    struct wk_tier_io io;
    struct wk_tier_part *part;
    struct wk_probe *probe;
    uint32_t lane, group, first_page, pages_per_part;
    bool is_open; /* asked, not answered yet */
};

struct wk_probe {
    uint64_t seed, deadline_us;
    const struct ps_clock *clock;
    uint32_t n_pages, first;                 /* first: known to the tree when it was asked */
    uint32_t *ids;                           /* [n_pages * page_tokens] */
    uint64_t *hashes;                        /* [n_pages] */
    struct question question[QUESTIONS_MAX]; /* by lane; ASK_SNAPSHOTS */
    uint32_t n_open;                         /* questions not answered yet */
    bool abandoned;
};

static void destroy(struct wk_store *s, struct wk_probe *p)
{
    for (uint32_t i = 0; i < QUESTIONS_MAX; i++)
        ps_free(p->question[i].part);
    ps_free(p->ids);
    ps_free(p->hashes);
    ps_free(p);
    s->n_probes--;
}

/* Digests along the path; the parts of a question get every n-th. */
static void make_parts(struct wk_store *s, struct wk_probe *p, struct question *q)
{
    uint32_t pt = s->page_tokens, n_parts = (p->n_pages - q->first_page) / q->pages_per_part;
    uint8_t digest[PS_SHA256_BYTES], parent[PS_SHA256_BYTES];

    n_parts = ps_min_u32(n_parts, WK_TIER_FIND_MAX);
    q->part = ps_calloc(n_parts, sizeof(*q->part));
    q->io = (struct wk_tier_io){
        .op = WK_TIER_FIND, .urgent = true, .n_part = n_parts, .part = q->part, .ud = q};
    q->io.deadline_us = p->deadline_us;
    wk_kv_tree_root_digest(s->tree, p->seed, digest);
    for (uint32_t i = 0; i < q->first_page + n_parts * q->pages_per_part; i++) {
        const uint32_t *ids = p->ids + (size_t)i * pt;
        uint32_t at = i >= q->first_page ? i - q->first_page : 0;
        struct wk_kv_key *key = &q->part[at / q->pages_per_part].key;

        memcpy(parent, digest, sizeof(parent));
        wk_kv_digest(parent, ids, pt, digest);
        if (i < q->first_page || at % q->pages_per_part != q->pages_per_part - 1)
            continue;
        *key = (struct wk_kv_key){.seed = p->seed,
                                  .hash = p->hashes[i],
                                  .group = q->group,
                                  .first_pos = i * pt,
                                  .n_tok = pt,
                                  .ids = ids};
        memcpy(key->digest, digest, sizeof(digest));
        memcpy(key->parent, parent, sizeof(parent));
    }
}

static void ask(struct wk_store *s, struct wk_probe *p, uint32_t lane, uint32_t group)
{
    struct question *q = &p->question[group == WK_KV_ROWS_GROUP ? lane : ASK_SNAPSHOTS];
    uint32_t n_run = s->lane[lane].tier->part_run;

    q->probe = p;
    q->lane = lane;
    q->group = group;
    q->pages_per_part = n_run;
    /* Of pages that are known here the snapshots may not be. */
    q->first_page = group == WK_KV_ROWS_GROUP ? p->first / n_run * n_run : 0;
    if ((p->n_pages - q->first_page) / n_run == 0)
        return;
    make_parts(s, p, q);
    if (s->lane[lane].tier->ops->submit(s->lane[lane].tier, &q->io) == WK_TIER_OK) {
        q->is_open = true;
        p->n_open++;
    }
}

struct wk_probe *wk_store_probe(struct wk_store *s, uint64_t seed, const uint32_t *ids,
                                uint32_t n_ids, const uint64_t *hashes)
{
    uint32_t n_pages = n_ids / s->page_tokens, node = WK_KV_NO_NODE, first = 0;
    bool anybody = wk_lane_is_open(s, WK_KV_T3);
    struct wk_probe *p;

    for (uint32_t i = 0; i < s->conf.n_peers; i++)
        anybody |= wk_lane_is_open(s, WK_KV_PEER + i);
    if (!anybody || s->n_probes == PROBES_MAX)
        return NULL;
    while (first < n_pages) {
        node = wk_kv_tree_find(s->tree, seed, node, hashes[first],
                               ids + (size_t)first * s->page_tokens);
        if (node == WK_KV_NO_NODE || !wk_kv_tree_has_copy(s->tree, node, WK_KV_ROWS_GROUP))
            break;
        first++;
    }
    if ((n_pages - first) * s->page_tokens < PROBE_MIN_TOKENS)
        return NULL;
    p = ps_calloc(1, sizeof(*p));
    p->seed = seed;
    p->clock = s->conf.clock;
    p->deadline_us = ps_now_us(s->conf.clock) + PROBE_DEADLINE_US;
    p->n_pages = n_pages;
    p->first = first;
    p->ids = ps_alloc((size_t)n_pages * s->page_tokens * sizeof(*ids));
    memcpy(p->ids, ids, (size_t)n_pages * s->page_tokens * sizeof(*ids));
    p->hashes = ps_alloc(n_pages * sizeof(*hashes));
    memcpy(p->hashes, hashes, n_pages * sizeof(*hashes));
    s->n_probes++;
    s->stats.n_probe++;
    for (uint32_t lane = WK_KV_T3; lane < WK_KV_PEER + s->conf.n_peers; lane++) {
        /* One that owes an answer, because it hangs, holds up nobody else. */
        if (wk_lane_is_open(s, lane) && s->lane[lane].n_owed == 0)
            ask(s, p, lane, WK_KV_ROWS_GROUP);
    }
    if (wk_store_has_state(s) && p->question[WK_KV_T3].is_open)
        ask(s, p, WK_KV_T3, WK_KV_SNAP_GROUP);
    if (p->n_open > 0)
        return p;
    destroy(s, p);
    return NULL;
}

bool wk_store_probe_is_over(const struct wk_probe *p)
{
    return p->n_open == 0 || ps_now_us(p->clock) >= p->deadline_us;
}

void wk_store_probe_end(struct wk_store *s, struct wk_probe *p)
{
    if (p == NULL)
        return;
    p->abandoned = true;
    s->stats.n_probe_late += p->n_open > 0;
    for (uint32_t i = 0; i < QUESTIONS_MAX; i++) {
        struct question *q = &p->question[i];
        struct wk_lane *l = &s->lane[q->lane];

        if (!q->is_open)
            continue;
        l->n_owed++;
        l->tier->ops->cancel(l->tier, &q->io);
    }
    if (p->n_open == 0)
        destroy(s, p);
}

/* The tree learns that pages [0, n) of the path can be had from this lane where it has none. */
static void learn(struct wk_store *s, const struct wk_probe *p, uint32_t lane, uint32_t from,
                  uint32_t n)
{
    uint32_t node = WK_KV_NO_NODE;

    for (uint32_t i = 0; i < n; i++) {
        const uint32_t *ids = p->ids + (size_t)i * s->page_tokens;
        uint32_t parent = node;
        const struct wk_kv_cell *c;

        node = wk_kv_tree_find(s->tree, p->seed, parent, p->hashes[i], ids);
        if (node == WK_KV_NO_NODE) {
            if (i < from)
                return; /* it was evicted meanwhile: what follows hangs in the air */
            node = wk_kv_tree_add(s->tree, p->seed, parent, p->hashes[i], ids);
            if (node == WK_KV_NO_NODE)
                return;
            s->stats.probe_found_tokens += s->page_tokens;
        }
        if (i < from)
            continue;
        c = wk_kv_tree_cell(s->tree, node, WK_KV_ROWS_GROUP);
        if (lane == WK_KV_T3 && !c->in_t3)
            wk_kv_tree_set_t3(s->tree, node, WK_KV_ROWS_GROUP, true);
        else if (lane >= WK_KV_PEER && !c->has_peer)
            wk_kv_tree_set_peer(s->tree, node, WK_KV_ROWS_GROUP, true,
                                (uint8_t)(lane - WK_KV_PEER));
    }
}

/* The same for the snapshots that were found, at nodes that there are: rows may be answered later. */
static void learn_snapshots(struct wk_store *s, const struct wk_probe *p)
{
    const struct question *q = &p->question[ASK_SNAPSHOTS];
    uint32_t node = WK_KV_NO_NODE, n = q->io.n_part * q->pages_per_part;

    if (q->is_open)
        return;
    for (uint32_t i = 0; i < n; i++) {
        node = wk_kv_tree_find(s->tree, p->seed, node, p->hashes[i],
                               p->ids + (size_t)i * s->page_tokens);
        if (node == WK_KV_NO_NODE)
            return;
        if ((i + 1) % q->pages_per_part == 0 &&
            q->part[i / q->pages_per_part].status == WK_TIER_DONE &&
            !wk_kv_tree_cell(s->tree, node, WK_KV_SNAP_GROUP)->in_t3)
            wk_kv_tree_set_t3(s->tree, node, WK_KV_SNAP_GROUP, true);
    }
}

void wk_probe_answered(struct wk_store *s, struct wk_tier_io *io)
{
    struct question *q = io->ud;
    struct wk_probe *p = q->probe;

    PS_ASSERT(p->n_open > 0 && q->is_open);
    p->n_open--;
    q->is_open = false;
    if (p->abandoned)
        s->lane[q->lane].n_owed--;
    if (io->n_found > 0 && q->group == WK_KV_ROWS_GROUP)
        learn(s, p, q->lane, q->first_page, q->first_page + io->n_found * q->pages_per_part);
    learn_snapshots(s, p);
    if (p->abandoned && p->n_open == 0)
        destroy(s, p);
}
