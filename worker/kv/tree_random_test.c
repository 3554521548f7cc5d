/*
 * Random histories of the tree beside a naive model of it.
 *
 * The model knows every page there could be (two tenants, pages of two contents, five deep) and for
 * each what it holds, in plain arrays without any order. Which idle copy an eviction takes, and which
 * far node a new one replaces, is the tree's choice: the model only checks that the choice was
 * allowed, and follows. Everything else must come out as the model says, after each operation: nodes,
 * cells, pins, counts, what a match finds, and the announced set as told by the events alone.
 */

#include "worker/kv/tree.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "common/rng.h"

enum {
    PT = 16,
    STRIDE = 2,
    DEPTH = 5,
    PER_TENANT = 2 + 4 + 8 + 16 + 32,
    N_PAGES = 2 * PER_TENANT,
    N_T0 = 20,
    N_T1 = 8,
    N_T2 = 6,
    N_SEQ = 4,
    N_MOVES = 6,
    N_GONE = 64, /* flushed and still held */
    KEPT = 4096,
    ROWS = WK_KV_ROWS_GROUP,
    ABSENT = WK_KV_N_TIERS,
};

struct page {      /* also a flushed one */
    uint32_t node; /* NO_NODE: not in the tree */
    uint32_t parent, depth;
    uint64_t seed, hash;
    uint32_t ids[PT];
    uint32_t n_pins;
    struct wk_kv_cell cell[2];
};

enum move_kind { CLEAN_T1, CLEAN_T2, LOAD, LOOK };

struct move {
    bool runs;
    enum move_kind kind;
    struct page *page;
    uint32_t node, group, item;
    bool is_stray; /* a publish overtook the load */
};

struct seq {
    uint32_t n;
    struct page *path[DEPTH];
};

struct world {
    struct ps_rng r;
    struct wk_kv_pool *t0, *t1;
    struct wk_announce *announce;
    struct wk_kv_tree *tree;
    uint32_t n_group, epoch, n_nodes_max;
    struct page pages[N_PAGES], gone[N_GONE];
    struct seq seqs[N_SEQ];
    struct move moves[N_MOVES];
    uint8_t said[N_PAGES]; /* by events */
    uint64_t heard;
    uint64_t n_lost[3], n_evicted[3];
    uint64_t n_strays, n_forgotten, n_reclaimed;
};

static uint32_t below(struct world *w, uint32_t n)
{
    return (uint32_t)ps_rng_below(&w->r, n);
}

static struct page *random_page(struct world *w)
{
    return &w->pages[below(w, N_PAGES)];
}

static const struct wk_kv_cell empty_cell = {
    .t0 = WK_KV_NO_ITEM, .t1 = WK_KV_NO_ITEM, .t2 = WK_KV_NO_ITEM};

static void open_world(struct world *w, uint32_t n_group, uint32_t n_extra, uint64_t seed)
{
    struct wk_kv_layout l;
    struct wk_kv_tree_conf conf = {.page_tokens = PT,
                                   .n_group = n_group,
                                   .n_t2 = {N_T2, n_group > 1 ? N_T2 / 2 : 0},
                                   .n_extra = n_extra,
                                   .stride_pages = STRIDE};

    memset(w, 0, sizeof(*w));
    ps_rng_seed(&w->r, seed);
    wk_kv_layout_init(&l);
    wk_kv_layout_add_attn(&l, 24, 8, 128, KN_BF16, PT); /* slabs of 4 pages or 2 snapshots */
    if (n_group > 1)
        wk_kv_layout_add_state(&l, "gdn", 24, 128 * 1024);
    wk_kv_layout_seal(&l);
    w->n_group = n_group;
    w->n_nodes_max = N_T0 + N_T1 + N_T2 + n_extra;
    w->t0 = conf.t0 = wk_kv_pool_create(&l, N_T0);
    w->t1 = conf.t1 = wk_kv_pool_create(&l, N_T1);
    w->announce = conf.announce = wk_announce_create(KEPT);
    w->tree = wk_kv_tree_create(&conf);
    memset(w->said, ABSENT, sizeof(w->said));
    for (uint32_t i = 0; i < N_PAGES; i++) {
        /* Within a tenant numbered like a heap without its root: children of k are 2k+2, 2k+3. */
        uint32_t k = i % PER_TENANT, base = i - k;
        struct page *p = &w->pages[i], *up = k < 2 ? NULL : &w->pages[base + (k - 2) / 2];

        *p = (struct page){.node = WK_KV_NO_NODE, .seed = 1 + i / PER_TENANT};
        p->parent = up == NULL ? UINT32_MAX : (uint32_t)(up - w->pages);
        p->depth = up == NULL ? 0 : up->depth + 1;
        p->ids[7] = k % 2;
        p->hash = wk_kv_tree_hash(w->tree, up == NULL ? p->seed : up->hash, p->ids);
        p->cell[0] = p->cell[1] = empty_cell;
    }
    for (uint32_t i = 0; i < N_GONE; i++)
        w->gone[i].node = WK_KV_NO_NODE;
}

static struct page *parent_of(struct world *w, const struct page *p)
{
    return p->parent == UINT32_MAX ? NULL : &w->pages[p->parent];
}

static uint32_t parent_node(struct world *w, const struct page *p)
{
    const struct page *up = parent_of(w, p);

    return up == NULL ? WK_KV_NO_NODE : up->node;
}

/* ---- what follows from what the model holds ---- */

static bool has_local(const struct page *p)
{
    for (uint32_t g = 0; g < 2; g++) {
        const struct wk_kv_cell *c = &p->cell[g];

        if (c->t0 != WK_KV_NO_ITEM || c->t1 != WK_KV_NO_ITEM || c->t2 != WK_KV_NO_ITEM)
            return true;
    }
    return false;
}

static bool is_held(const struct page *p)
{
    return p->n_pins > 0 || p->cell[0].n_io > 0 || p->cell[1].n_io > 0;
}

static bool is_elsewhere(const struct page *p)
{
    return p->cell[0].in_t3 || p->cell[0].has_peer || p->cell[1].in_t3 || p->cell[1].has_peer;
}

static bool is_known(struct world *w, const struct page *p) /* to the tree, not flushed */
{
    return p->node != WK_KV_NO_NODE && p >= w->pages && p < w->pages + N_PAGES;
}

static uint8_t best(const struct wk_kv_cell *c)
{
    if (c->hot == WK_KV_READY)
        return WK_KV_T0;
    if (c->t1 != WK_KV_NO_ITEM)
        return WK_KV_T1;
    return c->t2 != WK_KV_NO_ITEM ? WK_KV_T2 : c->in_t3 ? WK_KV_T3 : ABSENT;
}

static bool has_copy(const struct wk_kv_cell *c)
{
    return c->has_peer || best(c) != ABSENT;
}

static bool is_idle(const struct page *p, enum wk_kv_tier tier, uint32_t g)
{
    const struct wk_kv_cell *c = &p->cell[g];

    if (c->n_io > (tier == WK_KV_T0 ? c->n_low_io : 0))
        return false;
    if (tier == WK_KV_T0)
        return c->hot == WK_KV_READY && (g != ROWS || p->n_pins == 0);
    return (tier == WK_KV_T1 ? c->t1 : c->t2) != WK_KV_NO_ITEM;
}

/* Ends what nothing holds, children before parents. */
static void settle(struct world *w)
{
    bool has_child[N_PAGES] = {false};

    for (uint32_t i = N_PAGES; i-- > 0;) { /* a parent has a lower number */
        struct page *p = &w->pages[i];

        if (p->node == WK_KV_NO_NODE)
            continue;
        if (!is_held(p) && !has_local(p) && !is_elsewhere(p) && !has_child[i])
            p->node = WK_KV_NO_NODE;
        else if (p->parent != UINT32_MAX)
            has_child[p->parent] = true;
    }
    for (uint32_t i = 0; i < N_GONE; i++) {
        struct page *p = &w->gone[i];

        if (p->node != WK_KV_NO_NODE && !is_held(p)) {
            assert_false(has_local(p));
            p->node = WK_KV_NO_NODE;
        }
    }
}

/* Flushed pages give up what is not used any more. */
static void drop_gone(struct page *p)
{
    for (uint32_t g = 0; g < 2; g++) {
        struct wk_kv_cell *c = &p->cell[g];

        if (is_idle(p, WK_KV_T0, g)) {
            c->t0 = WK_KV_NO_ITEM;
            c->hot = WK_KV_COLD;
        }
        if (c->n_io == 0)
            c->t1 = c->t2 = WK_KV_NO_ITEM;
        c->in_t3 = c->has_peer = 0;
    }
}

/* ---- following the tree's choices ---- */

static void lose(struct world *w, struct page *p, enum wk_kv_tier tier, uint32_t g)
{
    struct wk_kv_cell *c = &p->cell[g];

    assert_true(is_idle(p, tier, g));
    if (tier == WK_KV_T0) {
        c->t0 = WK_KV_NO_ITEM;
        c->hot = WK_KV_COLD;
    } else if (tier == WK_KV_T1) {
        c->t1 = WK_KV_NO_ITEM;
    } else {
        c->t2 = WK_KV_NO_ITEM;
    }
    w->n_evicted[tier]++;
    w->n_lost[tier] += !has_copy(c);
}

/* Copies that went since the model was last right; only idle ones of the tier (any, when tier is
 * ABSENT). Returns how many. */
static uint32_t follow(struct world *w, uint32_t tier_only)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < N_PAGES; i++) {
        struct page *p = &w->pages[i];
        const struct page *up = parent_of(w, p);
        uint32_t node = WK_KV_NO_NODE;

        if (p->node == WK_KV_NO_NODE)
            continue;
        if (up == NULL || up->node != WK_KV_NO_NODE)
            node = wk_kv_tree_find(w->tree, p->seed, parent_node(w, p), p->hash, p->ids);
        for (uint32_t g = 0; g < w->n_group; g++) {
            const struct wk_kv_cell *c =
                node == p->node ? wk_kv_tree_cell(w->tree, node, g) : &empty_cell;

            for (uint32_t tier = 3; tier-- > WK_KV_T0;) { /* slow tiers go first */
                uint32_t was = tier == 0   ? p->cell[g].t0
                               : tier == 1 ? p->cell[g].t1
                                           : p->cell[g].t2;
                uint32_t is = tier == 0 ? c->t0 : tier == 1 ? c->t1 : c->t2;

                if (was == is)
                    continue;
                assert_int_equal(is, WK_KV_NO_ITEM);
                assert_true(tier_only == tier || tier_only == ABSENT);
                lose(w, p, (enum wk_kv_tier)tier, g);
                n++;
            }
        }
    }
    settle(w);
    return n;
}

static uint32_t count_nodes(const struct world *w)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < N_PAGES; i++)
        n += w->pages[i].node != WK_KV_NO_NODE;
    for (uint32_t i = 0; i < N_GONE; i++)
        n += w->gone[i].node != WK_KV_NO_NODE;
    return n;
}

/* A new node may have taken the place of a far leaf; only when there was no other. */
static void follow_forgotten(struct world *w, uint32_t n_before)
{
    uint32_t n = 0;

    follow(w, ABSENT);
    for (uint32_t i = N_PAGES; i-- > 0;) {
        struct page *p = &w->pages[i];
        const struct page *up = parent_of(w, p);

        if (p->node == WK_KV_NO_NODE || has_local(p) || is_held(p) || !is_elsewhere(p))
            continue;
        if ((up == NULL || up->node != WK_KV_NO_NODE) &&
            wk_kv_tree_find(w->tree, p->seed, parent_node(w, p), p->hash, p->ids) == p->node &&
            wk_kv_tree_ids(w->tree, p->node)[7] == p->ids[7])
            continue;
        p->cell[0] = p->cell[1] = empty_cell;
        n++;
        settle(w);
    }
    assert_true(n == 0 || n_before == w->n_nodes_max);
    w->n_forgotten += n;
}

static bool take(struct world *w, enum wk_kv_tier tier, uint32_t g, uint32_t *out)
{
    uint32_t free = wk_kv_tree_n_free(w->tree, tier, g), idle = wk_kv_tree_n_idle(w->tree, tier, g);
    uint32_t avail = wk_kv_tree_n_avail(w->tree, tier, g), n;
    int r = wk_kv_tree_take(w->tree, tier, g, out);

    n = follow(w, tier);
    assert_int_equal(r, avail > 0 ? WK_KV_OK : WK_KV_E_FULL);
    if (free > 0 || r != WK_KV_OK)
        assert_int_equal(n, 0);
    else if (idle > 0)
        assert_int_equal(n, 1);
    else
        assert_true(n > 0);
    w->n_reclaimed += free == 0 && idle == 0 && r == WK_KV_OK;
    return r == WK_KV_OK;
}

/* ---- operations ---- */

static void end_seq(struct world *w, struct seq *q)
{
    while (q->n > 0) {
        struct page *p = q->path[--q->n];

        wk_kv_tree_unpin(w->tree, p->node);
        p->n_pins--;
        if (!is_known(w, p))
            drop_gone(p);
        settle(w);
    }
}

static void overtake(struct world *w, const struct page *p, uint32_t g)
{
    for (uint32_t i = 0; i < N_MOVES; i++) {
        struct move *m = &w->moves[i];

        if (m->runs && m->kind == LOAD && m->page == p && m->group == g) {
            m->is_stray = true;
            w->n_strays++;
            return;
        }
    }
    fail();
}

static void adopt(struct world *w, struct page *p, uint32_t g, uint32_t item)
{
    if (p->cell[g].hot == WK_KV_LOADING)
        overtake(w, p, g);
    p->cell[g].t0 = item;
    p->cell[g].hot = WK_KV_READY;
}

static uint32_t count_idle(struct world *w, const struct page *but)
{
    uint32_t n = 0;

    for (struct page *p = w->pages; p < w->pages + N_PAGES; p++) {
        for (uint32_t k = 0; k < 6 && p != but && p->node != WK_KV_NO_NODE; k++)
            n += is_idle(p, (enum wk_kv_tier)(k % 3), k / 3);
    }
    return n;
}

/* The next page of a sequence is computed and published; false: no room. */
static bool publish(struct world *w, struct seq *q, struct page *p)
{
    uint32_t item, node, n_before;
    bool adopted;

    if (!take(w, WK_KV_T0, ROWS, &item))
        return false;
    n_before = count_nodes(w);
    node = wk_kv_tree_publish(w->tree, p->seed, parent_node(w, p), p->hash, p->ids, item, &adopted);
    if (p->node == WK_KV_NO_NODE)
        follow_forgotten(w, n_before);
    if (node == WK_KV_NO_NODE) { /* every node is held, and none by an idle copy below another */
        assert_int_equal(count_nodes(w), w->n_nodes_max);
        assert_int_equal(count_idle(w, parent_of(w, p)), 0);
        wk_kv_tree_give(w->tree, WK_KV_T0, ROWS, item);
        return false;
    }
    assert_true(p->node == WK_KV_NO_NODE || p->node == node);
    assert_int_equal(adopted, p->cell[ROWS].hot != WK_KV_READY);
    p->node = node;
    p->n_pins++;
    if (adopted)
        adopt(w, p, ROWS, item);
    else
        wk_kv_tree_give(w->tree, WK_KV_T0, ROWS, item);
    q->path[q->n++] = p;
    return true;
}

static void op_sequence(struct world *w)
{
    struct seq *q = &w->seqs[below(w, N_SEQ)];
    struct page *path[DEPTH], *p = random_page(w);
    uint32_t n, nodes[DEPTH], n_hot = 0;

    end_seq(w, q);
    n = p->depth + 1;
    for (uint32_t i = n; i-- > 0; p = parent_of(w, p))
        path[i] = p;
    for (; n_hot < n && path[n_hot]->cell[ROWS].hot == WK_KV_READY; n_hot++) {
        nodes[n_hot] = path[n_hot]->node;
        wk_kv_tree_pin(w->tree, nodes[n_hot]);
        path[n_hot]->n_pins++;
        q->path[q->n++] = path[n_hot];
    }
    wk_kv_tree_touch(w->tree, nodes, n_hot);
    while (q->n < n && publish(w, q, path[q->n]))
        ;
    /* Computed before a flush, some end early. */
    if (below(w, 3) == 0)
        end_seq(w, q);
}

/* Cleaning to T2 reads T1 alone. */
static bool is_low(enum move_kind kind)
{
    return kind == CLEAN_T2;
}

static void begin_io(struct world *w, struct page *p, uint32_t g, enum move_kind kind)
{
    if (is_low(kind))
        wk_kv_tree_low_io_begin(w->tree, p->node, g);
    else
        wk_kv_tree_io_begin(w->tree, p->node, g);
    p->cell[g].n_io++;
    p->cell[g].n_low_io = (uint16_t)(p->cell[g].n_low_io + is_low(kind));
}

static void end_io(struct world *w, struct page *p, uint32_t node, uint32_t g, enum move_kind kind)
{
    if (is_low(kind))
        wk_kv_tree_low_io_end(w->tree, node, g);
    else
        wk_kv_tree_io_end(w->tree, node, g);
    p->cell[g].n_io--;
    p->cell[g].n_low_io = (uint16_t)(p->cell[g].n_low_io - is_low(kind));
}

static void op_begin_move(struct world *w)
{
    struct move *m = &w->moves[below(w, N_MOVES)];
    struct page *p = random_page(w);
    uint32_t g = below(w, w->n_group), item = WK_KV_NO_ITEM;
    enum move_kind kind = (enum move_kind)below(w, 4);
    struct wk_kv_cell *c;

    for (uint32_t i = 0; i < 16 && !has_copy(&p->cell[g]); i++)
        p = random_page(w);
    c = &p->cell[g];
    if (m->runs || p->node == WK_KV_NO_NODE || !has_copy(c))
        return;
    for (uint32_t i = 0; i < N_MOVES; i++) { /* the store moves a cell once in each direction */
        if (w->moves[i].runs && w->moves[i].page == p && w->moves[i].group == g &&
            w->moves[i].kind == kind && kind != LOOK)
            return;
    }
    if ((kind == CLEAN_T1 && c->t1 != WK_KV_NO_ITEM) ||
        (kind == CLEAN_T2 && c->t2 != WK_KV_NO_ITEM) || (kind == LOAD && c->t0 != WK_KV_NO_ITEM))
        return;
    begin_io(w, p, g, kind);
    if (kind != LOOK && !take(w,
                              kind == CLEAN_T1   ? WK_KV_T1
                              : kind == CLEAN_T2 ? WK_KV_T2
                                                 : WK_KV_T0,
                              g, &item)) {
        end_io(w, p, p->node, g, kind);
        settle(w);
        return;
    }
    if (kind == LOAD) {
        wk_kv_tree_load_begin(w->tree, p->node, g, item);
        c->t0 = item;
        c->hot = WK_KV_LOADING;
    }
    *m = (struct move){
        .runs = true, .kind = kind, .page = p, .node = p->node, .group = g, .item = item};
}

static void op_end_move(struct world *w)
{
    struct move *m = &w->moves[below(w, N_MOVES)];
    struct wk_kv_cell *c;
    bool ok = below(w, 4) > 0;

    if (!m->runs)
        return;
    m->runs = false;
    c = &m->page->cell[m->group];
    assert_int_equal(m->page->node, m->node);
    if (m->kind == LOAD) {
        wk_kv_tree_load_end(w->tree, m->node, m->group, ok);
        if (!m->is_stray) {
            c->hot = ok ? WK_KV_READY : WK_KV_COLD;
            c->t0 = ok ? c->t0 : WK_KV_NO_ITEM;
        }
    } else if (m->kind != LOOK && ok) {
        enum wk_kv_tier tier = m->kind == CLEAN_T1 ? WK_KV_T1 : WK_KV_T2;

        wk_kv_tree_set(w->tree, tier, m->node, m->group, m->item);
        *(tier == WK_KV_T1 ? &c->t1 : &c->t2) = m->item;
    } else if (m->kind != LOOK) {
        wk_kv_tree_give(w->tree, m->kind == CLEAN_T1 ? WK_KV_T1 : WK_KV_T2, m->group, m->item);
    }
    end_io(w, m->page, m->node, m->group, m->kind);
    if (!is_known(w, m->page))
        drop_gone(m->page);
    settle(w);
}

static void op_clear(struct world *w)
{
    struct page *p = random_page(w);
    uint32_t g = below(w, w->n_group);
    enum wk_kv_tier tier = (enum wk_kv_tier)below(w, 3);

    if (p->node == WK_KV_NO_NODE || !is_idle(p, tier, g))
        return;
    wk_kv_tree_clear(w->tree, tier, p->node, g);
    lose(w, p, tier, g);
    w->n_evicted[tier]--; /* that was no eviction */
    w->n_lost[tier] -= !has_copy(&p->cell[g]);
    settle(w);
}

/* Somebody says that T3 or a peer has it, or has it no more. */
static void op_elsewhere(struct world *w)
{
    struct page *p = random_page(w);
    const struct page *up = parent_of(w, p);
    uint32_t g = below(w, w->n_group), n_before = count_nodes(w);
    bool has = below(w, 3) > 0, is_t3 = below(w, 2) == 0;

    if (p->node == WK_KV_NO_NODE) {
        if (!has || (up != NULL && up->node == WK_KV_NO_NODE))
            return;
        p->node = wk_kv_tree_add(w->tree, p->seed, parent_node(w, p), p->hash, p->ids);
        if (p->node == WK_KV_NO_NODE) {
            assert_int_equal(n_before, w->n_nodes_max);
            return;
        }
    }
    if (is_t3) {
        wk_kv_tree_set_t3(w->tree, p->node, g, has);
        p->cell[g].in_t3 = has;
    } else {
        wk_kv_tree_set_peer(w->tree, p->node, g, has, 2);
        p->cell[g].has_peer = has;
        p->cell[g].peer = 2;
    }
    if (n_before == w->n_nodes_max)
        follow_forgotten(w, n_before);
    settle(w);
}

static void op_snapshot(struct world *w)
{
    struct page *p = random_page(w);
    uint32_t item;

    if (w->n_group == 1 || p->node == WK_KV_NO_NODE || p->n_pins == 0 ||
        !take(w, WK_KV_T0, WK_KV_SNAP_GROUP, &item))
        return;
    if (wk_kv_tree_put_snapshot(w->tree, p->node, item)) {
        assert_true(p->cell[1].hot != WK_KV_READY);
        adopt(w, p, 1, item);
    } else {
        assert_true(p->cell[1].hot == WK_KV_READY);
        wk_kv_tree_give(w->tree, WK_KV_T0, WK_KV_SNAP_GROUP, item);
    }
}

static void op_flush(struct world *w)
{
    wk_kv_tree_flush(w->tree);
    w->epoch++;
    for (uint32_t i = 0, at = 0; i < N_PAGES; i++) {
        struct page *p = &w->pages[i], *gone;

        if (p->node != WK_KV_NO_NODE && is_held(p)) {
            while (w->gone[at].node != WK_KV_NO_NODE)
                assert_true(++at < N_GONE);
            gone = &w->gone[at];
            *gone = *p;
            drop_gone(gone);
            for (uint32_t k = 0; k < N_SEQ; k++) {
                for (uint32_t n = 0; n < w->seqs[k].n; n++)
                    w->seqs[k].path[n] = w->seqs[k].path[n] == p ? gone : w->seqs[k].path[n];
            }
            for (uint32_t k = 0; k < N_MOVES; k++)
                w->moves[k].page = w->moves[k].page == p ? gone : w->moves[k].page;
        }
        p->node = WK_KV_NO_NODE;
        p->n_pins = 0;
        p->cell[0] = p->cell[1] = empty_cell;
    }
}

/* ---- the comparison ---- */

static void compare_page(struct world *w, const struct page *p)
{
    if (p->node == WK_KV_NO_NODE)
        return;
    assert_int_equal(wk_kv_tree_n_pins(w->tree, p->node), p->n_pins);
    for (uint32_t g = 0; g < w->n_group; g++) {
        const struct wk_kv_cell *is = wk_kv_tree_cell(w->tree, p->node, g), *c = &p->cell[g];

        assert_true(is->t0 == c->t0 && is->t1 == c->t1 && is->t2 == c->t2);
        assert_true(is->hot == c->hot && is->n_io == c->n_io && is->n_low_io == c->n_low_io);
        assert_true(is->in_t3 == c->in_t3 && is->has_peer == c->has_peer);
        assert_int_equal(wk_kv_tree_has_copy(w->tree, p->node, g), has_copy(c));
    }
}

static void compare_counts(struct world *w)
{
    assert_int_equal(wk_kv_tree_n_nodes(w->tree), count_nodes(w));
    for (uint32_t tier = WK_KV_T0; tier <= WK_KV_T2; tier++) {
        for (uint32_t g = 0; g < w->n_group; g++) {
            uint32_t n = 0;

            for (uint32_t i = 0; i < N_PAGES; i++) {
                const struct page *p = &w->pages[i];

                n += p->node != WK_KV_NO_NODE && is_idle(p, (enum wk_kv_tier)tier, g);
            }
            assert_int_equal(wk_kv_tree_n_idle(w->tree, (enum wk_kv_tier)tier, g), n);
        }
        assert_int_equal(wk_kv_tree_n_evicted(w->tree, (enum wk_kv_tier)tier), w->n_evicted[tier]);
        assert_int_equal(wk_kv_tree_n_lost(w->tree, (enum wk_kv_tier)tier), w->n_lost[tier]);
    }
}

static void hear(struct world *w)
{
    struct wk_kv_event e;
    uint32_t n, i;

    for (;;) {
        assert_int_equal(wk_announce_replay(w->announce, w->heard, &e, 1, &n), WK_ANNOUNCE_OK);
        if (n == 0)
            return;
        w->heard++;
        if (e.kind == WK_KV_CLEARED) {
            memset(w->said, ABSENT, sizeof(w->said));
            continue;
        }
        for (i = 0; w->pages[i].hash != e.hash; i++)
            assert_true(i + 1 < N_PAGES);
        assert_int_equal(w->said[i], e.kind == WK_KV_STORED ? ABSENT : e.from);
        w->said[i] = e.kind == WK_KV_REMOVED ? (uint8_t)ABSENT : e.tier;
    }
}

/* From what there is, stride by stride; and the digest of what was said. */
static void compare_announced(struct world *w)
{
    struct wk_kv_bucket digest[WK_KV_BUCKETS] = {{0, 0}};

    hear(w);
    for (uint32_t i = 0; i < N_PAGES; i++) {
        const struct page *p = &w->pages[i];
        struct wk_kv_bucket *b = &digest[wk_kv_bucket_of(p->hash)];
        uint8_t want = (p->depth + 1) % STRIDE == 0 ? WK_KV_T0 : ABSENT, n = 0;

        for (const struct page *at = p; at != NULL && want != ABSENT; at = parent_of(w, at), n++) {
            uint8_t has = at->node == WK_KV_NO_NODE ? (uint8_t)ABSENT : best(&at->cell[ROWS]);

            if (has == ABSENT || (n < STRIDE && has > want))
                want = has;
        }
        assert_int_equal(w->said[i], want);
        if (want != ABSENT) {
            b->n++;
            b->xor_of ^= wk_kv_bucket_mix(p->hash, (enum wk_kv_tier)want);
        }
    }
    assert_memory_equal(digest, wk_announce_buckets(w->announce), sizeof(digest));
}

static void compare_match(struct world *w)
{
    struct page *path[DEPTH], *p = random_page(w);
    uint32_t n = p->depth + 1, ids[DEPTH * PT], nodes[DEPTH], n_found = 0, n_hot = 0, n_idle = 0;
    uint64_t hashes[DEPTH], seed = p->seed;
    struct wk_kv_match m;

    for (uint32_t i = n; i-- > 0; p = parent_of(w, p)) {
        path[i] = p;
        hashes[i] = p->hash;
        memcpy(ids + i * PT, p->ids, sizeof(p->ids));
    }
    wk_kv_tree_match(w->tree, seed, ids, n * PT, hashes, nodes, &m);
    while (n_found < n && path[n_found]->node != WK_KV_NO_NODE &&
           has_copy(&path[n_found]->cell[ROWS]))
        n_found++;
    for (; n_hot < n_found && path[n_hot]->cell[ROWS].hot == WK_KV_READY; n_hot++)
        n_idle += is_idle(path[n_hot], WK_KV_T0, ROWS);
    assert_int_equal(m.n_found, n_found);
    assert_int_equal(m.n_hot, n_hot);
    assert_int_equal(m.n_idle, n_idle);
    for (uint32_t i = 0; i < n_found; i++)
        assert_int_equal(nodes[i], path[i]->node);
    assert_true(m.n_tail == 0 || n_found == n_hot);
}

static void step(struct world *w)
{
    uint32_t k = below(w, 16);

    if (k < 3)
        op_sequence(w);
    else if (k < 4)
        end_seq(w, &w->seqs[below(w, N_SEQ)]);
    else if (k < 5)
        op_snapshot(w);
    else if (k < 6)
        op_clear(w);
    else if (k < 9)
        op_elsewhere(w);
    else if (k < 12)
        op_begin_move(w);
    else if (k < 15)
        op_end_move(w);
    else if (below(w, 50) == 0)
        op_flush(w);
}

static void run(uint32_t n_group, uint32_t n_extra, uint64_t seed, uint32_t n_steps)
{
    struct world *w = ps_calloc(1, sizeof(*w));

    open_world(w, n_group, n_extra, seed);
    for (uint32_t i = 0; i < n_steps; i++) {
        step(w);
        for (uint32_t k = 0; k < N_PAGES; k++)
            compare_page(w, &w->pages[k]);
        for (uint32_t k = 0; k < N_GONE; k++)
            compare_page(w, &w->gone[k]);
        compare_counts(w);
        compare_announced(w);
        compare_match(w);
        if (i % 4 == 0)
            wk_kv_tree_check(w->tree);
    }
    assert_int_equal(wk_kv_tree_epoch(w->tree), w->epoch);
    /* The history met what it is for. */
    assert_true(w->epoch > 3 && w->n_evicted[0] > 100 && w->n_evicted[1] > 50);
    assert_true(w->n_evicted[2] > 50 && w->n_lost[0] > 20 && w->n_strays > 0);
    assert_true(w->n_forgotten > 10 && (n_group == 1 || w->n_reclaimed > 0));
    for (uint32_t i = 0; i < N_SEQ; i++)
        end_seq(w, &w->seqs[i]);
    for (uint32_t i = 0; i < 1000 * N_MOVES; i++)
        op_end_move(w);
    wk_kv_tree_destroy(w->tree);
    for (uint32_t g = 0; g < n_group; g++) {
        assert_int_equal(wk_kv_pool_n_free(w->t0, g), wk_kv_pool_n_total(w->t0, g));
        assert_int_equal(wk_kv_pool_n_free(w->t1, g), wk_kv_pool_n_total(w->t1, g));
    }
    wk_kv_pool_destroy(w->t0);
    wk_kv_pool_destroy(w->t1);
    wk_announce_destroy(w->announce);
    ps_free(w);
}

static void pages_alone_do_as_the_model_says(void **state)
{
    (void)state;
    run(1, 12, 1, 12000);
}

static void pages_and_snapshots_do_as_the_model_says(void **state)
{
    (void)state;
    run(2, 12, 2, 12000);
}

static void few_nodes_do_as_the_model_says(void **state)
{
    (void)state;
    run(2, 0, 3, 12000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pages_alone_do_as_the_model_says),
        cmocka_unit_test(pages_and_snapshots_do_as_the_model_says),
        cmocka_unit_test(few_nodes_do_as_the_model_says),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
