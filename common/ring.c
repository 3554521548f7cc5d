#include "common/ring.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

/*
 * Positions run freely and wrap at 2^32; their difference is the fill. Each side keeps the last
 * position of the other that it saw, so that the other's cache line is read only when the ring
 * looks full or empty.
 */
struct ps_ring {
    char *data;
    size_t msg_bytes;
    uint32_t mask;
    _Alignas(PS_CACHE_LINE) _Atomic uint32_t tail; /* written by the producer */
    uint32_t head_seen;
    _Alignas(PS_CACHE_LINE) _Atomic uint32_t head; /* written by the consumer */
    uint32_t tail_seen;
};

struct ps_ring *ps_ring_create(uint32_t n_msg, size_t msg_bytes)
{
    struct ps_ring *r = ps_alloc_aligned(PS_CACHE_LINE, sizeof(*r));

    PS_ASSERT(n_msg > 0 && (n_msg & (n_msg - 1)) == 0 && n_msg <= UINT32_C(1) << 31);
    PS_ASSERT(msg_bytes > 0 && msg_bytes <= SIZE_MAX / n_msg);
    memset(r, 0, sizeof(*r));
    r->data = ps_alloc_aligned(PS_CACHE_LINE, n_msg * msg_bytes);
    r->msg_bytes = msg_bytes;
    r->mask = n_msg - 1;
    return r;
}

void ps_ring_destroy(struct ps_ring *r)
{
    if (r == NULL)
        return;
    ps_free(r->data);
    ps_free(r);
}

int ps_ring_push(struct ps_ring *r, const void *msg)
{
    uint32_t tail = atomic_load_explicit(&r->tail, memory_order_relaxed);

    if (tail - r->head_seen > r->mask) {
        r->head_seen = atomic_load_explicit(&r->head, memory_order_acquire);
        if (tail - r->head_seen > r->mask)
            return PS_RING_E_FULL;
    }
    memcpy(r->data + (size_t)(tail & r->mask) * r->msg_bytes, msg, r->msg_bytes);
    atomic_store_explicit(&r->tail, tail + 1, memory_order_release);
    return PS_RING_OK;
}

int ps_ring_pop(struct ps_ring *r, void *out_msg)
{
    uint32_t head = atomic_load_explicit(&r->head, memory_order_relaxed);

    if (head == r->tail_seen) {
        r->tail_seen = atomic_load_explicit(&r->tail, memory_order_acquire);
        if (head == r->tail_seen)
            return PS_RING_E_EMPTY;
    }
    PS_DASSERT(r->tail_seen - head <= r->mask + 1);
    memcpy(out_msg, r->data + (size_t)(head & r->mask) * r->msg_bytes, r->msg_bytes);
    atomic_store_explicit(&r->head, head + 1, memory_order_release);
    return PS_RING_OK;
}

/* Head first: read after it, the tail can only be too large, so the difference never underflows. */
uint32_t ps_ring_n(const struct ps_ring *r)
{
    uint32_t head = atomic_load_explicit(&r->head, memory_order_acquire);
    uint32_t tail = atomic_load_explicit(&r->tail, memory_order_acquire);

    return ps_min_u32(tail - head, r->mask + 1);
}

int ps_wake_init(struct ps_wake *w)
{
    int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);

    if (fd < 0)
        return PS_FAULT(-errno);
    w->fd = fd;
    atomic_init(&w->asleep, 0);
    return 0;
}

void ps_wake_fini(struct ps_wake *w)
{
    ps_close_fd(&w->fd);
}

/*
 * All three sides change the flag by an exchange, so their changes have one order and each sees
 * what came before it. Either the ring comes first, and the arm (which then reads the value the
 * ring wrote) sees the push; or the arm comes first, and the ring reads 1 and writes the eventfd.
 * A plain load here would need a full fence after the push instead.
 */
void ps_wake_ring(struct ps_wake *w)
{
    uint64_t one = 1;
    ssize_t n;

    if (atomic_exchange_explicit(&w->asleep, 0, memory_order_acq_rel) == 0)
        return;
    do {
        n = write(w->fd, &one, sizeof(one));
    } while (n < 0 && errno == EINTR);
    /* EAGAIN means 2^64 - 2 rings are already counted: it is readable, which is all that matters. */
    PS_ASSERT(n == (ssize_t)sizeof(one) || errno == EAGAIN);
}

void ps_wake_arm(struct ps_wake *w)
{
    atomic_exchange_explicit(&w->asleep, 1, memory_order_acq_rel);
}

void ps_wake_clear(struct ps_wake *w)
{
    uint64_t n_rung;
    ssize_t n;

    atomic_exchange_explicit(&w->asleep, 0, memory_order_acq_rel);
    do {
        n = read(w->fd, &n_rung, sizeof(n_rung));
    } while (n < 0 && errno == EINTR);
    PS_ASSERT(n == (ssize_t)sizeof(n_rung) || errno == EAGAIN);
}
