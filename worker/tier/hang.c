#include "worker/tier/hang.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

enum { TURN_US = 10 * 1000 }; /* how late the end of a hang may be noticed */

struct tier_hang {
    struct wk_tier base;
    struct wk_tier *real;
    uint64_t from_us, until_us; /* until 0: for ever */
    pthread_t thread;
    pthread_mutex_t lock;
    struct wk_tier_io *first, *last;
    uint32_t n_held;
    bool quit;
};

static struct tier_hang *of(struct wk_tier *t)
{
    return PS_CONTAINER(t, struct tier_hang, base);
}

static bool hangs(const struct tier_hang *h)
{
    uint64_t now = ps_now_us(h->base.clock);

    return now >= h->from_us && (h->until_us == 0 || now < h->until_us);
}

/* Lets go, in order, what was held; what the real tier has no room for yet stays. */
static void let_go(struct tier_hang *h)
{
    while (h->first != NULL && !hangs(h)) {
        struct wk_tier_io *io = h->first, *next = io->next;

        if (h->real->ops->submit(h->real, io) != WK_TIER_OK)
            return;
        h->first = next;
        h->n_held--;
    }
}

static void *thread_main(void *ud)
{
    struct tier_hang *h = ud;
    const struct timespec turn = {.tv_nsec = TURN_US * 1000};
    bool quit = false;

    while (!quit) {
        (void)nanosleep(&turn, NULL);
        (void)pthread_mutex_lock(&h->lock);
        let_go(h);
        quit = h->quit;
        (void)pthread_mutex_unlock(&h->lock);
    }
    return NULL;
}

static int submit(struct wk_tier *t, struct wk_tier_io *io)
{
    struct tier_hang *h = of(t);
    int r;

    (void)pthread_mutex_lock(&h->lock);
    if (h->first == NULL && !hangs(h)) {
        r = h->real->ops->submit(h->real, io);
    } else if (h->n_held < h->base.depth) {
        io->next = NULL;
        if (h->first == NULL)
            h->first = io;
        else
            h->last->next = io;
        h->last = io;
        h->n_held++;
        r = WK_TIER_OK;
    } else {
        r = WK_TIER_E_FULL;
    }
    (void)pthread_mutex_unlock(&h->lock);
    return r;
}

static void cancel(struct wk_tier *t, struct wk_tier_io *io)
{
    (void)t;
    atomic_store(&io->cancelled, true);
}

static int close_tier(struct wk_tier *t, uint32_t wait_ms)
{
    struct tier_hang *h = of(t);
    int r;

    (void)pthread_mutex_lock(&h->lock);
    h->quit = true;
    (void)pthread_mutex_unlock(&h->lock);
    (void)pthread_join(h->thread, NULL);
    if (h->first != NULL)
        return WK_TIER_E_BUSY;
    r = h->real->ops->close(h->real, wait_ms);
    (void)pthread_mutex_destroy(&h->lock);
    ps_free(h);
    return r;
}

static const struct wk_tier_ops ops = {.submit = submit, .cancel = cancel, .close = close_tier};

struct wk_tier *wk_tier_hang_create(struct wk_tier *move_t, uint64_t at_us, uint64_t for_us)
{
    struct tier_hang *h = ps_calloc(1, sizeof(*h));

    h->base = *move_t;
    h->base.ops = &ops;
    h->real = move_t;
    h->from_us = ps_now_us(move_t->clock) + at_us;
    h->until_us = for_us > 0 ? h->from_us + for_us : 0;
    (void)pthread_mutex_init(&h->lock, NULL);
    PS_ASSERT(pthread_create(&h->thread, NULL, thread_main, h) == 0);
    return &h->base;
}

bool wk_tier_hang_parse(const char *text, uint64_t *out_at_us, uint64_t *out_for_us)
{
    char *end;
    double at = strtod(text, &end), len;

    if (end == text || *end != ':' || !(at >= 0) || at > 1e6)
        return false;
    text = end + 1;
    len = strtod(text, &end);
    if (end == text || *end != '\0' || !(len >= 0) || len > 1e6)
        return false;
    *out_at_us = (uint64_t)(at * 1e6);
    *out_for_us = (uint64_t)(len * 1e6);
    return true;
}
