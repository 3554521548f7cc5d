#include "worker/kv/store_int.h"

#include "common/log.h"

#include <string.h>

/* Weight of a new sample of a tier's speed. */
#define RATE_WEIGHT 0.2
/* Of computing: worth one fetch, and one that is much slower makes it slow again. */
#define RETRY_RATE 1.1

enum {
    CELLS_FIRST = 256,            /* power of two */
    SLOW_LIMIT_US = 60 * 1000000, /* a tier slower than computing for so long is given up */
    SLOW_RETRY_US = 5 * 1000000,  /* as long as it is slow nothing is fetched: then one is tried */
    FAULTS_IN_ROW_MAX = 16,       /* one from which nothing can be read: earlier */
    OFF_US = 60 * 1000000,        /* it is tried again after this, then after twice as long, .. */
    OFF_MAX_SHIFT = 6,            /* .. up to about an hour */
};

void wk_cells_init(struct wk_cells *q, uint32_t n_max)
{
    *q = (struct wk_cells){.items = ps_alloc(CELLS_FIRST * sizeof(*q->items)),
                           .cap = CELLS_FIRST,
                           .n_max = ps_max_u32(n_max, CELLS_FIRST)};
}

void wk_cells_fini(struct wk_cells *q)
{
    ps_free(q->items);
    q->items = NULL;
}

void wk_cells_push(struct wk_cells *q, uint32_t cell)
{
    if (q->n == q->n_max)
        wk_cells_pop(q);
    if (q->n == q->cap) {
        uint32_t *bigger = ps_alloc((size_t)q->cap * 2 * sizeof(*bigger));

        for (uint32_t i = 0; i < q->n; i++)
            bigger[i] = q->items[(q->head + i) & (q->cap - 1)];
        ps_free(q->items);
        q->items = bigger;
        q->head = 0;
        q->cap *= 2;
    }
    q->items[(q->head + q->n++) & (q->cap - 1)] = cell;
}

bool wk_cells_peek(const struct wk_cells *q, uint32_t *out)
{
    if (q->n == 0)
        return false;
    *out = q->items[q->head];
    return true;
}

void wk_cells_pop(struct wk_cells *q)
{
    PS_ASSERT(q->n > 0);
    q->head = (q->head + 1) & (q->cap - 1);
    q->n--;
}

uint32_t wk_store_item_bytes(const struct wk_store *s, uint32_t group)
{
    return s->t1_layout.group[group].item_bytes;
}

uint8_t *wk_store_t1_buf(struct wk_store *s, uint32_t group, uint32_t slot)
{
    return s->arena + (size_t)slot * wk_store_item_bytes(s, group);
}

bool wk_lane_is_open(const struct wk_store *s, uint32_t lane)
{
    return s->lane[lane].tier != NULL && !s->lane[lane].is_off;
}

struct wk_move *wk_move_new(struct wk_store *s, enum wk_move_kind kind, enum wk_kv_tier tier)
{
    struct wk_move *m = s->free_moves;

    if (m == NULL)
        return NULL;
    s->free_moves = m->next;
    memset(m, 0, sizeof(*m));
    m->kind = kind;
    m->tier = tier;
    m->io.part = m->part;
    m->io.ud = m;
    m->io.op = kind == WK_MOVE_FILL || kind == WK_MOVE_WRITE ? WK_TIER_PUT
               : kind == WK_MOVE_ERASE                       ? WK_TIER_ERASE
                                                             : WK_TIER_GET;
    m->io.urgent = kind == WK_MOVE_FILL || kind == WK_MOVE_RAISE;
    return m;
}

void wk_move_free(struct wk_store *s, struct wk_move *m)
{
    m->next = s->free_moves;
    s->free_moves = m;
}

/* Only what reads T0 holds the copy there: nothing that hangs below may (S2). A fill's item is
 * LOADING and stays anyway. */
static void hold(struct wk_store *s, const struct wk_move *m, uint32_t cell)
{
    if (m->kind == WK_MOVE_COPY)
        wk_kv_tree_io_begin(s->tree, wk_cell_node(cell), wk_cell_group(cell));
    else
        wk_kv_tree_low_io_begin(s->tree, wk_cell_node(cell), wk_cell_group(cell));
}

void wk_move_let_go(struct wk_store *s, const struct wk_move *m, uint32_t i)
{
    uint32_t node = wk_cell_node(m->cell[i]), g = wk_cell_group(m->cell[i]);

    if (m->kind == WK_MOVE_COPY)
        wk_kv_tree_io_end(s->tree, node, g);
    else
        wk_kv_tree_low_io_end(s->tree, node, g);
}

void wk_move_add(struct wk_store *s, struct wk_move *m, uint32_t cell, uint32_t t1)
{
    uint32_t i = m->io.n_part++, node = wk_cell_node(cell), g = wk_cell_group(cell);

    PS_ASSERT(i < WK_TIER_PARTS_MAX);
    m->cell[i] = cell;
    m->t1[i] = t1;
    m->t2[i] = WK_KV_NO_ITEM;
    hold(s, m, cell);
    wk_kv_tree_key(s->tree, node, g, &m->part[i].key);
    m->part[i].status = WK_TIER_PENDING;
    m->part[i].buf = m->kind == WK_MOVE_ERASE ? NULL : wk_store_t1_buf(s, g, t1);
}

static uint64_t move_bytes(const struct wk_store *s, const struct wk_move *m)
{
    return (uint64_t)m->io.n_part * wk_store_item_bytes(s, wk_cell_group(m->cell[0]));
}

bool wk_move_start(struct wk_store *s, struct wk_move *m, uint32_t lane)
{
    struct wk_lane *l = &s->lane[lane];
    int r = WK_TIER_E_FULL;

    PS_ASSERT(m->io.n_part > 0);
    if (wk_lane_is_open(s, lane))
        r = l->tier->ops->submit(l->tier, &m->io);
    if (r == WK_TIER_E_CLOSED)
        wk_store_lane_off(s, lane, "closed");
    if (r != WK_TIER_OK) {
        for (uint32_t i = 0; i < m->io.n_part; i++)
            wk_move_let_go(s, m, i);
        return false;
    }
    m->lane = lane;
    l->n_flying++;
    s->n_moving++;
    if (m->io.urgent) {
        l->n_urgent++;
        l->flying_bytes += move_bytes(s, m);
        if (l->oldest_us == 0)
            l->oldest_us = ps_now_us(s->conf.clock);
    }
    return true;
}

void wk_store_lane_off(struct wk_store *s, uint32_t lane, const char *why)
{
    struct wk_lane *l = &s->lane[lane];

    if (l->is_off)
        return;
    l->is_off = true;
    l->off_until_us =
        ps_now_us(s->conf.clock) + ((uint64_t)OFF_US << ps_min_u32(l->n_off++, OFF_MAX_SHIFT));
    ps_warn("a KV tier is given up; serving goes on without it", "tier=%s why=\"%s\"",
            l->tier->name, why);
}

void wk_store_lanes_on(struct wk_store *s)
{
    for (uint32_t i = WK_KV_T2; i < WK_STORE_LANES; i++) {
        struct wk_lane *l = &s->lane[i];

        if (!l->is_off || ps_now_us(s->conf.clock) < l->off_until_us)
            continue;
        l->is_off = false;
        l->n_faults_in_row = 0;
        l->slow_since_us = 0;
        l->no_write_until_us = 0;
        ps_info("a KV tier is tried again", "tier=%s", l->tier->name);
    }
}

static double blend(double mean, double sample)
{
    return mean > 0 ? mean + RATE_WEIGHT * (sample - mean) : sample;
}

double wk_store_compute_rate(const struct wk_store *s)
{
    return s->prefill_tok_per_s / s->page_tokens * wk_store_item_bytes(s, WK_KV_ROWS_GROUP);
}

static void judge_speed(struct wk_store *s, uint32_t lane)
{
    struct wk_lane *l = &s->lane[lane];
    uint64_t now = ps_now_us(s->conf.clock);

    l->sampled_us = now;
    if (lane == WK_KV_T0 || s->prefill_tok_per_s <= 0 || l->read_rate >= wk_store_compute_rate(s)) {
        l->slow_since_us = 0;
    } else if (l->slow_since_us == 0) {
        l->slow_since_us = now;
    } else if (now - l->slow_since_us > SLOW_LIMIT_US) {
        wk_store_lane_off(s, lane, "slower than computing for 60 s");
    }
}

void wk_lane_retry(struct wk_store *s, uint32_t lane)
{
    struct wk_lane *l = &s->lane[lane];
    uint64_t now = ps_now_us(s->conf.clock);

    if (l->read_rate <= 0 || now - l->sampled_us < SLOW_RETRY_US ||
        l->read_rate >= wk_store_compute_rate(s))
        return;
    l->read_rate = wk_store_compute_rate(s) * RETRY_RATE;
    l->sampled_us = now;
}

static void judge_parts(struct wk_store *s, struct wk_move *m)
{
    struct wk_lane *l = &s->lane[m->lane];
    enum wk_kv_tier tier = m->tier;
    uint32_t n_fault = 0, n_done = 0;

    for (uint32_t i = 0; i < m->io.n_part; i++) {
        enum wk_tier_status st = m->part[i].status;

        PS_ASSERT(st != WK_TIER_PENDING);
        n_done += st == WK_TIER_DONE;
        n_fault += st == WK_TIER_FAULT;
        s->stats.n_bad[tier] += st == WK_TIER_BAD;
        s->stats.n_full[tier] += st == WK_TIER_FULL;
    }
    s->stats.n_fault[tier] += n_fault;
    /* Failing writes only pause (store_clean.c): what is there may still be read. A peer that is
     * gone fails at once and dials again by itself. */
    if (m->io.op != WK_TIER_GET || (m->lane != WK_KV_T2 && m->lane != WK_KV_T3))
        return;
    if (n_done > 0)
        l->n_faults_in_row = l->n_off = 0;
    else if (n_fault > 0 && ++l->n_faults_in_row == FAULTS_IN_ROW_MAX)
        wk_store_lane_off(s, m->lane, "only errors");
}

void wk_move_end(struct wk_store *s, struct wk_move *m)
{
    struct wk_lane *l = &s->lane[m->lane];
    uint64_t bytes = move_bytes(s, m);
    double us = m->io.end_us > m->io.begin_us ? (double)(m->io.end_us - m->io.begin_us) : 1;
    bool ok = m->io.n_part > 0 && m->part[0].status == WK_TIER_DONE;

    /* Several ios share the device: what one saw of its speed is one share. */
    if (ok && m->io.op == WK_TIER_GET) {
        l->read_rate = blend(l->read_rate, (double)bytes * l->n_flying / us * 1e6);
        s->stats.read_bytes[m->tier] += bytes;
    } else if (ok && m->io.op == WK_TIER_PUT) {
        l->write_rate = blend(l->write_rate, (double)bytes * l->n_flying / us * 1e6);
        s->stats.write_bytes[m->tier] += bytes;
    }
    PS_ASSERT(l->n_flying > 0 && s->n_moving > 0);
    l->n_flying--;
    s->n_moving--;
    if (m->io.urgent) {
        PS_ASSERT(l->n_urgent > 0 && l->flying_bytes >= bytes);
        l->n_urgent--;
        l->flying_bytes -= bytes;
        l->oldest_us = l->n_urgent > 0 ? ps_now_us(s->conf.clock) : 0;
        if (m->kind == WK_MOVE_RAISE && ok)
            judge_speed(s, m->lane);
    }
    judge_parts(s, m);
}
