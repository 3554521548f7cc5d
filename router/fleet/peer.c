#include <string.h>

#include "common/log.h"
#include "router/fleet/fleet_internal.h"

static const char *const state_names[] = {"absent", "live", "suspect", "draining", "dead"};

static void peer_goto(struct rt_fleet *f, struct rt_peer *p, enum rt_worker_state to)
{
    static const uint8_t allowed[] = {
        [RT_W_ABSENT] = 1u << RT_W_LIVE,
        [RT_W_LIVE] =
            (1u << RT_W_SUSPECT) | (1u << RT_W_DRAINING) | (1u << RT_W_DEAD) | (1u << RT_W_ABSENT),
        [RT_W_SUSPECT] =
            (1u << RT_W_LIVE) | (1u << RT_W_DRAINING) | (1u << RT_W_DEAD) | (1u << RT_W_ABSENT),
        [RT_W_DRAINING] =
            (1u << RT_W_LIVE) | (1u << RT_W_SUSPECT) | (1u << RT_W_DEAD) | (1u << RT_W_ABSENT),
        [RT_W_DEAD] = (1u << RT_W_LIVE) | (1u << RT_W_ABSENT),
    };

    if (p->state == to)
        return;
    PS_ASSERT((allowed[p->state] >> to) & 1);
    if (to == RT_W_DEAD)
        ps_warn("worker dead", "worker=%u uid=%016llx", p->slot, (unsigned long long)p->info.uid);
    else
        ps_debug("worker moved", "worker=%u from=%s to=%s", p->slot, state_names[p->state],
                 state_names[to]);
    p->state = to;
    rt_view_publish(f, p, true);
}

uint32_t rt_peer_interval_ms(const struct rt_fleet *f)
{
    return ps_max_u32(RT_BEAT_MS, f->n_linked / RT_BEATS_PER_WORKER);
}

/* ---- slots ---- */

static struct rt_peer *peer_create(struct rt_fleet *f, uint32_t slot)
{
    struct rt_peer *p = ps_calloc(1, sizeof(*p));

    p->slot = slot;
    ps_map_init(&p->cancels.index, f->rinc);
    f->peers[slot] = p;
    return p;
}

void rt_peer_destroy(struct rt_fleet *f, struct rt_peer *p)
{
    if (p == NULL)
        return;
    PS_ASSERT(p->n_att == 0);
    ps_map_del(&f->by_uid, p->info.uid);
    f->peers[p->slot] = NULL;
    ps_map_fini(&p->cancels.index);
    ps_free(p->cancels.list);
    ps_free(p);
}

/* The slot of a worker that left or has been dead for a minute, the longest silent first. */
static struct rt_peer *find_old(struct rt_fleet *f)
{
    struct rt_peer *best = NULL;

    for (uint32_t i = 0; i < RT_MAX_WORKERS; i++) {
        struct rt_peer *p = f->peers[i];

        if (p == NULL || p->epoch != 0 || p->n_att > 0 ||
            (p->state == RT_W_DEAD && f->now_us - p->heard_us < RT_SLOT_KEEP_US))
            continue;
        if (best == NULL || p->heard_us < best->heard_us)
            best = p;
    }
    return best;
}

/* NULL: every slot is taken by a worker that lives or may return. */
static struct rt_peer *take_slot(struct rt_fleet *f, uint64_t uid)
{
    uint64_t slot;
    struct rt_peer *p = NULL;

    if (ps_map_get(&f->by_uid, uid, &slot))
        return f->peers[slot];
    for (uint32_t i = 0; i < RT_MAX_WORKERS && p == NULL; i++) {
        if (f->peers[i] == NULL)
            p = peer_create(f, i);
    }
    if (p == NULL) {
        struct rt_peer *old = find_old(f);
        uint32_t i;

        if (old == NULL)
            return NULL;
        i = old->slot;
        rt_peer_destroy(f, old);
        p = peer_create(f, i);
    }
    ps_map_put(&f->by_uid, uid, p->slot);
    return p;
}

/* ---- join and leave ---- */

static void lose_all(struct rt_fleet *f, struct rt_peer *p, bool fault_kills, bool cancel)
{
    while (p->first != NULL)
        rt_att_lost(f, p->first, fault_kills, cancel);
    PS_ASSERT(p->n_att == 0 && p->n_accepted == 0);
}

static void unlink_peer(struct rt_fleet *f, struct rt_peer *p)
{
    if (p->epoch == 0)
        return;
    p->epoch = 0;
    f->n_linked--;
}

/* The same incarnation may come back, so what it ran is remembered for its Cancels. */
static void peer_dead(struct rt_fleet *f, struct rt_peer *p)
{
    unlink_peer(f, p);
    lose_all(f, p, true, true);
    peer_goto(f, p, RT_W_DEAD);
}

static void peer_hung(struct rt_fleet *f, struct rt_peer *p)
{
    ps_warn("worker's scheduler stands still", "worker=%u", p->slot);
    p->hung = true;
    lose_all(f, p, true, true);
    peer_goto(f, p, RT_W_DEAD);
}

void rt_peer_on_bye(struct rt_fleet *f, struct rt_peer *p)
{
    ps_info("worker left", "worker=%u", p->slot);
    unlink_peer(f, p);
    lose_all(f, p, false, false);
    rt_cancel_clear(p);
    peer_goto(f, p, RT_W_ABSENT);
}

/* Everything of the process before is void at once. */
static void new_incarnation(struct rt_fleet *f, struct rt_peer *p,
                            const struct pb_worker_info *info)
{
    unlink_peer(f, p);
    lose_all(f, p, true, false);
    rt_cancel_clear(p);
    p->generation = ++f->generation;
    p->dispatch_seq = 0;
    p->hung = p->says_draining = p->drain_wanted = p->drained_logged = false;
    p->admin.tries = p->admin.id = 0;
    p->tick = 0;
    p->tick_us = f->now_us;
    memset(&p->load, 0, sizeof(p->load));
    memset(&p->kv, 0, sizeof(p->kv));
    p->info = *info;
}

static void send_welcome(struct rt_fleet *f, struct rt_peer *p)
{
    struct pb_msg m = {.welcome = {.nonce = p->nonce, .interval_ms = rt_peer_interval_ms(f)}};

    (void)rt_link_send_msg(f, p, &m, PB_WELCOME);
}

/*
 * A nonce is one socket of one incarnation. Lower: an old frame. Equal: our Welcome was lost, the epoch
 * is the same again (else a delayed copy would void a live link); after a death it is not answered, the
 * worker comes with a new socket. Higher: a new link, whatever was in flight on the old one is void.
 */
void rt_peer_on_hello(struct rt_fleet *f, const uint8_t id[RT_ID_BYTES], const struct pb_hello *h)
{
    struct rt_peer *p;
    bool fresh;

    /* Its token ids would mean other text: it gets no Welcome, and asks again once a second. */
    if (f->checks_tokenizer &&
        memcmp(f->tokenizer_digest, h->info.tokenizer_digest, sizeof(f->tokenizer_digest)) != 0) {
        ps_warn("worker has another tokenizer; not let in", "uid=%016llx model=%s",
                (unsigned long long)h->info.uid, PS_Q(h->info.model));
        return;
    }
    p = take_slot(f, h->info.uid);
    if (p == NULL) {
        ps_warn("no slot for a worker", "uid=%016llx", (unsigned long long)h->info.uid);
        return;
    }
    if (h->info.incarnation < p->info.incarnation)
        return;
    fresh = h->info.incarnation > p->info.incarnation;
    if (!fresh && h->nonce < p->nonce)
        return;
    if (!fresh && h->nonce == p->nonce) {
        if (p->epoch != 0)
            send_welcome(f, p);
        return;
    }
    if (fresh)
        new_incarnation(f, p, &h->info);
    memcpy(p->id, id, RT_ID_BYTES);
    p->nonce = h->nonce;
    if (p->epoch == 0)
        f->n_linked++;
    p->epoch = ++f->epoch;
    p->seq_out = 1;
    p->beat_seq = 0;
    p->heard_us = p->beat_next_us = f->now_us;
    p->unreachable_us = 0;
    p->need_list = true;
    p->n_mismatch = 0;
    p->tick_us = f->now_us;
    send_welcome(f, p);
    if (p->drain_wanted)
        rt_peer_admin(f, p, PB_ADMIN_DRAIN);
    if (p->state == RT_W_ABSENT || (p->state == RT_W_DEAD && !p->hung))
        peer_goto(f, p, RT_W_LIVE);
    rt_view_publish(f, p, true);
    ps_info("worker joined", "worker=%u uid=%016llx epoch=%u new=%d model=\"%s\"", p->slot,
            (unsigned long long)p->info.uid, p->epoch, fresh, p->info.model);
}

/* ---- beats and lease ---- */

void rt_peer_on_beat(struct rt_fleet *f, struct rt_peer *p, const struct pb_msg *m)
{
    const struct pb_beat *b = &m->beat;

    if (m->head.seq <= p->beat_seq)
        return; /* delayed: an old digest */
    p->beat_seq = m->head.seq;
    if (b->tick != p->tick) {
        p->tick = b->tick;
        p->tick_us = f->now_us;
        p->hung = false;
    } else if (p->n_accepted == 0) {
        p->tick_us = f->now_us; /* nothing of ours to do: it may sleep */
    }
    p->load = b->load;
    p->kv = b->kv;
    p->says_draining = b->draining;
    if (b->drained && !p->drained_logged)
        ps_info("worker drained", "worker=%u", p->slot);
    p->drained_logged = b->drained;
    rt_att_covered(f, p, b->applied, m->head.seq);
    rt_repair_on_digest(f, p, m);
    rt_view_publish(f, p, false);
}

static void judge(struct rt_fleet *f, struct rt_peer *p)
{
    uint64_t interval_us = 1000ULL * rt_peer_interval_ms(f);
    uint64_t silent_us = f->now_us - p->heard_us;
    uint64_t hang_us = ps_max_u64(RT_HANG_US, (uint64_t)RT_HANG_STEPS * p->load.step_us_mean) +
                       1000ULL * p->load.busy_ms;

    if (silent_us > ps_max_u64(RT_DEAD_US, RT_DEAD_BEATS * interval_us) ||
        (p->unreachable_us != 0 && f->now_us - p->unreachable_us > RT_UNREACHABLE_US)) {
        peer_dead(f, p);
        return;
    }
    if (!p->hung && p->n_accepted > 0 && f->now_us - p->tick_us > hang_us)
        peer_hung(f, p);
    if (p->hung)
        return;
    if (silent_us > ps_max_u64(RT_SUSPECT_US, RT_SUSPECT_BEATS * interval_us))
        peer_goto(f, p, p->state == RT_W_DEAD ? RT_W_LIVE : RT_W_SUSPECT);
    else if (p->state != RT_W_DEAD && (p->drain_wanted || p->says_draining))
        peer_goto(f, p, RT_W_DRAINING);
    else
        peer_goto(f, p, RT_W_LIVE);
}

static void send_beat(struct rt_fleet *f, struct rt_peer *p)
{
    struct pb_msg m = {.beat = {.interval_ms = rt_peer_interval_ms(f)}};

    p->beat_next_us = f->now_us + 1000ULL * m.beat.interval_ms;
    (void)rt_link_send_msg(f, p, &m, PB_BEAT);
    rt_cancel_send_some(f, p);
}

/* ---- admin ---- */

static void send_admin(struct rt_fleet *f, struct rt_peer *p)
{
    struct pb_msg m = {.admin = {.id = p->admin.id, .op = p->admin.op}};

    p->admin.tries--;
    p->admin.next_us = f->now_us + RT_ADMIN_REPEAT_US;
    (void)rt_link_send_msg(f, p, &m, PB_ADMIN);
    if (p->admin.tries == 0)
        ps_debug("last try of an admin message", "worker=%u id=%u", p->slot, p->admin.id);
}

void rt_peer_admin(struct rt_fleet *f, struct rt_peer *p, enum pb_admin_op op)
{
    if (op != PB_ADMIN_FLUSH)
        p->drain_wanted = op == PB_ADMIN_DRAIN;
    p->admin.id++;
    p->admin.op = op;
    p->admin.tries = RT_ADMIN_TRIES;
    if (p->epoch != 0)
        send_admin(f, p);
}

void rt_peer_on_admin_reply(struct rt_peer *p, uint32_t id)
{
    if (id == p->admin.id)
        p->admin.tries = 0;
}

/* ---- time ---- */

void rt_peer_scan(struct rt_fleet *f, struct rt_peer *p)
{
    if (p->epoch == 0)
        return;
    if (f->now_us >= p->beat_next_us)
        send_beat(f, p);
    if (p->admin.tries > 0 && f->now_us >= p->admin.next_us)
        send_admin(f, p);
    judge(f, p);
}

/* Our own stall says nothing about anybody: every lease is longer by it. */
void rt_peer_extend(struct rt_fleet *f, uint64_t gap_us)
{
    for (uint32_t i = 0; i < RT_MAX_WORKERS; i++) {
        struct rt_peer *p = f->peers[i];

        if (p == NULL)
            continue;
        p->heard_us = ps_min_u64(p->heard_us + gap_us, f->now_us);
        p->tick_us = ps_min_u64(p->tick_us + gap_us, f->now_us);
        if (p->unreachable_us != 0)
            p->unreachable_us = ps_min_u64(p->unreachable_us + gap_us, f->now_us);
    }
}
