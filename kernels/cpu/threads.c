#include "kernels/cpu/threads.h"

#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kernels/fp.h"

/* A counter to wait on. Sleepers are counted so that a wake without any costs no system call. */
struct gate {
    _Atomic uint32_t turn;
    _Atomic uint32_t n_sleep;
    char pad[PS_CACHE_LINE - 2 * sizeof(uint32_t)];
};

struct worker {
    struct kn_pool *pool;
    pthread_t thread;
    uint32_t tid;
};

struct kn_pool {
    struct gate job, barrier;
    _Atomic uint32_t n_arrived;
    uint32_t n, n_started, spin;
    kn_job_fn fn; /* NULL: leave */
    void *ud;
    struct worker *workers;
};

/* A waiter counts itself before it looks again, a waker turns before it looks at the count: one of
 * the two sees the other. */
static void gate_wait(struct gate *g, uint32_t seen, uint32_t spin)
{
    for (uint32_t i = 0; i < spin; i++) {
        if (atomic_load_explicit(&g->turn, memory_order_acquire) != seen)
            return;
        _mm_pause();
    }
    atomic_fetch_add(&g->n_sleep, 1);
    while (atomic_load(&g->turn) == seen)
        (void)syscall(SYS_futex, &g->turn, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
    atomic_fetch_sub(&g->n_sleep, 1);
}

static void gate_turn(struct gate *g)
{
    atomic_fetch_add(&g->turn, 1);
    if (atomic_load(&g->n_sleep) > 0)
        (void)syscall(SYS_futex, &g->turn, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

void kn_pool_barrier(struct kn_pool *p)
{
    uint32_t seen = atomic_load(&p->barrier.turn);

    if (p->n == 1)
        return;
    if (atomic_fetch_add(&p->n_arrived, 1) + 1 == p->n) {
        atomic_store(&p->n_arrived, 0);
        gate_turn(&p->barrier);
    } else {
        gate_wait(&p->barrier, seen, p->spin);
    }
}

static void *worker_main(void *ud)
{
    struct worker *w = ud;
    struct kn_pool *p = w->pool;

    (void)kn_fp_enter();
    for (uint32_t seen = 0;; seen++) {
        gate_wait(&p->job, seen, p->spin);
        if (p->fn == NULL)
            return NULL;
        p->fn(p->ud, w->tid);
        kn_pool_barrier(p);
    }
}

void kn_pool_run(struct kn_pool *p, kn_job_fn fn, void *ud)
{
    PS_ASSERT(fn != NULL);
    if (p->n > 1) {
        p->fn = fn;
        p->ud = ud;
        gate_turn(&p->job);
    }
    fn(ud, 0);
    kn_pool_barrier(p);
}

uint32_t kn_pool_size(const struct kn_pool *p)
{
    return p->n;
}

static int start(struct kn_pool *p, uint32_t tid)
{
    struct worker *w = &p->workers[tid];
    char name[16];
    int r;

    w->pool = p;
    w->tid = tid;
    r = pthread_create(&w->thread, NULL, worker_main, w);
    if (r != 0)
        return PS_FAULT(-r);
    p->n_started++;
    (void)snprintf(name, sizeof name, "kn-%u", tid);
    (void)pthread_setname_np(w->thread, name);
    return 0;
}

int kn_pool_create(struct kn_pool **out, uint32_t n_threads)
{
    struct kn_pool *p;
    sigset_t all, old;
    cpu_set_t cpus;
    int r = 0;

    PS_ASSERT(n_threads >= 1 && n_threads <= KN_POOL_MAX);
    p = ps_alloc_aligned(PS_CACHE_LINE, sizeof *p);
    *p = (struct kn_pool){.n = n_threads};
    p->workers = ps_calloc(n_threads, sizeof *p->workers);
    if (sched_getaffinity(0, sizeof cpus, &cpus) == 0 && n_threads <= (uint32_t)CPU_COUNT(&cpus))
        p->spin = KN_POOL_SPIN;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &old);
    for (uint32_t i = 1; i < n_threads && r == 0; i++)
        r = start(p, i);
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (r != 0) {
        kn_pool_destroy(p);
        return r;
    }
    *out = p;
    return 0;
}

void kn_pool_destroy(struct kn_pool *p)
{
    if (p == NULL)
        return;
    p->fn = NULL;
    gate_turn(&p->job);
    for (uint32_t i = 1; i <= p->n_started; i++)
        PS_ASSERT(pthread_join(p->workers[i].thread, NULL) == 0);
    ps_free(p->workers);
    ps_free(p);
}
