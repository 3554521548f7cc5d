#include "worker/tier/share_root.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/rng.h"

/* An io looks whether it is still wanted between calls of this size. */
#define CALL_BYTES_MAX (UINT64_C(8) << 20)

#define USE_AGE_US    (INT64_C(3600) * 1000000)
#define BEFORE_AGE_US (INT64_C(60) * 1000000)

enum { RENAME_TRIES = 3 /* the collector may remove an empty directory that was just made */ };

/* ---- names ---- */

void wk_share_path(const struct wk_share_root *r, const char *below, char *out)
{
    int n =
        snprintf(out, WK_SHARE_PATH_BYTES, "%s%s%s", r->path, below[0] != '\0' ? "/" : "", below);

    PS_ASSERT(n > 0 && n < WK_SHARE_PATH_BYTES);
}

void wk_share_path_new(struct wk_share_root *r, const char *dir, char *out)
{
    char below[80];

    snprintf(below, sizeof(below), "%s/%s-%llu", dir, r->maker,
             (unsigned long long)atomic_fetch_add(&r->n_made, 1));
    wk_share_path(r, below, out);
}

static void path_own(const struct wk_share_root *r, char *out)
{
    char below[80];

    snprintf(below, sizeof(below), "%s/%s", "tmp", r->maker);
    wk_share_path(r, below, out);
}

/* n_dirs: 4 for the object, 0 to 3 for the directories above it. */
static void path_of(const struct wk_share_root *r, const uint8_t *digest, uint32_t group,
                    uint32_t n_dirs, char *out)
{
    char below[192], hex[2 * PS_SHA256_BYTES + 1];
    int n;

    ps_hex(hex, digest, PS_SHA256_BYTES);
    n = snprintf(below, sizeof(below), "%016llx", (unsigned long long)r->ident.space_id);
    if (n_dirs > 0)
        n += snprintf(below + n, sizeof(below) - (size_t)n, "/%016llx",
                      (unsigned long long)r->ident.arith_id);
    if (n_dirs > 1)
        n += snprintf(below + n, sizeof(below) - (size_t)n, "/%.2s", hex);
    if (n_dirs > 2)
        n += snprintf(below + n, sizeof(below) - (size_t)n, "/%.2s", hex + 2);
    if (n_dirs > 3)
        n += snprintf(below + n, sizeof(below) - (size_t)n, "/%s", hex);
    if (n_dirs > 3 && group > 0)
        n += snprintf(below + n, sizeof(below) - (size_t)n, ".g%u", group);
    if (n_dirs > 3 && r->ident.n_ranks > 1)
        n += snprintf(below + n, sizeof(below) - (size_t)n, ".r%u", r->ident.rank);
    PS_ASSERT((size_t)n < sizeof(below));
    wk_share_path(r, below, out);
}

/* ---- time ---- */

int64_t wk_share_now_us(const struct wk_share_root *r)
{
    return (int64_t)ps_now_us(r->clock) + atomic_load(&r->time_offset_us);
}

bool wk_share_is_older(int64_t now_us, int64_t mtime_us, int64_t age_us)
{
    return now_us - mtime_us > age_us || mtime_us - now_us > age_us;
}

int wk_share_time_sync(struct wk_share_root *r)
{
    char path[WK_SHARE_PATH_BYTES];
    struct wk_fs_stat st;
    int x;

    path_own(r, path);
    x = r->fs->open(r->fs, path, WK_FS_WRITE);
    if (x >= 0)
        x = r->fs->close(r->fs, x);
    if (x == 0)
        x = r->fs->touch(r->fs, path);
    if (x == 0)
        x = r->fs->stat(r->fs, path, &st);
    if (x == 0)
        atomic_store(&r->time_offset_us, st.mtime_us - (int64_t)ps_now_us(r->clock));
    return x;
}

/* ---- opening ---- */

static int make_dirs(struct wk_share_root *r)
{
    static const uint8_t none[PS_SHA256_BYTES];
    char path[WK_SHARE_PATH_BYTES];
    int x;

    for (uint32_t i = 0; i < 4; i++) {
        if (i < 2)
            wk_share_path(r, i == 0 ? "tmp" : "trash", path);
        else
            path_of(r, none, 0, i - 2, path);
        x = r->fs->mkdir(r->fs, path);
        if (x != 0 && x != -EEXIST)
            return x;
    }
    return 0;
}

bool wk_share_root_init(struct wk_share_root *r, const struct wk_fs *fs,
                        const struct ps_clock *clock, const char *path,
                        const struct wk_tier_ident *ident, struct ps_buf *err)
{
    uint8_t random[8];
    char hex[17];

    memset(r, 0, sizeof(*r));
    r->fs = fs;
    r->clock = clock;
    r->ident = *ident;
    if (path[0] == '\0' || strlen(path) >= sizeof(r->path)) {
        ps_buf_addf(err, "shared directory: the path is empty or longer than %zu bytes",
                    sizeof(r->path) - 1);
        return false;
    }
    memcpy(r->path, path, strlen(path) + 1);
    for (uint32_t g = 0; g < ident->n_group; g++) {
        if (!wk_share_shape(ident, g, &r->shape[g])) {
            ps_buf_addf(err, "shared directory: items of %u bytes are too large",
                        ident->item_bytes[g]);
            return false;
        }
    }
    ps_random_bytes(random, sizeof(random));
    ps_hex(hex, random, sizeof(random));
    snprintf(r->maker, sizeof(r->maker), "%s-%d", hex, (int)getpid());
    return true;
}

bool wk_share_root_open(struct wk_share_root *r, struct ps_buf *err)
{
    int x = make_dirs(r);

    if (x == 0)
        x = wk_share_time_sync(r);
    if (x != 0) {
        ps_buf_addf(err, "shared directory %s: %s", r->path, strerror(-x));
        return false;
    }
    return true;
}

void wk_share_root_close(struct wk_share_root *r)
{
    char path[WK_SHARE_PATH_BYTES];

    path_own(r, path);
    r->fs->unlink(r->fs, path);
}

/* ---- moving bytes ---- */

static bool is_gone(ssize_t x) /* the file, or a directory above it, was removed under us */
{
    return x == -ENOENT || x == -ESTALE || x == -ENOTDIR;
}

static bool is_unwanted(const struct wk_share_root *r, const struct wk_tier_io *io)
{
    return atomic_load(&io->cancelled) ||
           (io->deadline_us != 0 && ps_now_us(r->clock) >= io->deadline_us);
}

/* The file's bytes from `off` on as pieces of memory; returns how many were cut, at most
 * CALL_BYTES_MAX together. */
static int pieces_from(const struct wk_share_shape *s, uint8_t *head,
                       const struct wk_tier_part *parts, uint64_t off,
                       struct iovec v[WK_TIER_PARTS_MAX + 1])
{
    uint64_t at = 0, left = CALL_BYTES_MAX;
    int n = 0;

    for (uint32_t i = 0; i <= s->n_part && left > 0; i++) {
        uint64_t len = i == 0 ? s->head_bytes : s->part_bytes, skip = off > at ? off - at : 0;
        uint8_t *p = i == 0 ? head : parts[i - 1].buf;

        at += len;
        if (skip >= len)
            continue;
        v[n].iov_base = p + skip;
        v[n].iov_len = ps_min_u64(len - skip, left);
        left -= v[n++].iov_len;
    }
    return n;
}

/* Reads [from, to) of a file; 0, or 1: it ends before, or an errno, -ECANCELED: no longer wanted. */
static int read_range(struct wk_share_root *r, struct wk_tier_io *io,
                      const struct wk_share_shape *s, int fd, uint8_t *head, uint64_t from,
                      uint64_t to)
{
    struct iovec v[WK_TIER_PARTS_MAX + 1];

    while (from < to) {
        int n = pieces_from(s, head, io->part, from, v);
        ssize_t got;

        if (is_unwanted(r, io))
            return -ECANCELED;
        if (to <= s->head_bytes) /* the header alone is its own call: mostly it decides */
            n = 1;
        got = r->fs->preadv(r->fs, fd, v, n, from);
        if (got <= 0)
            return got == 0 ? 1 : (int)got;
        from += (uint64_t)got;
    }
    return 0;
}

static struct wk_share_end end_of(enum wk_tier_status status, int err)
{
    bool tells = status == WK_TIER_FAULT || status == WK_TIER_FULL;

    return (struct wk_share_end){.status = status, .err = tells ? err : 0};
}

static struct wk_share_end end_of_err(int x)
{
    if (x == -ECANCELED)
        return end_of(WK_TIER_CANCELLED, 0);
    if (is_gone(x))
        return end_of(WK_TIER_MISS, 0);
    return end_of(WK_TIER_FAULT, x);
}

static struct wk_share_end get_fd(struct wk_share_root *r, struct wk_tier_io *io,
                                  const struct wk_share_shape *s, int fd, uint8_t *got,
                                  uint8_t *want)
{
    int x = read_range(r, io, s, fd, got, 0, s->head_bytes);

    if (x < 0)
        return end_of_err(x);
    if (x > 0)
        return end_of(WK_TIER_BAD, 0);
    wk_share_head_encode(&r->ident, s, io->part, want);
    x = wk_share_head_check(s, got, want);
    if (x != WK_SHARE_OK)
        return end_of(x == WK_SHARE_E_BAD ? WK_TIER_BAD : WK_TIER_MISS, 0);
    x = read_range(r, io, s, fd, got, s->head_bytes, s->object_bytes);
    if (x < 0)
        return end_of_err(x);
    if (x > 0 || !wk_share_payload_check(s, got, io->part))
        return end_of(WK_TIER_BAD, 0);
    return end_of(WK_TIER_DONE, 0);
}

struct wk_share_end wk_share_get(struct wk_share_root *r, struct wk_tier_io *io)
{
    const struct wk_kv_key *key = &io->part[io->n_part - 1].key;
    const struct wk_share_shape *s = &r->shape[key->group];
    char path[WK_SHARE_PATH_BYTES];
    struct wk_share_end e;
    uint8_t *heads;
    int fd;

    PS_ASSERT(io->n_part == s->n_part);
    path_of(r, key->digest, key->group, 4, path);
    fd = r->fs->open(r->fs, path, WK_FS_READ);
    if (fd < 0)
        return end_of_err(fd);
    heads = ps_alloc((size_t)2 * s->head_bytes);
    e = get_fd(r, io, s, fd, heads, heads + s->head_bytes);
    ps_free(heads);
    r->fs->close(r->fs, fd); /* reading is over: what close says about it changes nothing */
    if (e.status == WK_TIER_BAD)
        wk_share_trash(r, path); /* when that fails, the next reader finds it as bad */
    return e;
}

/* ---- put ---- */

/* Leaves a complete file under a name of ours; 0 or an errno, then there is no such file. */
static int write_temp(struct wk_share_root *r, struct wk_tier_io *io,
                      const struct wk_share_shape *s, const char *temp)
{
    struct iovec v[WK_TIER_PARTS_MAX + 1];
    uint8_t *head;
    uint64_t off = 0;
    int fd = r->fs->open(r->fs, temp, WK_FS_MAKE), x = 0, closed;

    if (fd < 0)
        return fd;
    head = ps_alloc(s->head_bytes);
    wk_share_head_encode(&r->ident, s, io->part, head);
    wk_share_head_seal(s, io->part, head);
    while (off < s->object_bytes && x == 0) {
        int n = pieces_from(s, head, io->part, off, v);
        ssize_t put = is_unwanted(r, io) ? -ECANCELED : r->fs->pwritev(r->fs, fd, v, n, off);

        if (put > 0)
            off += (uint64_t)put;
        else
            x = put == 0 ? -EIO : (int)put;
    }
    ps_free(head);
    closed = r->fs->close(r->fs, fd); /* network file systems tell of lost writes only here */
    if (x == 0)
        x = closed;
    if (x != 0)
        r->fs->unlink(r->fs, temp); /* else the collector finds it in an hour */
    return x;
}

static bool is_there(struct wk_share_root *r, const struct wk_share_shape *s, const char *path,
                     int *out_err)
{
    struct wk_fs_stat st;
    int x = r->fs->stat(r->fs, path, &st);

    *out_err = x;
    return x == 0 && st.is_file && st.n_bytes == s->object_bytes;
}

static int rename_in(struct wk_share_root *r, const struct wk_kv_key *key, const char *temp,
                     const char *path)
{
    char dir[WK_SHARE_PATH_BYTES];
    int x = 0;

    for (uint32_t i = 0; i < RENAME_TRIES; i++) {
        x = r->fs->rename(r->fs, temp, path);
        if (x != -ENOENT)
            return x;
        for (uint32_t d = 2; d < 4; d++) {
            path_of(r, key->digest, key->group, d, dir);
            x = r->fs->mkdir(r->fs, dir);
            if (x != 0 && x != -EEXIST)
                return x;
        }
    }
    return -ENOENT;
}

struct wk_share_end wk_share_put(struct wk_share_root *r, struct wk_tier_io *io)
{
    const struct wk_kv_key *key = &io->part[io->n_part - 1].key;
    const struct wk_share_shape *s = &r->shape[key->group];
    char path[WK_SHARE_PATH_BYTES], temp[WK_SHARE_PATH_BYTES];
    int x, again;

    PS_ASSERT(io->n_part == s->n_part);
    path_of(r, key->digest, key->group, 4, path);
    if (is_there(r, s, path, &x))
        return (struct wk_share_end){.status = WK_TIER_DONE, .was_there = true};
    wk_share_path_new(r, "tmp", temp);
    x = write_temp(r, io, s, temp);
    if (x == 0) {
        x = rename_in(r, key, temp, path);
        /* A rename whose answer was lost is repeated by the client and then finds nothing. */
        if (x == -ENOENT && is_there(r, s, path, &again))
            x = 0;
        if (x != 0)
            r->fs->unlink(r->fs, temp);
    }
    if (x == 0)
        return end_of(WK_TIER_DONE, 0);
    if (x == -ECANCELED)
        return end_of(WK_TIER_CANCELLED, 0);
    return end_of(x == -ENOSPC || x == -EDQUOT ? WK_TIER_FULL : WK_TIER_FAULT, x);
}

/* ---- find, erase ---- */

struct wk_share_end wk_share_find(struct wk_share_root *r, struct wk_tier_io *io)
{
    struct wk_share_end e = {.status = WK_TIER_DONE};
    uint32_t n = 0, n_found = UINT32_MAX;

    for (; n < io->n_part; n++) {
        const struct wk_kv_key *key = &io->part[n].key;
        char path[WK_SHARE_PATH_BYTES];
        int x;

        if (is_unwanted(r, io)) {
            e = end_of(WK_TIER_CANCELLED, 0);
            break;
        }
        path_of(r, key->digest, key->group, 4, path);
        io->part[n].status = WK_TIER_DONE;
        if (is_there(r, &r->shape[key->group], path, &x))
            continue;
        e = x == 0 ? end_of(WK_TIER_MISS, 0) : end_of_err(x);
        if (e.status != WK_TIER_MISS || key->group == 0)
            break; /* rows are no use without those before them */
        io->part[n].status = e.status;
        n_found = ps_min_u32(n_found, n);
        e = (struct wk_share_end){.status = WK_TIER_DONE};
    }
    n_found = ps_min_u32(n_found, n);
    for (; n < io->n_part; n++)
        io->part[n].status = e.status;
    io->n_found = n_found;
    return e;
}

int wk_share_trash(struct wk_share_root *r, const char *path)
{
    char trash[WK_SHARE_PATH_BYTES];
    int x;

    wk_share_path_new(r, "trash", trash);
    x = r->fs->rename(r->fs, path, trash);
    if (x == 0)
        r->fs->touch(r->fs, trash); /* its time in the trash begins; if that fails it is shorter */
    return x;
}

struct wk_share_end wk_share_erase(struct wk_share_root *r, struct wk_tier_io *io)
{
    const struct wk_kv_key *key = &io->part[io->n_part - 1].key;
    char path[WK_SHARE_PATH_BYTES];
    int x;

    path_of(r, key->digest, key->group, 4, path);
    x = wk_share_trash(r, path);
    return x == 0 || is_gone(x) ? end_of(WK_TIER_DONE, 0) : end_of(WK_TIER_FAULT, x);
}

/* ---- uses ---- */

bool wk_share_use_of(const struct wk_tier_io *io, const struct wk_share_end *e,
                     struct wk_share_use *out)
{
    const struct wk_kv_key *key;

    if (io->op == WK_TIER_FIND && io->n_found > 0)
        key = &io->part[io->n_found - 1].key;
    else if ((io->op == WK_TIER_GET || io->op == WK_TIER_PUT) && e->status == WK_TIER_DONE)
        key = &io->part[io->n_part - 1].key;
    else
        return false;
    memcpy(out->digest, key->digest, sizeof(out->digest));
    out->group = key->group;
    out->first_pos_below = UINT32_MAX;
    out->is_before = false;
    /* What was just written is new, but what it needs may be old. */
    if (io->op == WK_TIER_PUT && !e->was_there) {
        if (key->group != 0 || io->part[0].key.first_pos == 0)
            return false;
        memcpy(out->digest, io->part[0].key.parent, sizeof(out->digest));
        out->first_pos_below = io->part[0].key.first_pos;
        out->is_before = true;
    }
    return true;
}

/* The run before the one that lies at path becomes *u. */
static bool step_back(struct wk_share_root *r, const char *path, struct wk_share_use *u)
{
    const struct wk_share_shape *s = &r->shape[u->group];
    uint8_t *head;
    uint64_t off = 0;
    ssize_t got = 1;
    uint32_t first_pos;
    bool ok;
    int fd = r->fs->open(r->fs, path, WK_FS_READ);

    if (fd < 0)
        return false;
    head = ps_alloc(s->head_bytes);
    while (off < s->head_bytes && got > 0) {
        const struct iovec v = {head + off, s->head_bytes - off};

        got = r->fs->preadv(r->fs, fd, &v, 1, off);
        off += got > 0 ? (uint64_t)got : 0;
    }
    r->fs->close(r->fs, fd);
    /* Positions fall with each step, so a path ends whatever the files say. */
    ok = off == s->head_bytes && wk_share_head_parent(s, head, u->digest, &first_pos) &&
         first_pos > 0 && first_pos < u->first_pos_below;
    ps_free(head);
    if (ok) {
        u->first_pos_below = first_pos;
        u->is_before = true;
    }
    return ok;
}

bool wk_share_use_note(struct wk_share_root *r, struct wk_share_use *u)
{
    char path[WK_SHARE_PATH_BYTES];
    struct wk_fs_stat st;

    path_of(r, u->digest, u->group, 4, path);
    if (r->fs->stat(r->fs, path, &st) != 0 || !st.is_file ||
        !wk_share_is_older(wk_share_now_us(r), st.mtime_us,
                           u->is_before ? BEFORE_AGE_US : USE_AGE_US) ||
        r->fs->touch(r->fs, path) != 0)
        return false;
    return u->group == 0 && step_back(r, path, u); /* before a snapshot is no object of its name */
}
