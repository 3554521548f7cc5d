#include "worker/kv/store_int.h"

enum {
    COPIES_MAX =
        4, /* cleaning moves in flight: enough to keep a thread busy, soon over for others */
    WRITES_MAX = 4,
    SCAN_MAX = 64, /* stale entries looked at per tick and queue */
    FULL_PAUSE_US =
        10 * 1000000, /* a tier that is full, or failed a write, is asked again after this */
};

static const struct wk_kv_cell *cell_of(const struct wk_store *s, uint32_t cell)
{
    return wk_kv_tree_cell(s->tree, wk_cell_node(cell), wk_cell_group(cell));
}

/* Less than half is free: what is there will have to go. */
static bool is_pressed(const struct wk_store *s, enum wk_kv_tier tier)
{
    bool pressed = s->closing;

    for (uint32_t g = 0; g < s->conf.layout->n_group; g++)
        pressed |= wk_kv_tree_n_free(s->tree, tier, g) < wk_kv_tree_n_total(s->tree, tier, g) / 2;
    return pressed;
}

/* ---- what is worth a copy ---- */

static void published(struct wk_store *s, uint32_t cell)
{
    struct wk_lane *l = &s->lane[WK_KV_T1];

    if (!wk_lane_is_open(s, WK_KV_T1))
        return;
    wk_fetch_overtaken(s, cell);
    /* One that was lost and had to be computed again (order.h) has proven that it is wanted. */
    wk_cells_push(wk_kv_tree_uses(s->tree, wk_cell_node(cell)) > 0 ? &l->again : &l->dirty, cell);
}

void wk_store_published(struct wk_store *s, uint32_t node)
{
    published(s, wk_cell(node, WK_KV_ROWS_GROUP));
}

void wk_store_published_snapshot(struct wk_store *s, uint32_t node)
{
    published(s, wk_cell(node, WK_KV_SNAP_GROUP));
}

static uint32_t run_of(const struct wk_store *s)
{
    return s->lane[WK_KV_T3].tier->part_run;
}

/* Also of snapshots: within a run one would be the end of rows that are not there. */
static bool ends_run(const struct wk_store *s, uint32_t cell)
{
    uint32_t n_run = run_of(s);

    return wk_kv_tree_depth(s->tree, wk_cell_node(cell)) % n_run == n_run - 1;
}

void wk_clean_new_t1(struct wk_store *s, uint32_t cell)
{
    const struct wk_kv_cell *c = cell_of(s, cell);
    struct wk_lane *t2 = &s->lane[WK_KV_T2], *t3 = &s->lane[WK_KV_T3];
    bool is_used = wk_kv_tree_uses(s->tree, wk_cell_node(cell)) > 0;

    if (wk_lane_is_open(s, WK_KV_T2) && c->t2 == WK_KV_NO_ITEM)
        wk_cells_push(is_used ? &t2->again : &t2->dirty, cell);
    if (wk_lane_is_open(s, WK_KV_T3) && !c->in_t3 && ends_run(s, cell))
        wk_cells_push(is_used ? &t3->again : &t3->dirty, cell);
}

/* It is used again: wherever it has no copy it gets one soon. */
static void used_again(struct wk_store *s, uint32_t cell)
{
    const struct wk_kv_cell *c = cell_of(s, cell);

    if (c->t1 == WK_KV_NO_ITEM)
        wk_cells_push(&s->lane[WK_KV_T1].again, cell);
    if (wk_lane_is_open(s, WK_KV_T2) && c->t2 == WK_KV_NO_ITEM)
        wk_cells_push(&s->lane[WK_KV_T2].again, cell);
    if (wk_lane_is_open(s, WK_KV_T3) && !c->in_t3 && ends_run(s, cell))
        wk_cells_push(&s->lane[WK_KV_T3].again, cell);
}

void wk_store_touch(struct wk_store *s, const uint32_t *nodes, uint32_t n)
{
    wk_kv_tree_touch(s->tree, nodes, n);
    if (!wk_lane_is_open(s, WK_KV_T1))
        return;
    for (uint32_t i = 0; i < n; i++) {
        /* The second use is the moment; later ones have nothing new to say. */
        if (wk_kv_tree_uses(s->tree, nodes[i]) == 1)
            used_again(s, wk_cell(nodes[i], WK_KV_ROWS_GROUP));
    }
    /* Of the snapshots it is the last one that is used; uses count its page's, which began earlier. */
    if (wk_store_has_state(s) && n > 0)
        used_again(s, wk_cell(nodes[n - 1], WK_KV_SNAP_GROUP));
}

/* The next cell whose turn it is: used again, or, when the tier above is short, the oldest. */
static bool next_dirty(struct wk_lane *l, bool pressed, uint32_t *out, struct wk_cells **out_from)
{
    if (wk_cells_peek(&l->again, out))
        *out_from = &l->again;
    else if (pressed && wk_cells_peek(&l->dirty, out))
        *out_from = &l->dirty;
    else
        return false;
    return true;
}

/* ---- T0 -> T1 ---- */

static bool may_copy(const struct wk_store *s, uint32_t cell)
{
    const struct wk_kv_cell *c = cell_of(s, cell);

    return c->hot == WK_KV_READY && c->t1 == WK_KV_NO_ITEM && s->fetch[cell] == WK_FETCH_NONE &&
           !wk_kv_tree_is_flushed(s->tree, wk_cell_node(cell));
}

static bool add_copy(struct wk_store *s, struct wk_move *m, uint32_t cell)
{
    uint32_t slot;

    if (wk_kv_tree_take(s->tree, WK_KV_T1, wk_cell_group(cell), &slot) != WK_KV_OK)
        return false;
    m->part[m->io.n_part].slot = cell_of(s, cell)->t0;
    wk_move_add(s, m, cell, slot);
    s->fetch[cell] = WK_FETCH_COPYING;
    return true;
}

static bool start_copy(struct wk_store *s, struct wk_move *m)
{
    if (m->io.n_part > 0 && wk_move_start(s, m, WK_KV_T0))
        return true;
    for (uint32_t i = 0; i < m->io.n_part; i++) {
        s->fetch[m->cell[i]] = WK_FETCH_NONE;
        wk_kv_tree_give(s->tree, WK_KV_T1, wk_cell_group(m->cell[i]), m->t1[i]);
    }
    wk_move_free(s, m);
    return false;
}

bool wk_clean_copy_now(struct wk_store *s, uint32_t cell)
{
    struct wk_move *m;

    if (!may_copy(s, cell) || (m = wk_move_new(s, WK_MOVE_COPY, WK_KV_T0)) == NULL)
        return false;
    if (!add_copy(s, m, cell)) {
        wk_move_free(s, m);
        return false;
    }
    return start_copy(s, m);
}

static bool copy_some(struct wk_store *s)
{
    struct wk_lane *l = &s->lane[WK_KV_T1];
    struct wk_move *m = wk_move_new(s, WK_MOVE_COPY, WK_KV_T0);
    bool pressed = is_pressed(s, WK_KV_T0);
    struct wk_cells *from;
    uint32_t cell;

    if (m == NULL)
        return false;
    for (uint32_t i = 0;
         i < SCAN_MAX && m->io.n_part < WK_TIER_PARTS_MAX && next_dirty(l, pressed, &cell, &from);
         i++) {
        if (may_copy(s, cell)) {
            if (m->io.n_part > 0 && wk_cell_group(cell) != wk_cell_group(m->cell[0]))
                break;
            if (!add_copy(s, m, cell))
                break;
        }
        wk_cells_pop(from);
    }
    return start_copy(s, m);
}

void wk_clean_copied(struct wk_store *s, struct wk_move *m)
{
    for (uint32_t i = 0; i < m->io.n_part; i++) {
        uint32_t cell = m->cell[i], node = wk_cell_node(cell), g = wk_cell_group(cell);

        PS_ASSERT(s->fetch[cell] == WK_FETCH_COPYING);
        s->fetch[cell] = WK_FETCH_NONE;
        if (m->part[i].status == WK_TIER_DONE && cell_of(s, cell)->t1 == WK_KV_NO_ITEM &&
            !wk_kv_tree_is_flushed(s->tree, node)) {
            wk_kv_tree_set(s->tree, WK_KV_T1, node, g, m->t1[i]);
            wk_clean_new_t1(s, cell);
            s->stats.cleaned_pages[WK_KV_T1]++;
        } else {
            wk_kv_tree_give(s->tree, WK_KV_T1, g, m->t1[i]);
        }
        wk_move_let_go(s, m, i);
    }
}

/* ---- T1 -> T2, T3 ---- */

static bool may_write(const struct wk_store *s, uint32_t cell)
{
    const struct wk_kv_cell *c = cell_of(s, cell);

    return c->t1 != WK_KV_NO_ITEM && !wk_kv_tree_is_flushed(s->tree, wk_cell_node(cell));
}

static bool is_writing(const struct wk_store *s, uint32_t cell, enum wk_kv_tier tier)
{
    return (s->writing[cell] & 1u << tier) != 0;
}

static bool start_write(struct wk_store *s, struct wk_move *m)
{
    if (m->io.n_part == 0 || !wk_move_start(s, m, m->tier))
        return false;
    for (uint32_t i = 0; i < m->io.n_part; i++)
        s->writing[m->cell[i]] |= (uint8_t)(1u << m->tier);
    return true;
}

static bool write_t2(struct wk_store *s)
{
    struct wk_lane *l = &s->lane[WK_KV_T2];
    struct wk_move *m = wk_move_new(s, WK_MOVE_WRITE, WK_KV_T2);
    bool pressed = is_pressed(s, WK_KV_T1);
    struct wk_cells *from;
    uint32_t cell, slot;

    if (m == NULL)
        return false;
    for (uint32_t i = 0;
         i < SCAN_MAX && m->io.n_part < WK_TIER_PARTS_MAX && next_dirty(l, pressed, &cell, &from);
         i++) {
        uint32_t g = wk_cell_group(cell);

        if (may_write(s, cell) && cell_of(s, cell)->t2 == WK_KV_NO_ITEM &&
            !is_writing(s, cell, WK_KV_T2)) {
            if (m->io.n_part > 0 && g != wk_cell_group(m->cell[0]))
                break;
            if (wk_kv_tree_take(s->tree, WK_KV_T2, g, &slot) != WK_KV_OK)
                break;
            m->part[m->io.n_part].slot = slot;
            wk_move_add(s, m, cell, cell_of(s, cell)->t1);
            m->t2[m->io.n_part - 1] = slot;
        }
        wk_cells_pop(from);
    }
    if (start_write(s, m))
        return true;
    for (uint32_t i = 0; i < m->io.n_part; i++)
        wk_kv_tree_give(s->tree, WK_KV_T2, wk_cell_group(m->cell[i]), m->t2[i]);
    wk_move_free(s, m);
    return false;
}

/* The pages of the run that ends in the cell, all in T1. */
static bool gather_run(const struct wk_store *s, uint32_t cell, uint32_t *cells, uint32_t *out_n)
{
    uint32_t node = wk_cell_node(cell), g = wk_cell_group(cell);
    uint32_t n = g == WK_KV_ROWS_GROUP ? run_of(s) : 1;

    *out_n = n;
    for (uint32_t i = n; i-- > 0; node = wk_kv_tree_parent(s->tree, node)) {
        cells[i] = wk_cell(node, g);
        if (node == WK_KV_NO_NODE || !may_write(s, cells[i]))
            return false;
    }
    return true;
}

static bool write_t3(struct wk_store *s)
{
    struct wk_lane *l = &s->lane[WK_KV_T3];
    uint32_t cells[WK_TIER_PARTS_MAX], cell, n;
    bool pressed = is_pressed(s, WK_KV_T1);
    struct wk_cells *from;

    for (uint32_t i = 0; i < SCAN_MAX && next_dirty(l, pressed, &cell, &from); i++) {
        struct wk_move *m;

        wk_cells_pop(from);
        if (!may_write(s, cell) || cell_of(s, cell)->in_t3 || !ends_run(s, cell) ||
            is_writing(s, cell, WK_KV_T3) || !gather_run(s, cell, cells, &n))
            continue;
        m = wk_move_new(s, WK_MOVE_WRITE, WK_KV_T3);
        if (m == NULL)
            return false;
        for (uint32_t k = 0; k < n; k++)
            wk_move_add(s, m, cells[k], cell_of(s, cells[k])->t1);
        if (start_write(s, m))
            return true;
        wk_move_free(s, m);
        return false;
    }
    return false;
}

void wk_clean_written(struct wk_store *s, struct wk_move *m)
{
    struct wk_lane *l = &s->lane[m->lane];

    for (uint32_t i = 0; i < m->io.n_part; i++) {
        uint32_t node = wk_cell_node(m->cell[i]), g = wk_cell_group(m->cell[i]);
        bool ok = m->part[i].status == WK_TIER_DONE && !wk_kv_tree_is_flushed(s->tree, node);

        s->writing[m->cell[i]] &= (uint8_t) ~(1u << m->tier);
        if (m->part[i].status == WK_TIER_FULL || m->part[i].status == WK_TIER_FAULT)
            l->no_write_until_us = ps_now_us(s->conf.clock) + FULL_PAUSE_US;
        s->stats.cleaned_pages[m->tier] += ok;
        if (m->tier == WK_KV_T2) {
            if (ok && cell_of(s, m->cell[i])->t2 == WK_KV_NO_ITEM)
                wk_kv_tree_set(s->tree, WK_KV_T2, node, g, m->t2[i]);
            else
                wk_kv_tree_give(s->tree, WK_KV_T2, g, m->t2[i]);
        } else if (ok) {
            wk_kv_tree_set_t3(s->tree, node, g, true);
        }
        wk_move_let_go(s, m, i);
    }
}

void wk_clean_tick(struct wk_store *s)
{
    uint64_t now = ps_now_us(s->conf.clock);
    struct wk_lane *copier = &s->lane[WK_KV_T0], *t2 = &s->lane[WK_KV_T2], *t3 = &s->lane[WK_KV_T3];

    /* Fetches in flight or queued go first: the copier is not given more to do meanwhile. */
    while (s->lane[WK_KV_T1].raise.n == 0 && copier->n_flying - copier->n_urgent < COPIES_MAX &&
           copy_some(s))
        ;
    while (wk_lane_is_open(s, WK_KV_T2) && !s->scanning && now >= t2->no_write_until_us &&
           t2->n_flying - t2->n_urgent < WRITES_MAX && write_t2(s))
        ;
    while (wk_lane_is_open(s, WK_KV_T3) && now >= t3->no_write_until_us &&
           t3->n_flying - t3->n_urgent < WRITES_MAX && write_t3(s))
        ;
}

/* An idle worker that leaves: all of T0 is idle, hence in the order. */
void wk_clean_everything(struct wk_store *s)
{
    for (uint32_t g = 0; g < s->conf.layout->n_group; g++) {
        for (uint32_t n = wk_kv_tree_coldest(s->tree, WK_KV_T0, g); n != WK_KV_NO_NODE;
             n = wk_kv_tree_warmer(s->tree, WK_KV_T0, g, n)) {
            if (cell_of(s, wk_cell(n, g))->t1 == WK_KV_NO_ITEM)
                wk_cells_push(&s->lane[WK_KV_T1].again, wk_cell(n, g));
        }
        for (uint32_t n = wk_kv_tree_coldest(s->tree, WK_KV_T1, g); n != WK_KV_NO_NODE;
             n = wk_kv_tree_warmer(s->tree, WK_KV_T1, g, n))
            wk_clean_new_t1(s, wk_cell(n, g));
    }
}
