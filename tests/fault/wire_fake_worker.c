#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "tests/fault/wire_fake.h"

struct job {
    struct pb_submit *s; /* NULL: free */
    uint32_t at;
};

struct wire_worker {
    struct wk_link *link;
    struct wk_port port;
    struct ps_clock clock;
    struct ps_wake wake;
    struct ps_rng rng;
    struct wire_table *table;
    struct job jobs[WIRE_OPEN_MAX];
    uint32_t n_jobs, step_us;
    bool draining, drained_told;
    uint64_t tick;
    pthread_t thread;
    _Atomic bool stop, drained;
};

/* Until the link rings or the time is over. */
static void doze(struct wire_worker *w, uint32_t us)
{
    struct timespec ts = {.tv_sec = us / 1000000, .tv_nsec = (long)(us % 1000000) * 1000};
    struct pollfd p = {.fd = w->wake.fd, .events = POLLIN};

    ps_wake_arm(&w->wake);
    (void)ppoll(&p, 1, &ts, NULL);
    ps_wake_clear(&w->wake);
}

/* The ring holds many steps; if it is full for 30 s the I/O thread is stuck. */
static void push(struct wire_worker *w, const struct wk_out *o)
{
    bool taken = w->port.push(w->port.ud, o);

    for (int i = 0; i < 30000 && !taken; i++) {
        doze(w, 1000);
        taken = w->port.push(w->port.ud, o);
    }
    PS_ASSERT(taken);
}

static void set_entry(struct wire_worker *w, uint32_t handle, const struct pb_submit *s)
{
    struct wire_entry *e = &w->table->entries[handle];

    atomic_store(&e->used, 0);
    if (s == NULL)
        return;
    e->tag = s->chain_seed;
    e->req = s->req;
    e->attempt = s->attempt;
    atomic_store(&e->used, 1);
}

static void finish(struct wire_worker *w, uint32_t handle, enum pb_finish why)
{
    struct job *j = &w->jobs[handle];
    struct wk_out o = {.kind = WK_OUT_FINISHED, .handle = handle, .finish = why, .n_cached = 3};

    if (j->s->samp.n_prompt_top >= 0 && why != PB_FIN_CANCELLED) {
        o.n_prompt_scores = j->s->n_prompt;
        o.prompt_scores = ps_calloc(j->s->n_prompt, sizeof(*o.prompt_scores));
        for (uint32_t i = 0; i < j->s->n_prompt; i++)
            o.prompt_scores[i].rank = j->s->ids[i];
    }
    pb_submit_destroy(j->s);
    j->s = NULL;
    w->n_jobs--;
    set_entry(w, handle, NULL); /* before the end is told: nothing is run after it */
    push(w, &o);
}

static void open_job(struct wire_worker *w, const struct wk_in *in)
{
    struct pb_submit *s = in->submit;

    PS_ASSERT(in->handle < WIRE_OPEN_MAX && w->jobs[in->handle].s == NULL); /* L1 */
    for (uint32_t i = 0; i < s->n_prompt; i++)
        PS_ASSERT(s->ids[i] == wire_token(~s->samp.seed, i));
    for (uint32_t i = 0; i < s->n_done; i++)
        PS_ASSERT(s->ids[s->n_prompt + i] == wire_token(s->samp.seed, i));
    if (w->draining || ps_rng_below(&w->rng, 100) == 0) {
        struct wk_out o = {.kind = WK_OUT_REJECTED,
                           .handle = in->handle,
                           .reject = w->draining ? PB_REJ_DRAINING : PB_REJ_FULL};

        pb_submit_destroy(s);
        push(w, &o);
        return;
    }
    w->jobs[in->handle] = (struct job){s, s->n_done};
    w->n_jobs++;
    set_entry(w, in->handle, s);
}

static void take_in(struct wire_worker *w)
{
    struct wk_in in;

    while (w->port.pop(w->port.ud, &in)) {
        switch (in.kind) {
        case WK_IN_OPEN:
            open_job(w, &in);
            break;
        case WK_IN_CANCEL:
            if (w->jobs[in.handle].s != NULL) /* else its end is on the way */
                finish(w, in.handle, PB_FIN_CANCELLED);
            break;
        case WK_IN_DRAIN:
            w->draining = true;
            w->drained_told = false;
            break;
        case WK_IN_UNDRAIN:
            w->draining = false;
            break;
        case WK_IN_FLUSH:
            break;
        }
    }
}

static void emit(struct wire_worker *w, uint32_t handle)
{
    struct job *j = &w->jobs[handle];
    struct wk_out o = {.kind = WK_OUT_TOKEN, .handle = handle};

    o.token = wire_token(j->s->samp.seed, j->at);
    if (j->s->samp.n_top >= 0) {
        o.logprob = ps_calloc(1, sizeof(*o.logprob));
        o.logprob->rank = j->at;
        o.logprob->n_top = 2;
        o.logprob->top[1].id = o.token;
    }
    j->at++;
    push(w, &o);
}

static void step(struct wire_worker *w)
{
    struct pb_load load = {.n_running = w->n_jobs, .step_us_mean = w->step_us};
    struct wk_out end = {.kind = WK_OUT_STEP_END};

    for (uint32_t h = 0; h < WIRE_OPEN_MAX; h++) {
        struct job *j = &w->jobs[h];
        uint64_t n = 1 + ps_rng_below(&w->rng, 3);

        if (j->s == NULL)
            continue;
        while (n-- > 0 && j->at < j->s->max_tokens)
            emit(w, h);
        if (j->at == j->s->max_tokens)
            finish(w, h, PB_FIN_LENGTH);
    }
    push(w, &end);
    if (w->draining && w->n_jobs == 0 && !w->drained_told) {
        struct wk_out o = {.kind = WK_OUT_DRAINED};

        push(w, &o);
        w->drained_told = true;
        atomic_store(&w->drained, true);
    }
    atomic_store(&w->table->n_open, w->n_jobs);
    w->port.set_load(w->port.ud, &load, ++w->tick);
}

static void *worker_main(void *ud)
{
    struct wire_worker *w = ud;

    while (!atomic_load(&w->stop)) {
        take_in(w);
        step(w);
        doze(w, w->step_us);
    }
    return NULL;
}

struct wire_worker *wire_worker_start(const struct wire_worker_conf *c)
{
    struct wire_worker *w = ps_calloc(1, sizeof(*w));
    struct timespec ts;
    struct wk_link_conf conf = {
        .routers = c->routers,
        .n_routers = c->n_routers,
        .n_attempts_max = WIRE_OPEN_MAX,
        .curve_secret_file = c->secret_file,
        .curve_server_key_file = c->server_key_file,
        .inject = c->inject,
        .info = {.uid = c->uid,
                 .space_id = 7,
                 .arith_id = 8,
                 .model = "fake",
                 .device = "none",
                 .dtype = "f32",
                 .context = WIRE_CONTEXT,
                 .n_vocab = WIRE_VOCAB},
    };

    clock_gettime(CLOCK_REALTIME, &ts);
    conf.info.incarnation = (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
    ps_clock_real(&w->clock);
    ps_rng_seed(&w->rng, conf.info.incarnation);
    w->table = wire_table_open(c->table_path);
    w->step_us = c->step_us;
    PS_ASSERT(ps_wake_init(&w->wake) == 0);
    PS_ASSERT(wk_link_create(&w->link, &conf, &w->clock, &w->wake) == 0);
    w->port = wk_link_port(w->link);
    PS_ASSERT(wk_link_start(w->link) == 0);
    PS_ASSERT(pthread_create(&w->thread, NULL, worker_main, w) == 0);
    return w;
}

void wire_worker_stop(struct wire_worker *w, bool empty)
{
    atomic_store(&w->stop, true);
    pthread_join(w->thread, NULL);
    PS_ASSERT(!empty || w->n_jobs == 0);
    wk_link_stop(w->link);
    wk_link_destroy(w->link);
    for (uint32_t h = 0; h < WIRE_OPEN_MAX; h++)
        pb_submit_destroy(w->jobs[h].s);
    ps_wake_fini(&w->wake);
    ps_free(w);
}

uint32_t wire_worker_n_joined(struct wire_worker *w)
{
    return wk_link_n_joined(w->link);
}

bool wire_worker_idle(struct wire_worker *w)
{
    return wk_link_idle(w->link);
}

bool wire_worker_drained(struct wire_worker *w)
{
    return atomic_load(&w->drained);
}

struct wire_table *wire_worker_table(struct wire_worker *w)
{
    return w->table;
}
