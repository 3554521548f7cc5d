#include "worker/kv/store_int.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>

#include "common/log.h"
#include "common/rng.h"
#include "worker/tier/disk.h"
#include "worker/tier/hang.h"
#include "worker/tier/hot.h"
#include "worker/tier/peer.h"
#include "worker/tier/share.h"

enum {
    MOVES_MAX = 256,
    EVENTS_KEPT = 1 << 16, /* for replay: several seconds of a busy worker */
    SCAN_PER_TICK = 32,
    REAP_PER_TICK = 256,
    EXTRA_NODES_MIN = 4096, /* known to be in T3 or at a peer, beyond what is here */
    T3_THREADS = 4,
    CLOSE_WAIT_MS = 1000,
    FLUSH_TURN_MS = 20,
    IDLE_TURNS_MAX = 100, /* of the flush: 2 s in which no move ends. A device hangs: leave */
    /*
     * Of the disk's bytes, one in so many is for snapshots. With the largest states there are, worth
     * 150 pages of rows, a path of 450 pages still has one, which is where its next turn begins; with
     * small ones every path has all that it keeps.
     */
    SNAPSHOT_SHARE = 4,
};

/* ---- create ---- */

static uint32_t n_items(const struct wk_kv_layout *l, uint32_t group, uint64_t bytes)
{
    return (uint32_t)ps_min_u64(bytes / l->group[group].item_bytes, UINT32_MAX / 8);
}

static struct wk_kv_pool *make_pool(const struct wk_store *s, const struct wk_kv_layout *l,
                                    uint32_t n)
{
    return s->conf.slab_bytes > 0 ? wk_kv_pool_create_slabs(l, n, s->conf.slab_bytes)
                                  : wk_kv_pool_create(l, n);
}

static int make_t1(struct wk_store *s, struct ps_buf *err)
{
    uint32_t n;
    void *at;

    s->t1_layout = *s->conf.layout;
    for (uint32_t g = 0; g < s->t1_layout.n_group; g++)
        s->t1_layout.group[g].item_bytes = wk_kv_format_bytes(s->format, g);
    n = n_items(&s->t1_layout, WK_KV_ROWS_GROUP, s->conf.t1_bytes);
    if (n == 0)
        return WK_TIER_OK;
    s->t1 = make_pool(s, &s->t1_layout, n);
    s->arena_bytes = (size_t)n * s->t1_layout.group[0].item_bytes;
    at = mmap(NULL, s->arena_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) {
        ps_buf_addf(err, "the host KV arena of %zu bytes cannot be mapped: %s", s->arena_bytes,
                    strerror(errno));
        return WK_TIER_E_CONF;
    }
    s->arena = at;
    (void)madvise(at, s->arena_bytes, MADV_HUGEPAGE); /* fewer faults; no harm where refused */
    return WK_TIER_OK;
}

static void fill_ident(const struct wk_store *s, struct wk_tier_ident *out)
{
    *out = (struct wk_tier_ident){.space_id = s->conf.space_id,
                                  .arith_id = s->conf.arith_id,
                                  .layout_id = s->conf.layout->layout_id,
                                  .codec = s->conf.codec,
                                  .n_group = s->t1_layout.n_group,
                                  .page_tokens = s->page_tokens,
                                  .n_ranks = 1};
    for (uint32_t g = 0; g < s->t1_layout.n_group; g++)
        out->item_bytes[g] = s->t1_layout.group[g].item_bytes;
}

/* Tests of whole processes: the tier will hang when it is told to. */
static struct wk_tier *maybe_hanging(const struct wk_store *s, struct wk_tier *t, const char *hang)
{
    uint64_t at_us, for_us;

    if (hang == NULL || hang[0] == '\0' || s->conf.no_threads)
        return t;
    PS_ASSERT(wk_tier_hang_parse(hang, &at_us, &for_us)); /* main has checked it */
    return wk_tier_hang_create(t, at_us, for_us);
}

static int make_disk(struct wk_store *s, struct ps_buf *err)
{
    struct wk_tier_disk_conf dc = {.path = s->conf.t2_path,
                                   .script = s->conf.t2_script,
                                   .inbox = &s->inbox,
                                   .clock = s->conf.clock};
    struct wk_lane *l = &s->lane[WK_KV_T2];
    uint64_t snapshot_bytes = 0;
    int r;

    fill_ident(s, &dc.ident);
    if (wk_store_has_state(s))
        snapshot_bytes = ps_max_u64(s->conf.t2_bytes / SNAPSHOT_SHARE,
                                    s->t1_layout.group[WK_KV_SNAP_GROUP].item_bytes);
    dc.n_slot[WK_KV_ROWS_GROUP] =
        n_items(&s->t1_layout, WK_KV_ROWS_GROUP,
                s->conf.t2_bytes - ps_min_u64(snapshot_bytes, s->conf.t2_bytes));
    dc.n_slot[WK_KV_SNAP_GROUP] =
        snapshot_bytes > 0 ? n_items(&s->t1_layout, WK_KV_SNAP_GROUP, snapshot_bytes) : 0;
    r = wk_tier_disk_create(&s->disk, &dc, err);
    if (r != WK_TIER_OK)
        return r;
    l->tier = maybe_hanging(s, s->disk, s->conf.t2_hang);
    l->read_rate = l->tier->read_bytes_per_s;
    l->write_rate = l->tier->write_bytes_per_s;
    l->latency_us = l->tier->latency_us;
    s->scanning = true;
    return WK_TIER_OK;
}

static int make_share(struct wk_store *s, struct ps_buf *err)
{
    struct wk_tier_share_conf sc = {.path = s->conf.t3_path,
                                    .bytes_max = s->conf.t3_bytes,
                                    .n_threads = s->conf.no_threads ? 0 : T3_THREADS,
                                    .fs = s->conf.t3_fs,
                                    .inbox = &s->inbox,
                                    .clock = s->conf.clock};

    struct wk_tier *t;
    int r;

    fill_ident(s, &sc.ident);
    r = wk_tier_share_create(&t, &sc, err);
    if (r == WK_TIER_OK)
        s->lane[WK_KV_T3].tier = maybe_hanging(s, t, s->conf.t3_hang);
    return r;
}

static int make_peers(struct wk_store *s, struct ps_buf *err)
{
    struct wk_peers_conf pc = {.listen = s->conf.peer_listen,
                               .secret_file = s->conf.peer_secret_file,
                               .inbox = &s->inbox,
                               .asks = &s->asks,
                               .clock = s->conf.clock,
                               .no_thread = s->conf.no_threads};
    int r;

    fill_ident(s, &pc.ident);
    r = wk_peers_create(&s->peers, &pc, err);
    for (uint32_t i = 0; i < s->conf.n_peers && r == WK_TIER_OK; i++)
        r = wk_tier_peer_create(&s->lane[WK_KV_PEER + i].tier, s->peers, s->conf.peers[i], err);
    return r;
}

static int make_tiers(struct wk_store *s, struct ps_buf *err)
{
    const struct wk_store_conf *c = &s->conf;
    int r = WK_TIER_OK;

    if (s->t1 == NULL)
        return r;
    s->lane[WK_KV_T0].tier = wk_tier_hot_create(&(struct wk_tier_hot_conf){
        .exec = c->exec,
        .format = s->format,
        .layout = c->layout,
        .inbox = &s->inbox,
        .clock = c->clock,
        .no_thread = c->no_threads,
    });
    if (s->lane[WK_KV_T0].tier == NULL) {
        ps_buf_add_str(err, "the thread that copies KV pages cannot be started");
        return WK_TIER_E_CONF;
    }
    s->lane[WK_KV_T1].tier = s->lane[WK_KV_T0].tier; /* T1 has no device of its own */
    if (c->t2_path[0] != '\0')
        r = make_disk(s, err);
    if (r == WK_TIER_OK && c->t3_path[0] != '\0')
        r = make_share(s, err);
    if (r == WK_TIER_OK && (c->peer_listen[0] != '\0' || c->n_peers > 0))
        r = make_peers(s, err);
    return r;
}

static void make_tree(struct wk_store *s)
{
    uint32_t n_t0 = wk_kv_pool_n_total(s->t0, 0), n_t1 = 0, n_nodes, n_extra = 0;
    uint32_t n_t2[WK_KV_N_GROUPS_MAX] = {0};
    bool remote = s->lane[WK_KV_T3].tier != NULL || s->conf.n_peers > 0;

    if (s->t1 != NULL)
        n_t1 = wk_kv_pool_n_total(s->t1, 0);
    for (uint32_t g = 0; g < s->conf.layout->n_group && s->disk != NULL; g++)
        n_t2[g] = wk_tier_disk_n_slot(s->disk, g);
    if (remote)
        n_extra = EXTRA_NODES_MIN + n_t0 + n_t1;
    n_nodes = n_t0 + n_t1 + n_t2[WK_KV_ROWS_GROUP] + n_extra;
    s->tree = wk_kv_tree_create(&(struct wk_kv_tree_conf){
        .t0 = s->t0,
        .t1 = s->t1,
        .page_tokens = s->page_tokens,
        .n_group = s->conf.layout->n_group,
        .n_t2 = {n_t2[WK_KV_ROWS_GROUP], n_t2[WK_KV_SNAP_GROUP]},
        .n_extra = n_extra,
        .announce = s->announce,
        .stride_pages = ps_max_u32(1, s->conf.stride_tokens / s->page_tokens),
        .space_id = s->conf.space_id,
    });
    s->fetch = ps_calloc((size_t)n_nodes * WK_KV_N_GROUPS_MAX, 1);
    s->writing = ps_calloc((size_t)n_nodes * WK_KV_N_GROUPS_MAX, 1);
    s->origin = ps_calloc((size_t)n_nodes * WK_KV_N_GROUPS_MAX, 1);
    for (uint32_t i = 0; i < WK_STORE_LANES; i++) {
        wk_cells_init(&s->lane[i].raise, UINT32_MAX);
        wk_cells_init(&s->lane[i].dirty, n_nodes);
        wk_cells_init(&s->lane[i].again, n_nodes);
    }
}

int wk_store_create(struct wk_store **out, const struct wk_store_conf *conf, struct ps_buf *err)
{
    struct wk_store *s = ps_calloc(1, sizeof(*s));
    uint64_t key;
    int r;

    PS_ASSERT(conf->n_peers <= WK_STORE_PEERS_MAX);
    s->conf = *conf;
    s->page_tokens = conf->layout->group[0].page_tokens;
    ps_random_bytes(&key, sizeof(key));
    ps_map_init(&s->scanned, key);
    wk_tier_inbox_init(&s->inbox, conf->wake);
    wk_tier_inbox_init(&s->asks, conf->wake);
    s->announce = wk_announce_create(EVENTS_KEPT);
    s->t0 = make_pool(s, conf->layout, conf->exec->n_pages);
    s->moves = ps_calloc(MOVES_MAX, sizeof(*s->moves));
    for (uint32_t i = 0; i < MOVES_MAX; i++)
        wk_move_free(s, &s->moves[i]);
    r = wk_kv_format_create(&s->format, conf->codec, conf->layout, err);
    r = r == WK_FORMAT_OK ? make_t1(s, err) : WK_TIER_E_CONF;
    if (r == WK_TIER_OK)
        r = make_tiers(s, err);
    if (r != WK_TIER_OK) {
        wk_store_destroy(s, 0);
        return r < 0 ? r : WK_TIER_E_CONF;
    }
    make_tree(s);
    *out = s;
    return WK_TIER_OK;
}

struct wk_store *wk_store_create_t0(const struct wk_kv_layout *layout, const struct ps_clock *clock,
                                    struct wk_exec *exec)
{
    const struct wk_store_conf conf = {.layout = layout,
                                       .clock = clock,
                                       .exec = exec,
                                       .stride_tokens = layout->group[0].page_tokens,
                                       .t2_path = "",
                                       .t3_path = "",
                                       .peer_listen = "",
                                       .peer_secret_file = ""};
    struct ps_buf err = PS_BUF_INIT;
    struct wk_store *s = NULL;
    int r = wk_store_create(&s, &conf, &err);

    PS_ASSERT(r == WK_TIER_OK);
    ps_buf_fini(&err);
    return s;
}

/* ---- tick ---- */

/* Node that the scan has told of before, by its digest, and the chained hash at its end; NO_NODE
 * when it is gone again. */
static uint32_t scanned(struct wk_store *s, const uint8_t digest[PS_SHA256_BYTES],
                        uint64_t *out_hash)
{
    struct wk_kv_key key;
    uint64_t at, word;

    memcpy(&word, digest, sizeof(word));
    if (!ps_map_get(&s->scanned, word, &at) ||
        !wk_kv_tree_has_copy(s->tree, (uint32_t)at, WK_KV_ROWS_GROUP))
        return WK_KV_NO_NODE;
    wk_kv_tree_key(s->tree, (uint32_t)at, WK_KV_ROWS_GROUP, &key);
    *out_hash = key.hash;
    return memcmp(key.digest, digest, PS_SHA256_BYTES) == 0 ? (uint32_t)at : WK_KV_NO_NODE;
}

static void adopt(struct wk_store *s, const struct wk_disk_found *f)
{
    uint32_t parent = WK_KV_NO_NODE, node;
    uint64_t word, hash = f->key.seed;

    if (f->key.first_pos > 0) {
        parent = scanned(s, f->key.parent, &hash);
        if (parent == WK_KV_NO_NODE)
            return;
    }
    hash = wk_kv_tree_hash(s->tree, hash, f->ids); /* the disk vouches for the digest alone */
    node = wk_kv_tree_add(s->tree, f->key.seed, parent, hash, f->ids);
    if (node == WK_KV_NO_NODE)
        return;
    if (wk_kv_tree_cell(s->tree, node, f->key.group)->t2 == WK_KV_NO_ITEM) {
        wk_kv_tree_take_slot(s->tree, f->key.group, f->slot);
        wk_kv_tree_set(s->tree, WK_KV_T2, node, f->key.group, f->slot);
    }
    memcpy(&word, f->key.digest, sizeof(word));
    ps_map_put(&s->scanned, word, node);
}

/* True: there may be more at once. */
static bool scan_some(struct wk_store *s)
{
    struct wk_disk_found f;

    for (uint32_t i = 0; i < SCAN_PER_TICK; i++) {
        int r = wk_tier_disk_scan(s->disk, &f);

        if (r == WK_DISK_SCAN_E_NONE) /* the tier rings when it has read more */
            return false;
        if (r == WK_DISK_SCAN_E_OVER) {
            s->scanning = false;
            ps_map_clear(&s->scanned);
            ps_info("the disk KV tier has been read", "pages=%u",
                    wk_kv_tree_n_idle(s->tree, WK_KV_T2, WK_KV_ROWS_GROUP));
            return false;
        }
        adopt(s, &f);
    }
    return true;
}

static void moved(struct wk_store *s, struct wk_move *m)
{
    wk_move_end(s, m);
    switch (m->kind) {
    case WK_MOVE_FILL:
        wk_fetch_filled(s, m);
        break;
    case WK_MOVE_COPY:
        wk_clean_copied(s, m);
        break;
    case WK_MOVE_RAISE:
        wk_fetch_raised(s, m);
        break;
    case WK_MOVE_WRITE:
        wk_clean_written(s, m);
        break;
    case WK_MOVE_ERASE:
        wk_fetch_erased(s, m);
        break;
    }
    wk_move_free(s, m);
    s->n_ended++;
}

static bool reap(struct wk_store *s)
{
    struct wk_tier_io *io;
    uint32_t n = 0;

    while (n < REAP_PER_TICK && (io = wk_tier_take(&s->inbox)) != NULL) {
        if (io->op == WK_TIER_FIND)
            wk_probe_answered(s, io);
        else
            moved(s, io->ud);
        n++;
    }
    return n == REAP_PER_TICK;
}

bool wk_store_tick(struct wk_store *s)
{
    bool more;

    if (s->t1 == NULL)
        return false;
    more = reap(s);
    wk_store_lanes_on(s);
    if (s->scanning)
        more |= scan_some(s);
    if (s->peers != NULL)
        wk_serve_tick(s);
    wk_fetch_tick(s);
    wk_clean_tick(s);
    return more;
}

void wk_store_start(struct wk_store *s)
{
    if (s->t1 != NULL)
        wk_fetch_tick(s);
}

/* ---- the end ---- */

static bool is_clean(const struct wk_store *s)
{
    uint64_t now = ps_now_us(s->conf.clock);
    bool clean = s->n_moving == 0 && s->lane[WK_KV_T1].again.n == 0;

    for (uint32_t i = WK_KV_T2; i <= WK_KV_T3 && clean; i++) {
        const struct wk_lane *l = &s->lane[i];

        clean = !wk_lane_is_open(s, i) || now < l->no_write_until_us ||
                (l->again.n == 0 && l->dirty.n == 0);
    }
    return clean;
}

/* A worker that leaves writes down what would be lost with its memory. */
static void flush_down(struct wk_store *s, uint32_t flush_ms)
{
    uint64_t until = ps_now_us(s->conf.clock) + (uint64_t)flush_ms * 1000;
    struct pollfd fd = {.fd = s->conf.wake != NULL ? s->conf.wake->fd : -1, .events = POLLIN};
    uint64_t n_ended = s->n_ended;
    uint32_t n_idle = 0; /* turns, as a test's clock stands still */

    if (!wk_lane_is_open(s, WK_KV_T2) && !wk_lane_is_open(s, WK_KV_T3))
        return;
    s->closing = true;
    wk_clean_everything(s);
    while (ps_now_us(s->conf.clock) < until && n_idle < IDLE_TURNS_MAX) {
        if (s->conf.wake != NULL)
            ps_wake_arm(s->conf.wake);
        (void)wk_store_tick(s);
        if (is_clean(s))
            break;
        n_idle = s->n_ended != n_ended ? 0 : n_idle + 1;
        n_ended = s->n_ended;
        if (s->conf.no_threads)
            (void)wk_store_pump(s, MOVES_MAX);
        else
            (void)poll(&fd, 1, FLUSH_TURN_MS);
        if (s->conf.wake != NULL)
            ps_wake_clear(s->conf.wake);
    }
    ps_info("KV pages are written down", "left=%u", s->n_moving);
}

static void close_tiers(struct wk_store *s)
{
    for (uint32_t i = WK_STORE_LANES; i-- > 0;) {
        struct wk_lane *l = &s->lane[i];

        if (i == WK_KV_T1 || l->tier == NULL) /* T1's is the copier, T0's lane closes it */
            continue;
        if (l->tier->ops->close(l->tier, CLOSE_WAIT_MS) != WK_TIER_OK)
            s->arena_leaks = true;
        l->tier = NULL;
    }
    if (s->peers != NULL) {
        wk_peers_destroy(s->peers);
        wk_serve_end(s);
    }
    if (s->tree == NULL)
        return;
    while (reap(s)) /* what was in flight came back when its tier closed */
        ;
    wk_fetch_end_all(s);
}

void wk_store_destroy(struct wk_store *s, uint32_t flush_ms)
{
    if (s == NULL)
        return;
    if (s->tree != NULL)
        flush_down(s, flush_ms);
    close_tiers(s);
    if (s->arena_leaks)
        return; /* a device still owns buffers: everything stays mapped until the process ends */
    PS_ASSERT(s->n_moving == 0);
    for (uint32_t g = 0; g < s->conf.layout->n_group && s->tree != NULL; g++) /* nothing leaked */
        PS_ASSERT(wk_kv_tree_n_avail(s->tree, WK_KV_T0, g) ==
                  wk_kv_tree_n_total(s->tree, WK_KV_T0, g));
    wk_kv_tree_destroy(s->tree);
    for (uint32_t i = 0; i < WK_STORE_LANES; i++) {
        wk_cells_fini(&s->lane[i].raise);
        wk_cells_fini(&s->lane[i].dirty);
        wk_cells_fini(&s->lane[i].again);
    }
    ps_map_fini(&s->scanned);
    wk_kv_pool_destroy(s->t0);
    wk_kv_pool_destroy(s->t1);
    wk_announce_destroy(s->announce);
    wk_kv_format_destroy(s->format);
    if (s->arena != NULL)
        (void)munmap(s->arena, s->arena_bytes);
    wk_tier_inbox_fini(&s->inbox);
    wk_tier_inbox_fini(&s->asks);
    ps_free(s->fetch);
    ps_free(s->origin);
    ps_free(s->writing);
    ps_free(s->moves);
    ps_free(s);
}

void wk_store_flush(struct wk_store *s)
{
    wk_kv_tree_flush(s->tree);
    ps_map_clear(&s->scanned);
    if (s->lane[WK_KV_T2].tier != NULL)
        wk_tier_disk_reset(s->disk);
}

/* ---- what it is ---- */

struct wk_kv_tree *wk_store_tree(const struct wk_store *s)
{
    return s->tree;
}

struct wk_kv_pool *wk_store_pool(struct wk_store *s)
{
    return s->t0;
}

bool wk_store_has_state(const struct wk_store *s)
{
    return s->conf.layout->n_group > WK_KV_SNAP_GROUP;
}

bool wk_store_is_moving(const struct wk_store *s)
{
    return s->n_moving > 0;
}

void wk_store_set_prefill_rate(struct wk_store *s, double tok_per_s)
{
    s->prefill_tok_per_s = tok_per_s;
}

const struct wk_announce *wk_store_announce(const struct wk_store *s)
{
    return s->announce;
}

const char *wk_store_peer_address(const struct wk_store *s)
{
    return s->peers != NULL ? wk_peers_address(s->peers) : "";
}

void wk_store_stats(const struct wk_store *s, struct wk_store_stats *out)
{
    *out = s->stats;
    out->n_moving = s->n_moving;
    for (uint32_t i = 0; i < WK_STORE_LANES; i++) {
        const struct wk_lane *l = &s->lane[i];
        uint32_t t = ps_min_u32(i, WK_KV_PEER); /* all peers as one */

        out->is_there[t] |= i == WK_KV_T0 || l->tier != NULL;
        out->is_open[t] |= i == WK_KV_T0 || wk_lane_is_open(s, i);
        out->n_queued[t] += l->raise.n + l->n_flying;
        out->read_bytes_per_s[t] += l->read_rate;
        out->write_bytes_per_s[t] += l->write_rate;
    }
}

uint32_t wk_store_pump(struct wk_store *s, uint32_t n)
{
    uint32_t n_done = 0;

    for (uint32_t i = 0; i < WK_STORE_LANES; i++) {
        if (i != WK_KV_T1 && s->lane[i].tier != NULL)
            n_done += s->lane[i].tier->ops->pump(s->lane[i].tier, n);
    }
    if (s->peers != NULL)
        n_done += wk_peers_pump(s->peers, 0);
    return n_done;
}

void wk_store_check(const struct wk_store *s)
{
    uint32_t n_flying = 0;

    for (uint32_t i = 0; i < WK_STORE_LANES; i++) {
        if (i != WK_KV_T1)
            n_flying += s->lane[i].n_flying;
    }
    PS_ASSERT(n_flying == s->n_moving);
    wk_kv_tree_check(s->tree);
}
