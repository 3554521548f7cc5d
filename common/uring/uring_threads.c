/*
 * The ring where io_uring is refused: a few threads that call preadv and pwritev. Four keep an NVMe
 * drive's queue from running dry with reads of a MiB, and more would compete with the operators for
 * the processors.
 */

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <time.h>

#include "common/uring/uring_int.h"

enum { THREADS_MAX = 4 };

struct item {
    struct ps_uring_op op;
    int32_t res;
};

/* Queues are circular and hold depth items each; an item moves from todo over a thread to over. */
struct queue {
    struct item *items;
    uint32_t first, n;
};

struct pool {
    struct ps_uring u;
    pthread_mutex_t lock;
    pthread_cond_t has_work, has_news;
    struct queue todo, over;
    bool poked, stopping;
    uint32_t n_threads;
    pthread_t threads[THREADS_MAX];
};

static void queue_push(struct queue *q, uint32_t cap, const struct item *it)
{
    PS_ASSERT(q->n < cap);
    q->items[(q->first + q->n) % cap] = *it;
    q->n++;
}

static struct item queue_pop(struct queue *q, uint32_t cap)
{
    struct item it = q->items[q->first];

    PS_ASSERT(q->n > 0);
    q->first = (q->first + 1) % cap;
    q->n--;
    return it;
}

static int32_t run(const struct ps_uring_op *op)
{
    ssize_t n;

    do {
        if (op->dir == PS_URING_READ)
            n = preadv(op->fd, op->iov, (int)op->n_iov, (off_t)op->offset);
        else
            n = pwritev(op->fd, op->iov, (int)op->n_iov, (off_t)op->offset);
    } while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : (int32_t)n; /* the kernel moves less than 2 GiB in one call */
}

static void *thread_main(void *ud)
{
    struct pool *p = ud;

    (void)pthread_setname_np(pthread_self(), "disk-io");
    pthread_mutex_lock(&p->lock);
    for (;;) {
        struct item it;

        while (p->todo.n == 0 && !p->stopping)
            pthread_cond_wait(&p->has_work, &p->lock);
        if (p->todo.n == 0)
            break;
        it = queue_pop(&p->todo, p->u.depth);
        pthread_mutex_unlock(&p->lock);
        it.res = run(&it.op);
        pthread_mutex_lock(&p->lock);
        queue_push(&p->over, p->u.depth, &it);
        pthread_cond_signal(&p->has_news);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

static void pool_submit(struct ps_uring *u, const struct ps_uring_op *op)
{
    struct pool *p = PS_CONTAINER(u, struct pool, u);
    struct item it = {*op, 0};

    pthread_mutex_lock(&p->lock);
    queue_push(&p->todo, u->depth, &it);
    pthread_cond_signal(&p->has_work);
    pthread_mutex_unlock(&p->lock);
}

static uint32_t pool_wait(struct ps_uring *u, uint32_t wait_ms, struct ps_uring_done *out,
                          uint32_t n)
{
    struct pool *p = PS_CONTAINER(u, struct pool, u);
    uint64_t until_ms = ps_uring_now_ms() + wait_ms;
    struct timespec until = {(time_t)(until_ms / 1000), (long)(until_ms % 1000) * 1000000};
    uint32_t n_out = 0;
    int e = 0;

    pthread_mutex_lock(&p->lock);
    while (wait_ms > 0 && e == 0 && p->over.n == 0 && !p->poked)
        e = pthread_cond_timedwait(&p->has_news, &p->lock, &until);
    p->poked = false;
    while (n_out < n && p->over.n > 0) {
        struct item it = queue_pop(&p->over, u->depth);

        out[n_out++] = (struct ps_uring_done){it.op.ud, it.res};
    }
    pthread_mutex_unlock(&p->lock);
    return n_out;
}

static void pool_poke(struct ps_uring *u)
{
    struct pool *p = PS_CONTAINER(u, struct pool, u);

    pthread_mutex_lock(&p->lock);
    p->poked = true;
    pthread_cond_signal(&p->has_news);
    pthread_mutex_unlock(&p->lock);
}

static void pool_free(struct ps_uring *u)
{
    struct pool *p = PS_CONTAINER(u, struct pool, u);

    pthread_mutex_lock(&p->lock);
    PS_ASSERT(p->todo.n == 0);
    p->stopping = true;
    pthread_cond_broadcast(&p->has_work);
    pthread_mutex_unlock(&p->lock);
    for (uint32_t i = 0; i < p->n_threads; i++)
        (void)pthread_join(p->threads[i], NULL);
    pthread_cond_destroy(&p->has_work);
    pthread_cond_destroy(&p->has_news);
    pthread_mutex_destroy(&p->lock);
    ps_free(p->todo.items);
    ps_free(p->over.items);
    ps_free(p);
}

static const struct ps_uring_verbs pool_verbs = {
    .name = "threads",
    .submit = pool_submit,
    .wait = pool_wait,
    .poke = pool_poke,
    .free = pool_free,
};

int ps_uring_threads_create(struct ps_uring **out, uint32_t depth)
{
    struct pool *p = ps_calloc(1, sizeof(*p));
    pthread_condattr_t monotonic;
    sigset_t all, old;
    int e = 0;

    p->u = (struct ps_uring){&pool_verbs, depth, 0};
    p->todo.items = ps_calloc(depth, sizeof(struct item));
    p->over.items = ps_calloc(depth, sizeof(struct item));
    pthread_mutex_init(&p->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&p->has_work, NULL);
    pthread_cond_init(&p->has_news, &monotonic);
    pthread_condattr_destroy(&monotonic);
    sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &old); /* signals are for the program's own threads */
    while (p->n_threads < ps_min_u32(depth, THREADS_MAX)) {
        e = pthread_create(&p->threads[p->n_threads], NULL, thread_main, p);
        if (e != 0)
            break;
        p->n_threads++;
    }
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (p->n_threads == 0) {
        pool_free(&p->u);
        return PS_FAULT(-e);
    }
    *out = &p->u;
    return PS_URING_OK;
}
