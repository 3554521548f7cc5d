#include "worker/kv/store_int.h"

enum {
    FILLS_MAX = 8,  /* moves in flight to T0 */
    RAISES_MAX = 8, /* from one tier below T1 */
    /* A fetch is given up after this and four times what it was expected to take. */
    GRACE_US = 250 * 1000,
    GRACE_FACTOR = 4,
    IO_DEADLINE_US = 5 * 1000000,
    /* Until prefill has been measured: a guess between a laptop and a GPU. */
    PREFILL_TOK_PER_S = 2000,
};

/* Of computing: what a tier must promise to be asked for a page. */
#define TRY_RATE 1.5

/* Before a tier was measured. */
static const double first_rate[WK_KV_N_TIERS] = {
    [WK_KV_T0] = 2e9, [WK_KV_T1] = 2e9, [WK_KV_T2] = 4e8, [WK_KV_T3] = 1e8, [WK_KV_PEER] = 2e8};

/* ---- where from, and is it worth it ---- */

/* Lane that a cold cell would come from; T1: it only needs to be filled. False: from nowhere. */
static bool source(const struct wk_store *s, uint32_t cell, uint32_t *out_lane)
{
    const struct wk_kv_cell *c = wk_kv_tree_cell(s->tree, wk_cell_node(cell), wk_cell_group(cell));

    if (c->t1 != WK_KV_NO_ITEM)
        *out_lane = WK_KV_T1;
    else if (c->t2 != WK_KV_NO_ITEM && wk_lane_is_open(s, WK_KV_T2))
        *out_lane = WK_KV_T2;
    else if (c->in_t3 && wk_lane_is_open(s, WK_KV_T3))
        *out_lane = WK_KV_T3;
    else if (c->has_peer && wk_lane_is_open(s, WK_KV_PEER + c->peer))
        *out_lane = WK_KV_PEER + c->peer;
    else
        return false;
    return true;
}

static enum wk_kv_tier tier_of(uint32_t lane)
{
    return lane >= WK_KV_PEER ? WK_KV_PEER : (enum wk_kv_tier)lane;
}

static double rate_of(const struct wk_store *s, uint32_t lane)
{
    /* Fills run in the copier's lane. */
    const struct wk_lane *l = &s->lane[lane == WK_KV_T1 ? WK_KV_T0 : lane];
    double rate = lane == WK_KV_T1 ? l->write_rate : l->read_rate, compute;

    if (rate > 0)
        return rate;
    /* At least such that it is tried: who is never tried is never measured. */
    compute = wk_store_compute_rate(s);
    rate = first_rate[tier_of(lane)];
    return rate > TRY_RATE * compute ? rate : TRY_RATE * compute;
}

/* Time until what is queued and in flight there has come; a stuck device grows dear by itself. */
static double backlog_us(const struct wk_store *s, uint32_t lane)
{
    const struct wk_lane *l = &s->lane[lane];
    uint64_t item = wk_store_item_bytes(s, WK_KV_ROWS_GROUP), now = ps_now_us(s->conf.clock);
    double bytes = (double)(l->flying_bytes + l->raise.n * item);
    double us = l->latency_us + bytes / rate_of(s, lane) * 1e6;

    if (l->oldest_us != 0 && now > l->oldest_us)
        us += (double)(now - l->oldest_us);
    return us;
}

static double compute_us(const struct wk_store *s, double n_tokens)
{
    double rate = s->prefill_tok_per_s > 0 ? s->prefill_tok_per_s : PREFILL_TOK_PER_S;

    return n_tokens / rate * 1e6;
}

/* How long the snapshot at the node's end takes to come up. False: it is nowhere. */
static bool snapshot_us(const struct wk_store *s, uint32_t node, double *out)
{
    uint32_t cell = wk_cell(node, WK_KV_SNAP_GROUP), lane;
    bool is_hot = wk_kv_tree_cell(s->tree, node, WK_KV_SNAP_GROUP)->hot != WK_KV_COLD;

    *out = 0;
    if (is_hot || !source(s, cell, &lane))
        return is_hot;
    *out = backlog_us(s, lane) + wk_store_item_bytes(s, WK_KV_SNAP_GROUP) / rate_of(s, lane) * 1e6;
    return true;
}

uint32_t wk_store_worth(struct wk_store *s, const uint32_t *nodes, const struct wk_kv_match *m)
{
    uint32_t n_run = s->lane[WK_KV_T3].tier != NULL ? s->lane[WK_KV_T3].tier->part_run : 1;
    bool is_cut = false; /* the run so far has pages that only its object brings */
    double fetch_us = 0, best = 0, state_us = 0;
    bool seen[WK_STORE_LANES] = {false};
    uint32_t n_free = wk_store_has_state(s) ? 0 : m->n_hot, n_best = n_free;

    for (uint32_t i = n_free; i < m->n_found; i++) {
        uint32_t cell = wk_cell(nodes[i], WK_KV_ROWS_GROUP), lane = WK_KV_T1;
        const struct wk_kv_cell *c = wk_kv_tree_cell(s->tree, nodes[i], WK_KV_ROWS_GROUP);
        double gain;

        if (c->hot != WK_KV_READY) {
            if (!source(s, cell, &lane)) {
                if (c->hot == WK_KV_COLD)
                    break;
            } else {
                if (!seen[lane])
                    fetch_us += backlog_us(s, lane);
                seen[lane] = true;
                if (c->hot == WK_KV_COLD)
                    fetch_us += wk_store_item_bytes(s, WK_KV_ROWS_GROUP) / rate_of(s, lane) * 1e6;
            }
        }
        /* An object of T3 is named by its last page: a part of one cannot be asked for. */
        if (c->hot == WK_KV_COLD && lane == WK_KV_T3)
            is_cut = true;
        if (is_cut && (i + 1) % n_run != 0)
            continue;
        if (is_cut && (c->hot != WK_KV_COLD || lane != WK_KV_T3))
            break;
        is_cut = false;
        if (wk_store_has_state(s) && !snapshot_us(s, nodes[i], &state_us))
            continue;
        gain = compute_us(s, (double)(i + 1 - n_free) * s->page_tokens) - fetch_us - state_us;
        if (gain > best) {
            best = gain;
            n_best = i + 1;
        }
    }
    return n_best;
}

uint32_t wk_store_need(const struct wk_store *s, const uint32_t *nodes, uint32_t from, uint32_t to)
{
    uint32_t n = 0;

    for (uint32_t i = from; i < to; i++) {
        const struct wk_kv_cell *c = wk_kv_tree_cell(s->tree, nodes[i], WK_KV_ROWS_GROUP);

        n += c->hot == WK_KV_COLD ||
             (c->hot == WK_KV_READY && wk_kv_tree_n_pins(s->tree, nodes[i]) == 0 &&
              c->n_io == c->n_low_io);
    }
    return n;
}

uint64_t wk_store_deadline(const struct wk_store *s, const uint32_t *nodes, uint32_t n)
{
    double us = backlog_us(s, WK_KV_T1), state_us;
    bool seen[WK_STORE_LANES] = {false};

    if (wk_store_has_state(s) && n > 0 && snapshot_us(s, nodes[n - 1], &state_us))
        us += state_us;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t lane;

        if (wk_kv_tree_cell(s->tree, nodes[i], WK_KV_ROWS_GROUP)->hot == WK_KV_READY ||
            !source(s, wk_cell(nodes[i], WK_KV_ROWS_GROUP), &lane))
            continue;
        us += wk_store_item_bytes(s, WK_KV_ROWS_GROUP) / rate_of(s, lane) * 1e6;
        if (!seen[lane] && lane != WK_KV_T1)
            us += backlog_us(s, lane);
        seen[lane] = true;
    }
    return ps_now_us(s->conf.clock) + GRACE_US + (uint64_t)(us * GRACE_FACTOR);
}

/* ---- life of one fetch ---- */

static enum wk_kv_hot hot_of(const struct wk_store *s, uint32_t cell)
{
    return wk_kv_tree_cell(s->tree, wk_cell_node(cell), wk_cell_group(cell))->hot;
}

/* Ends the fetch of a cell; whoever waited finds it COLD. May end the node when nobody pins it. */
static void end(struct wk_store *s, uint32_t cell, bool ok)
{
    uint32_t node = wk_cell_node(cell), g = wk_cell_group(cell);
    const struct wk_kv_cell *c = wk_kv_tree_cell(s->tree, node, g);

    s->fetch[cell] = WK_FETCH_NONE;
    if (c->hot == WK_KV_LOADING || c->has_stray)
        wk_kv_tree_load_end(s->tree, node, g, ok);
    wk_kv_tree_low_io_end(s->tree, node, g);
}

/* Flushed while it was on its way: it has no name any more. */
static bool forgotten(const struct wk_store *s, uint32_t cell)
{
    return wk_kv_tree_is_flushed(s->tree, wk_cell_node(cell));
}

static void queue(struct wk_store *s, uint32_t cell, uint32_t lane)
{
    s->fetch[cell] = lane == WK_KV_T1 ? WK_FETCH_FILLQ : WK_FETCH_QUEUED;
    wk_cells_push(&s->lane[lane].raise, cell);
}

/* The item will get what the lane has; the caller holds the cell by a low io, which is used up. */
static void load_into(struct wk_store *s, uint32_t cell, uint32_t lane, uint32_t item)
{
    uint32_t node = wk_cell_node(cell), g = wk_cell_group(cell);

    wk_kv_tree_load_begin(s->tree, node, g, item);
    if (s->fetch[cell] == WK_FETCH_NONE) {
        s->origin[cell] = (uint8_t)tier_of(lane);
        queue(s, cell, lane);
    } else { /* given up, computed and evicted, or wanted by a peer: it has a hold of its own */
        PS_ASSERT(s->fetch[cell] == WK_FETCH_RAISING || s->fetch[cell] == WK_FETCH_QUEUED ||
                  s->fetch[cell] == WK_FETCH_FILLQ);
        wk_kv_tree_low_io_end(s->tree, node, g);
    }
}

void wk_store_attach_snapshot(struct wk_store *s, uint32_t node, uint32_t item)
{
    uint32_t cell = wk_cell(node, WK_KV_SNAP_GROUP), lane;

    PS_ASSERT(wk_kv_tree_n_pins(s->tree, node) > 0 && hot_of(s, cell) == WK_KV_COLD);
    if (!source(s, cell, &lane)) { /* its tier closed: the row finds it GONE */
        wk_kv_tree_give(s->tree, WK_KV_T0, WK_KV_SNAP_GROUP, item);
        return;
    }
    wk_kv_tree_low_io_begin(s->tree, node, WK_KV_SNAP_GROUP);
    load_into(s, cell, lane, item);
}

void wk_store_attach(struct wk_store *s, const uint32_t *nodes, uint32_t n)
{
    uint32_t n_cold = 0;

    for (uint32_t i = 0; i < n; i++) { /* first, so that making room takes none of them */
        wk_kv_tree_pin(s->tree, nodes[i]);
        n_cold += hot_of(s, wk_cell(nodes[i], WK_KV_ROWS_GROUP)) == WK_KV_COLD;
    }
    for (uint32_t i = 0; i < n && n_cold > 0; i++) {
        uint32_t cell = wk_cell(nodes[i], WK_KV_ROWS_GROUP), lane, item;
        int r;

        if (hot_of(s, cell) != WK_KV_COLD || !source(s, cell, &lane))
            continue; /* one without a source stays COLD: the row finds it GONE */
        wk_kv_tree_low_io_begin(s->tree, nodes[i], WK_KV_ROWS_GROUP);
        r = wk_kv_tree_take(s->tree, WK_KV_T0, WK_KV_ROWS_GROUP, &item);
        PS_ASSERT(r == WK_KV_OK); /* admission counted them */
        load_into(s, cell, lane, item);
    }
    if (wk_store_has_state(s) && n > 0) /* attach_snapshot follows */
        n_cold += hot_of(s, wk_cell(nodes[n - 1], WK_KV_SNAP_GROUP)) == WK_KV_COLD;
    s->stats.n_fetch += n_cold > 0;
}

/* Nobody waits for the cell any more. */
static void give_up(struct wk_store *s, uint32_t cell)
{
    if (hot_of(s, cell) != WK_KV_LOADING)
        return;
    if (s->fetch[cell] == WK_FETCH_RAISING)
        wk_kv_tree_load_end(s->tree, wk_cell_node(cell), wk_cell_group(cell), false);
    else if (s->fetch[cell] != WK_FETCH_FILLING)
        end(s, cell, false);
}

void wk_store_detach(struct wk_store *s, const uint32_t *nodes, uint32_t n)
{
    while (n-- > 0) {
        for (uint32_t g = 0;
             g < s->conf.layout->n_group && wk_kv_tree_n_pins(s->tree, nodes[n]) == 1; g++)
            give_up(s, wk_cell(nodes[n], g));
        wk_kv_tree_unpin(s->tree, nodes[n]);
    }
}

void wk_store_fetch_ended(struct wk_store *s, enum wk_store_fetch how, uint64_t wait_us)
{
    s->stats.n_fetch_late += how == WK_STORE_FETCH_LATE;
    s->stats.n_fetch_failed += how == WK_STORE_FETCH_FAILED;
    s->stats.fetch_wait_us += wait_us;
}

void wk_fetch_overtaken(struct wk_store *s, uint32_t cell)
{
    uint32_t node = wk_cell_node(cell), g = wk_cell_group(cell);

    if (!wk_kv_tree_cell(s->tree, node, g)->has_stray)
        return;
    if (s->fetch[cell] == WK_FETCH_RAISING)
        wk_kv_tree_load_end(s->tree, node, g, false);
    else if (s->fetch[cell] != WK_FETCH_FILLING) /* then the item is still written to */
        end(s, cell, false);
}

void wk_fetch_to_t1(struct wk_store *s, uint32_t cell)
{
    const struct wk_kv_cell *c = wk_kv_tree_cell(s->tree, wk_cell_node(cell), wk_cell_group(cell));

    if (s->fetch[cell] != WK_FETCH_NONE || forgotten(s, cell))
        return;
    if (c->hot == WK_KV_READY) {
        (void)wk_clean_copy_now(s, cell);
    } else if (c->t2 != WK_KV_NO_ITEM && wk_lane_is_open(s, WK_KV_T2)) {
        wk_kv_tree_low_io_begin(s->tree, wk_cell_node(cell), wk_cell_group(cell));
        s->origin[cell] = WK_KV_T2;
        queue(s, cell, WK_KV_T2);
    }
}

static enum wk_store_state state_of(enum wk_kv_hot hot)
{
    switch (hot) {
    case WK_KV_READY:
        return WK_STORE_READY;
    case WK_KV_LOADING:
        return WK_STORE_MOVING;
    default:
        return WK_STORE_GONE;
    }
}

enum wk_store_state wk_store_state(const struct wk_store *s, uint32_t node)
{
    return state_of(hot_of(s, wk_cell(node, WK_KV_ROWS_GROUP)));
}

enum wk_store_state wk_store_snapshot_state(const struct wk_store *s, uint32_t node)
{
    return state_of(hot_of(s, wk_cell(node, WK_KV_SNAP_GROUP)));
}

/* ---- T1 -> T0 ---- */

static bool fill_some(struct wk_store *s)
{
    struct wk_cells *q = &s->lane[WK_KV_T1].raise;
    struct wk_move *m = wk_move_new(s, WK_MOVE_FILL, WK_KV_T0);
    uint32_t cell;

    if (m == NULL)
        return false;
    while (m->io.n_part < WK_TIER_PARTS_MAX && wk_cells_peek(q, &cell)) {
        const struct wk_kv_cell *c;

        c = wk_kv_tree_cell(s->tree, wk_cell_node(cell), wk_cell_group(cell));
        if (s->fetch[cell] == WK_FETCH_FILLQ && (c->hot != WK_KV_LOADING || forgotten(s, cell))) {
            end(s, cell, false); /* somebody computed it meanwhile, or it was flushed */
        } else if (s->fetch[cell] == WK_FETCH_FILLQ) {
            if (m->io.n_part > 0 && wk_cell_group(cell) != wk_cell_group(m->cell[0]))
                break;
            PS_ASSERT(c->t1 != WK_KV_NO_ITEM);
            m->part[m->io.n_part].slot = c->t0;
            wk_move_add(s, m, cell, WK_KV_NO_ITEM);
            m->part[m->io.n_part - 1].buf = wk_store_t1_buf(s, wk_cell_group(cell), c->t1);
            s->fetch[cell] = WK_FETCH_FILLING;
        }
        wk_cells_pop(q);
    }
    if (m->io.n_part == 0) {
        wk_move_free(s, m);
        return false;
    }
    if (wk_move_start(s, m, WK_KV_T0))
        return true;
    for (uint32_t i = 0; i < m->io.n_part; i++) /* the copier's queue is full of cleaning */
        queue(s, m->cell[i], WK_KV_T1);
    wk_move_free(s, m);
    return false;
}

/* The page is in T0 now, and that is due to the tier its fetch began at. */
static void count_fetched(struct wk_store *s, uint32_t cell)
{
    if (wk_cell_group(cell) == WK_KV_ROWS_GROUP)
        s->stats.fetched_tokens[s->origin[cell]] += s->page_tokens;
    if (s->origin[cell] != WK_KV_T1) /* nothing was read for it */
        s->stats.useful_bytes[s->origin[cell]] += wk_store_item_bytes(s, wk_cell_group(cell));
}

void wk_fetch_filled(struct wk_store *s, struct wk_move *m)
{
    for (uint32_t i = 0; i < m->io.n_part; i++) {
        uint32_t cell = m->cell[i];

        PS_ASSERT(s->fetch[cell] == WK_FETCH_FILLING);
        if (m->part[i].status == WK_TIER_DONE && hot_of(s, cell) == WK_KV_LOADING)
            count_fetched(s, cell);
        wk_move_let_go(s, m, i);
        end(s, cell, m->part[i].status == WK_TIER_DONE);
    }
}

/* ---- T2, T3, peers -> T1 ---- */

static void give_back(struct wk_store *s, struct wk_move *m)
{
    for (uint32_t i = 0; i < m->io.n_part; i++) {
        if (m->t1[i] != WK_KV_NO_ITEM)
            wk_kv_tree_give(s->tree, WK_KV_T1, wk_cell_group(m->cell[i]), m->t1[i]);
    }
}

/* Adds a cell with a slot of T1 to read into. False: T1 has none. */
static bool add_raise(struct wk_store *s, struct wk_move *m, uint32_t cell)
{
    uint32_t slot, g = wk_cell_group(cell);
    const struct wk_kv_cell *c;

    /* Held first: making room in T1 must not take the copy that is wanted. */
    wk_kv_tree_low_io_begin(s->tree, wk_cell_node(cell), g);
    if (wk_kv_tree_take(s->tree, WK_KV_T1, g, &slot) != WK_KV_OK) {
        wk_kv_tree_low_io_end(s->tree, wk_cell_node(cell), g);
        return false;
    }
    c = wk_kv_tree_cell(s->tree, wk_cell_node(cell), g);
    m->part[m->io.n_part].slot = c->t2;
    wk_move_add(s, m, cell, slot);
    wk_kv_tree_low_io_end(s->tree, wk_cell_node(cell), g);
    return true;
}

/* T3: every page of the run that ends in this cell, wanted or not. */
static bool add_run(struct wk_store *s, struct wk_move *m, uint32_t last_cell, uint32_t n_run)
{
    uint32_t path[WK_TIER_PARTS_MAX], node = wk_cell_node(last_cell);

    for (uint32_t i = n_run; i-- > 0;) {
        path[i] = node;
        node = wk_kv_tree_parent(s->tree, node);
    }
    for (uint32_t i = 0; i < n_run; i++) {
        if (!add_raise(s, m, wk_cell(path[i], wk_cell_group(last_cell))))
            return false;
    }
    return true;
}

/* Cells that a stopped start leaves behind are wanted still, or can never come. */
static void stop_raise(struct wk_store *s, struct wk_move *m, const uint32_t *cells, uint32_t n,
                       uint32_t lane)
{
    /* With nothing in flight or about to be nothing will make room: better compute. */
    bool hopeless =
        (s->n_moving == 0 && s->lane[WK_KV_T1].raise.n == 0) || !wk_lane_is_open(s, lane);

    for (uint32_t i = 0; i < n; i++) {
        if (s->fetch[cells[i]] != WK_FETCH_QUEUED)
            continue;
        if (hopeless)
            end(s, cells[i], false);
        else
            wk_cells_push(&s->lane[lane].raise, cells[i]);
    }
    wk_move_free(s, m);
}

/* Pops cells that can go as one io: of one path, for T3 of one run. */
static uint32_t pop_batch(struct wk_store *s, uint32_t lane, uint32_t *cells)
{
    struct wk_cells *q = &s->lane[lane].raise;
    uint32_t n_run = s->lane[lane].tier->part_run, n = 0, cell;

    while (n < WK_TIER_PARTS_MAX && wk_cells_peek(q, &cell)) {
        uint32_t node = wk_cell_node(cell);

        if (s->fetch[cell] == WK_FETCH_QUEUED && forgotten(s, cell)) {
            end(s, cell, false);
        } else if (s->fetch[cell] == WK_FETCH_QUEUED &&
                   wk_kv_tree_cell(s->tree, node, wk_cell_group(cell))->t1 != WK_KV_NO_ITEM) {
            queue(s, cell, WK_KV_T1); /* it came with another run meanwhile */
        } else if (s->fetch[cell] == WK_FETCH_QUEUED) {
            uint32_t depth = wk_kv_tree_depth(s->tree, node);

            if (n > 0 && (wk_cell_group(cell) != wk_cell_group(cells[0]) ||
                          (lane == WK_KV_T3 && wk_cell_group(cell) != WK_KV_ROWS_GROUP) ||
                          (lane >= WK_KV_T3 &&
                           wk_kv_tree_parent(s->tree, node) != wk_cell_node(cells[n - 1])) ||
                          (n_run > 1 && depth % n_run == 0)))
                break;
            cells[n++] = cell;
        }
        wk_cells_pop(q);
    }
    return n;
}

static bool raise_some(struct wk_store *s, uint32_t lane)
{
    uint32_t cells[WK_TIER_PARTS_MAX], n, n_run = s->lane[lane].tier->part_run;
    struct wk_move *m = wk_move_new(s, WK_MOVE_RAISE, tier_of(lane));
    bool ok = true;

    if (m == NULL)
        return false;
    n = pop_batch(s, lane, cells);
    if (n == 0) {
        wk_move_free(s, m);
        return false;
    }
    if (n_run > 1 && wk_cell_group(cells[0]) == WK_KV_ROWS_GROUP) {
        uint32_t depth = wk_kv_tree_depth(s->tree, wk_cell_node(cells[n - 1]));

        if (depth % n_run != n_run - 1) { /* its run was cut: cannot be named */
            for (uint32_t i = 0; i < n; i++)
                end(s, cells[i], false);
            wk_move_free(s, m);
            return true;
        }
        ok = add_run(s, m, cells[n - 1], n_run);
    } else {
        for (uint32_t i = 0; i < n && ok; i++)
            ok = add_raise(s, m, cells[i]);
    }
    m->io.deadline_us = ps_now_us(s->conf.clock) + IO_DEADLINE_US;
    if (!ok) {
        for (uint32_t i = 0; i < m->io.n_part; i++)
            wk_move_let_go(s, m, i);
        give_back(s, m);
        stop_raise(s, m, cells, n, lane);
        return false;
    }
    if (!wk_move_start(s, m, lane)) {
        give_back(s, m);
        stop_raise(s, m, cells, n, lane);
        return false;
    }
    for (uint32_t i = 0; i < n; i++)
        s->fetch[cells[i]] = WK_FETCH_RAISING;
    return true;
}

/* On disk as well: a restart must not find it again. False: the disk takes no more just now. */
static bool erase(struct wk_store *s, uint32_t cell)
{
    struct wk_move *m = wk_move_new(s, WK_MOVE_ERASE, WK_KV_T2);

    if (m == NULL)
        return false;
    m->part[0].slot = wk_kv_tree_cell(s->tree, wk_cell_node(cell), wk_cell_group(cell))->t2;
    wk_move_add(s, m, cell, WK_KV_NO_ITEM);
    if (wk_move_start(s, m, WK_KV_T2))
        return true;
    wk_move_free(s, m);
    return false;
}

/* The copy there is no good: it is as if it had never been. */
static void disown(struct wk_store *s, const struct wk_move *m, uint32_t i)
{
    uint32_t node = wk_cell_node(m->cell[i]), g = wk_cell_group(m->cell[i]);
    const struct wk_kv_cell *c = wk_kv_tree_cell(s->tree, node, g);

    if (m->tier == WK_KV_T3) {
        wk_kv_tree_set_t3(s->tree, node, g, false); /* what is bad there, the tier has removed */
    } else if (m->tier == WK_KV_PEER) {
        if (c->has_peer && (uint32_t)WK_KV_PEER + c->peer == m->lane)
            wk_kv_tree_set_peer(s->tree, node, g, false, 0);
    } else if (c->t2 == m->part[i].slot) {
        if (m->part[i].status == WK_TIER_BAD && erase(s, m->cell[i]))
            return; /* the copy goes when the erasing has ended */
        if (c->n_io == 0)
            wk_kv_tree_clear(s->tree, WK_KV_T2, node, g);
    }
}

static void raised_part(struct wk_store *s, struct wk_move *m, uint32_t i)
{
    uint32_t cell = m->cell[i], node = wk_cell_node(cell), g = wk_cell_group(cell);
    enum wk_tier_status st = m->part[i].status;
    const struct wk_kv_cell *c = wk_kv_tree_cell(s->tree, node, g);
    bool wanted = s->fetch[cell] == WK_FETCH_RAISING;
    bool is_lost = st != WK_TIER_DONE && st != WK_TIER_CANCELLED && !forgotten(s, cell);

    if (st == WK_TIER_DONE && c->t1 == WK_KV_NO_ITEM && !wk_kv_tree_is_flushed(s->tree, node)) {
        wk_kv_tree_set(s->tree, WK_KV_T1, node, g, m->t1[i]);
        wk_clean_new_t1(s, cell);
    } else {
        wk_kv_tree_give(s->tree, WK_KV_T1, g, m->t1[i]);
    }
    if (is_lost) /* keeps the node while the holds go: disown looks at it afterwards */
        wk_kv_tree_pin(s->tree, node);
    wk_move_let_go(s, m, i);
    if (wanted) {
        if (c->hot == WK_KV_LOADING && c->t1 != WK_KV_NO_ITEM)
            queue(s, cell, WK_KV_T1);
        else
            end(s, cell, false);
    }
    if (is_lost) {
        disown(s, m, i);
        wk_kv_tree_unpin(s->tree, node);
    }
}

void wk_fetch_raised(struct wk_store *s, struct wk_move *m)
{
    for (uint32_t i = 0; i < m->io.n_part; i++)
        raised_part(s, m, i);
}

void wk_fetch_erased(struct wk_store *s, struct wk_move *m)
{
    uint32_t node = wk_cell_node(m->cell[0]), g = wk_cell_group(m->cell[0]);
    const struct wk_kv_cell *c = wk_kv_tree_cell(s->tree, node, g);

    if (forgotten(s, m->cell[0])) {
        wk_move_let_go(s, m, 0);
        return;
    }
    wk_kv_tree_pin(s->tree, node);
    wk_move_let_go(s, m, 0);
    if (c->t2 == m->part[0].slot && c->n_io == 0)
        wk_kv_tree_clear(s->tree, WK_KV_T2, node, g);
    wk_kv_tree_unpin(s->tree, node);
}

/* Nobody will bring these. */
static void end_queued(struct wk_store *s, struct wk_lane *l)
{
    uint32_t cell;

    while (wk_cells_peek(&l->raise, &cell)) {
        wk_cells_pop(&l->raise);
        if (s->fetch[cell] == WK_FETCH_QUEUED || s->fetch[cell] == WK_FETCH_FILLQ)
            end(s, cell, false);
    }
}

void wk_fetch_end_all(struct wk_store *s)
{
    for (uint32_t lane = WK_KV_T1; lane < WK_STORE_LANES; lane++)
        end_queued(s, &s->lane[lane]);
}

void wk_fetch_tick(struct wk_store *s)
{
    for (uint32_t lane = WK_KV_T2; lane < WK_STORE_LANES; lane++) {
        struct wk_lane *l = &s->lane[lane];

        if (l->tier == NULL)
            continue;
        wk_lane_retry(s, lane);
        while (l->n_urgent < RAISES_MAX && l->raise.n > 0 && raise_some(s, lane))
            ;
        if (l->is_off)
            end_queued(s, l);
    }
    while (s->lane[WK_KV_T0].n_urgent < FILLS_MAX && s->lane[WK_KV_T1].raise.n > 0 && fill_some(s))
        ;
}
