#include "common/net/loop.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>

#include <uv.h>

#include "common/net/turn.h"

struct ps_loop {
    uv_loop_t uv;
    uv_prepare_t prepare;
    uv_idle_t idle; /* active = do not block */
    uv_async_t wake;
    uv_timer_t coarse;
    struct ps_turn *turns;
    ps_loop_fn tick;
    void *tick_ud;
    atomic_bool stop_asked;
};

struct watch { /* a descriptor or a signal; lives as long as its loop */
    union {
        uv_handle_t any;
        uv_poll_t poll;
        uv_signal_t sig;
    } h;
    ps_loop_fn fn;
    void *ud;
};

struct ps_timer {
    uv_timer_t uv;
    ps_loop_fn fn;
    void *ud;
};

/*
 * Before any loop of the process. libuv 1.45-1.48 opens a polling io_uring per loop unless told not
 * to, and writes to sockets without MSG_NOSIGNAL.
 */
static void process_once(void)
{
    struct sigaction ignore = {.sa_handler = SIG_IGN};

    setenv("UV_USE_IO_URING", "0", 0);
    sigaction(SIGPIPE, &ignore, NULL);
}

static void run_turn(struct ps_loop *l)
{
    uv_idle_stop(&l->idle);
    for (struct ps_turn *t = l->turns; t != NULL; t = t->next)
        t->before(t->ud);
    if (l->tick != NULL)
        l->tick(l->tick_ud);
    for (struct ps_turn *t = l->turns; t != NULL; t = t->next)
        t->after(t->ud);
}

static void on_prepare(uv_prepare_t *h)
{
    run_turn(h->data);
}

static void on_idle(uv_idle_t *h)
{
    (void)h; /* an active idle handle makes the poll timeout 0, that is all it is for */
}

static void on_wake(uv_async_t *h)
{
    struct ps_loop *l = h->data;

    if (atomic_load(&l->stop_asked))
        uv_stop(&l->uv);
}

static void on_coarse(uv_timer_t *h)
{
    struct ps_loop *l = h->data;

    for (struct ps_turn *t = l->turns; t != NULL; t = t->next)
        t->coarse(t->ud);
}

int ps_loop_create(struct ps_loop **out)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    struct ps_loop *l;
    int r;

    pthread_once(&once, process_once);
    l = ps_calloc(1, sizeof(*l));
    r = uv_loop_init(&l->uv);
    if (r < 0) {
        ps_free(l);
        return PS_FAULT(r);
    }
    r = uv_async_init(&l->uv, &l->wake, on_wake);
    if (r < 0) {
        PS_ASSERT(uv_loop_close(&l->uv) == 0);
        ps_free(l);
        return PS_FAULT(r);
    }
    uv_prepare_init(&l->uv, &l->prepare);
    uv_idle_init(&l->uv, &l->idle);
    uv_timer_init(&l->uv, &l->coarse);
    l->wake.data = l->prepare.data = l->idle.data = l->coarse.data = l;
    uv_prepare_start(&l->prepare, on_prepare);
    uv_timer_start(&l->coarse, on_coarse, PS_COARSE_MS, PS_COARSE_MS);
    *out = l;
    return 0;
}

static void on_watch_closed(uv_handle_t *h)
{
    ps_free(PS_CONTAINER(h, struct watch, h));
}

static void on_timer_closed(uv_handle_t *h)
{
    ps_free(PS_CONTAINER(h, struct ps_timer, uv));
}

static void close_left_open(uv_handle_t *h, void *ud)
{
    struct ps_loop *l = ud;
    bool own = h->data == l;

    if (uv_is_closing(h))
        return;
    if (own)
        uv_close(h, NULL);
    else if (h->type == UV_TIMER)
        uv_close(h, on_timer_closed);
    else {
        PS_ASSERT(h->type == UV_POLL || h->type == UV_SIGNAL); /* anything else outlives its loop */
        uv_close(h, on_watch_closed);
    }
}

void ps_loop_destroy(struct ps_loop *l)
{
    if (l == NULL)
        return;
    PS_ASSERT(l->turns == NULL); /* servers go first */
    uv_walk(&l->uv, close_left_open, l);
    uv_run(&l->uv, UV_RUN_DEFAULT); /* runs the close callbacks, then nothing keeps it alive */
    PS_ASSERT(uv_loop_close(&l->uv) == 0);
    ps_free(l);
}

void ps_loop_run(struct ps_loop *l)
{
    while (!atomic_load(&l->stop_asked))
        uv_run(&l->uv, UV_RUN_DEFAULT);
    /* The turn that was stopped still owes the tick and the writes of its last callbacks. */
    run_turn(l);
    atomic_store(&l->stop_asked, false);
}

void ps_loop_stop(struct ps_loop *l)
{
    atomic_store(&l->stop_asked, true);
    uv_async_send(&l->wake);
}

void ps_loop_on_tick(struct ps_loop *l, ps_loop_fn fn, void *ud)
{
    l->tick = fn;
    l->tick_ud = ud;
}

static void on_readable(uv_poll_t *h, int status, int events)
{
    struct watch *w = PS_CONTAINER(h, struct watch, h);

    (void)status; /* an error is readable too: the read finds it */
    (void)events;
    w->fn(w->ud);
}

int ps_loop_watch(struct ps_loop *l, int fd, ps_loop_fn fn, void *ud)
{
    struct watch *w = ps_calloc(1, sizeof(*w));
    int r;

    w->fn = fn;
    w->ud = ud;
    r = uv_poll_init(&l->uv, &w->h.poll, fd);
    if (r < 0) {
        ps_free(w);
        return PS_FAULT(r);
    }
    r = uv_poll_start(&w->h.poll, UV_READABLE, on_readable);
    if (r < 0) {
        uv_close(&w->h.any, on_watch_closed);
        return PS_FAULT(r);
    }
    return 0;
}

static void on_signal(uv_signal_t *h, int signo)
{
    struct watch *w = PS_CONTAINER(h, struct watch, h);

    (void)signo;
    w->fn(w->ud);
}

int ps_loop_on_signal(struct ps_loop *l, int signo, ps_loop_fn fn, void *ud)
{
    struct watch *w = ps_calloc(1, sizeof(*w));
    int r;

    w->fn = fn;
    w->ud = ud;
    r = uv_signal_init(&l->uv, &w->h.sig);
    if (r < 0) {
        ps_free(w);
        return PS_FAULT(r);
    }
    r = uv_signal_start(&w->h.sig, on_signal, signo);
    if (r < 0) {
        uv_close(&w->h.any, on_watch_closed);
        return PS_FAULT(r);
    }
    return 0;
}

struct ps_timer *ps_timer_create(struct ps_loop *l, ps_loop_fn fn, void *ud)
{
    struct ps_timer *t = ps_calloc(1, sizeof(*t));

    t->fn = fn;
    t->ud = ud;
    uv_timer_init(&l->uv, &t->uv);
    return t;
}

static void on_timer(uv_timer_t *h)
{
    struct ps_timer *t = PS_CONTAINER(h, struct ps_timer, uv);

    t->fn(t->ud);
}

void ps_timer_start(struct ps_timer *t, uint64_t delay_ms, uint64_t repeat_ms)
{
    /* The loop's time stands still while callbacks run; without this a delay would be cut short. */
    uv_update_time(t->uv.loop);
    uv_timer_start(&t->uv, on_timer, delay_ms, repeat_ms);
}

void ps_timer_stop(struct ps_timer *t)
{
    uv_timer_stop(&t->uv);
}

void ps_timer_destroy(struct ps_timer *t)
{
    if (t == NULL)
        return;
    uv_close((uv_handle_t *)&t->uv, on_timer_closed);
}

uv_loop_t *ps_loop_uv(struct ps_loop *l)
{
    return &l->uv;
}

void ps_turn_add(struct ps_loop *l, struct ps_turn *t)
{
    t->next = l->turns;
    l->turns = t;
}

void ps_turn_remove(struct ps_loop *l, struct ps_turn *t)
{
    struct ps_turn **at = &l->turns;

    while (*at != t)
        at = &(*at)->next;
    *at = t->next;
}

void ps_turn_again(struct ps_loop *l)
{
    uv_idle_start(&l->idle, on_idle);
}
