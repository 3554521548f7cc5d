#include "router/request/text.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/prctl.h>

#include "common/log.h"
#include "common/ring.h"
#include "router/router.h"

enum { N_THREADS_MAX = 4, RING_JOBS = 256, SLEEP_MAX_MS = 1000 };

struct lane { /* between one loop and its pool thread */
    struct ps_ring *todo, *finished;
    uint32_t
        n_open; /* of the loop: jobs that have not come back; keeps `finished` from overflowing */
    struct rt_loop *loop;
};

struct worker {
    struct rt_text *text;
    uint32_t index;
    struct ps_wake wake;
    pthread_t thread;
    bool started;
};

struct rt_text {
    struct rt_router *router;
    struct lane *lanes; /* [n_loops] */
    uint32_t n_lanes;
    struct worker workers[N_THREADS_MAX];
    uint32_t n_workers;
    _Atomic bool stop;
};

/* One job of the worker's lanes; false when there is none. */
static bool work_once(struct worker *w, struct ps_tok_ctx *tok)
{
    struct rt_text *t = w->text;
    bool any = false;

    for (uint32_t i = w->index; i < t->n_lanes && !atomic_load(&t->stop); i += t->n_workers) {
        struct lane *lane = &t->lanes[i];
        struct rt_text_job *job;

        if (ps_ring_pop(lane->todo, &job) != PS_RING_OK)
            continue;
        job->run(job, tok);
        PS_ASSERT(ps_ring_push(lane->finished, &job) == PS_RING_OK);
        ps_wake_ring(&lane->loop->wake);
        any = true;
    }
    return any;
}

static void *thread_main(void *ud)
{
    struct worker *w = ud;
    struct ps_tok_ctx *tok = ps_tok_ctx_create(w->text->router->model.tok);
    struct pollfd p = {.fd = w->wake.fd, .events = POLLIN};
    char name[16];

    (void)snprintf(name, sizeof(name), "text-%u", w->index);
    (void)prctl(PR_SET_NAME, name);
    while (!atomic_load(&w->text->stop)) {
        if (work_once(w, tok))
            continue;
        ps_wake_arm(&w->wake);
        if (!work_once(w, tok) && !atomic_load(&w->text->stop))
            (void)poll(&p, 1, SLEEP_MAX_MS); /* an interrupted wait is a short one */
        ps_wake_clear(&w->wake);
    }
    ps_tok_ctx_destroy(tok);
    return NULL;
}

struct rt_text *rt_text_create(struct rt_router *r)
{
    struct rt_text *t = ps_calloc(1, sizeof(*t));
    int rc = 0;

    PS_ASSERT(r->n_loops > 0);
    t->router = r;
    t->n_lanes = r->n_loops;
    t->lanes = ps_calloc(t->n_lanes, sizeof(t->lanes[0]));
    for (uint32_t i = 0; i < t->n_lanes; i++) {
        t->lanes[i].todo = ps_ring_create(RING_JOBS, sizeof(struct rt_text_job *));
        t->lanes[i].finished = ps_ring_create(RING_JOBS, sizeof(struct rt_text_job *));
    }
    t->n_workers = ps_min_u32(t->n_lanes, N_THREADS_MAX);
    for (uint32_t i = 0; i < t->n_workers && rc == 0; i++) {
        struct worker *w = &t->workers[i];

        w->text = t;
        w->index = i;
        rc = ps_wake_init(&w->wake);
        if (rc == 0)
            rc = -pthread_create(&w->thread, NULL, thread_main, w);
        w->started = rc == 0;
    }
    if (rc != 0) { /* everything then runs on the loops */
        ps_error("the text pool cannot be started", "errno=%d", -rc);
        rt_text_destroy(t);
        return NULL;
    }
    return t;
}

void rt_text_destroy(struct rt_text *t)
{
    struct rt_text_job *job;

    if (t == NULL)
        return;
    atomic_store(&t->stop, true);
    for (uint32_t i = 0; i < t->n_workers; i++) {
        if (!t->workers[i].started)
            continue;
        ps_wake_ring(&t->workers[i].wake);
        (void)pthread_join(t->workers[i].thread, NULL);
        ps_wake_fini(&t->workers[i].wake);
    }
    for (uint32_t i = 0; i < t->n_lanes; i++) {
        while (ps_ring_pop(t->lanes[i].finished, &job) == PS_RING_OK)
            job->done(job, false);
        while (ps_ring_pop(t->lanes[i].todo, &job) == PS_RING_OK)
            job->done(job, false);
        ps_ring_destroy(t->lanes[i].todo);
        ps_ring_destroy(t->lanes[i].finished);
    }
    ps_free(t->lanes);
    ps_free(t);
}

int rt_text_submit(struct rt_loop *l, struct rt_text_job *j, size_t n_bytes)
{
    struct rt_text *t = l->router->text;
    struct lane *lane;

    if (n_bytes <= RT_TEXT_INLINE_BYTES || t == NULL) {
        j->run(j, l->tok_ctx);
        j->done(j, true);
        return RT_TEXT_OK;
    }
    PS_ASSERT(l->index < t->n_lanes);
    lane = &t->lanes[l->index];
    if (lane->loop == NULL)
        lane->loop = l; /* once, before the first push publishes it to the pool's thread */
    if (lane->n_open == RING_JOBS || ps_ring_push(lane->todo, &j) != PS_RING_OK)
        return RT_TEXT_E_FULL;
    lane->n_open++;
    ps_wake_ring(&t->workers[l->index % t->n_workers].wake);
    return RT_TEXT_OK;
}

void rt_text_tick(struct rt_loop *l)
{
    struct rt_text *t = l->router->text;
    struct rt_text_job *job;
    struct lane *lane;

    if (t == NULL)
        return;
    lane = &t->lanes[l->index];
    while (ps_ring_pop(lane->finished, &job) == PS_RING_OK) {
        PS_ASSERT(lane->n_open > 0);
        lane->n_open--;
        job->done(job, true);
    }
}
