#pragma once

/*
 * Asynchronous reads and writes of files: io_uring, or a few threads where the kernel refuses it.
 *
 * Owned by one thread, the one that created it; only ps_uring_poke may come from others. Submitting
 * never waits for a device. A file, its iovecs and their buffers belong to the ring from submit
 * until the operation is reaped, whatever happens meanwhile: nothing is cancelled, because a disk
 * may still write into memory that somebody stopped waiting for.
 *
 * Buffers are not registered with the kernel: registered ones count against RLIMIT_MEMLOCK, which
 * is 8 MiB in most containers.
 *
 * Invariant: an operation that was accepted is reaped exactly once, or destroy says E_BUSY.
 */

#include <sys/uio.h>

#include "common/base.h"

enum {
    PS_URING_OK,
    PS_URING_E_FULL,    /* submit: depth operations are on their way */
    PS_URING_E_REFUSED, /* create with kind RING: this kernel or container has no io_uring */
    PS_URING_E_BUSY,    /* destroy: operations did not end in time; nothing was freed */
};

enum ps_uring_kind {
    PS_URING_AUTO, /* RING, else THREADS; the environment's PENSTOCK_IO_URING=0 means THREADS */
    PS_URING_RING,
    PS_URING_THREADS,
};

enum ps_uring_dir { PS_URING_READ, PS_URING_WRITE };

struct ps_uring_op {
    int fd;
    enum ps_uring_dir dir;
    const struct iovec *iov;
    uint32_t n_iov;
    uint64_t offset;
    void *ud;
};

struct ps_uring_done {
    void *ud;
    int32_t res; /* bytes, which may be fewer than asked for; or a negative errno */
};

struct ps_uring;

enum { PS_URING_DEPTH_MAX = 1024 };

PS_MUST int ps_uring_create(struct ps_uring **out, uint32_t depth, enum ps_uring_kind kind);
/* "io_uring", "threads" or "script". */
const char *ps_uring_name(const struct ps_uring *u);
uint32_t ps_uring_depth(const struct ps_uring *u);
uint32_t ps_uring_n_busy(const struct ps_uring *u); /* submitted, not yet reaped */
PS_MUST int ps_uring_submit(struct ps_uring *u, const struct ps_uring_op *op);
/* Begins what was submitted and reaps up to n; waits up to wait_ms for the first, or for a poke. */
uint32_t ps_uring_wait(struct ps_uring *u, uint32_t wait_ms, struct ps_uring_done *out, uint32_t n);
void ps_uring_poke(
    struct ps_uring *u); /* any thread: the next wait, or the one that runs, returns */
/* Lets operations end for at most wait_ms and forgets their results. NULL is fine. */
PS_MUST int ps_uring_destroy(struct ps_uring *u, uint32_t wait_ms);
