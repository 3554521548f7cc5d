#include "worker/tier/share.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

#include "common/log.h"
#include "worker/tier/share_collect.h"

enum {
    THREADS_MAX = 4,
    ALL_THREADS_MAX = THREADS_MAX + 2, /* and the timer and the collector */
    DEPTH = 64,
    USES_MAX = 64,        /* to be noted; more are forgotten */
    COLLECT_OPS = 64,     /* between two looks at whether to end */
    OPEN_WAIT_MS = 10000, /* for the directory's first answer */
};

#define HUNG_US        (UINT64_C(10) * 1000000)
#define HUNG_BYTES_MAX (UINT64_C(256) << 20)
#define ROUND_US       (UINT64_C(60) * 1000000)

struct queue {
    struct wk_tier_io *first, *last;
};

struct slot { /* one io that a thread is at */
    struct wk_tier_io *io;
    uint64_t begin_us, n_bytes;
};

enum opening { NOT_OPEN, IS_OPEN, OPEN_FAILED };

struct share {
    struct wk_tier base;
    struct wk_share_root root;
    struct wk_share_collect *collect; /* of the thread that collects */
    pthread_mutex_t lock;             /* everything below; never held across a call elsewhere */
    pthread_cond_t work, timer, rest, ended;
    struct queue urgent, normal;
    uint32_t n_queued, n_running;
    struct slot slot[THREADS_MAX];
    uint32_t n_slot;
    struct wk_share_use use[USES_MAX]; /* a ring */
    uint32_t use_at, n_use;
    uint32_t n_posting; /* threads that are about to use the inbox */
    bool is_closing, is_abandoned, is_off;
    bool fails[WK_TIER_ERASE + 1]; /* the last io of this kind did, and a line told it */
    pthread_t thread[ALL_THREADS_MAX];
    bool is_over[ALL_THREADS_MAX];
    uint32_t n_thread, n_alive;
    enum opening opening;
    struct ps_buf open_err;
};

struct thread_arg {
    struct share *s;
    uint32_t index;
    void (*run)(struct share *s);
};

static struct share *share_of(struct wk_tier *t)
{
    return PS_CONTAINER(t, struct share, base);
}

/* ---- queue; under the lock ---- */

static void queue_push(struct queue *q, struct wk_tier_io *io)
{
    io->next = NULL;
    if (q->last != NULL)
        q->last->next = io;
    else
        q->first = io;
    q->last = io;
}

static bool is_due(const struct wk_tier_io *io, uint64_t now_us)
{
    return atomic_load(&io->cancelled) || (io->deadline_us != 0 && now_us >= io->deadline_us);
}

/* Moves ios that nobody wants any more (all: every one) to `out`. */
static void queue_expire(struct share *s, struct queue *q, uint64_t now_us, bool all,
                         struct queue *out)
{
    struct queue kept = {NULL, NULL};

    for (struct wk_tier_io *io = q->first, *next; io != NULL; io = next) {
        next = io->next;
        if (all || is_due(io, now_us)) {
            queue_push(out, io);
            s->n_queued--;
        } else {
            queue_push(&kept, io);
        }
    }
    *q = kept;
}

static struct queue expire(struct share *s, bool all)
{
    uint64_t now_us = ps_now_us(s->base.clock);
    struct queue out = {NULL, NULL};

    queue_expire(s, &s->urgent, now_us, all, &out);
    queue_expire(s, &s->normal, now_us, all, &out);
    return out;
}

/* Without the lock. Returns how many. */
static uint32_t post_cancelled(struct share *s, struct queue q)
{
    uint32_t n = 0;

    for (struct wk_tier_io *io = q.first, *next; io != NULL; io = next, n++) {
        next = io->next;
        for (uint32_t i = 0; i < io->n_part; i++)
            io->part[i].status = WK_TIER_CANCELLED;
        io->begin_us = io->end_us = ps_now_us(s->base.clock);
        wk_tier_post(s->base.inbox, io);
    }
    return n;
}

/* The next io, in a slot of its own; NULL: none, or as many run as may. */
static struct slot *take(struct share *s)
{
    struct queue *q = s->urgent.first != NULL ? &s->urgent : &s->normal;
    struct slot *slot = s->slot;

    if (q->first == NULL || s->n_running == s->n_slot)
        return NULL;
    while (slot->io != NULL)
        slot++;
    slot->io = q->first;
    q->first = slot->io->next;
    if (q->first == NULL)
        q->last = NULL;
    s->n_queued--;
    s->n_running++;
    slot->begin_us = ps_now_us(s->base.clock);
    slot->n_bytes = 0;
    if (slot->io->op == WK_TIER_GET || slot->io->op == WK_TIER_PUT)
        slot->n_bytes = s->root.shape[slot->io->part[0].key.group].object_bytes;
    return slot;
}

/* ---- one io ---- */

static const char *op_name(enum wk_tier_op op)
{
    static const char *const names[] = {
        [WK_TIER_GET] = "get",
        [WK_TIER_PUT] = "put",
        [WK_TIER_FIND] = "find",
        [WK_TIER_ERASE] = "erase",
    };

    return names[op];
}

static struct wk_share_end run_io(struct share *s, struct wk_tier_io *io)
{
    struct wk_share_end e = {.status = WK_TIER_FAULT};

    switch (io->op) {
    case WK_TIER_GET:
        e = wk_share_get(&s->root, io);
        break;
    case WK_TIER_PUT:
        e = wk_share_put(&s->root, io);
        break;
    case WK_TIER_FIND:
        return wk_share_find(&s->root, io);
    case WK_TIER_ERASE:
        e = wk_share_erase(&s->root, io);
        break;
    }
    for (uint32_t i = 0; i < io->n_part; i++)
        io->part[i].status = e.status;
    return e;
}

/* Tells when a kind of io begins to fail and when it works again; the store counts each. */
static void tell_failing(struct share *s, enum wk_tier_op op, bool fails,
                         const struct wk_share_end *e)
{
    if (fails)
        ps_warn("t3 fails", "op=%s path=%s error=%s", op_name(op), PS_Q(s->root.path),
                PS_Q(strerror(-e->err)));
    else
        ps_info("t3 works again", "op=%s path=%s", op_name(op), PS_Q(s->root.path));
}

/* Runs and posts the io of a slot. Under the lock, which it lets go of meanwhile. */
static void run_slot(struct share *s, struct slot *slot)
{
    struct wk_tier_io *io = slot->io;
    enum wk_tier_op op = io->op;
    struct wk_share_use use;
    struct wk_share_end e;
    bool fails, tells, is_use;

    io->begin_us = slot->begin_us;
    pthread_mutex_unlock(&s->lock);
    e = run_io(s, io);
    is_use = wk_share_use_of(io, &e, &use);
    pthread_mutex_lock(&s->lock);
    slot->io = NULL;
    s->n_running--;
    if (s->is_abandoned)
        return;
    if (is_use && s->n_use < USES_MAX) {
        s->use[(s->use_at + s->n_use++) % USES_MAX] = use;
        pthread_cond_signal(&s->rest);
    }
    fails = e.status == WK_TIER_FAULT || e.status == WK_TIER_FULL;
    tells = fails != s->fails[op] && (fails || e.status == WK_TIER_DONE);
    if (tells)
        s->fails[op] = fails;
    s->n_posting++;
    pthread_mutex_unlock(&s->lock);
    if (tells)
        tell_failing(s, op, fails, &e);
    io->end_us = ps_now_us(s->base.clock);
    wk_tier_post(s->base.inbox, io);
    pthread_mutex_lock(&s->lock);
    s->n_posting--;
    pthread_cond_broadcast(&s->ended);
}

/* ---- verbs ---- */

static bool is_hung(const struct share *s, uint64_t now_us)
{
    uint64_t n_bytes = 0;
    uint32_t n = 0;

    for (uint32_t i = 0; i < s->n_slot; i++) {
        if (s->slot[i].io == NULL || now_us - s->slot[i].begin_us < HUNG_US)
            continue;
        n_bytes += s->slot[i].n_bytes;
        n++;
    }
    return n == s->n_slot || n_bytes > HUNG_BYTES_MAX;
}

static void check_io(const struct share *s, const struct wk_tier_io *io)
{
    uint32_t group;

    PS_ASSERT(io->n_part > 0 && io->part != NULL);
    group = io->part[0].key.group;
    PS_ASSERT(group < s->root.ident.n_group);
    if (io->op == WK_TIER_FIND)
        PS_ASSERT(io->n_part <= WK_TIER_FIND_MAX);
    else
        PS_ASSERT(io->n_part == s->root.shape[group].n_part);
}

static int share_submit(struct wk_tier *t, struct wk_tier_io *io)
{
    struct share *s = share_of(t);
    bool is_off, was_off;
    int r = WK_TIER_OK;

    check_io(s, io);
    pthread_mutex_lock(&s->lock);
    PS_ASSERT(!s->is_closing);
    was_off = s->is_off;
    is_off = s->is_off = is_hung(s, ps_now_us(t->clock));
    if (is_off) {
        r = WK_TIER_E_CLOSED;
    } else if (s->n_queued + s->n_running >= t->depth) {
        r = WK_TIER_E_FULL;
    } else {
        for (uint32_t i = 0; i < io->n_part; i++)
            io->part[i].status = WK_TIER_PENDING;
        io->n_found = 0;
        io->tier = t;
        queue_push(io->urgent ? &s->urgent : &s->normal, io);
        s->n_queued++;
        pthread_cond_signal(&s->work);
        if (io->deadline_us != 0)
            pthread_cond_signal(&s->timer);
    }
    pthread_mutex_unlock(&s->lock);
    if (is_off && !was_off)
        ps_warn("t3 is off: its calls hang", "path=%s", PS_Q(s->root.path));
    if (was_off && !is_off)
        ps_info("t3 is on again", "path=%s", PS_Q(s->root.path));
    return r;
}

static void share_cancel(struct wk_tier *t, struct wk_tier_io *io)
{
    struct share *s = share_of(t);
    struct queue out;

    atomic_store(&io->cancelled, true);
    pthread_mutex_lock(&s->lock);
    out = expire(s, false);
    pthread_mutex_unlock(&s->lock);
    post_cancelled(s, out);
}

static uint32_t share_pump(struct wk_tier *t, uint32_t n)
{
    struct share *s = share_of(t);
    uint32_t n_done = 0;

    PS_ASSERT(s->n_thread == 0);
    while (n_done < n) {
        struct queue out;
        struct slot *slot;

        pthread_mutex_lock(&s->lock);
        out = expire(s, false);
        slot = take(s);
        if (slot != NULL)
            run_slot(s, slot);
        pthread_mutex_unlock(&s->lock);
        n_done += post_cancelled(s, out) + (slot != NULL);
        if (slot == NULL)
            break;
    }
    return n_done;
}

/* The next use to note, one object of it; then the collector. False: nothing is left to do now. */
static bool tidy(struct share *s, uint32_t n_ops, bool may_collect)
{
    struct wk_share_use use;
    bool has_use;

    pthread_mutex_lock(&s->lock);
    has_use = s->n_use > 0;
    if (has_use) {
        use = s->use[s->use_at];
        s->use_at = (s->use_at + 1) % USES_MAX;
        s->n_use--;
    }
    pthread_mutex_unlock(&s->lock);
    if (!has_use)
        return may_collect && wk_share_collect_run(s->collect, n_ops);
    while (wk_share_use_note(&s->root, &use)) { /* ends: positions fall */
        pthread_mutex_lock(&s->lock);
        has_use = !s->is_closing;
        pthread_mutex_unlock(&s->lock);
        if (!has_use)
            break;
    }
    return true;
}

bool wk_tier_share_collect(struct wk_tier *t, uint32_t n_ops)
{
    struct share *s = share_of(t);

    PS_ASSERT(s->n_thread == 0);
    return tidy(s, n_ops, true);
}

/* ---- threads ---- */

static void free_share(struct share *s)
{
    ps_buf_fini(&s->open_err);
    pthread_cond_destroy(&s->work);
    pthread_cond_destroy(&s->timer);
    pthread_cond_destroy(&s->rest);
    pthread_cond_destroy(&s->ended);
    pthread_mutex_destroy(&s->lock);
    ps_free(s);
}

static void *thread_main(void *ud)
{
    struct thread_arg arg = *(struct thread_arg *)ud;
    struct share *s = arg.s;
    bool is_last;

    ps_free(ud);
    pthread_mutex_lock(&s->lock);
    arg.run(s);
    s->is_over[arg.index] = true;
    is_last = --s->n_alive == 0 && s->is_abandoned;
    pthread_cond_broadcast(&s->ended);
    pthread_mutex_unlock(&s->lock);
    if (is_last)
        free_share(s);
    return NULL;
}

/* The run functions hold the lock whenever they do not wait or call. */

static void io_run(struct share *s)
{
    while (!s->is_closing) {
        struct slot *slot = take(s);

        if (slot != NULL)
            run_slot(s, slot);
        else
            pthread_cond_wait(&s->work, &s->lock);
    }
}

/* Waits until then, by the real clock, or until the condition is signalled. */
static void wait_us(struct share *s, pthread_cond_t *cond, uint64_t us)
{
    struct timespec ts;

    PS_ASSERT(clock_gettime(CLOCK_MONOTONIC, &ts) == 0);
    us += (uint64_t)ts.tv_nsec / 1000;
    ts.tv_sec += (time_t)(us / 1000000);
    ts.tv_nsec = (long)(us % 1000000) * 1000;
    pthread_cond_timedwait(cond, &s->lock, &ts);
}

static uint64_t first_deadline(const struct share *s)
{
    const struct queue *const queues[] = {&s->urgent, &s->normal};
    uint64_t first = UINT64_MAX;

    for (uint32_t i = 0; i < PS_ARRAY_LEN(queues); i++) {
        for (const struct wk_tier_io *io = queues[i]->first; io != NULL; io = io->next) {
            if (io->deadline_us != 0)
                first = ps_min_u64(first, io->deadline_us);
        }
    }
    return first;
}

static void timer_run(struct share *s)
{
    while (!s->is_closing) {
        struct queue out = expire(s, false);
        uint64_t first, now;

        if (out.first != NULL) {
            s->n_posting++;
            pthread_mutex_unlock(&s->lock);
            post_cancelled(s, out);
            pthread_mutex_lock(&s->lock);
            s->n_posting--;
            pthread_cond_broadcast(&s->ended);
            continue;
        }
        first = first_deadline(s);
        now = ps_now_us(s->base.clock);
        if (first == UINT64_MAX)
            pthread_cond_wait(&s->timer, &s->lock);
        else
            wait_us(s, &s->timer, first > now ? ps_min_u64(first - now, 1000000) : 1);
    }
}

/* Opens the directory as well, because that may hang like everything else. */
static void collect_run(struct share *s)
{
    uint64_t next_us = 0;
    bool is_open;

    pthread_mutex_unlock(&s->lock);
    is_open = wk_share_root_open(&s->root, &s->open_err);
    pthread_mutex_lock(&s->lock);
    s->opening = is_open ? IS_OPEN : OPEN_FAILED;
    pthread_cond_broadcast(&s->ended);
    while (is_open && !s->is_closing) {
        uint64_t now_us = ps_now_us(s->base.clock);
        bool may_collect = now_us >= next_us, more;

        pthread_mutex_unlock(&s->lock);
        more = tidy(s, COLLECT_OPS, may_collect);
        pthread_mutex_lock(&s->lock);
        if (!more && may_collect)
            next_us = now_us + ROUND_US;
        else if (!more && !s->is_closing && s->n_use == 0)
            wait_us(s, &s->rest, next_us - now_us);
    }
    pthread_mutex_unlock(&s->lock);
    wk_share_collect_destroy(s->collect);
    if (is_open)
        wk_share_root_close(&s->root);
    pthread_mutex_lock(&s->lock);
}

static bool start(struct share *s, void (*run)(struct share *s))
{
    struct thread_arg *arg = ps_alloc(sizeof(*arg));
    bool ok;

    pthread_mutex_lock(&s->lock);
    PS_ASSERT(s->n_thread < ALL_THREADS_MAX);
    *arg = (struct thread_arg){s, s->n_thread, run};
    ok = pthread_create(&s->thread[s->n_thread], NULL, thread_main, arg) == 0;
    if (ok) {
        s->n_thread++;
        s->n_alive++;
    } else {
        ps_free(arg);
    }
    pthread_mutex_unlock(&s->lock);
    return ok;
}

/* Waits for the threads until then; true: all are joined. Otherwise s is theirs. */
static bool end_threads(struct share *s, uint32_t wait_ms)
{
    struct ps_clock real;
    uint64_t now_us, until_us;
    bool all_over;

    ps_clock_real(&real);
    until_us = ps_now_us(&real) + (uint64_t)wait_ms * 1000;
    pthread_mutex_lock(&s->lock);
    s->is_closing = true;
    for (uint32_t i = 0; i < s->n_slot; i++) {
        if (s->slot[i].io != NULL)
            atomic_store(&s->slot[i].io->cancelled, true);
    }
    pthread_cond_broadcast(&s->work);
    pthread_cond_broadcast(&s->timer);
    pthread_cond_broadcast(&s->rest);
    while (s->n_alive > 0 && (now_us = ps_now_us(&real)) < until_us)
        wait_us(s, &s->ended, until_us - now_us);
    while (s->n_posting > 0) /* these are in no call of the file system */
        pthread_cond_wait(&s->ended, &s->lock);
    all_over = s->n_alive == 0;
    s->is_abandoned = !all_over;
    for (uint32_t i = 0; i < s->n_thread && !all_over; i++)
        pthread_detach(s->thread[i]);
    pthread_mutex_unlock(&s->lock);
    for (uint32_t i = 0; i < s->n_thread && all_over; i++)
        pthread_join(s->thread[i], NULL);
    return all_over;
}

static int share_close(struct wk_tier *t, uint32_t wait_ms)
{
    struct share *s = share_of(t);
    struct queue out;

    pthread_mutex_lock(&s->lock);
    out = expire(s, true);
    pthread_mutex_unlock(&s->lock);
    post_cancelled(s, out);
    if (s->n_thread == 0) {
        PS_ASSERT(s->n_running == 0);
        wk_share_collect_destroy(s->collect);
        if (s->opening == IS_OPEN)
            wk_share_root_close(&s->root);
    } else if (!end_threads(s, wait_ms)) {
        return WK_TIER_E_BUSY;
    }
    free_share(s);
    return WK_TIER_OK;
}

/* ---- create ---- */

/* Returns after the directory answered; false: err says what it said, or that it did not. */
static bool start_threads(struct share *s, uint32_t n, struct ps_buf *err)
{
    struct ps_clock real;
    uint64_t now_us, until_us;
    enum opening opening;
    bool ok;

    ps_clock_real(&real);
    until_us = ps_now_us(&real) + OPEN_WAIT_MS * 1000;
    ok = start(s, collect_run);
    pthread_mutex_lock(&s->lock);
    while (ok && s->opening == NOT_OPEN && (now_us = ps_now_us(&real)) < until_us)
        wait_us(s, &s->ended, until_us - now_us);
    opening = s->opening;
    pthread_mutex_unlock(&s->lock);
    if (ok && opening == OPEN_FAILED)
        ps_buf_add(err, s->open_err.data, s->open_err.len);
    else if (ok && opening == NOT_OPEN)
        ps_buf_addf(err, "shared directory %s: does not answer", s->root.path);
    if (ok && opening != IS_OPEN)
        return false;
    ok = ok && start(s, timer_run);
    for (uint32_t i = 0; i < n && ok; i++)
        ok = start(s, io_run);
    if (!ok)
        ps_buf_addf(err, "shared directory %s: no thread can be started", s->root.path);
    return ok;
}

static const struct wk_tier_ops SHARE_OPS = {share_submit, share_cancel, share_pump, share_close};

static struct share *make_share(const struct wk_tier_share_conf *conf)
{
    struct share *s = ps_calloc(1, sizeof(*s));
    pthread_condattr_t attr;

    s->base.ops = &SHARE_OPS;
    s->base.name = "t3";
    s->base.inbox = conf->inbox;
    s->base.clock = conf->clock;
    s->base.part_run = wk_share_run_pages(&conf->ident);
    s->base.depth = DEPTH;
    s->n_slot = conf->n_threads == 0 ? THREADS_MAX : conf->n_threads;
    ps_buf_init(&s->open_err);
    pthread_mutex_init(&s->lock, NULL);
    pthread_condattr_init(&attr);
    PS_ASSERT(pthread_condattr_setclock(&attr, CLOCK_MONOTONIC) == 0);
    pthread_cond_init(&s->work, &attr);
    pthread_cond_init(&s->timer, &attr);
    pthread_cond_init(&s->rest, &attr);
    pthread_cond_init(&s->ended, &attr);
    pthread_condattr_destroy(&attr);
    return s;
}

int wk_tier_share_create(struct wk_tier **out, const struct wk_tier_share_conf *conf,
                         struct ps_buf *err)
{
    const struct wk_fs *fs = conf->fs != NULL ? conf->fs : wk_fs_real();
    struct share *s;
    bool ok;

    PS_ASSERT(conf->n_threads <= THREADS_MAX && conf->ident.n_group <= PS_ARRAY_LEN(s->root.shape));
    s = make_share(conf);
    if (!wk_share_root_init(&s->root, fs, conf->clock, conf->path, &conf->ident, err)) {
        free_share(s);
        return WK_TIER_E_CONF;
    }
    s->collect = wk_share_collect_create(&(struct wk_share_collect_conf){
        .root = &s->root,
        .bytes_max = conf->bytes_max,
        .keep_us = conf->keep_us,
    });
    if (conf->n_threads > 0) {
        ok = start_threads(s, conf->n_threads, err);
    } else {
        ok = wk_share_root_open(&s->root, err);
        s->opening = ok ? IS_OPEN : OPEN_FAILED;
    }
    if (!ok) {
        int r = share_close(&s->base, 0); /* busy: the thread that hangs frees it */

        PS_ASSERT(r == WK_TIER_OK || r == WK_TIER_E_BUSY);
        return WK_TIER_E_CONF;
    }
    *out = &s->base;
    return WK_TIER_OK;
}
