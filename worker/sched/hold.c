#include "worker/sched/hold.h"

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
    q->hashes = ps_realloc(q->hashes, q->cap_pages * sizeof(*q->hashes));
}

/* Hashes at the ends of the first n full pages; tokens never change, so neither do they. */
static void make_hashes(const struct wk_kv_tree *t, struct wk_seq *q, uint32_t page_tokens,
                        uint32_t n)
{
    PS_ASSERT((uint64_t)n * page_tokens <= q->n_ids);
    reserve_pages(q, n);
    for (; q->n_hashes < n; q->n_hashes++) {
        uint64_t parent = q->n_hashes == 0 ? q->submit->chain_seed : q->hashes[q->n_hashes - 1];

        q->hashes[q->n_hashes] =
            wk_kv_tree_hash(t, parent, q->ids + (size_t)q->n_hashes * page_tokens);
    }
}

static void price(const struct wk_seq *q, uint32_t page_tokens, struct wk_hold_offer *o)
{
    const struct wk_kv_match *m = &o->match;
    uint32_t n_hit = m->n_pages * page_tokens + m->n_tail;

    o->n_pages = pages_of(q->n_ids, page_tokens);
    o->need = o->n_pages - m->n_pages + m->n_idle + (m->n_tail > 0 && m->tail_idle);
    /* The last token is always computed, be it only for its logits. */
    o->n_kv = ps_min_u32(n_hit, q->n_ids - 1);
}

void wk_hold_offer(const struct wk_kv_tree *t, struct wk_seq *q, uint32_t page_tokens,
                   uint32_t *scratch, struct wk_hold_offer *out)
{
    *out = (struct wk_hold_offer){.match = {.tail_page = WK_KV_NO_PAGE}};
    /* Scores need the logits of every prompt position, so none may be skipped. */
    if (!wk_seq_needs_scores(q)) {
        make_hashes(t, q, page_tokens, q->n_ids / page_tokens);
        wk_kv_tree_match(t, q->submit->chain_seed, q->ids, q->n_ids, q->hashes, scratch,
                         &out->match);
    }
    price(q, page_tokens, out);
}

void wk_hold_offer_no_tail(const struct wk_seq *q, uint32_t page_tokens, struct wk_hold_offer *o)
{
    o->match.n_tail = 0;
    o->match.tail_page = WK_KV_NO_PAGE;
    price(q, page_tokens, o);
}

void wk_hold_attach(struct wk_kv_tree *t, struct wk_seq *q, const struct wk_hold_offer *o,
                    const uint32_t *scratch)
{
    PS_ASSERT(q->n_pages == 0 && q->n_fly_steps == 0 && q->tail_src == WK_KV_NO_PAGE);
    PS_ASSERT(wk_kv_tree_n_avail(t) >= o->need);
    reserve_pages(q, o->n_pages);
    for (; q->n_pages < o->match.n_pages; q->n_pages++) {
        wk_kv_tree_pin(t, scratch[q->n_pages]);
        q->pages[q->n_pages] = scratch[q->n_pages];
    }
    q->n_attached = q->n_pages;
    if (o->match.n_tail > 0) {
        wk_kv_tree_pin(t, o->match.tail_page);
        q->tail_src = o->match.tail_page;
        q->n_tail = o->match.n_tail;
        q->copy_planned = false;
    }
    for (; q->n_pages < o->n_pages; q->n_pages++) {
        int r = wk_kv_tree_take(t, &q->pages[q->n_pages]);

        PS_ASSERT(r == WK_KV_OK); /* admission counted them */
    }
    q->epoch = wk_kv_tree_epoch(t);
    q->n_kv = q->n_kv_done = o->n_kv;
    wk_seq_sync(q);
}

int wk_hold_grow(struct wk_kv_tree *t, struct wk_seq *q, uint32_t n_pages)
{
    reserve_pages(q, n_pages);
    while (q->n_pages < n_pages) {
        int r = wk_kv_tree_take(t, &q->pages[q->n_pages]);

        if (r != WK_KV_OK)
            return r;
        q->n_pages++;
        q->adm.held = q->n_pages;
    }
    return WK_KV_OK;
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

void wk_limbo_drop(struct wk_limbo *l, struct wk_kv_tree *t, uint64_t done_ticket)
{
    uint32_t kept = 0;

    for (uint32_t i = 0; i < l->n; i++) {
        if (l->items[i].ticket <= done_ticket)
            wk_kv_tree_drop(t, l->items[i].page);
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

void wk_hold_publish(struct wk_kv_tree *t, struct wk_seq *q, uint32_t page_tokens,
                     uint64_t last_ticket, struct wk_limbo *limbo)
{
    uint32_t n_full = q->n_kv_done / page_tokens;

    /* After a flush its path is no longer in the tree: what follows has no parent there. */
    if (q->epoch != wk_kv_tree_epoch(t) || n_full <= q->n_attached)
        return;
    make_hashes(t, q, page_tokens, n_full);
    for (; q->n_attached < n_full; q->n_attached++) {
        uint32_t i = q->n_attached, own = q->pages[i];
        uint32_t parent = i == 0 ? WK_KV_NO_PAGE : q->pages[i - 1];
        uint32_t there = wk_kv_tree_publish(t, q->submit->chain_seed, parent, q->hashes[i],
                                            q->ids + (size_t)i * page_tokens, own);

        if (there == own)
            continue;
        wk_kv_tree_pin(t, there);
        q->pages[i] = there;
        if (q->n_fly_steps > 0)
            limbo_push(limbo, own, last_ticket);
        else
            wk_kv_tree_drop(t, own);
    }
}

void wk_hold_end_copy(struct wk_kv_tree *t, struct wk_seq *q)
{
    PS_ASSERT(q->copy_planned && q->tail_src != WK_KV_NO_PAGE);
    wk_kv_tree_drop(t, q->tail_src);
    q->tail_src = WK_KV_NO_PAGE;
}

void wk_hold_release(struct wk_kv_tree *t, struct wk_seq *q)
{
    PS_ASSERT(q->n_fly_steps == 0);
    if (q->tail_src != WK_KV_NO_PAGE) {
        wk_kv_tree_drop(t, q->tail_src);
        q->tail_src = WK_KV_NO_PAGE;
    }
    while (q->n_pages > 0)
        wk_kv_tree_drop(t, q->pages[--q->n_pages]);
    q->n_attached = 0;
    q->n_kv = q->n_kv_done = 0;
    PS_ASSERT(q->n_fly_tok == 0);
    wk_seq_sync(q);
}

uint32_t wk_hold_unshared(const struct wk_kv_tree *t, const struct wk_seq *q)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < q->n_pages; i++)
        n += wk_kv_tree_n_pins(t, q->pages[i]) == 1;
    return n;
}
