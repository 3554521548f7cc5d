#include "worker/sched/hold.h"

/* A request whose fetches failed this often computes what T0 does not have. */
enum { FETCH_FAILED_MAX = 2 };

static uint32_t pages_of(uint32_t n_tokens, uint32_t page_tokens)
{
    return n_tokens / page_tokens + (n_tokens % page_tokens != 0);
}

static void reserve_pages(struct wk_seq *q, uint32_t n)
{
    if (n <= q->cap_pages)
        return;
    q->cap_pages = ps_max_u32(n, q->cap_pages * 2);
    q->pages = ps_realloc(q->pages, q->cap_pages * sizeof(*q->pages));
    q->nodes = ps_realloc(q->nodes, q->cap_pages * sizeof(*q->nodes));
    q->hashes = ps_realloc(q->hashes, q->cap_pages * sizeof(*q->hashes));
}

/* Hashes at the ends of the first n full pages; tokens never change, so neither do they. */
static void make_hashes(const struct wk_store *st, struct wk_seq *q, uint32_t page_tokens,
                        uint32_t n)
{
    PS_ASSERT((uint64_t)n * page_tokens <= q->n_ids);
    reserve_pages(q, n);
    for (; q->n_hashes < n; q->n_hashes++) {
        uint64_t parent = q->n_hashes == 0 ? q->submit->chain_seed : q->hashes[q->n_hashes - 1];

        q->hashes[q->n_hashes] =
            wk_kv_tree_hash(wk_store_tree(st), parent, q->ids + (size_t)q->n_hashes * page_tokens);
    }
}

void wk_hold_hash(const struct wk_store *st, struct wk_seq *q, uint32_t page_tokens)
{
    make_hashes(st, q, page_tokens, q->n_ids / page_tokens);
}

static void price(struct wk_store *st, const struct wk_seq *q, uint32_t page_tokens,
                  const uint32_t *scratch, struct wk_hold_offer *o)
{
    const struct wk_kv_match *m = &o->match;
    uint32_t n_hit = o->n_use * page_tokens + m->n_tail;

    o->n_pages = pages_of(q->n_ids, page_tokens);
    o->need = o->n_pages - o->n_use + (m->n_tail > 0 && m->tail_idle) +
              wk_store_need(st, scratch, 0, o->n_use);
    /* The last token is always computed, be it only for its logits. */
    o->n_kv = ps_min_u32(n_hit, q->n_ids - 1);
}

/* Cuts the offer to where a state is kept. One token at least is left, and computed after it. */
static void cut_to_snapshot(struct wk_store *st, const struct wk_seq *q, uint32_t page_tokens,
                            const uint32_t *scratch, struct wk_hold_offer *o)
{
    const struct wk_kv_tree *t = wk_store_tree(st);
    struct wk_kv_match *m = &o->match;

    m->n_found = ps_min_u32(m->n_found, (q->n_ids - 1) / page_tokens);
    m->n_hot = ps_min_u32(m->n_hot, m->n_found);
    m->n_tail = 0;
    m->tail_node = WK_KV_NO_NODE;
    if (q->n_fetch_failed < FETCH_FAILED_MAX) {
        o->n_use = wk_store_worth(st, scratch, m);
        return;
    }
    o->n_use = m->n_hot;
    while (o->n_use > 0 &&
           wk_kv_tree_cell(t, scratch[o->n_use - 1], WK_KV_SNAP_GROUP)->hot != WK_KV_READY)
        o->n_use--;
}

void wk_hold_offer(struct wk_store *st, struct wk_seq *q, uint32_t page_tokens, uint32_t *scratch,
                   struct wk_hold_offer *out)
{
    *out = (struct wk_hold_offer){.match = {.tail_node = WK_KV_NO_NODE}};
    /* Scores need the logits of every prompt position, so none may be skipped. */
    if (!wk_seq_needs_scores(q)) {
        wk_hold_hash(st, q, page_tokens);
        wk_kv_tree_match(wk_store_tree(st), q->submit->chain_seed, q->ids, q->n_ids, q->hashes,
                         scratch, &out->match);
        if (wk_store_has_state(st))
            cut_to_snapshot(st, q, page_tokens, scratch, out);
        else if (q->n_fetch_failed < FETCH_FAILED_MAX)
            out->n_use = wk_store_worth(st, scratch, &out->match);
        else
            out->n_use = out->match.n_hot;
    }
    price(st, q, page_tokens, scratch, out);
}

bool wk_hold_offer_less(struct wk_store *st, const struct wk_seq *q, uint32_t page_tokens,
                        const uint32_t *scratch, bool alone, struct wk_hold_offer *o)
{
    if (o->match.n_tail == 0 && !(wk_store_has_state(st) && alone && o->n_use > 0))
        return false;
    if (wk_store_has_state(st))
        o->n_use = 0;
    o->match.n_tail = 0;
    o->match.tail_node = WK_KV_NO_NODE;
    price(st, q, page_tokens, scratch, o);
    return true;
}

/* ---- states ---- */

static void give_state(struct wk_store *st, uint32_t *item)
{
    if (*item != WK_KV_NO_ITEM)
        wk_kv_tree_give(wk_store_tree(st), WK_KV_T0, WK_KV_SNAP_GROUP, *item);
    *item = WK_KV_NO_ITEM;
}

static void let_snapshot_go(struct wk_store *st, struct wk_seq *q)
{
    if (q->snap_held)
        wk_kv_tree_io_end(wk_store_tree(st), q->snap_node, WK_KV_SNAP_GROUP);
    q->snap_held = false;
    q->snap_node = WK_KV_NO_NODE;
}

/* From READY on; until then it is its load that holds the item. */
static void hold_snapshot(struct wk_store *st, struct wk_seq *q)
{
    if (!q->snap_held)
        wk_kv_tree_io_begin(wk_store_tree(st), q->snap_node, WK_KV_SNAP_GROUP);
    q->snap_held = true;
}

static void unpin_path(struct wk_store *st, const uint32_t *nodes, uint32_t n)
{
    while (n-- > 0)
        wk_kv_tree_unpin(wk_store_tree(st), nodes[n]);
}

bool wk_hold_reserve(struct wk_store *st, struct wk_seq *q, uint32_t page_tokens,
                     const uint32_t *scratch, struct wk_hold_offer *o)
{
    struct wk_kv_tree *t = wk_store_tree(st);
    bool ok, must_come = false;

    PS_ASSERT(q->state_item == WK_KV_NO_ITEM && q->snap_node == WK_KV_NO_NODE);
    /* Held first: making room must not take what was offered. */
    for (uint32_t i = 0; i < o->n_use; i++)
        wk_kv_tree_pin(t, scratch[i]);
    if (o->n_use > 0) {
        q->snap_node = scratch[o->n_use - 1];
        must_come = wk_kv_tree_cell(t, q->snap_node, WK_KV_SNAP_GROUP)->hot == WK_KV_COLD;
        if (wk_store_snapshot_state(st, q->snap_node) == WK_STORE_READY)
            hold_snapshot(st, q);
    }
    ok = wk_kv_tree_take(t, WK_KV_T0, WK_KV_SNAP_GROUP, &q->state_item) == WK_KV_OK;
    if (ok && must_come)
        ok = wk_kv_tree_take(t, WK_KV_T0, WK_KV_SNAP_GROUP, &q->snap_item) == WK_KV_OK;
    if (ok)
        price(st, q, page_tokens, scratch, o);
    else
        wk_hold_unreserve(st, q, scratch, o);
    return ok;
}

void wk_hold_unreserve(struct wk_store *st, struct wk_seq *q, const uint32_t *scratch,
                       const struct wk_hold_offer *o)
{
    give_state(st, &q->state_item);
    give_state(st, &q->snap_item);
    let_snapshot_go(st, q);
    unpin_path(st, scratch, o->n_use);
}

uint32_t wk_hold_lend(struct wk_store *st, const struct wk_admit *a)
{
    struct wk_kv_tree *t = wk_store_tree(st);
    uint32_t item;

    if (wk_kv_tree_take(t, WK_KV_T0, WK_KV_SNAP_GROUP, &item) != WK_KV_OK)
        return WK_KV_NO_ITEM;
    if (!wk_admit_may_lend(a, wk_kv_tree_n_avail(t, WK_KV_T0, WK_KV_ROWS_GROUP)))
        give_state(st, &item);
    return item;
}

void wk_hold_return(struct wk_store *st, uint32_t item)
{
    give_state(st, &item);
}

bool wk_hold_keep(struct wk_store *st, struct wk_seq *q, uint32_t page_tokens, uint32_t pos,
                  uint32_t item)
{
    struct wk_kv_tree *t = wk_store_tree(st);
    uint32_t n = pos / page_tokens;

    PS_ASSERT(n > 0 && pos % page_tokens == 0 && pos <= q->n_kv_done);
    /* Flushed, or its page found no node: there is nothing that the state would be the end of. */
    if (n > q->n_attached || !wk_kv_tree_put_snapshot(t, q->nodes[n - 1], item)) {
        give_state(st, &item);
        return false;
    }
    wk_store_published_snapshot(st, q->nodes[n - 1]);
    return true;
}

/* ---- pages ---- */

void wk_hold_attach(struct wk_store *st, struct wk_seq *q, uint32_t page_tokens,
                    const struct wk_hold_offer *o, const uint32_t *scratch)
{
    struct wk_kv_tree *t = wk_store_tree(st);

    PS_ASSERT(q->n_pages == 0 && q->n_fly_steps == 0 && q->tail_node == WK_KV_NO_NODE);
    PS_ASSERT((q->state_item != WK_KV_NO_ITEM) == wk_store_has_state(st));
    PS_ASSERT(wk_kv_tree_n_avail(t, WK_KV_T0, WK_KV_ROWS_GROUP) >= o->need);
    reserve_pages(q, o->n_pages);
    for (; q->n_pages < o->n_use; q->n_pages++) {
        q->nodes[q->n_pages] = scratch[q->n_pages];
        q->pages[q->n_pages] = WK_KV_NO_ITEM;
    }
    q->n_attached = q->n_pages;
    q->n_ready = 0;
    if (o->match.n_tail > 0) { /* before anything is taken, which might evict it */
        wk_kv_tree_pin(t, o->match.tail_node);
        q->tail_node = o->match.tail_node;
        q->n_tail = o->match.n_tail;
    }
    q->copy_planned = false;
    q->n_known = o->match.n_found > o->n_use ? o->match.n_found * page_tokens : 0;
    wk_store_touch(st, q->nodes, q->n_attached);
    q->fetch_until_us = wk_store_deadline(st, q->nodes, q->n_attached);
    wk_store_attach(st, q->nodes, q->n_attached);
    if (q->snap_item != WK_KV_NO_ITEM)
        wk_store_attach_snapshot(st, q->snap_node, q->snap_item);
    q->snap_item = WK_KV_NO_ITEM;
    if (q->state_item != WK_KV_NO_ITEM) /* the reservation's; the attach has pinned it again */
        unpin_path(st, q->nodes, q->n_attached);
    for (; q->n_pages < o->n_pages; q->n_pages++) {
        int r = wk_kv_tree_take(t, WK_KV_T0, WK_KV_ROWS_GROUP, &q->pages[q->n_pages]);

        PS_ASSERT(r == WK_KV_OK); /* admission counted them */
    }
    q->epoch = wk_kv_tree_epoch(t);
    q->n_kv = q->n_kv_done = o->n_kv;
    wk_seq_sync(q);
}

enum wk_store_state wk_hold_fetched(struct wk_store *st, struct wk_seq *q)
{
    const struct wk_kv_tree *t = wk_store_tree(st);

    while (q->n_ready < q->n_attached) {
        enum wk_store_state state = wk_store_state(st, q->nodes[q->n_ready]);

        if (state != WK_STORE_READY)
            return state;
        q->pages[q->n_ready] = wk_kv_tree_cell(t, q->nodes[q->n_ready], WK_KV_ROWS_GROUP)->t0;
        q->n_ready++;
    }
    if (q->snap_node != WK_KV_NO_NODE && !q->snap_held) {
        enum wk_store_state state = wk_store_snapshot_state(st, q->snap_node);

        if (state != WK_STORE_READY)
            return state;
        hold_snapshot(st, q);
    }
    return WK_STORE_READY;
}

int wk_hold_grow(struct wk_store *st, struct wk_seq *q, uint32_t n_pages)
{
    reserve_pages(q, n_pages);
    while (q->n_pages < n_pages) {
        int r =
            wk_kv_tree_take(wk_store_tree(st), WK_KV_T0, WK_KV_ROWS_GROUP, &q->pages[q->n_pages]);

        if (r != WK_KV_OK)
            return r;
        q->n_pages++;
        q->adm.held = q->n_pages;
    }
    return WK_KV_OK;
}

static void give(struct wk_store *st, uint32_t page)
{
    wk_kv_tree_give(wk_store_tree(st), WK_KV_T0, WK_KV_ROWS_GROUP, page);
}

static void limbo_push(struct wk_limbo *l, uint32_t page, uint64_t ticket)
{
    if (l->n == l->cap) {
        l->cap = ps_max_u32(16, l->cap * 2);
        l->items = ps_realloc(l->items, l->cap * sizeof(*l->items));
    }
    l->items[l->n].page = page;
    l->items[l->n++].ticket = ticket;
}

void wk_limbo_drop(struct wk_limbo *l, struct wk_store *st, uint64_t done_ticket)
{
    uint32_t kept = 0;

    for (uint32_t i = 0; i < l->n; i++) {
        if (l->items[i].ticket <= done_ticket)
            give(st, l->items[i].page);
        else
            l->items[kept++] = l->items[i];
    }
    l->n = kept;
}

void wk_limbo_fini(struct wk_limbo *l)
{
    PS_ASSERT(l->n == 0);
    ps_free(l->items);
}

void wk_hold_publish(struct wk_store *st, struct wk_seq *q, uint32_t page_tokens,
                     uint64_t last_ticket, struct wk_limbo *limbo)
{
    struct wk_kv_tree *t = wk_store_tree(st);
    uint32_t n_full = q->n_kv_done / page_tokens;

    /* After a flush its path is no longer in the tree: what follows has no parent there. */
    if (q->epoch != wk_kv_tree_epoch(t) || n_full <= q->n_attached)
        return;
    make_hashes(st, q, page_tokens, n_full);
    for (; q->n_attached < n_full; q->n_attached++) {
        uint32_t i = q->n_attached, own = q->pages[i];
        uint32_t parent = i == 0 ? WK_KV_NO_NODE : q->nodes[i - 1];
        bool adopted;

        q->nodes[i] = wk_kv_tree_publish(t, q->submit->chain_seed, parent, q->hashes[i],
                                         q->ids + (size_t)i * page_tokens, own, &adopted);
        if (q->nodes[i] == WK_KV_NO_NODE)
            return; /* no node is free: the page stays its own, and may be published later */
        if (adopted) {
            wk_store_published(st, q->nodes[i]);
            continue;
        }
        q->pages[i] = wk_kv_tree_cell(t, q->nodes[i], WK_KV_ROWS_GROUP)->t0;
        if (q->n_fly_steps > 0)
            limbo_push(limbo, own, last_ticket);
        else
            give(st, own);
    }
}

bool wk_hold_first_copy(const struct wk_store *st, const struct wk_seq *q, struct wk_copy *out)
{
    const struct wk_kv_tree *t = wk_store_tree(st);

    if (q->snap_node != WK_KV_NO_NODE)
        *out = (struct wk_copy){.group = WK_KV_SNAP_GROUP,
                                .src = wk_kv_tree_cell(t, q->snap_node, WK_KV_SNAP_GROUP)->t0,
                                .dst = q->state_item,
                                .n_tok = q->n_kv,
                                .when = WK_COPY_BEFORE};
    else if (q->tail_node != WK_KV_NO_NODE)
        *out = (struct wk_copy){.group = WK_KV_ROWS_GROUP,
                                .src = wk_kv_tree_cell(t, q->tail_node, WK_KV_ROWS_GROUP)->t0,
                                .dst = q->pages[q->n_attached],
                                .n_tok = q->n_tail,
                                .when = WK_COPY_BEFORE};
    else
        return false;
    return !q->copy_planned;
}

static void end_copy(struct wk_store *st, struct wk_seq *q)
{
    if (q->tail_node != WK_KV_NO_NODE)
        wk_kv_tree_unpin(wk_store_tree(st), q->tail_node);
    q->tail_node = WK_KV_NO_NODE;
    let_snapshot_go(st, q);
}

void wk_hold_end_copy(struct wk_store *st, struct wk_seq *q)
{
    PS_ASSERT(q->copy_planned);
    end_copy(st, q);
}

void wk_hold_release(struct wk_store *st, struct wk_seq *q)
{
    PS_ASSERT(q->n_fly_steps == 0);
    end_copy(st, q);
    give_state(st, &q->state_item);
    while (q->n_pages > q->n_attached)
        give(st, q->pages[--q->n_pages]);
    wk_store_detach(st, q->nodes, q->n_attached);
    q->n_pages = q->n_attached = q->n_ready = 0;
    q->n_kv = q->n_kv_done = 0;
    PS_ASSERT(q->n_fly_tok == 0);
    wk_seq_sync(q);
}

uint32_t wk_hold_unshared(const struct wk_store *st, const struct wk_seq *q)
{
    uint32_t n = q->n_pages - q->n_attached;

    for (uint32_t i = 0; i < q->n_attached; i++)
        n += wk_kv_tree_n_pins(wk_store_tree(st), q->nodes[i]) == 1;
    return n;
}
