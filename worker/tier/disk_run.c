#include "worker/tier/disk_int.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "common/log.h"

enum {
    RESUMES_MAX = 64, /* short reads and writes of one act, before it counts as failed */
    SUPER_TRIES = 3,
    TICK_MS = 100, /* how late a deadline or a cancel is noticed when nothing else happens */
    IDLE_MS = 1000,
};

/*
 * Payload of writes that nobody waits for. A drive of 10 GB/s and 100 us needs 1 MiB in flight to be
 * busy; with more than this a read that somebody waits for would stand behind it in the drive.
 */
#define LAZY_WRITE_BYTES_MAX (UINT64_C(16) << 20)

enum act_kind { ACT_PART, ACT_SCAN, ACT_SUPER };

struct wk_disk_act {
    struct wk_disk_act *next;
    enum act_kind kind;
    enum ps_uring_dir dir;
    struct wk_disk_job *job;
    struct wk_tier_part *part;
    uint32_t group, slot;
    uint8_t *head; /* its own, 4 KiB aligned, as large as the largest header */
    uint8_t *payload;
    uint64_t offset, head_bytes, total_bytes, done_bytes;
    uint32_t n_resumed;
    bool is_lazy_write;
    struct iovec iov[2];
};

/* ---- lists ---- */

void wk_disk_list_push(struct wk_disk_list *l, struct wk_disk_job *j)
{
    j->next = NULL;
    if (l->last != NULL)
        l->last->next = j;
    else
        l->first = j;
    l->last = j;
}

static struct wk_disk_job *list_pop(struct wk_disk_list *l)
{
    struct wk_disk_job *j = l->first;

    if (j != NULL) {
        l->first = j->next;
        if (l->first == NULL)
            l->last = NULL;
    }
    return j;
}

static uint32_t lane_of(const struct wk_tier_io *io)
{
    if (io->urgent)
        return WK_DISK_URGENT;
    return io->op == WK_TIER_PUT ? WK_DISK_WRITE : WK_DISK_READ;
}

static bool has_super_due(const struct wk_disk *d)
{
    bool r = false;

    for (uint32_t g = 0; g < d->n_files; g++)
        r |= d->super_due[g];
    return r;
}

/* Nothing is on its way or waits to be. */
static bool is_idle(const struct wk_disk *d)
{
    return d->n_busy == 0 && d->queues[WK_DISK_URGENT].first == NULL &&
           d->queues[WK_DISK_READ].first == NULL && d->queues[WK_DISK_WRITE].first == NULL &&
           !has_super_due(d);
}

/* ---- the end of an io ---- */

static enum wk_tier_status void_status(const struct wk_tier_io *io)
{
    return io->op == WK_TIER_GET ? WK_TIER_MISS : WK_TIER_CANCELLED;
}

/* Inbox and clock are there as long as the tier is not abandoned, so they are used under the lock that
 * abandons. False: nobody is there any more. */
static bool job_finish(struct wk_disk *d, struct wk_disk_job *j)
{
    struct wk_tier_io *io = j->io;
    bool is_there;

    /* What ended well before the reset that its io outlived is void all the same. */
    for (uint32_t i = 0; i < io->n_part && j->epoch != d->epoch_seen; i++) {
        if (io->part[i].status == WK_TIER_DONE && io->op != WK_TIER_ERASE)
            io->part[i].status = void_status(io);
    }
    pthread_mutex_lock(&d->lock);
    is_there = d->state != WK_DISK_ABANDONED;
    if (is_there) {
        io->end_us = ps_now_us(d->t.clock);
        if (io->begin_us == 0)
            io->begin_us = io->end_us;
        j->next = d->free_jobs;
        d->free_jobs = j;
        wk_tier_post(d->t.inbox, io);
    }
    pthread_mutex_unlock(&d->lock);
    d->n_moves++;
    return is_there;
}

/* Parts that have not begun end with this status; the io too, when none is on its way. */
static uint32_t job_drop_rest(struct wk_disk *d, struct wk_disk_job *j, enum wk_tier_status status)
{
    uint32_t n = j->io->n_part;

    for (uint32_t i = j->n_begun; i < n; i++)
        j->io->part[i].status = status;
    j->n_ended += n - j->n_begun;
    j->n_begun = n;
    return j->n_ended == n && job_finish(d, j) ? 1 : 0;
}

/* Takes out of the queues what need not begin any more. */
static uint32_t sweep(struct wk_disk *d, bool all)
{
    uint64_t now_us = ps_now_us(d->t.clock);
    uint32_t n = 0;

    for (uint32_t c = 0; c < WK_DISK_N_LANES; c++) {
        struct wk_disk_list kept = {NULL, NULL};
        struct wk_disk_job *j;

        while ((j = list_pop(&d->queues[c])) != NULL) {
            const struct wk_tier_io *io = j->io;

            if (d->is_broken)
                n += job_drop_rest(d, j, WK_TIER_FAULT);
            else if (all || atomic_load_explicit(&io->cancelled, memory_order_relaxed) ||
                     (io->deadline_us != 0 && io->deadline_us <= now_us))
                n += job_drop_rest(d, j, WK_TIER_CANCELLED);
            else if (j->epoch != d->epoch_seen && io->op != WK_TIER_ERASE)
                n += job_drop_rest(d, j, void_status(io));
            else
                wk_disk_list_push(&kept, j);
        }
        d->queues[c] = kept;
    }
    return n;
}

/* ---- acts ---- */

/* (Re)submits what is left of the act. */
static void act_submit(struct wk_disk *d, struct wk_disk_act *a)
{
    struct ps_uring_op op = {d->files[a->group].fd, a->dir, a->iov, 0, 0, a};
    uint64_t at = a->done_bytes;
    int r;

    if (at < a->head_bytes)
        a->iov[op.n_iov++] = (struct iovec){a->head + at, a->head_bytes - at};
    if (a->total_bytes > a->head_bytes) {
        uint64_t in = at > a->head_bytes ? at - a->head_bytes : 0;

        a->iov[op.n_iov++] = (struct iovec){a->payload + in, a->total_bytes - a->head_bytes - in};
    }
    op.offset = a->offset + at;
    r = ps_uring_submit(d->ring, &op);
    PS_ASSERT(r == PS_URING_OK);
}

static struct wk_disk_act *act_take(struct wk_disk *d, enum act_kind kind, uint32_t group)
{
    struct wk_disk_act *a = d->free_acts;
    uint8_t *head;

    PS_ASSERT(a != NULL);
    d->free_acts = a->next;
    d->n_busy++;
    d->n_moves++;
    head = a->head;
    *a = (struct wk_disk_act){.kind = kind, .group = group, .head = head};
    return a;
}

static void act_give(struct wk_disk *d, struct wk_disk_act *a)
{
    d->n_busy--;
    d->n_moves++;
    a->next = d->free_acts;
    d->free_acts = a;
}

static struct wk_slot_place place_of(const struct wk_disk *d, const struct wk_disk_act *a)
{
    const struct wk_disk_file *f = &d->files[a->group];

    return (struct wk_slot_place){f->file_id, f->generation, a->slot};
}

static void begin_part(struct wk_disk *d, struct wk_disk_job *j)
{
    struct wk_tier_io *io = j->io;
    struct wk_tier_part *p = &io->part[j->n_begun++];
    struct wk_disk_act *a = act_take(d, ACT_PART, p->key.group);
    const struct wk_disk_file *f = &d->files[a->group];
    struct wk_slot_place place;

    if (io->begin_us == 0)
        io->begin_us = ps_now_us(d->t.clock);
    a->job = j;
    a->part = p;
    a->slot = p->slot;
    a->payload = p->buf;
    a->offset = wk_disk_slot_offset(f, p->slot);
    a->head_bytes = f->shape.head_bytes;
    a->total_bytes = io->op == WK_TIER_ERASE ? a->head_bytes : f->shape.slot_bytes;
    a->dir = io->op == WK_TIER_GET ? PS_URING_READ : PS_URING_WRITE;
    place = place_of(d, a);
    if (io->op == WK_TIER_PUT) {
        wk_slot_encode(&f->shape, &place, &p->key, ps_wall_us(d->t.clock), p->buf, a->head);
        a->is_lazy_write = !io->urgent;
        if (a->is_lazy_write)
            d->lazy_bytes += a->total_bytes;
    } else if (io->op == WK_TIER_ERASE) {
        memset(a->head, 0, a->head_bytes);
    }
    act_submit(d, a);
}

static void begin_super(struct wk_disk *d, uint32_t group)
{
    struct wk_disk_act *a = act_take(d, ACT_SUPER, group);

    d->super_due[group] = false;
    d->n_super++;
    a->dir = PS_URING_WRITE;
    a->head_bytes = a->total_bytes = WK_DISK_SUPER_BYTES;
    wk_disk_file_super(&d->files[group], &d->conf.ident, a->head);
    act_submit(d, a);
}

static bool begin_scan(struct wk_disk *d)
{
    struct wk_disk_act *a;
    uint32_t group, slot;

    if (d->is_scan_over || d->n_scan >= ps_max_u32(1, d->n_acts / 2))
        return false;
    if (!wk_disk_scan_next(d->scan, &group, &slot)) {
        if (d->n_scan == 0) {
            wk_disk_scan_finish(d->scan);
            d->is_scan_over = true;
            d->is_scan_news = true;
            d->n_moves++;
        }
        return false;
    }
    a = act_take(d, ACT_SCAN, group);
    d->n_scan++;
    a->dir = PS_URING_READ;
    a->slot = slot;
    a->offset = wk_disk_slot_offset(&d->files[group], slot);
    a->head_bytes = a->total_bytes = d->files[group].shape.head_bytes;
    act_submit(d, a);
    return true;
}

static bool begin_io(struct wk_disk *d)
{
    for (uint32_t c = 0; c < WK_DISK_N_LANES; c++) {
        struct wk_disk_job *j = d->queues[c].first;

        if (j == NULL)
            continue;
        if (c == WK_DISK_WRITE && d->lazy_bytes > 0 &&
            d->lazy_bytes + d->files[j->io->part[0].key.group].shape.slot_bytes >
                LAZY_WRITE_BYTES_MAX)
            continue;
        if (j->n_begun + 1 == j->io->n_part)
            (void)list_pop(&d->queues[c]);
        begin_part(d, j);
        return true;
    }
    return false;
}

/* True while a reset is not yet on disk. */
static bool begin_supers(struct wk_disk *d)
{
    for (uint32_t g = 0; g < d->n_files; g++) {
        if (d->super_due[g] && d->free_acts != NULL)
            begin_super(d, g);
    }
    return d->n_super > 0 || has_super_due(d);
}

static void begin_ios(struct wk_disk *d)
{
    while (!d->is_broken && d->free_acts != NULL && (begin_io(d) || begin_scan(d)))
        ;
}

/* ---- the end of an act ---- */

static enum wk_tier_status get_status(struct wk_disk *d, const struct wk_disk_act *a)
{
    const struct wk_slot_shape *shape = &d->files[a->group].shape;
    struct wk_slot_place place = place_of(d, a);
    int r = wk_slot_check(shape, &place, a->head);

    if (r == WK_SLOT_E_BAD)
        return WK_TIER_BAD;
    if (r != WK_SLOT_OK || !wk_slot_is_key(a->head, &a->part->key))
        return WK_TIER_MISS;
    return wk_slot_payload_ok(shape, a->head, a->part->buf) ? WK_TIER_DONE : WK_TIER_BAD;
}

static uint32_t part_end(struct wk_disk *d, struct wk_disk_act *a, int error)
{
    struct wk_disk_job *j = a->job;
    enum wk_tier_status status = WK_TIER_DONE;

    if (a->is_lazy_write)
        d->lazy_bytes -= a->total_bytes;
    if (error == ENOSPC || error == EDQUOT)
        status = WK_TIER_FULL;
    else if (error != 0)
        status = WK_TIER_FAULT;
    else if (j->io->op == WK_TIER_GET)
        status = get_status(d, a);
    a->part->status = status;
    act_give(d, a);
    j->n_ended++;
    return j->n_ended == j->io->n_part && job_finish(d, j) ? 1 : 0;
}

static void scan_end(struct wk_disk *d, struct wk_disk_act *a, int error)
{
    struct wk_slot_place place = place_of(d, a);
    struct wk_kv_key key;
    bool is_ours =
        error == 0 && wk_slot_check(&d->files[a->group].shape, &place, a->head) == WK_SLOT_OK;

    if (is_ours)
        wk_slot_key(a->head, &key);
    d->is_scan_news |= wk_disk_scan_take(d->scan, a->group, a->slot, is_ours ? &key : NULL);
    d->n_scan--;
    act_give(d, a);
}

/* A disk that cannot even take a superblock must not keep what was reset: the tier ends. */
static void super_end(struct wk_disk *d, struct wk_disk_act *a, int error)
{
    uint32_t group = a->group;

    d->n_super--;
    act_give(d, a);
    if (error == 0 || d->is_broken)
        return;
    d->super_due[group] = true;
    if (++d->super_tries < SUPER_TRIES)
        return;
    d->is_broken = true;
    memset(d->super_due, 0, sizeof(d->super_due));
    pthread_mutex_lock(&d->lock);
    d->is_failed = true;
    pthread_mutex_unlock(&d->lock);
    ps_error("disk tier closed", "why=%s file=%s",
             PS_Q("its superblock cannot be written; remove the file before the next start"),
             PS_Q(d->path));
}

/* One completion. Returns how many ios it ended. */
static uint32_t act_step(struct wk_disk *d, struct wk_disk_act *a, int32_t res)
{
    int error = 0;

    if (res < 0 && res != -EAGAIN && res != -EINTR) {
        error = -res;
    } else if (res == 0) { /* a file that ends within a slot: somebody cut it */
        error = EIO;
    } else {
        a->done_bytes += res > 0 ? (uint64_t)res : 0;
        PS_ASSERT(a->done_bytes <= a->total_bytes);
        if (a->done_bytes < a->total_bytes) {
            if (a->n_resumed++ < RESUMES_MAX) {
                a->done_bytes -= a->done_bytes % WK_SLOT_BLOCK_BYTES; /* as direct I/O wants it */
                d->n_moves++;
                act_submit(d, a);
                return 0;
            }
            error = EIO;
        }
    }
    if (a->kind == ACT_PART)
        return part_end(d, a, error);
    if (a->kind == ACT_SCAN)
        scan_end(d, a, error);
    else
        super_end(d, a, error);
    return 0;
}

/* ---- the thread's round ---- */

/* Takes what the scheduler left; true while the tier is open. */
static bool take_incoming(struct wk_disk *d)
{
    struct wk_disk_list incoming;
    struct wk_disk_job *j;
    uint64_t epoch;
    bool is_open;

    pthread_mutex_lock(&d->lock);
    incoming = d->incoming;
    d->incoming = (struct wk_disk_list){NULL, NULL};
    epoch = d->epoch;
    is_open = d->state == WK_DISK_OPEN;
    pthread_mutex_unlock(&d->lock);
    if (epoch != d->epoch_seen) {
        for (uint32_t g = 0; g < d->n_files; g++) {
            d->files[g].generation += epoch - d->epoch_seen;
            d->super_due[g] = d->files[g].fd >= 0 && !d->is_broken;
        }
        d->epoch_seen = epoch;
        d->super_tries = 0;
    }
    while ((j = list_pop(&incoming)) != NULL)
        wk_disk_list_push(&d->queues[lane_of(j->io)], j);
    return is_open;
}

static void tell_news(struct wk_disk *d)
{
    d->is_scan_news = false;
    pthread_mutex_lock(&d->lock);
    if (d->state != WK_DISK_ABANDONED && d->t.inbox->wake != NULL)
        ps_wake_ring(d->t.inbox->wake);
    pthread_mutex_unlock(&d->lock);
}

uint32_t wk_disk_round(struct wk_disk *d, uint32_t n_reap)
{
    struct ps_uring_done done[WK_DISK_REAP_MAX];
    bool is_open = take_incoming(d);
    uint32_t n_io = sweep(d, !is_open), n;

    /* After a reset nothing begins before the disk knows of it: else bytes of the new generation
     * could stand beside a superblock that still vouches for the old one. */
    if (!begin_supers(d) && is_open)
        begin_ios(d);
    if (n_io > 0 && d->conf.script != NULL)
        return n_io;
    n = ps_uring_wait(d->ring, is_idle(d) ? IDLE_MS : TICK_MS, done, n_reap);
    for (uint32_t i = 0; i < n; i++)
        n_io += act_step(d, done[i].ud, done[i].res);
    if (d->is_scan_news)
        tell_news(d);
    return n_io;
}

bool wk_disk_is_over(struct wk_disk *d)
{
    bool r;

    pthread_mutex_lock(&d->lock);
    if (d->state == WK_DISK_CLOSING && d->incoming.first == NULL && d->epoch == d->epoch_seen &&
        is_idle(d))
        d->state = WK_DISK_FINISHED;
    r = d->state == WK_DISK_FINISHED || d->state == WK_DISK_ABANDONED;
    pthread_mutex_unlock(&d->lock);
    return r;
}

/* ---- their memory ---- */

void wk_disk_make_acts(struct wk_disk *d)
{
    uint32_t head_bytes = WK_DISK_SUPER_BYTES;

    for (uint32_t g = 0; g < d->n_files; g++)
        head_bytes = ps_max_u32(head_bytes, d->files[g].shape.head_bytes);
    d->acts = ps_calloc(d->n_acts, sizeof(*d->acts));
    for (uint32_t i = 0; i < d->n_acts; i++) {
        d->acts[i].head = ps_alloc_aligned(WK_SLOT_BLOCK_BYTES, head_bytes);
        d->acts[i].next = d->free_acts;
        d->free_acts = &d->acts[i];
    }
    d->jobs = ps_calloc(WK_DISK_QUEUE_MAX, sizeof(*d->jobs));
    for (uint32_t i = 0; i < WK_DISK_QUEUE_MAX; i++) {
        d->jobs[i].next = d->free_jobs;
        d->free_jobs = &d->jobs[i];
    }
}

void wk_disk_free_acts(struct wk_disk *d)
{
    for (uint32_t i = 0; i < d->n_acts && d->acts != NULL; i++)
        ps_free(d->acts[i].head);
    ps_free(d->acts);
    ps_free(d->jobs);
}
