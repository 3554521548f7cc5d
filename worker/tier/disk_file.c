#include "worker/tier/disk_file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/log.h"
#include "common/rng.h"
#include "common/uring/uring.h"

static const char MAGIC[8] = {'P', 'S', 'K', 'V', 'D', 'I', 'S', 'K'};

enum {
    VERSION = 1,
    /* A process that was killed keeps the lock until the kernel has ended its writes. */
    LOCK_TRIES = 50,
    LOCK_PAUSE_MS = 20,
};

/* How much is asked of the file system at once: what it grants is found to the last whole slot. */
#define GRANT_BYTES_MAX (UINT64_C(1) << 30)

struct super {
    char magic[8];
    uint32_t version, super_bytes;
    uint64_t checksum; /* of the whole block with this field 0 */
    uint8_t uuid[16];
    uint64_t generation, created_us;
    uint64_t space_id, arith_id, layout_id, slot_bytes;
    uint32_t codec, group, n_group, page_tokens;
    uint32_t payload_bytes, head_bytes, n_slot;
    uint32_t rank, n_ranks;
    uint8_t zero[WK_DISK_SUPER_BYTES - 124];
};

_Static_assert(sizeof(struct super) == WK_DISK_SUPER_BYTES, "a superblock's size on disk");

static uint64_t super_sum(const struct super *s)
{
    struct super copy = *s;

    copy.checksum = 0;
    return ps_hash64(&copy, sizeof(copy), 0);
}

void wk_disk_file_super(const struct wk_disk_file *f, const struct wk_tier_ident *id, uint8_t *out)
{
    struct super s = {
        .version = VERSION,
        .super_bytes = sizeof(s),
        .generation = f->generation,
        .created_us = f->created_us,
        .space_id = id->space_id,
        .arith_id = id->arith_id,
        .layout_id = id->layout_id,
        .slot_bytes = f->shape.slot_bytes,
        .codec = id->codec,
        .group = f->shape.group,
        .n_group = id->n_group,
        .page_tokens = id->page_tokens,
        .payload_bytes = f->shape.payload_bytes,
        .head_bytes = f->shape.head_bytes,
        .n_slot = f->n_slot,
        .rank = id->rank,
        .n_ranks = id->n_ranks,
    };

    memcpy(s.magic, MAGIC, sizeof(MAGIC));
    memcpy(s.uuid, f->uuid, sizeof(s.uuid));
    s.checksum = super_sum(&s);
    memcpy(out, &s, sizeof(s));
}

/* ---- one read or write, waited for ---- */

struct sync {
    struct iovec iov;
    uint8_t *bytes;
};

/* The block at offset 0. On a disk that does not answer the buffers are left to it. */
static int super_io(struct wk_disk_file *f, struct ps_uring *ring, enum ps_uring_dir dir,
                    uint8_t *bytes, struct ps_buf *err)
{
    struct sync *s = ps_alloc(sizeof(*s));
    struct ps_uring_op op = {f->fd, dir, &s->iov, 1, 0, s};
    struct ps_uring_done done;
    const char *what = NULL;
    int r;

    s->bytes = ps_alloc_aligned(WK_SLOT_BLOCK_BYTES, WK_DISK_SUPER_BYTES);
    s->iov = (struct iovec){s->bytes, WK_DISK_SUPER_BYTES};
    if (dir == PS_URING_WRITE)
        memcpy(s->bytes, bytes, WK_DISK_SUPER_BYTES);
    else /* a file that ends here is an empty one */
        memset(s->bytes, 0, WK_DISK_SUPER_BYTES);
    r = ps_uring_submit(ring, &op);
    PS_ASSERT(r == PS_URING_OK);
    if (ps_uring_wait(ring, WK_DISK_ANSWER_MS, &done, 1) == 0) {
        ps_buf_add_str(err, "the disk does not answer");
        return WK_TIER_E_CONF;
    }
    if (done.res < 0)
        what = strerrordesc_np(-done.res);
    else if (dir == PS_URING_WRITE && done.res != WK_DISK_SUPER_BYTES)
        what = "short write";
    else if (dir == PS_URING_READ)
        memcpy(bytes, s->bytes, WK_DISK_SUPER_BYTES);
    if (what != NULL)
        ps_buf_addf(err, "superblock: %s", what);
    ps_free(s->bytes);
    ps_free(s);
    return what == NULL ? WK_TIER_OK : WK_TIER_E_CONF;
}

/* ---- size ---- */

static int grant(int fd, uint64_t from, uint64_t n)
{
    int r;

    do {
        r = fallocate(fd, 0, (off_t)from, (off_t)n);
    } while (r != 0 && errno == EINTR);
    return r == 0 ? 0 : errno;
}

/* As many of n_slot slots as the file system gives room for. */
static int grow(struct wk_disk_file *f, uint32_t n_slot, struct ps_buf *err)
{
    uint64_t slot_bytes = f->shape.slot_bytes;
    uint64_t step = ps_max_u64(1, GRANT_BYTES_MAX / slot_bytes);
    uint64_t n = 0;
    int e = grant(f->fd, 0, WK_DISK_SUPER_BYTES);

    while (e == 0 && n < n_slot) {
        uint64_t want = ps_min_u64(step, n_slot - n);

        e = grant(f->fd, WK_DISK_SUPER_BYTES + n * slot_bytes, want * slot_bytes);
        if (e == 0)
            n += want;
        if ((e == ENOSPC || e == EDQUOT || e == EFBIG) && step > 1) {
            step /= 2;
            e = 0;
        }
    }
    if (e == EOPNOTSUPP) { /* nothing can be reserved: a full disk is found when it is written */
        n = n_slot;
        e = 0;
    }
    if (n == 0 || (e != 0 && e != ENOSPC && e != EDQUOT && e != EFBIG)) {
        ps_buf_addf(err, "no room for a single slot of %llu bytes: %s",
                    (unsigned long long)slot_bytes, strerrordesc_np(e));
        return WK_TIER_E_CONF;
    }
    if (ftruncate(f->fd, (off_t)(WK_DISK_SUPER_BYTES + n * slot_bytes)) != 0) {
        ps_buf_addf(err, "cannot set its size: %s", strerrordesc_np(errno));
        return WK_TIER_E_CONF;
    }
    if (n < n_slot)
        ps_warn("disk too small", "group=%u slots=%llu wanted=%u", f->shape.group,
                (unsigned long long)n, n_slot);
    f->n_slot = (uint32_t)n;
    return WK_TIER_OK;
}

/* ---- open ---- */

static bool take_lock(int fd)
{
    const struct timespec pause = {.tv_nsec = LOCK_PAUSE_MS * 1000000L};

    for (uint32_t i = 1; flock(fd, LOCK_EX | LOCK_NB) != 0; i++) {
        if (errno != EWOULDBLOCK || i == LOCK_TRIES)
            return false;
        (void)nanosleep(&pause, NULL);
    }
    return true;
}

static int open_locked(struct wk_disk_file *f, const char *path, struct ps_buf *err)
{
    struct stat st;

    f->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0600); /* a FIFO must not block */
    if (f->fd < 0 || fstat(f->fd, &st) != 0) {
        ps_buf_addf(err, "cannot be opened: %s", strerrordesc_np(errno));
        return WK_TIER_E_CONF;
    }
    if (!S_ISREG(st.st_mode)) {
        ps_buf_add_str(err, "is no regular file");
        return WK_TIER_E_CONF;
    }
    if (!take_lock(f->fd)) {
        ps_buf_addf(err, "%s",
                    errno == EWOULDBLOCK ? "another process uses it" : strerrordesc_np(errno));
        return WK_TIER_E_CONF;
    }
    return WK_TIER_OK;
}

static void start_over(struct wk_disk_file *f, const char *path, const char *why)
{
    if (why != NULL)
        ps_warn("disk tier started over", "file=%s why=%s", PS_Q(path), PS_Q(why));
    ps_random_bytes(f->uuid, sizeof(f->uuid));
    f->generation = 1;
    f->is_new = true;
}

/* NULL: the superblock is of these slots. */
static const char *foreign(const struct wk_disk_file *f, const struct wk_tier_ident *id,
                           const struct super *s)
{
    if (s->checksum != super_sum(s))
        return "damaged superblock";
    if (s->version != VERSION || s->super_bytes != sizeof(*s))
        return "another version";
    if (s->space_id != id->space_id || s->layout_id != id->layout_id)
        return "another model";
    if (s->arith_id != id->arith_id)
        return "another arithmetic";
    if (s->codec != id->codec)
        return "another format";
    if (s->rank != id->rank || s->n_ranks != id->n_ranks)
        return "another rank";
    if (s->slot_bytes != f->shape.slot_bytes || s->group != f->shape.group ||
        s->n_group != id->n_group || s->page_tokens != id->page_tokens ||
        s->payload_bytes != f->shape.payload_bytes || s->head_bytes != f->shape.head_bytes)
        return "another layout";
    return NULL;
}

/* Reads the superblock and says whether slots are kept. Slots do not move when their number changes. */
static int adopt(struct wk_disk_file *f, const struct wk_tier_disk_conf *conf,
                 struct ps_uring *ring, struct super *s, struct ps_buf *err)
{
    const char *why;
    int r = super_io(f, ring, PS_URING_READ, (uint8_t *)s, err);

    if (r != WK_TIER_OK)
        return r;
    if (s->magic[0] == 0 && memcmp(s, (uint8_t *)s + 1, sizeof(*s) - 1) == 0) {
        start_over(f, conf->path, NULL);
        return WK_TIER_OK;
    }
    if (memcmp(s->magic, MAGIC, sizeof(MAGIC)) != 0) {
        ps_buf_add_str(err, "holds something else; remove it or name another file");
        return WK_TIER_E_CONF;
    }
    why = foreign(f, &conf->ident, s);
    if (why != NULL) {
        start_over(f, conf->path, why);
        return WK_TIER_OK;
    }
    memcpy(f->uuid, s->uuid, sizeof(f->uuid));
    f->generation = s->generation;
    f->created_us = s->created_us;
    return WK_TIER_OK;
}

int wk_disk_file_open(struct wk_disk_file *f, const struct wk_tier_disk_conf *conf, uint32_t group,
                      struct ps_uring *ring, bool is_direct, struct ps_buf *err)
{
    struct super *s = ps_calloc(1, sizeof(*s));
    struct ps_buf path = PS_BUF_INIT;
    int r = WK_TIER_OK;

    PS_ASSERT(conf->n_slot[group] > 0);
    *f = (struct wk_disk_file){.fd = -1, .is_script = conf->script != NULL};
    f->created_us = ps_wall_us(conf->clock);
    wk_slot_shape_init(&f->shape, &conf->ident, group);
    ps_buf_add_str(&path, conf->path);
    if (group > 0)
        ps_buf_addf(&path, ".%u", group);
    if (f->is_script)
        f->fd = (int)group;
    else
        r = open_locked(f, path.data, err);
    if (r == WK_TIER_OK)
        r = adopt(f, conf, ring, s, err);
    f->n_slot = conf->n_slot[group];
    if (r == WK_TIER_OK && !f->is_script)
        r = grow(f, conf->n_slot[group], err);
    if (r == WK_TIER_OK && !f->is_script && is_direct) /* EINVAL: not on this file system */
        (void)fcntl(f->fd, F_SETFL, fcntl(f->fd, F_GETFL) | O_DIRECT);
    if (r == WK_TIER_OK && (f->is_new || s->n_slot != f->n_slot)) {
        wk_disk_file_super(f, &conf->ident, (uint8_t *)s);
        r = super_io(f, ring, PS_URING_WRITE, (uint8_t *)s, err);
    }
    memcpy(&f->file_id, f->uuid, sizeof(f->file_id));
    if (r != WK_TIER_OK) {
        struct ps_buf what = *err;

        *err = (struct ps_buf)PS_BUF_INIT;
        ps_buf_addf(err, "%s: %s", path.data, what.data);
        ps_buf_fini(&what);
        wk_disk_file_close(f);
    }
    ps_buf_fini(&path);
    ps_free(s);
    return r;
}

void wk_disk_file_close(struct wk_disk_file *f)
{
    if (f->fd >= 0 && !f->is_script)
        close(f->fd);
    f->fd = -1;
}
