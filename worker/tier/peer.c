#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

#include "common/log.h"
#include "worker/tier/peers_internal.h"

/*
 * Pulling. A job is QUEUED, then RUNNING, up to WK_PEER_INFLIGHT at once on the one connection; the
 * answers come in any order. Whatever ends the connection ends all jobs with FAULT; parts that were
 * complete and verified before stay DONE. While a lost peer has its pause, jobs end at once, so that
 * nobody waits for a worker that is gone.
 */

/* ---- jobs ---- */

static void give_back(struct wk_pull *l, struct wk_job *j, enum wk_tier_status rest)
{
    struct wk_tier_io *io = j->io;

    PS_ASSERT(io != NULL && atomic_load(&l->n_out) > 0);
    j->io = NULL;
    for (uint32_t i = 0; i < io->n_part; i++) {
        if (io->part[i].status == WK_TIER_PENDING)
            io->part[i].status = rest;
    }
    io->end_us = wk_peers_now(l->p);
    if (io->begin_us == 0)
        io->begin_us = io->end_us;
    l->p->n_posted++;
    atomic_fetch_sub(&l->n_out, 1);
    wk_tier_post(l->t.inbox, io);
}

static void end_job(struct wk_pull *l, struct wk_job *j, enum wk_tier_status rest)
{
    if (j->io != NULL)
        give_back(l, j, rest);
    *j = (struct wk_job){.state = WK_JOB_FREE};
}

static void end_all(struct wk_pull *l, enum wk_job_state state, enum wk_tier_status rest)
{
    for (uint32_t i = 0; i < WK_PEER_JOBS; i++) {
        if (l->job[i].state == state)
            end_job(l, &l->job[i], rest);
    }
}

static struct wk_job *running(struct wk_pull *l, uint32_t id)
{
    for (uint32_t i = 0; i < WK_PEER_JOBS; i++) {
        if (l->job[i].state == WK_JOB_RUNNING && l->job[i].id == id)
            return &l->job[i];
    }
    return NULL;
}

static bool is_idle(const struct wk_pull *l)
{
    for (uint32_t i = 0; i < WK_PEER_JOBS; i++) {
        if (l->job[i].state != WK_JOB_FREE)
            return false;
    }
    return true;
}

/* ---- answers ---- */

bool wk_pull_counted(struct wk_conn *c, const uint8_t *body)
{
    struct wk_pull *l = c->pull;
    struct wk_job *j = running(l, c->head.id);
    uint32_t n;

    if (wk_peer_count_decode(body, c->head.body_bytes, &n) != WK_PEER_WIRE_OK || j == NULL ||
        j->is_find != (c->head.kind == WK_PEER_FOUND) || j->has_got || n > j->n_part)
        return false;
    l->backoff_us = 0;
    if (j->is_find && j->io != NULL) {
        j->io->n_found = n;
        for (uint32_t i = 0; i < n; i++)
            j->io->part[i].status = WK_TIER_DONE;
    }
    j->has_got = true;
    j->n_found = n;
    if (j->is_find || n == 0)
        end_job(l, j, WK_TIER_MISS);
    return true;
}

uint8_t *wk_pull_piece(struct wk_conn *c, const struct wk_peer_piece *piece)
{
    struct wk_job *j = running(c->pull, c->head.id);
    const struct wk_tier_part *part;
    uint32_t item_bytes;

    if (j == NULL || !j->has_got || piece->part != j->part || piece->off != j->off)
        return NULL;
    PS_ASSERT(j->io != NULL && j->part < j->n_found);
    part = &j->io->part[j->part];
    item_bytes = c->p->conf.ident.item_bytes[part->key.group];
    if (piece->n_bytes != ps_min_u32(item_bytes - j->off, WK_PEER_PIECE_BYTES) ||
        (j->off > 0 && piece->sum != j->sum))
        return NULL;
    j->sum = piece->sum;
    return part->buf + j->off;
}

void wk_pull_piece_end(struct wk_conn *c)
{
    struct wk_job *j = running(c->pull, c->head.id);
    struct wk_tier_part *part;
    uint32_t item_bytes;

    PS_ASSERT(j != NULL && j->io != NULL);
    part = &j->io->part[j->part];
    item_bytes = c->p->conf.ident.item_bytes[part->key.group];
    j->off += c->head.body_bytes - WK_PEER_PIECE_HEAD_BYTES;
    PS_ASSERT(j->off <= item_bytes);
    if (j->off < item_bytes)
        return;
    part->status = ps_hash64(part->buf, item_bytes, 0) == j->sum ? WK_TIER_DONE : WK_TIER_BAD;
    j->off = 0;
    j->part++;
    if (j->part == j->n_found)
        end_job(c->pull, j, WK_TIER_MISS);
}

/* ---- the connection ---- */

void wk_pull_lost(struct wk_pull *l, const char *why)
{
    if (is_idle(l))
        return; /* nobody was waiting: dial again when somebody does */
    l->backoff_us = l->backoff_us == 0 ? WK_PEER_BACKOFF_MIN_US
                                       : ps_min_u64(2 * l->backoff_us, WK_PEER_BACKOFF_MAX_US);
    l->dial_us = wk_peers_now(l->p) + l->backoff_us;
    if (l->told == NULL || strcmp(l->told, why) != 0)
        ps_warn("a peer gives nothing", "address=%s reason=%s", PS_Q(l->address), why);
    l->told = why;
    end_all(l, WK_JOB_RUNNING, WK_TIER_FAULT);
    end_all(l, WK_JOB_QUEUED, WK_TIER_FAULT);
}

static void dial(struct wk_pull *l)
{
    struct wk_peer_addr a;
    int r = wk_peer_name_lookup(l->name, &a);
    int fd;

    if (r == WK_PEER_NAME_E_WAIT || l->p->n_conns == WK_PEER_CONNS_MAX)
        return;
    if (r != WK_PEER_NAME_OK) {
        wk_pull_lost(l, "name");
        return;
    }
    if (l->p->secret_bytes == 0 && !wk_peer_addr_is_loopback(&a)) {
        wk_pull_lost(l, "no secret and no loopback address");
        return;
    }
    fd = socket(a.sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        wk_pull_lost(l, "socket");
        return;
    }
    wk_conn_set_options(fd);
    if (connect(fd, (const struct sockaddr *)&a.sa, a.len) < 0 && errno != EINPROGRESS) {
        ps_close_fd(&fd);
        wk_pull_lost(l, "connect");
        return;
    }
    l->conn = wk_conn_create(l->p, l, fd, &a);
}

/* ---- a turn ---- */

/* After this nobody wants the job's answer; give_up_us is later, or the same. */
static uint64_t wanted_until(const struct wk_job *j)
{
    const uint64_t own = j->io != NULL ? j->io->deadline_us : 0;

    return own == 0 ? j->give_up_us : ps_min_u64(own, j->give_up_us);
}

static void look_at_job(struct wk_pull *l, struct wk_job *j, uint64_t now_us)
{
    const bool is_late = now_us >= wanted_until(j);
    const bool is_cancelled = j->io != NULL && atomic_load(&j->io->cancelled);

    if (!is_late && !is_cancelled)
        return;
    if (j->state == WK_JOB_QUEUED) {
        end_job(l, j, is_late ? WK_TIER_FAULT : WK_TIER_CANCELLED);
        return;
    }
    /* A question without buffers can be given back while its answer is on the way. The peer's
     * scheduler looks at questions between its steps, so a late answer means no broken peer. */
    if (j->is_find && j->io != NULL)
        give_back(l, j, is_late ? WK_TIER_FAULT : WK_TIER_CANCELLED);
    /* Bytes may be written to a buffer until its connection is closed. */
    if (now_us >= (j->is_find ? j->give_up_us : wanted_until(j)))
        wk_conn_cut(l->conn, "deadline");
}

static struct wk_job *next_queued(struct wk_pull *l)
{
    struct wk_job *best = NULL;

    for (uint32_t i = 0; i < WK_PEER_JOBS; i++) {
        struct wk_job *j = &l->job[i];

        if (j->state == WK_JOB_QUEUED &&
            (best == NULL || j->io->urgent > best->io->urgent ||
             (j->io->urgent == best->io->urgent && j->order < best->order)))
            best = j;
    }
    return best;
}

static void start(struct wk_pull *l, struct wk_job *j, uint64_t now_us)
{
    j->state = WK_JOB_RUNNING;
    j->id = ++l->next_id;
    j->io->begin_us = now_us;
    wk_peer_put_ask(&l->conn->out, j->id, j->io);
}

static uint32_t n_running(const struct wk_pull *l)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < WK_PEER_JOBS; i++)
        n += l->job[i].state == WK_JOB_RUNNING;
    return n;
}

void wk_pull_turn(struct wk_pull *l, uint64_t now_us)
{
    struct wk_job *j;

    for (uint32_t i = 0; i < WK_PEER_JOBS; i++) {
        if (l->job[i].state != WK_JOB_FREE)
            look_at_job(l, &l->job[i], now_us);
    }
    j = next_queued(l);
    if (j == NULL)
        return;
    if (l->conn == NULL) {
        if (now_us < l->dial_us)
            end_all(l, WK_JOB_QUEUED, WK_TIER_FAULT);
        else
            dial(l);
        return;
    }
    if (l->conn->state != WK_CONN_READY)
        return;
    l->told = NULL;
    for (uint32_t n = n_running(l); j != NULL && n < WK_PEER_INFLIGHT; n++) {
        start(l, j, now_us);
        j = next_queued(l);
    }
}

uint64_t wk_pull_deadline(const struct wk_pull *l)
{
    uint64_t first = UINT64_MAX;

    for (uint32_t i = 0; i < WK_PEER_JOBS; i++) {
        if (l->job[i].state != WK_JOB_FREE)
            first = ps_min_u64(first, wanted_until(&l->job[i]));
    }
    return first;
}

bool wk_pull_is_polling(const struct wk_pull *l)
{
    return l->conn == NULL && !is_idle(l);
}

/* ---- what is submitted ---- */

static void on_bye(struct wk_pull *l)
{
    struct wk_peers *p = l->p;

    end_all(l, WK_JOB_QUEUED, WK_TIER_CANCELLED);
    end_all(l, WK_JOB_RUNNING, WK_TIER_FAULT);
    if (l->conn != NULL) /* it reads nothing any more */
        wk_conn_cut(l->conn, "closed");
    PS_ASSERT(is_idle(l) && atomic_load(&l->n_out) == 0);
    for (uint32_t i = 0; i < p->n_pulls; i++) {
        if (p->pull[i] == l)
            p->pull[i] = p->pull[--p->n_pulls];
    }
    pthread_mutex_lock(&p->closing);
    l->is_closed = true;
    if (l->is_left)
        wk_pull_destroy(l);
    else
        pthread_cond_broadcast(&p->closed);
    pthread_mutex_unlock(&p->closing);
}

void wk_pull_take(struct wk_tier_io *io)
{
    struct wk_pull *l = (struct wk_pull *)(void *)io->tier;
    struct wk_peers *p = l->p;
    struct wk_job *j = l->job;

    if (io == &l->bye) {
        on_bye(l);
        return;
    }
    if (!l->is_listed) {
        PS_ASSERT(p->n_pulls < WK_PEER_TIERS_MAX);
        p->pull[p->n_pulls++] = l;
        l->is_listed = true;
    }
    while (j->state != WK_JOB_FREE)
        j++;
    PS_ASSERT(j < l->job + WK_PEER_JOBS);
    *j = (struct wk_job){.state = WK_JOB_QUEUED,
                         .io = io,
                         .is_find = io->op == WK_TIER_FIND,
                         .n_part = io->n_part,
                         .order = ++p->order,
                         .give_up_us = wk_peers_now(p) + WK_PEER_IO_US};
}

/* ---- the verbs of a tier, on the store's thread ---- */

static int peer_submit(struct wk_tier *t, struct wk_tier_io *io)
{
    struct wk_pull *l = (struct wk_pull *)(void *)t;
    const struct wk_tier_ident *ident = &l->p->conf.ident;

    PS_ASSERT(io->op == WK_TIER_GET || io->op == WK_TIER_FIND);
    PS_ASSERT(io->n_part > 0);
    PS_ASSERT(io->n_part <= (io->op == WK_TIER_GET ? WK_TIER_PARTS_MAX : WK_TIER_FIND_MAX));
    if (atomic_load(&l->n_out) >= t->depth)
        return WK_TIER_E_FULL;
    for (uint32_t i = 0; i < io->n_part; i++) {
        const struct wk_kv_key *k = &io->part[i].key;

        PS_ASSERT(k->group < ident->n_group && k->group == io->part[0].key.group);
        PS_ASSERT(k->n_tok > 0 && k->n_tok <= ident->page_tokens);
        PS_ASSERT(io->op == WK_TIER_FIND || io->part[i].buf != NULL);
        io->part[i].status = WK_TIER_PENDING;
    }
    io->n_found = 0;
    io->begin_us = io->end_us = 0;
    io->tier = t;
    atomic_fetch_add(&l->n_out, 1);
    wk_tier_post(&l->p->todo, io);
    return WK_TIER_OK;
}

static void peer_cancel(struct wk_tier *t, struct wk_tier_io *io)
{
    struct wk_pull *l = (struct wk_pull *)(void *)t;

    atomic_store(&io->cancelled, true);
    ps_wake_ring(&l->p->wake);
}

static uint32_t peer_pump(struct wk_tier *t, uint32_t n)
{
    struct wk_pull *l = (struct wk_pull *)(void *)t;
    uint32_t before = atomic_load(&l->n_out);

    PS_ASSERT(!l->p->has_thread);
    if (n > 0)
        (void)wk_peers_turn(l->p, 0);
    return before - atomic_load(&l->n_out);
}

void wk_pull_destroy(struct wk_pull *l)
{
    atomic_fetch_sub(&l->p->n_tiers, 1);
    wk_peer_name_destroy(l->name);
    ps_free(l->address);
    ps_free(l);
}

static int peer_close(struct wk_tier *t, uint32_t wait_ms)
{
    struct wk_pull *l = (struct wk_pull *)(void *)t;
    struct wk_peers *p = l->p;
    struct timespec until;
    bool is_closed;
    int e = 0;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += wait_ms / 1000;
    until.tv_nsec += (long)(wait_ms % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    l->bye.tier = t;
    wk_tier_post(&p->todo, &l->bye);
    if (!p->has_thread)
        wk_peers_take(p);
    pthread_mutex_lock(&p->closing);
    while (!l->is_closed && e != ETIMEDOUT)
        e = pthread_cond_timedwait(&p->closed, &p->closing, &until);
    is_closed = l->is_closed;
    l->is_left = !is_closed;
    pthread_mutex_unlock(&p->closing);
    if (!is_closed)
        return WK_TIER_E_BUSY; /* the thread, or wk_peers_destroy, frees it */
    wk_pull_destroy(l);
    return WK_TIER_OK;
}

int wk_tier_peer_create(struct wk_tier **out, struct wk_peers *p, const char *address,
                        struct ps_buf *err)
{
    static const struct wk_tier_ops ops = {
        .submit = peer_submit, .cancel = peer_cancel, .pump = peer_pump, .close = peer_close};
    struct wk_peer_name *name;
    struct wk_pull *l;

    if (atomic_load(&p->n_tiers) == WK_PEER_TIERS_MAX) {
        ps_buf_addf(err, "peer %s: more than %d peers", address, WK_PEER_TIERS_MAX);
        return WK_TIER_E_CONF;
    }
    if (wk_peer_name_create(&name, address) != WK_PEER_NAME_OK) {
        ps_buf_addf(err, "peer %s: not host:port", address);
        return WK_TIER_E_CONF;
    }
    if (p->secret_bytes == 0 && !wk_peer_name_is_loopback(name)) {
        ps_buf_addf(err, "peer %s: only loopback peers are allowed without a secret file", address);
        wk_peer_name_destroy(name);
        return WK_TIER_E_CONF;
    }
    l = ps_calloc(1, sizeof(*l));
    l->t = (struct wk_tier){.ops = &ops,
                            .name = "peer",
                            .inbox = p->conf.inbox,
                            .clock = p->conf.clock,
                            .part_run = 1,
                            .depth = WK_PEER_DEPTH};
    l->p = p;
    l->name = name;
    l->address = ps_strdup(address);
    atomic_fetch_add(&p->n_tiers, 1);
    *out = &l->t;
    return WK_TIER_OK;
}
