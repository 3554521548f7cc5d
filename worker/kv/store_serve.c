#include "worker/kv/store_int.h"
#include "worker/tier/peer.h"

/*
 * Lending to peers. A peer's ask is answered out of T1; what is only in T0 or T2 is first brought
 * there by the moves that cleaning and fetching use as well, without a place in T0.
 */

enum { SERVE_DEADLINE_US = 2 * 1000000 };

struct wk_serving {
    struct wk_peer_ask *ask;
    uint32_t cell[WK_TIER_PARTS_MAX];
    uint32_t n_known;
    uint64_t deadline_us;
    struct wk_serving *next;
};

static const struct wk_kv_cell *cell_of(const struct wk_store *s, uint32_t cell)
{
    return wk_kv_tree_cell(s->tree, wk_cell_node(cell), wk_cell_group(cell));
}

/* Only what is really here counts: asking on behalf of others would let a circle of peers wait. */
static bool is_here(const struct wk_store *s, uint32_t node)
{
    const struct wk_kv_cell *c = wk_kv_tree_cell(s->tree, node, WK_KV_ROWS_GROUP);

    return c->hot == WK_KV_READY || c->t1 != WK_KV_NO_ITEM ||
           (c->t2 != WK_KV_NO_ITEM && wk_lane_is_open(s, WK_KV_T2));
}

static uint32_t n_known(struct wk_store *s, const struct wk_tier_io *io, uint32_t *cells)
{
    uint32_t n = 0;

    while (n < io->n_part) {
        const struct wk_kv_key *key = &io->part[n].key;
        uint32_t node =
            key->group == WK_KV_ROWS_GROUP ? wk_kv_tree_lookup(s->tree, key) : WK_KV_NO_NODE;

        if (node == WK_KV_NO_NODE || !is_here(s, node))
            break;
        if (cells != NULL)
            cells[n] = wk_cell(node, WK_KV_ROWS_GROUP);
        n++;
    }
    return n;
}

static void begin(struct wk_store *s, struct wk_peer_ask *a)
{
    struct wk_serving *v;

    if (!a->wants_bytes) {
        a->io.n_found = n_known(s, &a->io, NULL);
        wk_peers_answer(s->peers, a);
        return;
    }
    v = ps_calloc(1, sizeof(*v));
    v->ask = a;
    v->n_known = n_known(s, &a->io, v->cell);
    v->deadline_us = ps_now_us(s->conf.clock) + SERVE_DEADLINE_US;
    for (uint32_t i = 0; i < v->n_known; i++)
        wk_kv_tree_low_io_begin(s->tree, wk_cell_node(v->cell[i]), WK_KV_ROWS_GROUP);
    a->io.ud = v;
    v->next = s->serving;
    s->serving = v;
}

static void let_go(struct wk_store *s, struct wk_serving *v, uint32_t from)
{
    for (uint32_t i = from; i < v->n_known; i++)
        wk_kv_tree_low_io_end(s->tree, wk_cell_node(v->cell[i]), WK_KV_ROWS_GROUP);
    v->n_known = ps_min_u32(v->n_known, from);
}

static void end(struct wk_store *s, struct wk_peer_ask *a)
{
    struct wk_serving *v = a->io.ud, **at = &s->serving;

    if (a->wants_bytes) {
        let_go(s, v, 0);
        while (*at != v)
            at = &(*at)->next;
        *at = v->next;
        ps_free(v);
    }
    wk_peers_ask_free(a);
}

/* True: everything that will come is in T1. */
static bool is_ready(struct wk_store *s, struct wk_serving *v)
{
    bool waits = false;

    for (uint32_t i = 0; i < v->n_known; i++) {
        if (cell_of(s, v->cell[i])->t1 != WK_KV_NO_ITEM)
            continue;
        wk_fetch_to_t1(s, v->cell[i]);
        /* What was evicted from T0 in between does not come any more. */
        waits |=
            s->fetch[v->cell[i]] != WK_FETCH_NONE || cell_of(s, v->cell[i])->hot == WK_KV_READY;
    }
    return !waits || ps_now_us(s->conf.clock) >= v->deadline_us;
}

static void answer(struct wk_store *s, struct wk_serving *v)
{
    struct wk_peer_ask *a = v->ask;
    uint32_t n = 0;

    while (n < v->n_known && cell_of(s, v->cell[n])->t1 != WK_KV_NO_ITEM) {
        a->io.part[n].buf = wk_store_t1_buf(s, WK_KV_ROWS_GROUP, cell_of(s, v->cell[n])->t1);
        n++;
    }
    let_go(s, v, n);
    a->io.n_found = n;
    v->ask = NULL; /* answered: it comes back by the inbox */
    wk_peers_answer(s->peers, a);
}

void wk_serve_tick(struct wk_store *s)
{
    struct wk_tier_io *io;

    while ((io = wk_tier_take(&s->asks)) != NULL) {
        struct wk_peer_ask *a = PS_CONTAINER(io, struct wk_peer_ask, io);

        if (a->is_over)
            end(s, a);
        else
            begin(s, a);
    }
    for (struct wk_serving *v = s->serving; v != NULL; v = v->next) {
        if (v->ask != NULL && is_ready(s, v))
            answer(s, v);
    }
}

void wk_serve_end(struct wk_store *s)
{
    struct wk_tier_io *io;

    /* The peers are gone: what they had has come back, what was not answered never will. */
    while ((io = wk_tier_take(&s->asks)) != NULL) {
        struct wk_peer_ask *a = PS_CONTAINER(io, struct wk_peer_ask, io);

        if (a->is_over)
            end(s, a);
        else
            wk_peers_ask_free(a);
    }
    while (s->serving != NULL) {
        struct wk_peer_ask *a = s->serving->ask;

        PS_ASSERT(a != NULL);
        end(s, a);
    }
}
