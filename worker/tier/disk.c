#include "worker/tier/disk.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

#include "common/log.h"
#include "worker/tier/disk_int.h"

enum { DEPTH_DEFAULT = 32, PROBE_DEPTH = 8 };

/* ---- thread ---- */

static void *thread_main(void *ud)
{
    struct wk_disk *d = ud;
    int r;

    (void)pthread_setname_np(pthread_self(), "kv-disk");
    r = ps_uring_create(&d->ring, d->n_acts, PS_URING_AUTO); /* here: a ring has one thread */
    pthread_mutex_lock(&d->lock);
    d->start_error = r;
    d->is_started = true;
    pthread_cond_broadcast(&d->has_news);
    pthread_mutex_unlock(&d->lock);
    if (r != PS_URING_OK)
        return NULL;
    while (!wk_disk_is_over(d))
        (void)wk_disk_round(d, WK_DISK_REAP_MAX);
    pthread_mutex_lock(&d->lock);
    pthread_cond_broadcast(&d->has_news);
    pthread_mutex_unlock(&d->lock);
    return NULL;
}

/* ---- verbs ---- */

static struct wk_disk *disk_of(struct wk_tier *t)
{
    return PS_CONTAINER(t, struct wk_disk, t);
}

static int disk_submit(struct wk_tier *t, struct wk_tier_io *io)
{
    struct wk_disk *d = disk_of(t);
    struct wk_disk_job *j;
    int r = WK_TIER_OK;

    PS_ASSERT(io->op != WK_TIER_FIND && io->n_part > 0 && io->n_part <= WK_TIER_PARTS_MAX);
    for (uint32_t i = 0; i < io->n_part; i++) {
        const struct wk_tier_part *p = &io->part[i];

        PS_ASSERT(p->key.group == io->part[0].key.group && p->key.group < d->n_files);
        PS_ASSERT(p->slot < d->files[p->key.group].n_slot);
        PS_ASSERT(io->op == WK_TIER_ERASE || (uintptr_t)p->buf % WK_SLOT_BLOCK_BYTES == 0);
        PS_ASSERT(io->op != WK_TIER_PUT || wk_disk_scan_may_write(d->scan, p->key.group, p->slot));
    }
    pthread_mutex_lock(&d->lock);
    j = d->free_jobs;
    if (d->state != WK_DISK_OPEN || d->is_failed) {
        r = WK_TIER_E_CLOSED;
    } else if (j == NULL) {
        r = WK_TIER_E_FULL;
    } else {
        d->free_jobs = j->next;
        *j = (struct wk_disk_job){.io = io, .epoch = d->epoch};
        for (uint32_t i = 0; i < io->n_part; i++)
            io->part[i].status = WK_TIER_PENDING;
        io->tier = t;
        io->begin_us = io->end_us = 0;
        wk_disk_list_push(&d->incoming, j);
    }
    pthread_mutex_unlock(&d->lock);
    if (r == WK_TIER_OK)
        ps_uring_poke(d->ring);
    return r;
}

static void disk_cancel(struct wk_tier *t, struct wk_tier_io *io)
{
    struct wk_disk *d = disk_of(t);

    atomic_store_explicit(&io->cancelled, true, memory_order_relaxed);
    ps_uring_poke(d->ring);
}

static uint32_t disk_pump(struct wk_tier *t, uint32_t n)
{
    struct wk_disk *d = disk_of(t);
    uint32_t n_io = 0;

    while (d->conf.script != NULL && n_io < n) {
        uint64_t before = d->n_moves;

        n_io += wk_disk_round(d, 1);
        if (d->n_moves == before)
            break;
    }
    return n_io;
}

static void disk_free(struct wk_disk *d)
{
    wk_disk_free_acts(d);
    for (uint32_t g = 0; g < d->n_files; g++)
        wk_disk_file_close(&d->files[g]);
    wk_disk_scan_destroy(d->scan);
    pthread_cond_destroy(&d->has_news);
    pthread_mutex_destroy(&d->lock);
    ps_free(d->path);
    ps_free(d);
}

static struct timespec after_ms(uint32_t ms)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    ts.tv_sec += (time_t)(ms / 1000);
    ts.tv_nsec += (long)(ms % 1000) * 1000000;
    if (ts.tv_nsec >= 1000000000) {
        ts.tv_sec++;
        ts.tv_nsec -= 1000000000;
    }
    return ts;
}

static int disk_close(struct wk_tier *t, uint32_t wait_ms)
{
    struct wk_disk *d = disk_of(t);
    struct timespec until = after_ms(wait_ms);
    bool is_finished;
    int e = 0, r;

    pthread_mutex_lock(&d->lock);
    PS_ASSERT(d->state == WK_DISK_OPEN ||
              d->state == WK_DISK_CLOSING); /* a script may be asked once more */
    d->state = WK_DISK_CLOSING;
    pthread_mutex_unlock(&d->lock);
    if (d->conf.script != NULL) {
        (void)disk_pump(t, UINT32_MAX);
        is_finished = wk_disk_is_over(d);
    } else {
        ps_uring_poke(d->ring);
        pthread_mutex_lock(&d->lock);
        while (d->state == WK_DISK_CLOSING && e == 0)
            e = pthread_cond_timedwait(&d->has_news, &d->lock, &until);
        is_finished = d->state == WK_DISK_FINISHED;
        if (!is_finished)
            d->state = WK_DISK_ABANDONED;
        pthread_mutex_unlock(&d->lock);
    }
    if (!is_finished) { /* the thread, if it ever wakes, finds itself abandoned */
        if (d->conf.script == NULL)
            (void)pthread_detach(d->thread);
        ps_warn("disk does not answer", "file=%s waited_ms=%u", PS_Q(d->path), wait_ms);
        return WK_TIER_E_BUSY;
    }
    if (d->conf.script == NULL) {
        (void)pthread_join(d->thread, NULL);
        r = ps_uring_destroy(d->ring, 0);
        PS_ASSERT(r == PS_URING_OK);
    }
    disk_free(d);
    return WK_TIER_OK;
}

static const struct wk_tier_ops disk_ops = {
    .submit = disk_submit,
    .cancel = disk_cancel,
    .pump = disk_pump,
    .close = disk_close,
};

uint32_t wk_tier_disk_n_slot(const struct wk_tier *t, uint32_t group)
{
    const struct wk_disk *d = (const struct wk_disk *)(const void *)t;

    PS_ASSERT(t->ops == &disk_ops);
    return group < d->n_files ? d->files[group].n_slot : 0;
}

int wk_tier_disk_scan(struct wk_tier *t, struct wk_disk_found *out)
{
    PS_ASSERT(t->ops == &disk_ops);
    return wk_disk_scan_pop(disk_of(t)->scan, out);
}

bool wk_tier_disk_may_write(const struct wk_tier *t, uint32_t group, uint32_t slot)
{
    const struct wk_disk *d = (const struct wk_disk *)(const void *)t;

    PS_ASSERT(t->ops == &disk_ops && slot < wk_tier_disk_n_slot(t, group));
    return wk_disk_scan_may_write(d->scan, group, slot);
}

void wk_tier_disk_reset(struct wk_tier *t)
{
    struct wk_disk *d = disk_of(t);

    PS_ASSERT(t->ops == &disk_ops);
    wk_disk_scan_stop(d->scan);
    pthread_mutex_lock(&d->lock);
    d->epoch++;
    pthread_mutex_unlock(&d->lock);
    ps_uring_poke(d->ring);
}

/* ---- create ---- */

static int open_files(struct wk_disk *d, struct ps_buf *err)
{
    struct wk_disk_rates rates = {0, 0, 0, false};
    struct ps_uring *ring = d->conf.script;
    int r = WK_TIER_OK;

    if (ring == NULL) {
        r = ps_uring_create(&ring, PROBE_DEPTH, PS_URING_AUTO);
        if (r != PS_URING_OK) {
            ps_buf_addf(err, "no asynchronous I/O: %s", strerrordesc_np(-r));
            return WK_TIER_E_CONF;
        }
        r = wk_disk_probe(&rates, d->conf.path, ring, err);
    }
    for (uint32_t g = 0; r == WK_TIER_OK && g < d->n_files; g++) {
        if (d->conf.n_slot[g] > 0)
            r = wk_disk_file_open(&d->files[g], &d->conf, g, ring, rates.is_direct, err);
    }
    d->t.read_bytes_per_s = rates.read_bytes_per_s;
    d->t.write_bytes_per_s = rates.write_bytes_per_s;
    d->t.latency_us = rates.latency_us;
    if (d->conf.script == NULL && ps_uring_destroy(ring, 0) == PS_URING_E_BUSY)
        PS_ASSERT(r != WK_TIER_OK); /* the disk does not answer: its ring stays */
    return r;
}

static void make_scan(struct wk_disk *d)
{
    uint32_t n_slot[WK_DISK_GROUPS_MAX] = {0};

    for (uint32_t g = 0; g < d->n_files; g++)
        n_slot[g] = d->files[g].n_slot;
    d->scan = wk_disk_scan_create(d->conf.ident.space_id, n_slot, d->n_files);
    for (uint32_t g = 0; g < d->n_files; g++) {
        if (d->files[g].is_new)
            wk_disk_scan_skip(d->scan, g);
    }
}

static int start_thread(struct wk_disk *d, struct ps_buf *err)
{
    sigset_t all, old;
    int e;

    sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &old); /* signals are for the program's own threads */
    e = pthread_create(&d->thread, NULL, thread_main, d);
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (e == 0) {
        pthread_mutex_lock(&d->lock);
        while (!d->is_started) /* it makes a ring: no disk is involved */
            pthread_cond_wait(&d->has_news, &d->lock);
        e = -d->start_error;
        pthread_mutex_unlock(&d->lock);
        if (e != 0)
            (void)pthread_join(d->thread, NULL);
    }
    if (e == 0)
        return WK_TIER_OK;
    ps_buf_addf(err, "no thread or ring for the disk: %s", strerrordesc_np(e));
    return WK_TIER_E_CONF;
}

int wk_tier_disk_create(struct wk_tier **out, const struct wk_tier_disk_conf *conf,
                        struct ps_buf *err)
{
    struct wk_disk *d = ps_calloc(1, sizeof(*d));
    pthread_condattr_t monotonic;
    int r;

    PS_ASSERT(conf->ident.n_group > 0 && conf->ident.n_group <= WK_DISK_GROUPS_MAX);
    PS_ASSERT(conf->script != NULL || conf->path != NULL);
    d->conf = *conf;
    d->path = ps_strdup(conf->path != NULL ? conf->path : "script");
    d->conf.path = d->path;
    d->n_files = conf->ident.n_group;
    d->n_acts = conf->depth > 0 ? ps_min_u32(conf->depth, PS_URING_DEPTH_MAX) : DEPTH_DEFAULT;
    if (conf->script != NULL)
        d->n_acts = ps_min_u32(d->n_acts, ps_uring_depth(conf->script));
    d->ring = conf->script;
    d->t = (struct wk_tier){
        .ops = &disk_ops,
        .name = "t2",
        .inbox = conf->inbox,
        .clock = conf->clock,
        .part_run = 1,
        .depth = WK_DISK_QUEUE_MAX,
    };
    for (uint32_t g = 0; g < WK_DISK_GROUPS_MAX; g++)
        d->files[g].fd = -1;
    pthread_mutex_init(&d->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&d->has_news, &monotonic);
    pthread_condattr_destroy(&monotonic);
    r = open_files(d, err);
    if (r == WK_TIER_OK) {
        make_scan(d);
        wk_disk_make_acts(d);
        if (conf->script == NULL)
            r = start_thread(d, err);
    }
    if (r != WK_TIER_OK) {
        disk_free(d);
        return r;
    }
    if (conf->script == NULL)
        ps_info("disk tier open", "file=%s io=%s slots=%u slot_bytes=%llu", PS_Q(conf->path),
                ps_uring_name(d->ring), d->files[0].n_slot,
                (unsigned long long)d->files[0].shape.slot_bytes);
    if (conf->script == NULL && strcmp(ps_uring_name(d->ring), "threads") == 0)
        ps_warn("io_uring is refused", "instead=threads");
    *out = &d->t;
    return WK_TIER_OK;
}
