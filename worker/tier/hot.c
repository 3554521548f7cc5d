#include "worker/tier/hot.h"

#include <stdatomic.h>
#include <sys/prctl.h>

/* Moves of 16 pages: enough to keep one thread busy from tick to tick, few enough that an urgent one
 * waits for little. */
enum { DEPTH = 64 };

struct tier_hot {
    struct wk_tier base;
    struct wk_tier_hot_conf conf;
    uint8_t *scratch; /* one raw item, for formats that are not raw */
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct {
        struct wk_tier_io *first, *last;
    } queue[2]; /* [urgent] */
    uint32_t n_queued;
    bool quit;
};

static struct tier_hot *of(struct wk_tier *t)
{
    return PS_CONTAINER(t, struct tier_hot, base);
}

static enum wk_tier_status read_part(struct tier_hot *h, const struct wk_tier_part *p)
{
    struct wk_exec *e = h->conf.exec;
    uint32_t g = p->key.group;

    if (wk_kv_format_is_exact(h->conf.format))
        return e->ops->kv_read(e, g, p->slot, p->buf) == 0 ? WK_TIER_DONE : WK_TIER_FAULT;
    if (e->ops->kv_read(e, g, p->slot, h->scratch) != 0)
        return WK_TIER_FAULT;
    return wk_kv_format_encode(h->conf.format, g, h->scratch, p->buf) == WK_FORMAT_OK
               ? WK_TIER_DONE
               : WK_TIER_FAULT;
}

static enum wk_tier_status write_part(struct tier_hot *h, const struct wk_tier_part *p)
{
    struct wk_exec *e = h->conf.exec;
    const uint8_t *raw = p->buf;

    if (!wk_kv_format_is_exact(h->conf.format)) {
        wk_kv_format_decode(h->conf.format, p->key.group, p->buf, h->scratch);
        raw = h->scratch;
    }
    return e->ops->kv_write(e, p->key.group, p->slot, raw) == 0 ? WK_TIER_DONE : WK_TIER_FAULT;
}

static void run(struct tier_hot *h, struct wk_tier_io *io)
{
    io->begin_us = ps_now_us(h->base.clock);
    for (uint32_t i = 0; i < io->n_part; i++) {
        struct wk_tier_part *p = &io->part[i];

        p->status = atomic_load(&io->cancelled) ? WK_TIER_CANCELLED
                    : io->op == WK_TIER_GET     ? read_part(h, p)
                                                : write_part(h, p);
    }
    io->end_us = ps_now_us(h->base.clock);
    wk_tier_post(h->base.inbox, io);
}

static struct wk_tier_io *pop(struct tier_hot *h)
{
    for (uint32_t urgent = 2; urgent-- > 0;) {
        struct wk_tier_io *io = h->queue[urgent].first;

        if (io == NULL)
            continue;
        h->queue[urgent].first = io->next;
        io->next = NULL;
        h->n_queued--;
        return io;
    }
    return NULL;
}

static void *thread_main(void *ud)
{
    struct tier_hot *h = ud;

    (void)prctl(PR_SET_NAME, "kv-copy");
    (void)pthread_mutex_lock(&h->lock);
    for (;;) {
        struct wk_tier_io *io = pop(h);

        if (io != NULL) {
            (void)pthread_mutex_unlock(&h->lock);
            run(h, io);
            (void)pthread_mutex_lock(&h->lock);
        } else if (h->quit) {
            break;
        } else {
            (void)pthread_cond_wait(&h->wake, &h->lock);
        }
    }
    (void)pthread_mutex_unlock(&h->lock);
    return NULL;
}

static int submit(struct wk_tier *t, struct wk_tier_io *io)
{
    struct tier_hot *h = of(t);
    int r = WK_TIER_E_FULL;

    PS_ASSERT(io->op == WK_TIER_GET || io->op == WK_TIER_PUT);
    (void)pthread_mutex_lock(&h->lock);
    if (h->n_queued < DEPTH) {
        io->tier = t;
        io->next = NULL;
        if (h->queue[io->urgent].first == NULL)
            h->queue[io->urgent].first = io;
        else
            h->queue[io->urgent].last->next = io;
        h->queue[io->urgent].last = io;
        h->n_queued++;
        (void)pthread_cond_signal(&h->wake);
        r = WK_TIER_OK;
    }
    (void)pthread_mutex_unlock(&h->lock);
    return r;
}

static void cancel(struct wk_tier *t, struct wk_tier_io *io)
{
    PS_ASSERT(io->tier == t);
    atomic_store(&io->cancelled, true);
}

static uint32_t pump(struct wk_tier *t, uint32_t n)
{
    struct tier_hot *h = of(t);
    struct wk_tier_io *io;
    uint32_t n_done = 0;

    PS_ASSERT(h->conf.no_thread);
    while (n_done < n && (io = pop(h)) != NULL) {
        run(h, io);
        n_done++;
    }
    return n_done;
}

static void free_tier(struct tier_hot *h)
{
    (void)pthread_mutex_destroy(&h->lock);
    (void)pthread_cond_destroy(&h->wake);
    ps_free(h->scratch);
    ps_free(h);
}

static int close_tier(struct wk_tier *t, uint32_t wait_ms)
{
    struct tier_hot *h = of(t);

    (void)wait_ms; /* copies of memory end by themselves */
    if (h->conf.no_thread) {
        (void)pump(t, DEPTH);
    } else {
        (void)pthread_mutex_lock(&h->lock);
        h->quit = true;
        (void)pthread_cond_signal(&h->wake);
        (void)pthread_mutex_unlock(&h->lock);
        (void)pthread_join(h->thread, NULL);
    }
    free_tier(h);
    return WK_TIER_OK;
}

static const struct wk_tier_ops ops = {
    .submit = submit, .cancel = cancel, .pump = pump, .close = close_tier};

struct wk_tier *wk_tier_hot_create(const struct wk_tier_hot_conf *conf)
{
    struct tier_hot *h = ps_calloc(1, sizeof(*h));
    uint32_t bytes = 0;

    h->conf = *conf;
    h->base = (struct wk_tier){.ops = &ops,
                               .name = "t0",
                               .inbox = conf->inbox,
                               .clock = conf->clock,
                               .part_run = 1,
                               .depth = DEPTH};
    for (uint32_t g = 0; g < conf->layout->n_group; g++)
        bytes = ps_max_u32(bytes, conf->layout->group[g].item_bytes);
    h->scratch = ps_alloc_aligned(4096, bytes);
    (void)pthread_mutex_init(&h->lock, NULL);
    (void)pthread_cond_init(&h->wake, NULL);
    if (!conf->no_thread && pthread_create(&h->thread, NULL, thread_main, h) != 0) {
        free_tier(h);
        return NULL;
    }
    return &h->base;
}
