#include "common/uring/uring.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include <liburing.h>

#include "common/uring/uring_int.h"

/*
 * From this size on an operation is handed to the kernel as soon as it is submitted: the device
 * should not idle while its successors are being prepared. Smaller ones go together in one call.
 */
enum { EAGER_BYTES = 64 << 10 };

struct ring {
    struct ps_uring u;
    struct io_uring io;
    int poke_fd; /* eventfd; a poll for it is always armed */
    bool is_armed;
};

uint64_t ps_uring_now_ms(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

/* ---- io_uring ---- */

/* The queue has room for depth operations and the poll, so there is always an entry. */
static struct io_uring_sqe *sqe_get(struct ring *r)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&r->io);

    if (sqe == NULL) { /* entries are prepared but the kernel could not take them before */
        (void)io_uring_submit(&r->io);
        sqe = io_uring_get_sqe(&r->io);
    }
    PS_ASSERT(sqe != NULL);
    return sqe;
}

static void poke_arm(struct ring *r)
{
    struct io_uring_sqe *sqe = sqe_get(r);

    io_uring_prep_poll_add(sqe, r->poke_fd, POLLIN);
    io_uring_sqe_set_data(sqe, r);
    r->is_armed = true;
}

static void ring_submit(struct ps_uring *u, const struct ps_uring_op *op)
{
    struct ring *r = PS_CONTAINER(u, struct ring, u);
    struct io_uring_sqe *sqe = sqe_get(r);
    size_t n_bytes = 0;

    PS_ASSERT(op->ud != r);
    if (op->dir == PS_URING_READ)
        io_uring_prep_readv(sqe, op->fd, op->iov, op->n_iov, op->offset);
    else
        io_uring_prep_writev(sqe, op->fd, op->iov, op->n_iov, op->offset);
    io_uring_sqe_set_data(sqe, op->ud);
    for (uint32_t i = 0; i < op->n_iov; i++)
        n_bytes += op->iov[i].iov_len;
    if (n_bytes >= EAGER_BYTES)
        (void)io_uring_submit(&r->io); /* what it could not take goes with the next wait */
}

static uint32_t reap(struct ring *r, struct ps_uring_done *out, uint32_t n, bool *out_poked)
{
    struct io_uring_cqe *cqe;
    uint32_t n_out = 0;

    while (n_out < n && io_uring_peek_cqe(&r->io, &cqe) == 0) {
        void *ud = io_uring_cqe_get_data(cqe);
        uint64_t n_rung;

        if (ud == r) {
            r->is_armed = false;
            *out_poked = true;
            if (read(r->poke_fd, &n_rung, sizeof(n_rung)) < 0)
                PS_ASSERT(errno == EAGAIN || errno == EINTR);
        } else {
            out[n_out++] = (struct ps_uring_done){ud, cqe->res};
        }
        io_uring_cqe_seen(&r->io, cqe);
    }
    return n_out;
}

static uint32_t ring_wait(struct ps_uring *u, uint32_t wait_ms, struct ps_uring_done *out,
                          uint32_t n)
{
    struct ring *r = PS_CONTAINER(u, struct ring, u);
    uint64_t until_ms = ps_uring_now_ms() + wait_ms;

    for (;;) {
        uint64_t now_ms = ps_uring_now_ms();
        uint64_t left_ms = now_ms < until_ms ? until_ms - now_ms : 0;
        struct __kernel_timespec ts = {(int64_t)(left_ms / 1000),
                                       (long long)(left_ms % 1000) * 1000000};
        struct io_uring_cqe *cqe;
        bool poked = false;
        uint32_t n_out;
        int e;

        if (!r->is_armed)
            poke_arm(r);
        e = io_uring_submit_and_wait_timeout(&r->io, &cqe, 1, &ts, NULL);
        n_out = reap(r, out, n, &poked);
        if (n_out > 0 || poked || left_ms == 0)
            return n_out;
        /* The kernel is short of memory or of completion room: the wait below is the back-off. */
        if (e == -EAGAIN || e == -EBUSY)
            (void)poll(NULL, 0, 1);
        else
            PS_ASSERT(e >= 0 || e == -ETIME || e == -EINTR);
    }
}

static void ring_poke(struct ps_uring *u)
{
    struct ring *r = PS_CONTAINER(u, struct ring, u);
    uint64_t one = 1;

    while (write(r->poke_fd, &one, sizeof(one)) < 0 && errno == EINTR)
        ;
}

static void ring_free(struct ps_uring *u)
{
    struct ring *r = PS_CONTAINER(u, struct ring, u);

    io_uring_queue_exit(&r->io);
    ps_close_fd(&r->poke_fd);
    ps_free(r);
}

static const struct ps_uring_verbs ring_verbs = {
    .name = "io_uring",
    .submit = ring_submit,
    .wait = ring_wait,
    .poke = ring_poke,
    .free = ring_free,
};

/* SINGLE_ISSUER and DEFER_TASKRUN (Linux 6.1) run completions in our own wait, not in interrupts. */
static int ring_create(struct ps_uring **out, uint32_t depth)
{
    struct ring *r = ps_calloc(1, sizeof(*r));
    int e;

    r->u = (struct ps_uring){&ring_verbs, depth, 0};
    e = io_uring_queue_init(depth + 1, &r->io,
                            IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN);
    if (e == -EINVAL)
        e = io_uring_queue_init(depth + 1, &r->io, 0);
    if (e < 0) {
        ps_free(r);
        return e;
    }
    r->poke_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (r->poke_fd < 0) {
        e = -errno;
        io_uring_queue_exit(&r->io);
        ps_free(r);
        return e;
    }
    *out = &r->u;
    return 0;
}

/* ---- any kind ---- */

/*
 * Refused: EPERM by seccomp or sysctl, ENOSYS by kernels and sandboxes without it, ENOMEM by the
 * memlock limit of kernels before 5.12.
 */
int ps_uring_create(struct ps_uring **out, uint32_t depth, enum ps_uring_kind kind)
{
    const char *env = getenv("PENSTOCK_IO_URING");
    int e;

    PS_ASSERT(depth > 0 && depth <= PS_URING_DEPTH_MAX);
    if (kind == PS_URING_AUTO && env != NULL && strcmp(env, "0") == 0)
        kind = PS_URING_THREADS;
    if (kind == PS_URING_THREADS)
        return ps_uring_threads_create(out, depth);
    e = ring_create(out, depth);
    if (e == 0)
        return PS_URING_OK;
    if (kind == PS_URING_AUTO)
        return ps_uring_threads_create(out, depth);
    return e == -EPERM || e == -ENOSYS || e == -ENOMEM ? PS_URING_E_REFUSED : PS_FAULT(e);
}

const char *ps_uring_name(const struct ps_uring *u)
{
    return u->verbs->name;
}

uint32_t ps_uring_depth(const struct ps_uring *u)
{
    return u->depth;
}

uint32_t ps_uring_n_busy(const struct ps_uring *u)
{
    return u->n_busy;
}

int ps_uring_submit(struct ps_uring *u, const struct ps_uring_op *op)
{
    PS_ASSERT(op->fd >= 0 && op->n_iov > 0 && op->ud != NULL);
    if (u->n_busy == u->depth)
        return PS_URING_E_FULL;
    u->n_busy++;
    u->verbs->submit(u, op);
    return PS_URING_OK;
}

uint32_t ps_uring_wait(struct ps_uring *u, uint32_t wait_ms, struct ps_uring_done *out, uint32_t n)
{
    uint32_t n_out;

    PS_ASSERT(n > 0);
    n_out = u->verbs->wait(u, wait_ms, out, n);
    PS_ASSERT(n_out <= n && n_out <= u->n_busy);
    u->n_busy -= n_out;
    return n_out;
}

void ps_uring_poke(struct ps_uring *u)
{
    u->verbs->poke(u);
}

int ps_uring_destroy(struct ps_uring *u, uint32_t wait_ms)
{
    uint64_t until_ms = ps_uring_now_ms() + wait_ms;
    struct ps_uring_done done[16];

    if (u == NULL)
        return PS_URING_OK;
    while (u->n_busy > 0) {
        uint64_t now_ms = ps_uring_now_ms();
        uint64_t left_ms = now_ms < until_ms ? until_ms - now_ms : 0;

        if (ps_uring_wait(u, (uint32_t)left_ms, done, PS_ARRAY_LEN(done)) == 0 && left_ms == 0)
            return PS_URING_E_BUSY;
    }
    u->verbs->free(u);
    return PS_URING_OK;
}
