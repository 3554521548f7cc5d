/*
 * Sequential writes and reads of a file: as plain blocks by the ring, and as slots by the disk tier.
 *
 *   disk_bench <file> <total MiB> <block KiB> <depth>
 *
 * The file is made, and removed afterwards, once for each. Prints a line each: name, bytes a second.
 *   ring_write ring_read   O_DIRECT blocks, nothing else
 *   tier_write tier_read   PUT and GET of slots with headers and checksums, as the worker does it;
 *                          bytes are those of the items. Direct or not as the tier measures it; what
 *                          is in the page cache is written back in the time, and dropped before reads.
 * What is read is compared with what was written before its time is printed. bench/disk_vs_fio.py
 * runs it beside fio.
 */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "common/rng.h"
#include "common/uring/uring.h"
#include "worker/tier/disk.h"

enum { DEPTH_MAX = 64, BLOCK_KIB_MAX = 64 << 10, TOTAL_MIB_MAX = 1 << 20, WAIT_MS = 30000 };

struct args {
    const char *path;
    uint64_t n_block;
    uint32_t block_bytes, depth;
};

struct slot_io { /* one of those on their way */
    struct wk_tier_io io;
    struct wk_tier_part part;
    struct iovec iov;
    uint8_t *buf;
    uint64_t block;
};

static double now_s(void)
{
    struct ps_clock clock;

    ps_clock_real(&clock);
    return (double)ps_now_us(&clock) * 1e-6;
}

static PS_NORETURN void die(const char *what, const char *why)
{
    fprintf(stderr, "disk_bench: %s: %s\n", what, why);
    exit(1);
}

/* Blocks are one random text, marked with their numbers at both ends. */
static void mark(uint8_t *buf, uint32_t n_bytes, uint64_t block)
{
    memcpy(buf, &block, sizeof(block));
    memcpy(buf + n_bytes - sizeof(block), &block, sizeof(block));
}

static bool is_marked(const uint8_t *buf, uint32_t n_bytes, uint64_t block)
{
    return memcmp(buf, &block, sizeof(block)) == 0 &&
           memcmp(buf + n_bytes - sizeof(block), &block, sizeof(block)) == 0;
}

static struct slot_io *make_ios(const struct args *a, uint32_t n)
{
    struct slot_io *ios = ps_calloc(n, sizeof(*ios));
    struct ps_rng rng;

    ps_rng_seed(&rng, 1);
    for (uint32_t i = 0; i < n; i++) {
        ios[i].buf = ps_alloc_aligned(4096, a->block_bytes);
        for (uint32_t k = 0; k < a->block_bytes; k += 8) {
            uint64_t v = ps_rng_u64(&rng);

            memcpy(ios[i].buf + k, &v, sizeof(v));
        }
    }
    return ios;
}

static void free_ios(struct slot_io *ios, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        ps_free(ios[i].buf);
    ps_free(ios);
}

static void report(const char *name, const struct args *a, double t0)
{
    printf("%s %.0f\n", name, (double)a->n_block * a->block_bytes / (now_s() - t0));
    (void)fflush(stdout);
}

/* ---- ring ---- */

static void ring_begin(const struct args *a, struct ps_uring *u, int fd, enum ps_uring_dir dir,
                       struct slot_io *s, uint64_t block)
{
    struct ps_uring_op op = {fd, dir, &s->iov, 1, block * a->block_bytes, s};

    s->iov = (struct iovec){s->buf, a->block_bytes};
    s->block = block;
    if (dir == PS_URING_WRITE)
        mark(s->buf, a->block_bytes, block);
    if (ps_uring_submit(u, &op) != PS_URING_OK)
        die("ring", "full");
}

static void ring_pass(const struct args *a, struct ps_uring *u, int fd, enum ps_uring_dir dir,
                      struct slot_io *ios)
{
    struct ps_uring_done done[DEPTH_MAX];
    uint64_t next = 0, n_done = 0;
    double t0 = now_s();

    for (uint32_t i = 0; i < a->depth && next < a->n_block; i++)
        ring_begin(a, u, fd, dir, &ios[i], next++);
    while (n_done < a->n_block) {
        uint32_t n = ps_uring_wait(u, WAIT_MS, done, DEPTH_MAX);

        if (n == 0)
            die("ring", "the disk does not answer");
        for (uint32_t i = 0; i < n; i++) {
            struct slot_io *s = done[i].ud;

            if (done[i].res != (int32_t)a->block_bytes ||
                (dir == PS_URING_READ && !is_marked(s->buf, a->block_bytes, s->block)))
                die("ring", "wrong or short block");
            n_done++;
            if (next < a->n_block)
                ring_begin(a, u, fd, dir, s, next++);
        }
    }
    report(dir == PS_URING_WRITE ? "ring_write" : "ring_read", a, t0);
}

static void ring_bench(const struct args *a)
{
    int fd = open(a->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_DIRECT, 0600), e;
    struct slot_io *ios = make_ios(a, a->depth);
    struct ps_uring *u;

    if (fd < 0)
        die(a->path, strerrordesc_np(errno));
    e = posix_fallocate(fd, 0, (off_t)(a->n_block * a->block_bytes));
    if (e != 0)
        die(a->path, strerrordesc_np(e));
    if (ps_uring_create(&u, a->depth, PS_URING_AUTO) != PS_URING_OK)
        die("ring", "cannot be made");
    ring_pass(a, u, fd, PS_URING_WRITE, ios);
    ring_pass(a, u, fd, PS_URING_READ, ios);
    if (ps_uring_destroy(u, WAIT_MS) != PS_URING_OK)
        die("ring", "busy");
    close(fd);
    (void)unlink(a->path);
    free_ios(ios, a->depth);
}

/* ---- tier ---- */

static const uint32_t ids[16] = {1, 2, 3};

static void tier_begin(const struct args *a, struct wk_tier *t, enum wk_tier_op op,
                       struct slot_io *s, uint64_t block)
{
    s->block = block;
    s->part = (struct wk_tier_part){
        .key = {.hash = block, .n_tok = 16, .ids = ids}, .buf = s->buf, .slot = (uint32_t)block};
    s->io = (struct wk_tier_io){.op = op, .n_part = 1, .part = &s->part, .ud = s};
    if (op == WK_TIER_PUT)
        mark(s->buf, a->block_bytes, block);
    if (t->ops->submit(t, &s->io) != WK_TIER_OK)
        die("tier", "refuses an io");
}

static struct wk_tier_io *tier_take(struct wk_tier_inbox *inbox)
{
    struct wk_tier_io *io;
    struct pollfd p = {.fd = inbox->wake->fd, .events = POLLIN};

    while ((io = wk_tier_take(inbox)) == NULL) {
        ps_wake_arm(inbox->wake);
        io = wk_tier_take(inbox);
        if (io == NULL && poll(&p, 1, WAIT_MS) == 0)
            die("tier", "the disk does not answer");
        ps_wake_clear(inbox->wake);
        if (io != NULL)
            break;
    }
    return io;
}

/* What the page cache holds of the file goes to the disk, in the time of the pass, and out of memory. */
static void drop_cache(const struct args *a)
{
    int fd = open(a->path, O_RDWR | O_CLOEXEC);

    if (fd < 0 || sync_file_range(fd, 0, 0,
                                  SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE |
                                      SYNC_FILE_RANGE_WAIT_AFTER) != 0)
        die(a->path, strerrordesc_np(errno));
    (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    close(fd);
}

/* Twice the depth is kept in the tier, so that it never runs dry between two of our rounds. */
static void tier_pass(const struct args *a, struct wk_tier *t, enum wk_tier_op op,
                      struct slot_io *ios, uint32_t n_ios)
{
    uint64_t next = 0;
    double t0 = now_s();

    for (uint32_t i = 0; i < n_ios && next < a->n_block; i++)
        tier_begin(a, t, op, &ios[i], next++);
    for (uint64_t n_done = 0; n_done < a->n_block; n_done++) {
        struct slot_io *s = tier_take(t->inbox)->ud;

        if (s->part.status != WK_TIER_DONE ||
            (op == WK_TIER_GET && !is_marked(s->buf, a->block_bytes, s->block)))
            die("tier", "wrong or failed slot");
        if (next < a->n_block)
            tier_begin(a, t, op, s, next++);
    }
    if (op == WK_TIER_PUT)
        drop_cache(a);
    report(op == WK_TIER_PUT ? "tier_write" : "tier_read", a, t0);
}

static void tier_bench(const struct args *a)
{
    struct slot_io *ios = make_ios(a, 2 * a->depth);
    struct ps_buf err = PS_BUF_INIT;
    struct wk_tier_inbox inbox;
    struct ps_clock clock;
    struct ps_wake wake;
    struct wk_tier *t;
    struct wk_tier_disk_conf conf = {
        .path = a->path,
        .ident = {.space_id = 1,
                  .n_group = 1,
                  .page_tokens = 16,
                  .item_bytes = {a->block_bytes},
                  .n_ranks = 1},
        .n_slot = {(uint32_t)a->n_block},
        .depth = a->depth,
        .inbox = &inbox,
        .clock = &clock,
    };

    ps_clock_real(&clock);
    if (ps_wake_init(&wake) != 0)
        die("wake", "no descriptor");
    wk_tier_inbox_init(&inbox, &wake);
    if (wk_tier_disk_create(&t, &conf, &err) != WK_TIER_OK)
        die("tier", err.data);
    if (wk_tier_disk_n_slot(t, 0) != a->n_block)
        die("tier", "the disk is too small");
    tier_pass(a, t, WK_TIER_PUT, ios, 2 * a->depth);
    tier_pass(a, t, WK_TIER_GET, ios, 2 * a->depth);
    if (t->ops->close(t, WAIT_MS) != WK_TIER_OK)
        die("tier", "busy");
    (void)unlink(a->path);
    wk_tier_inbox_fini(&inbox);
    ps_wake_fini(&wake);
    ps_buf_fini(&err);
    free_ios(ios, 2 * a->depth);
}

static uint64_t number(const char *s, uint64_t max)
{
    char *end;
    unsigned long long v = strtoull(s, &end, 10);

    if (*s == '\0' || *end != '\0' || v == 0 || v > max)
        die(s, "is no number in range");
    return v;
}

int main(int argc, char **argv)
{
    struct args a;

    if (argc != 5)
        die("usage", "disk_bench <file> <total MiB> <block KiB> <depth>");
    ps_log_init("disk_bench", PS_LOG_INFO);
    a.path = argv[1];
    a.block_bytes = (uint32_t)number(argv[3], BLOCK_KIB_MAX) << 10;
    a.depth = (uint32_t)number(argv[4], DEPTH_MAX);
    a.n_block = (number(argv[2], TOTAL_MIB_MAX) << 20) / a.block_bytes;
    if (a.block_bytes % 4096 != 0 || a.n_block == 0)
        die(argv[3], "blocks are multiples of 4 KiB, and no larger than the file");
    ring_bench(&a);
    tier_bench(&a);
    return 0;
}
