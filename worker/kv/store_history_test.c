/*
 * Histories of the whole store, by chance from a seed: two workers with a scripted disk each, one
 * scripted directory, several sequences at once that match, fetch, give up, compute, publish and let
 * go, and everything that may go wrong with what is below. After each step every invariant of the
 * tree, every READY page of every sequence and the announced set are looked at.
 *
 *     store_history_test [FROM TO]     the histories of these seeds alone
 *
 * PENSTOCK_FULL=1 in the environment: 10,000 of them.
 */

#include "common/log.h"
#include "worker/kv/store_int.h"
#include "worker/kv/store_world.h"
#include "worker/kv/tree_internal.h"
#include "worker/tier/disk.h"
#include "worker/tier/peer.h"
#include "worker/tier/share.h"
#include "worker/tier/share_collect.h"

#include "worker/tier/fs_script.h"

#include <signal.h>
#include <unistd.h>

enum {
    N_SEQ = 5,
    N_PROMPTS = 10,
    STEPS = 1500,
    RUN_HISTORIES = 150,
    FULL_HISTORIES = 10000,
    DRAIN_TURNS = 20000,
    MOUNTS = WK_FS_MOUNTS_MAX,
};

/* ---- what is announced ---- */

struct model {
    struct ps_map tier; /* hash -> tier */
    struct wk_kv_bucket buckets[WK_KV_BUCKETS];
    uint64_t seq;
};

static void model_reset(struct model *m)
{
    ps_map_clear(&m->tier);
    memset(m->buckets, 0, sizeof(m->buckets));
    m->seq = 0;
}

static void model_mix(struct model *m, uint64_t hash, uint8_t tier)
{
    m->buckets[wk_kv_bucket_of(hash)].xor_of ^= wk_kv_bucket_mix(hash, (enum wk_kv_tier)tier);
}

static void model_event(struct model *m, const struct wk_kv_event *e)
{
    struct wk_kv_bucket *b = &m->buckets[wk_kv_bucket_of(e->hash)];
    uint64_t was = 0;
    bool has = ps_map_get(&m->tier, e->hash, &was);

    PS_ASSERT(e->seq == m->seq + 1);
    m->seq = e->seq;
    switch ((enum wk_kv_event_kind)e->kind) {
    case WK_KV_STORED:
        PS_ASSERT(!has);
        ps_map_put(&m->tier, e->hash, e->tier);
        b->n++;
        model_mix(m, e->hash, e->tier);
        break;
    case WK_KV_REMOVED:
        PS_ASSERT(has && was == e->tier);
        ps_map_del(&m->tier, e->hash);
        b->n--;
        model_mix(m, e->hash, e->tier);
        break;
    case WK_KV_MOVED:
        PS_ASSERT(has && was == e->from && e->from != e->tier);
        ps_map_put(&m->tier, e->hash, e->tier);
        model_mix(m, e->hash, e->from);
        model_mix(m, e->hash, e->tier);
        break;
    case WK_KV_CLEARED:
        ps_map_clear(&m->tier);
        memset(m->buckets, 0, sizeof(m->buckets));
        break;
    }
}

static void model_check(struct model *m, const struct wk_announce *a)
{
    struct wk_kv_event events[64];
    uint32_t n = 1;

    while (n > 0) {
        PS_ASSERT(wk_announce_replay(a, m->seq, events, PS_ARRAY_LEN(events), &n) ==
                  WK_ANNOUNCE_OK);
        for (uint32_t i = 0; i < n; i++)
            model_event(m, &events[i]);
    }
    PS_ASSERT(memcmp(m->buckets, wk_announce_buckets(a), sizeof(m->buckets)) == 0);
}

/* ---- the world of a history ---- */

enum seq_state { SEQ_FREE, SEQ_PROBING, SEQ_WAITING, SEQ_RUNNING };

struct seq {
    enum seq_state state;
    struct path path;
    uint32_t n_ids; /* of its prompt: beyond the last full page a part of one */
    struct wk_probe *probe;
    uint32_t nodes[WORLD_PAGES_MAX], items[WORLD_PAGES_MAX];
    bool ready[WORLD_PAGES_MAX]; /* items[] says where it was seen */
    uint32_t n_attached, epoch, n_failed;
    uint64_t until_us;
    uint32_t tail_node, tail_item;
};

struct worker {
    struct world w;
    struct ps_script_disk *disk; /* NULL: none */
    const struct wk_fs *mount;   /* NULL: none */
    bool disk_hung, share_hung;
    char peer_address[64]; /* where it listens; "": it does not */
    bool is_gone;          /* a peer that died for good */
    struct seq seqs[N_SEQ];
    struct model model;
};

struct totals {
    uint64_t n_histories, n_kills, n_restarts, n_flushes, n_late, n_gone, n_rot, n_vanish;
    uint64_t n_attached, n_peer_deaths, n_deaths_amid; /* amid: while something came from there */
    struct wk_store_stats stats;                       /* sums */
};

struct hist {
    struct ps_rng rng;
    struct worker worker[2];
    uint32_t n_workers;
    struct wk_fs_script *fs;
    uint32_t n_mounts;
    char prompts[N_PROMPTS][WORLD_PAGES_MAX + 1]; /* letters of pages; they share beginnings */
    struct totals *sum;
};

static volatile uint64_t seed_now; /* for a line when it aborts */
static struct ps_rng entropy;

/* The kernel's, in place of libc's: names and keys that are by chance elsewhere follow from the seed
 * here, so that a history can be told again. */
ssize_t getrandom(void *buf, size_t n, unsigned flags);
ssize_t getrandom(void *buf, size_t n, unsigned flags)
{
    uint8_t *at = buf;

    (void)flags;
    for (size_t i = 0; i < n; i++)
        at[i] = (uint8_t)ps_rng_u64(&entropy);
    return (ssize_t)n;
}

static uint32_t below(struct hist *h, uint32_t n)
{
    return (uint32_t)ps_rng_below(&h->rng, n);
}

static bool one_in(struct hist *h, uint32_t n)
{
    return below(h, n) == 0;
}

static void add_stats(struct totals *t, const struct wk_store *s)
{
    struct wk_store_stats st;

    wk_store_stats(s, &st);
    t->stats.n_fetch += st.n_fetch;
    t->stats.n_probe += st.n_probe;
    t->stats.probe_found_tokens += st.probe_found_tokens;
    for (uint32_t i = 0; i < WK_KV_N_TIERS; i++) {
        t->stats.fetched_tokens[i] += st.fetched_tokens[i];
        t->stats.cleaned_pages[i] += st.cleaned_pages[i];
        t->stats.n_bad[i] += st.n_bad[i];
        t->stats.n_fault[i] += st.n_fault[i];
        t->stats.n_full[i] += st.n_full[i];
        t->stats.read_bytes[i] += st.read_bytes[i];
    }
}

/* ---- sequences ---- */

static void look_at_page(const struct worker *k, struct hist *h, uint64_t content, uint32_t item,
                         bool whole)
{
    const uint8_t *at = k->w.exec.arena + (size_t)item * WORLD_ITEM;
    uint32_t n = whole ? WORLD_ITEM / 8 : 3;

    for (uint32_t i = 0; i < n; i++) {
        uint32_t word = whole ? i : below(h, WORLD_ITEM / 8);
        uint64_t x;

        memcpy(&x, at + (size_t)word * 8, sizeof(x));
        PS_ASSERT(x == page_word(content, word)); /* wrong bytes */
    }
}

/* No page that a sequence holds is ever lost, moved or wrong. */
static void look_at_seq(struct hist *h, struct worker *k, struct seq *q)
{
    const struct wk_kv_tree *t = k->w.tree;

    for (uint32_t i = 0; i < q->n_attached; i++) {
        const struct wk_kv_cell *c = wk_kv_tree_cell(t, q->nodes[i], 0);

        PS_ASSERT(wk_kv_tree_n_pins(t, q->nodes[i]) > 0);
        PS_ASSERT(!q->ready[i] || (c->hot == WK_KV_READY && c->t0 == q->items[i]));
        PS_ASSERT(q->state != SEQ_RUNNING || c->hot == WK_KV_READY);
        if (c->hot != WK_KV_READY)
            continue;
        look_at_page(k, h, q->path.content[i], c->t0, !q->ready[i]);
        q->items[i] = c->t0;
        q->ready[i] = true;
    }
    if (q->tail_node != WK_KV_NO_NODE) {
        const struct wk_kv_cell *c = wk_kv_tree_cell(t, q->tail_node, 0);

        PS_ASSERT(c->hot == WK_KV_READY && c->t0 == q->tail_item);
    }
}

static void make_prompts(struct hist *h, uint32_t n_pages)
{
    for (uint32_t p = 0; p < N_PROMPTS; p++) {
        for (uint32_t i = 0; i < n_pages; i++)
            h->prompts[p][i] = (char)('a' + (one_in(h, 4) ? below(h, 3) : 0));
    }
}

/* One of them, mostly whole. */
static void make_prompt(struct hist *h, struct worker *k, struct seq *q)
{
    char text[WORLD_PAGES_MAX + 1];
    uint32_t n;

    memcpy(text, h->prompts[below(h, N_PROMPTS)], sizeof(text));
    n = (uint32_t)strlen(text);
    if (one_in(h, 3))
        n = 1 + below(h, n);
    text[n] = '\0';
    path_make(&k->w, &q->path, one_in(h, 5) ? 2 : 1, text);
    q->n_ids = n * q->path.pt;
    if (one_in(h, 2))
        q->n_ids -= 1 + below(h, q->path.pt - 1);
    q->path.n = q->n_ids / q->path.pt;
}

static void let_go(struct worker *k, struct seq *q)
{
    if (q->tail_node != WK_KV_NO_NODE)
        wk_kv_tree_unpin(k->w.tree, q->tail_node);
    q->tail_node = WK_KV_NO_NODE;
    wk_store_detach(k->w.store, q->nodes, q->n_attached);
    q->n_attached = 0;
    q->state = SEQ_FREE;
}

/* As admission does it: false when there is no room. */
static bool attach(struct hist *h, struct worker *k, struct seq *q)
{
    struct wk_store *s = k->w.store;
    struct wk_kv_match m;
    uint32_t n_use, need;

    wk_kv_tree_match(k->w.tree, q->path.seed, q->path.ids, q->n_ids, q->path.hashes, q->nodes, &m);
    n_use = q->n_failed < 2 ? wk_store_worth(s, q->nodes, &m) : m.n_hot;
    PS_ASSERT(n_use >= m.n_hot && n_use <= m.n_found);
    need = m.n_idle + (m.n_tail > 0 && m.tail_idle) + wk_store_need(s, q->nodes, m.n_hot, n_use);
    if (need > wk_kv_tree_n_avail(k->w.tree, WK_KV_T0, 0))
        return false;
    memset(q->ready, 0, sizeof(q->ready));
    q->n_attached = n_use;
    if (m.n_tail > 0) {
        wk_kv_tree_pin(k->w.tree, m.tail_node);
        q->tail_node = m.tail_node;
        q->tail_item = wk_kv_tree_cell(k->w.tree, m.tail_node, 0)->t0;
    }
    wk_store_touch(s, q->nodes, n_use);
    q->until_us = wk_store_deadline(s, q->nodes, n_use);
    wk_store_attach(s, q->nodes, n_use);
    q->epoch = wk_kv_tree_epoch(k->w.tree);
    q->state = SEQ_WAITING;
    h->sum->n_attached += n_use;
    return true;
}

static void wait_on(struct hist *h, struct worker *k, struct seq *q)
{
    enum wk_store_state state = WK_STORE_READY;

    for (uint32_t i = 0; i < q->n_attached && state == WK_STORE_READY; i++)
        state = wk_store_state(k->w.store, q->nodes[i]);
    if (state == WK_STORE_READY) {
        q->state = SEQ_RUNNING;
    } else if (state == WK_STORE_GONE || ps_now_us(&k->w.clock) >= q->until_us) {
        h->sum->n_late += state != WK_STORE_GONE;
        h->sum->n_gone += state == WK_STORE_GONE;
        wk_store_fetch_ended(
            k->w.store, state == WK_STORE_GONE ? WK_STORE_FETCH_FAILED : WK_STORE_FETCH_LATE, 0);
        q->n_failed++;
        let_go(k, q);
        (void)attach(h, k, q);
    } else if (one_in(h, 8)) {
        let_go(k, q);
    }
}

static bool publish_one(struct worker *k, struct seq *q)
{
    uint32_t i = q->n_attached, item;
    bool adopted;

    if (wk_kv_tree_take(k->w.tree, WK_KV_T0, 0, &item) != WK_KV_OK)
        return false;
    page_bytes(&q->path, i, k->w.exec.arena + (size_t)item * WORLD_ITEM);
    q->nodes[i] =
        wk_kv_tree_publish(k->w.tree, q->path.seed, i == 0 ? WK_KV_NO_NODE : q->nodes[i - 1],
                           q->path.hashes[i], q->path.ids + (size_t)i * q->path.pt, item, &adopted);
    if (adopted)
        wk_store_published(k->w.store, q->nodes[i]);
    else
        wk_kv_tree_give(k->w.tree, WK_KV_T0, 0, item);
    if (q->nodes[i] == WK_KV_NO_NODE)
        return false;
    q->items[i] = wk_kv_tree_cell(k->w.tree, q->nodes[i], 0)->t0;
    q->ready[i] = true;
    q->n_attached++;
    return true;
}

static void run_on(struct hist *h, struct worker *k, struct seq *q)
{
    if (q->tail_node != WK_KV_NO_NODE && one_in(h, 2)) {
        wk_kv_tree_unpin(k->w.tree, q->tail_node);
        q->tail_node = WK_KV_NO_NODE;
    }
    for (uint32_t n = 1 + below(h, 6); n > 0; n--) {
        if (q->epoch != wk_kv_tree_epoch(k->w.tree) || q->n_attached == q->path.n ||
            !publish_one(k, q)) {
            if (one_in(h, 2))
                let_go(k, q);
            return;
        }
    }
}

static void step_seq(struct hist *h, struct worker *k, struct seq *q)
{
    switch (q->state) {
    case SEQ_FREE:
        make_prompt(h, k, q);
        q->n_failed = 0;
        q->probe = one_in(h, 2) ? wk_store_probe(k->w.store, q->path.seed, q->path.ids, q->n_ids,
                                                 q->path.hashes)
                                : NULL;
        if (q->probe != NULL)
            q->state = SEQ_PROBING;
        else
            (void)attach(h, k, q);
        break;
    case SEQ_PROBING:
        if (!wk_store_probe_is_over(q->probe) && !one_in(h, 10))
            break;
        wk_store_probe_end(k->w.store, q->probe);
        q->probe = NULL;
        q->state = SEQ_FREE;
        (void)attach(h, k, q);
        break;
    case SEQ_WAITING:
        wait_on(h, k, q);
        break;
    case SEQ_RUNNING:
        run_on(h, k, q);
        break;
    }
}

static void end_seqs(struct worker *k)
{
    for (uint32_t i = 0; i < N_SEQ; i++) {
        wk_store_probe_end(k->w.store, k->seqs[i].probe);
        k->seqs[i].probe = NULL;
        let_go(k, &k->seqs[i]);
    }
}

static void check(struct hist *h, struct worker *k)
{
    wk_store_check(k->w.store);
    for (uint32_t i = 0; i < N_SEQ; i++)
        look_at_seq(h, k, &k->seqs[i]);
    model_check(&k->model, wk_store_announce(k->w.store));
}

/* ---- workers come and go ---- */

static void open_worker(struct hist *h, struct worker *k)
{
    if (k->disk != NULL)
        k->w.conf.t2_script = ps_script_ring_create(k->disk, 1 + below(h, 32));
    if (k->mount != NULL)
        k->w.conf.t3_fs = k->mount;
    world_open(&k->w);
    wk_store_set_prefill_rate(k->w.store, one_in(h, 4) ? 1e5 : 100);
    model_reset(&k->model);
}

static void set_fs_faults(struct hist *h, bool on)
{
    for (uint32_t f = 0; f < WK_FS_N_FAULTS; f++)
        wk_fs_script_set_fault(h->fs, (enum wk_fs_fault)f,
                               on && one_in(h, 3) ? below(h, 100000) : 0);
}

static void heal(struct hist *h, struct worker *k)
{
    if (k->disk != NULL) {
        ps_script_kill_after(k->disk, 0);
        ps_script_set_faults(k->disk, NULL);
        ps_script_set_hung(k->disk, false);
    }
    if (h->fs != NULL) {
        set_fs_faults(h, false);
        wk_fs_script_deny(h->fs, "");
    }
    k->disk_hung = k->share_hung = false;
}

static void pump_lane(struct hist *h, struct worker *k, uint32_t lane, uint32_t n)
{
    struct wk_store *s = k->w.store;

    (void)h;
    if (lane == WK_KV_PEER && s->peers != NULL)
        (void)wk_peers_pump(s->peers, 0);
    if (lane == WK_KV_T1 || s->lane[lane].tier == NULL)
        return;
    if ((lane == WK_KV_T2 && k->disk_hung) || (lane == WK_KV_T3 && k->share_hung))
        return;
    (void)s->lane[lane].tier->ops->pump(s->lane[lane].tier, n);
}

static void pump_all(struct hist *h, struct worker *k)
{
    for (uint32_t lane = 0; lane < WK_STORE_LANES; lane++)
        pump_lane(h, k, lane, 16);
}

/* Nobody holds anything: all of T0 can be had, whatever hangs below. */
static void check_t0_is_free(struct hist *h, struct worker *k)
{
    end_seqs(k);
    pump_lane(h, k, WK_KV_T0, UINT32_MAX);
    (void)wk_store_tick(k->w.store);
    pump_lane(h, k, WK_KV_T0, UINT32_MAX);
    while (k->w.store->lane[WK_KV_T0].n_flying > 0) {
        (void)wk_store_tick(k->w.store);
        pump_lane(h, k, WK_KV_T0, UINT32_MAX);
    }
    check(h, k);
    PS_ASSERT(wk_kv_tree_n_avail(k->w.tree, WK_KV_T0, 0) ==
              wk_kv_tree_n_total(k->w.tree, WK_KV_T0, 0));
}

static void check_nothing_is_held(const struct worker *k)
{
    const struct wk_store *s = k->w.store;
    const struct wk_kv_tree *t = k->w.tree;

    PS_ASSERT(s->n_moving == 0 && s->n_probes == 0 && s->serving == NULL);
    for (uint32_t i = 0; i < t->n_carved; i++) {
        PS_ASSERT(s->fetch[wk_cell(i, 0)] == WK_FETCH_NONE);
        if (!wk_tree_is(t, i, WK_TREE_LIVE))
            continue;
        PS_ASSERT(t->nodes[i].n_pins == 0 && wk_tree_cell(t, i, 0)->n_io == 0);
        PS_ASSERT(!wk_tree_cell(t, i, 0)->has_stray && !wk_tree_is(t, i, WK_TREE_FLUSHED));
    }
    for (uint32_t tier = 0; tier < WK_TREE_N_LOCAL; tier++) {
        if (t->order[tier][0] != NULL)
            PS_ASSERT(wk_kv_tree_n_avail(t, (enum wk_kv_tier)tier, 0) ==
                      wk_kv_tree_n_total(t, (enum wk_kv_tier)tier, 0));
    }
}

static bool is_at_rest(const struct worker *k)
{
    const struct wk_store *s = k->w.store;

    if (s->n_moving > 0 || s->n_probes > 0 || s->serving != NULL)
        return false;
    for (uint32_t i = 0; i < WK_STORE_LANES; i++) {
        if (s->lane[i].raise.n > 0)
            return false;
    }
    return true;
}

/* Everybody lets go and every move ends. */
static void drain(struct hist *h, struct worker *k)
{
    heal(h, k);
    end_seqs(k);
    for (uint32_t i = 0; i < DRAIN_TURNS; i++) {
        (void)wk_store_tick(k->w.store);
        check(h, k);
        if (is_at_rest(k))
            break;
        for (uint32_t n = 0; n < h->n_workers; n++) { /* one may wait for the other */
            struct worker *each = &h->worker[n];

            if (each->is_gone)
                continue;
            if (each != k)
                (void)wk_store_tick(each->w.store);
            pump_all(h, each);
        }
        ps_clock_advance(&k->w.clock, 1000);
    }
    check_nothing_is_held(k);
}

static void new_mount(struct hist *h, struct worker *k)
{
    if (k->mount == NULL || h->n_mounts == MOUNTS)
        return;
    wk_fs_script_kill(h->fs, k->mount);
    k->mount = wk_fs_script_mount(h->fs);
    h->n_mounts++;
}

/* The worker that the other one asks goes and does not come back. */
static void die_for_good(struct hist *h, struct worker *k)
{
    if (k->disk != NULL && !ps_script_is_killed(k->disk))
        ps_script_kill(k->disk);
    end_seqs(k);
    add_stats(h->sum, k->w.store);
    world_close(&k->w, 0);
    k->is_gone = true;
    h->sum->n_peer_deaths++;
    h->sum->n_deaths_amid += h->worker[1].w.store->lane[WK_KV_PEER].n_urgent > 0;
}

/* The process dies, and the next one finds what is on the disk. */
static void die(struct hist *h, struct worker *k)
{
    if (k->mount != NULL && h->n_mounts == MOUNTS)
        return;
    if (k->peer_address[0] != '\0') {
        die_for_good(h, k);
        return;
    }
    if (k->disk != NULL && !ps_script_is_killed(k->disk))
        ps_script_kill(k->disk);
    if (k->mount != NULL)
        wk_fs_script_kill(h->fs, k->mount);
    end_seqs(k);
    add_stats(h->sum, k->w.store);
    world_close(&k->w, 0);
    heal(h, k); /* what follows creates: the real one stops with a message when it cannot */
    new_mount(h, k);
    if (one_in(h, 8)) /* with another arithmetic: what it finds is of no use */
        k->w.conf.arith_id ^= 1;
    open_worker(h, k);
    h->sum->n_kills++;
}

/* It leaves in good order. */
static void leave(struct hist *h, struct worker *k)
{
    if (k->peer_address[0] != '\0')
        return;
    drain(h, k);
    add_stats(h->sum, k->w.store);
    world_close(&k->w, one_in(h, 2) ? 1000 : 0);
    open_worker(h, k);
    h->sum->n_restarts++;
}

/* ---- what goes wrong ---- */

static void disk_trouble(struct hist *h, struct worker *k)
{
    struct ps_script_faults f = {0};
    uint8_t *bytes;

    if (k->disk == NULL)
        return;
    switch (below(h, 8)) {
    case 0:
    case 1:
        f = (struct ps_script_faults){.short_io = below(h, 300),
                                      .read_eio = one_in(h, 3) ? below(h, 200) : 0,
                                      .write_eio = one_in(h, 3) ? below(h, 200) : 0,
                                      .write_enospc = one_in(h, 3) ? below(h, 200) : 0,
                                      .read_flip = one_in(h, 3) ? below(h, 200) : 0,
                                      .slow = below(h, 300),
                                      .hang = one_in(h, 4) ? below(h, 100) : 0};
        ps_script_set_faults(k->disk, &f);
        break;
    case 2:
        ps_script_set_faults(k->disk, NULL);
        break;
    case 3:
        k->disk_hung = !k->disk_hung;
        ps_script_set_hung(k->disk, k->disk_hung);
        break;
    case 4:
        ps_script_kill_after(k->disk, 1 + below(h, 12));
        break;
    default: /* a bit of the disk at rest */
        bytes = ps_script_file(k->disk, 0);
        for (uint32_t i = below(h, 20); i > 0; i--)
            bytes[4096 + below(h, 40 * 8192)] ^= (uint8_t)(1u << below(h, 8));
        break;
    }
}

static void share_trouble(struct hist *h, struct worker *k)
{
    if (k->mount == NULL)
        return;
    switch (below(h, 8)) {
    case 0:
        set_fs_faults(h, true);
        break;
    case 1:
    case 2:
        set_fs_faults(h, false);
        break;
    case 3:
        h->sum->n_rot += wk_fs_script_rot(h->fs, "/s/");
        break;
    case 4:
        wk_fs_script_deny(h->fs, one_in(h, 2) ? "/s" : ""); /* it vanishes, it comes back */
        h->sum->n_vanish++;
        break;
    case 5:
        k->share_hung = !k->share_hung;
        break;
    default:
        wk_fs_script_advance(h->fs, one_in(h, 4) ? UINT64_C(7200) * 1000000
                                                 : 1000 * (uint64_t)below(h, 600000));
        break;
    }
}

/* The scheduler's loop goes round. */
static void turn(struct hist *h, struct worker *k)
{
    (void)wk_store_tick(k->w.store);
    for (uint32_t lane = 0; lane < WK_STORE_LANES; lane++)
        pump_lane(h, k, lane, below(h, 4));
    ps_clock_advance(&k->w.clock, below(h, 3000));
}

static void rare(struct hist *h, struct worker *k)
{
    switch (below(h, 4)) {
    case 0:
        wk_store_flush(k->w.store);
        h->sum->n_flushes++;
        break;
    case 1:
        check_t0_is_free(h, k);
        break;
    case 2:
        leave(h, k);
        break;
    default:
        die(h, k);
        break;
    }
}

static bool is_peer_giving(const struct hist *h)
{
    return h->worker[0].peer_address[0] != '\0' && !h->worker[0].is_gone &&
           h->worker[1].w.store->lane[WK_KV_PEER].n_urgent > 0;
}

static void step(struct hist *h)
{
    struct worker *k = &h->worker[below(h, h->n_workers)];
    uint32_t x = below(h, 1000);

    if (k->is_gone)
        k = &h->worker[1];
    if (x < 150)
        (void)wk_store_tick(k->w.store);
    else if (x < 350)
        pump_lane(h, k, below(h, WK_KV_PEER + 1), 1 + below(h, 4));
    else if (x < 550)
        turn(h, k);
    else if (x < 900)
        step_seq(h, k, &k->seqs[below(h, N_SEQ)]);
    else if (x < 940)
        ps_clock_advance(&k->w.clock, one_in(h, 50) ? 12000000 : below(h, 20000));
    else if (x < 955 && k->mount != NULL)
        (void)wk_tier_share_collect(k->w.store->lane[WK_KV_T3].tier, 1 + below(h, 60));
    else if (x < 965)
        disk_trouble(h, k);
    else if (x < 975)
        share_trouble(h, k);
    else if (x < 976)
        rare(h, k);
    if (!k->is_gone && k->disk != NULL && ps_script_is_killed(k->disk))
        die(h, k);
    if (is_peer_giving(h) && one_in(h, 100))
        die(h, &h->worker[0]);
    if (!k->is_gone)
        check(h, k);
}

/* ---- a history ---- */

static void make_worker(struct hist *h, struct worker *k, uint32_t pt, bool has_disk)
{
    uint32_t n_t0 = 12 + below(h, 29), n_t1 = 4 + below(h, 61);

    world_init_pages(&k->w, pt, n_t0, n_t1);
    ps_map_init(&k->model.tier, 0);
    for (uint32_t i = 0; i < N_SEQ; i++)
        k->seqs[i].tail_node = WK_KV_NO_NODE;
    if (has_disk) {
        uint32_t n_slot = 4 + below(h, 60);

        k->disk = ps_script_disk_create(ps_rng_u64(&h->rng), 1, (64 + 2 * (uint64_t)n_slot) * 8192);
        k->w.conf.t2_path = "script";
        k->w.conf.t2_bytes = (uint64_t)n_slot * WORLD_ITEM;
    }
    if (h->fs != NULL) {
        k->w.conf.t3_path = "/s";
        k->w.conf.t3_bytes = one_in(h, 2) ? (8 + below(h, 60)) * (uint64_t)WORLD_ITEM : 0;
        k->mount = wk_fs_script_mount(h->fs);
        h->n_mounts++;
    }
}

static void free_worker(struct hist *h, struct worker *k)
{
    if (!k->is_gone) {
        add_stats(h->sum, k->w.store);
        world_close(&k->w, one_in(h, 2) ? 1000 : 0);
    }
    world_fini(&k->w);
    ps_map_fini(&k->model.tier);
    ps_script_disk_destroy(k->disk);
}

static struct hist *history_begin(uint64_t seed, struct totals *sum)
{
    struct hist *h = ps_calloc(1, sizeof(*h));

    seed_now = seed;
    ps_rng_seed(&h->rng, seed);
    ps_rng_seed(&entropy, seed);
    h->sum = sum;
    return h;
}

static void history_end(struct hist *h)
{
    for (uint32_t i = 0; i < STEPS; i++)
        step(h);
    for (uint32_t i = h->n_workers; i-- > 0;) {
        if (h->worker[i].is_gone)
            continue;
        check_t0_is_free(h, &h->worker[i]);
        drain(h, &h->worker[i]);
    }
    for (uint32_t i = 0; i < h->n_workers; i++)
        free_worker(h, &h->worker[i]);
    if (h->fs != NULL) {
        PS_ASSERT(wk_fs_script_n_open(h->fs) == 0);
        wk_fs_script_destroy(h->fs);
    }
    h->sum->n_histories++;
    ps_free(h);
}

static void history(uint64_t seed, struct totals *sum)
{
    struct hist *h = history_begin(seed, sum);
    uint32_t kind = below(h, 8), pt = one_in(h, 6) ? 16 : 64;

    make_prompts(h, pt == 16 ? 20 : 10);
    if (kind != 0 && kind != 1)
        h->fs = wk_fs_script_create(ps_rng_u64(&h->rng));
    h->n_workers = kind == 0 ? 1 : 2;
    for (uint32_t i = 0; i < h->n_workers; i++) {
        make_worker(h, &h->worker[i], pt, kind != 2);
        open_worker(h, &h->worker[i]);
    }
    history_end(h);
}

/* The second worker asks the first, over loopback. */
static void peer_history(uint64_t seed, struct totals *sum)
{
    struct hist *h = history_begin(seed, sum);
    struct worker *giver = &h->worker[0], *taker = &h->worker[1];
    const char *const peers[] = {giver->peer_address};

    make_prompts(h, 10);
    h->n_workers = 2;
    make_worker(h, giver, 64, one_in(h, 2));
    giver->w.conf.peer_listen = "127.0.0.1:0";
    open_worker(h, giver);
    (void)snprintf(giver->peer_address, sizeof(giver->peer_address), "%s",
                   wk_store_peer_address(giver->w.store));
    make_worker(h, taker, 64, one_in(h, 2));
    taker->w.conf.peers = peers;
    taker->w.conf.n_peers = 1;
    open_worker(h, taker);
    history_end(h);
}

/* ---- programs ---- */

static uint64_t first_seed, end_seed;

static void on_abort(int sig)
{
    char line[64] = "# history of seed ";
    size_t at = strlen(line), n = 1;
    uint64_t x = seed_now;

    while (x / 10 > 0) {
        x /= 10;
        n++;
    }
    x = seed_now;
    for (size_t i = n; i-- > 0; x /= 10)
        line[at + i] = (char)('0' + x % 10);
    line[at + n] = '\n';
    if (write(STDERR_FILENO, line, at + n + 1) < 0)
        _exit(2);
    (void)raise(sig); /* SA_RESETHAND: this one ends the process */
}

static void print_totals(const struct totals *t)
{
    const struct wk_store_stats *s = &t->stats;

    print_message("# %llu histories of %u steps: attached=%llu gone=%llu late=%llu kills=%llu "
                  "restarts=%llu flushes=%llu rot=%llu vanished=%llu probes=%llu\n",
                  (unsigned long long)t->n_histories, STEPS, (unsigned long long)t->n_attached,
                  (unsigned long long)t->n_gone, (unsigned long long)t->n_late,
                  (unsigned long long)t->n_kills, (unsigned long long)t->n_restarts,
                  (unsigned long long)t->n_flushes, (unsigned long long)t->n_rot,
                  (unsigned long long)t->n_vanish, (unsigned long long)s->n_probe);
    for (uint32_t i = 1; i < WK_KV_N_TIERS; i++)
        print_message("# tier %u: fetched_tokens=%llu written_pages=%llu bad=%llu fault=%llu "
                      "full=%llu\n",
                      i, (unsigned long long)s->fetched_tokens[i],
                      (unsigned long long)s->cleaned_pages[i], (unsigned long long)s->n_bad[i],
                      (unsigned long long)s->n_fault[i], (unsigned long long)s->n_full[i]);
}

static void random_histories_lose_nothing(void **state)
{
    struct totals sum = {0};

    (void)state;
    for (uint64_t seed = first_seed; seed < end_seed; seed++)
        history(seed, &sum);
    print_totals(&sum);
    if (sum.n_histories < RUN_HISTORIES)
        return;
    /* They met what they are for. */
    assert_true(sum.n_kills > 0 && sum.n_late > 0 && sum.n_gone > 0 && sum.n_flushes > 0);
    for (uint32_t i = WK_KV_T1; i <= WK_KV_T3; i++)
        assert_true(sum.stats.fetched_tokens[i] > 0 && sum.stats.cleaned_pages[i] > 0);
    for (uint32_t i = WK_KV_T2; i <= WK_KV_T3; i++)
        assert_true(sum.stats.n_bad[i] > 0 && sum.stats.n_fault[i] > 0 && sum.stats.n_full[i] > 0);
}

static void a_peer_gives_right_pages_and_its_death_loses_nothing(void **state)
{
    struct totals sum = {0};

    (void)state;
    for (uint64_t seed = 0; seed < (end_seed - first_seed) / 5; seed++)
        peer_history(first_seed + seed, &sum);
    print_totals(&sum);
    print_message("# deaths of the peer: %llu, amid a fetch: %llu\n",
                  (unsigned long long)sum.n_peer_deaths, (unsigned long long)sum.n_deaths_amid);
    if (end_seed - first_seed < RUN_HISTORIES)
        return;
    assert_true(sum.stats.fetched_tokens[WK_KV_PEER] > 0 && sum.n_peer_deaths > 0);
    assert_true(sum.n_deaths_amid > 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_histories_lose_nothing),
        cmocka_unit_test(a_peer_gives_right_pages_and_its_death_loses_nothing),
    };
    const char *full = getenv("PENSTOCK_FULL");
    const struct sigaction abort_action = {.sa_handler = on_abort, .sa_flags = (int)SA_RESETHAND};

    end_seed = full != NULL && full[0] == '1' ? FULL_HISTORIES : RUN_HISTORIES;
    if (argc == 3) {
        first_seed = strtoull(argv[1], NULL, 10);
        end_seed = strtoull(argv[2], NULL, 10);
    }
    ps_log_init("store_history_test", PS_LOG_ERROR);
    (void)sigaction(SIGABRT, &abort_action, NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
