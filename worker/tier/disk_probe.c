#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/log.h"
#include "common/rng.h"
#include "common/uring/uring.h"
#include "worker/tier/disk_file.h"

/*
 * 8 MiB tell a page cache from a drive and take milliseconds on any NVMe. The rates are where the
 * store's own means begin, no more. On a slow disk each pass ends after PASS_MS.
 */
enum { PIECE_BYTES = 512 << 10, N_PIECES = 16, N_AT_ONCE = 8, PASS_MS = 250, N_SMALL = 8 };

/*
 * Below T1, which is a cache of the same host's memory, the page cache is a second copy of the same
 * bytes; it has to win by this much. It does on some virtual disks, which copy anyway.
 */
#define BUFFERED_MUST_WIN 2.0

struct piece {
    struct iovec iov;
    uint8_t *bytes;
};

struct probe {
    struct ps_uring *ring;
    int fd;
    uint8_t *bytes; /* [N_AT_ONCE][PIECE_BYTES] */
    struct piece pieces[N_AT_ONCE];
    struct piece *free[N_AT_ONCE];
    uint32_t n_free;
    bool is_hung;
};

static double now_s(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

static void begin(struct probe *p, enum ps_uring_dir dir, uint64_t at, size_t n_bytes)
{
    struct piece *c = p->free[--p->n_free];
    struct ps_uring_op op = {p->fd, dir, &c->iov, 1, at, c};
    int r;

    c->iov = (struct iovec){c->bytes, n_bytes};
    r = ps_uring_submit(p->ring, &op);
    PS_ASSERT(r == PS_URING_OK);
}

/* False: an operation failed, or the disk does not answer. */
static bool reap(struct probe *p, uint64_t *io_bytes)
{
    struct ps_uring_done done[N_AT_ONCE];
    uint32_t n = ps_uring_wait(p->ring, WK_DISK_ANSWER_MS, done, N_AT_ONCE);
    bool ok = n > 0;

    p->is_hung |= n == 0;
    for (uint32_t i = 0; i < n; i++) {
        p->free[p->n_free++] = done[i].ud;
        if (done[i].res > 0)
            *io_bytes += (uint64_t)done[i].res;
        ok &= done[i].res > 0;
    }
    return ok;
}

static bool drain(struct probe *p, uint64_t *io_bytes)
{
    bool ok = true;

    while (p->n_free < N_AT_ONCE && !p->is_hung)
        ok &= reap(p, io_bytes);
    return ok;
}

/* Bytes a second over the file's first pieces; 0: failed. */
static double pass(struct probe *p, enum ps_uring_dir dir, bool to_disk)
{
    double t0 = now_s();
    uint64_t n_bytes = 0;
    bool ok = true;

    for (uint64_t i = 0; ok && i < N_PIECES && now_s() - t0 < PASS_MS * 1e-3; i++) {
        if (p->n_free == 0)
            ok = reap(p, &n_bytes);
        if (ok)
            begin(p, dir, i * PIECE_BYTES, PIECE_BYTES);
    }
    ok &= drain(p, &n_bytes);
    /* Not fdatasync: that would also wait for what others write to the same journal. */
    if (ok && to_disk)
        ok = sync_file_range(p->fd, 0, 0,
                             SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE |
                                 SYNC_FILE_RANGE_WAIT_AFTER) == 0;
    return ok ? (double)n_bytes / (now_s() - t0) : 0;
}

/* Better of two: one hiccup of the host must not decide how the disk is used until the next start. */
static double best(struct probe *p, enum ps_uring_dir dir, bool to_disk)
{
    double first = pass(p, dir, to_disk), second = first > 0 ? pass(p, dir, to_disk) : 0;

    return second > first ? second : first;
}

static double latency_us(struct probe *p)
{
    double t0 = now_s();
    uint64_t n_bytes = 0;
    bool ok = true;

    for (uint32_t i = 0; ok && i < N_SMALL; i++) {
        begin(p, PS_URING_READ, (uint64_t)(i * 7 % N_PIECES) * PIECE_BYTES, WK_SLOT_BLOCK_BYTES);
        ok = reap(p, &n_bytes);
    }
    return ok ? (now_s() - t0) * 1e6 / N_SMALL : 0;
}

/* Time for a byte that is written once and read once. */
static double cost(double write_rate, double read_rate)
{
    return 1 / write_rate + 1 / read_rate;
}

static void measure(struct probe *p, struct wk_disk_rates *out)
{
    int flags = fcntl(p->fd, F_GETFL);
    double dw = 0, dr = 0, bw, br;

    if (fcntl(p->fd, F_SETFL, flags | O_DIRECT) == 0) {
        dw = best(p, PS_URING_WRITE, false);
        dr = dw > 0 ? best(p, PS_URING_READ, false) : 0;
        out->latency_us = dr > 0 ? latency_us(p) : 0;
        if (p->is_hung || fcntl(p->fd, F_SETFL, flags) != 0)
            return;
    }
    bw = best(p, PS_URING_WRITE, true);
    if (bw > 0)
        (void)posix_fadvise(p->fd, 0, 0, POSIX_FADV_DONTNEED);
    br = bw > 0 ? pass(p, PS_URING_READ, false) : 0;
    if (p->is_hung)
        return;
    out->is_direct =
        dw > 0 && dr > 0 && (bw <= 0 || br <= 0 || cost(dw, dr) < cost(bw, br) * BUFFERED_MUST_WIN);
    out->write_bytes_per_s = out->is_direct ? dw : bw;
    out->read_bytes_per_s = out->is_direct ? dr : br;
    ps_info("disk measured",
            "direct_write_mb_s=%.0f direct_read_mb_s=%.0f "
            "buffered_write_mb_s=%.0f buffered_read_mb_s=%.0f latency_us=%.0f mode=%s",
            dw * 1e-6, dr * 1e-6, bw * 1e-6, br * 1e-6, out->latency_us,
            out->is_direct ? "direct" : "buffered");
}

/* Nothing is learnt where no file of 8 MiB can be made: then the disk's files say what is wrong. */
int wk_disk_probe(struct wk_disk_rates *out, const char *path, struct ps_uring *ring,
                  struct ps_buf *err)
{
    struct probe *p = ps_calloc(1, sizeof(*p));
    struct ps_buf name = PS_BUF_INIT;
    struct ps_rng rng;
    int r = WK_TIER_OK;

    PS_ASSERT(ps_uring_depth(ring) >= N_AT_ONCE);
    *out = (struct wk_disk_rates){0, 0, 0, true};
    ps_buf_addf(&name, "%s.probe", path);
    p->ring = ring;
    p->fd = open(name.data, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (p->fd < 0 && errno == EEXIST) { /* of a process that was killed in between */
        (void)unlink(name.data);
        p->fd = open(name.data, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    }
    if (p->fd < 0)
        goto out;
    (void)unlink(name.data);
    if (posix_fallocate(p->fd, 0, (off_t)N_PIECES * PIECE_BYTES) != 0)
        goto out;
    p->bytes = ps_alloc_aligned(WK_SLOT_BLOCK_BYTES, (size_t)N_AT_ONCE * PIECE_BYTES);
    ps_rng_seed(&rng, 1); /* no disk can compress it */
    for (size_t i = 0; i < (size_t)N_AT_ONCE * PIECE_BYTES; i += sizeof(uint64_t)) {
        uint64_t v = ps_rng_u64(&rng);

        memcpy(p->bytes + i, &v, sizeof(v));
    }
    for (uint32_t i = 0; i < N_AT_ONCE; i++) {
        p->pieces[i].bytes = p->bytes + (size_t)i * PIECE_BYTES;
        p->free[p->n_free++] = &p->pieces[i];
    }
    measure(p, out);
    if (p->is_hung) { /* the disk may still write into the buffers: they are its for ever */
        ps_buf_addf(err, "%s: the disk does not answer", path);
        ps_buf_fini(&name);
        return WK_TIER_E_CONF;
    }
out:
    if (p->fd >= 0)
        close(p->fd);
    ps_free(p->bytes);
    ps_free(p);
    ps_buf_fini(&name);
    return r;
}
