#include "worker/tier/share_collect.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"

#define LEASE_AGE_US (INT64_C(120) * 1000000)
#define BEAT_US      (UINT64_C(20) * 1000000) /* several in the life of a lease */
#define TEMP_AGE_US  (INT64_C(3600) * 1000000)
#define TRASH_AGE_US (INT64_C(600) * 1000000)
#define EMPTY_AGE_US (INT64_C(3600) * 1000000)

enum {
    N_OLDEST = 4096,  /* 600 KiB */
    N_LEVELS = 5,     /* root, space, arith, two hex, two hex */
    BELOW_BYTES = 160 /* of an object below the root */
};

/*
 * REST -> TEMP -> TRASH -> WALK -> DROP -> REST
 *           \________\_______\_______\______^   lease lost, or the root cannot be read
 */
enum phase { REST, TEMP, TRASH, WALK, DROP };

struct old {
    int64_t mtime_us;
    uint64_t n_bytes;
    char below[BELOW_BYTES];
};

struct level {
    void *dir;
    size_t path_len; /* of c->below */
    uint32_t n_entries;
};

struct wk_share_collect {
    struct wk_share_root *root;
    uint64_t bytes_max, keep_us;
    enum phase phase;
    bool has_lease, is_above; /* is_above: of bytes_max, when the walk ended */
    uint64_t beat_us;         /* when the lease was last seen to be ours */
    void *sweep;              /* TEMP, TRASH: the open directory */
    struct level level[N_LEVELS];
    uint32_t n_level;
    char below[BELOW_BYTES]; /* the directory of the deepest level; "" is the root */
    struct old *old;         /* WALK: a heap, newest first. DROP: in order, oldest last */
    uint32_t n_old, n_oldest;
    uint64_t n_objects, n_bytes, n_unreadable, n_dropped; /* of this round */
    uint64_t n_calls;
    bool told_unreadable, told_failing;
    struct wk_share_collect_stats stats;
};

struct wk_share_collect *wk_share_collect_create(const struct wk_share_collect_conf *conf)
{
    struct wk_share_collect *c = ps_calloc(1, sizeof(*c));

    PS_ASSERT(conf->root != NULL);
    c->root = conf->root;
    c->bytes_max = conf->bytes_max;
    c->keep_us = conf->keep_us;
    c->n_oldest = conf->n_oldest == 0 ? N_OLDEST : conf->n_oldest;
    c->old = ps_calloc(c->n_oldest, sizeof(*c->old));
    return c;
}

void wk_share_collect_stats(const struct wk_share_collect *c, struct wk_share_collect_stats *out)
{
    *out = c->stats;
}

/* Counted, so that a piece of work has an end. */
static const struct wk_fs *fs_of(struct wk_share_collect *c)
{
    c->n_calls++;
    return c->root->fs;
}

static void close_dirs(struct wk_share_collect *c)
{
    if (c->sweep != NULL)
        c->root->fs->dir_close(c->root->fs, c->sweep);
    c->sweep = NULL;
    while (c->n_level > 0)
        c->root->fs->dir_close(c->root->fs, c->level[--c->n_level].dir);
}

static bool stop(struct wk_share_collect *c)
{
    close_dirs(c);
    c->phase = REST;
    return false;
}

/* ---- lease ---- */

enum lease { LEASE_NONE, LEASE_OURS, LEASE_OTHER /* or it cannot be told */ };

static enum lease read_lease(struct wk_share_collect *c)
{
    const struct wk_fs *fs = fs_of(c);
    char path[WK_SHARE_PATH_BYTES], name[sizeof(c->root->maker)] = "";
    const struct iovec v = {name, sizeof(name) - 1};
    ssize_t got;
    int fd;

    wk_share_path(c->root, "collector", path);
    fd = fs->open(fs, path, WK_FS_READ);
    if (fd < 0)
        return fd == -ENOENT ? LEASE_NONE : LEASE_OTHER;
    got = fs->preadv(fs, fd, &v, 1, 0);
    fs->close(fs, fd);
    if (got < 0)
        return LEASE_OTHER;
    return strcmp(name, c->root->maker) == 0 ? LEASE_OURS : LEASE_OTHER;
}

static bool make_lease(struct wk_share_collect *c)
{
    const struct wk_fs *fs = fs_of(c);
    char path[WK_SHARE_PATH_BYTES];
    const struct iovec v = {c->root->maker, strlen(c->root->maker)};
    ssize_t put;
    int fd, x;

    wk_share_path(c->root, "collector", path);
    fd = fs->open(fs, path, WK_FS_MAKE);
    if (fd < 0)
        return false;
    put = fs->pwritev(fs, fd, &v, 1, 0);
    x = fs->close(fs, fd);
    return put == (ssize_t)v.iov_len && x == 0; /* else it belongs to nobody and grows old */
}

static bool take_lease(struct wk_share_collect *c)
{
    const struct wk_fs *fs = fs_of(c);
    char path[WK_SHARE_PATH_BYTES];
    struct wk_fs_stat st;
    enum lease l = read_lease(c);

    wk_share_path(c->root, "collector", path);
    if (l == LEASE_OTHER && fs->stat(fs, path, &st) == 0 &&
        wk_share_is_older(wk_share_now_us(c->root), st.mtime_us, LEASE_AGE_US) &&
        wk_share_trash(c->root, path) == 0)
        l = LEASE_NONE;
    c->has_lease =
        (l == LEASE_OURS && fs->touch(fs, path) == 0) || (l == LEASE_NONE && make_lease(c));
    c->beat_us = ps_now_us(c->root->clock);
    return c->has_lease;
}

/* False: it is somebody else's by now, or cannot be told. */
static bool keep_lease(struct wk_share_collect *c)
{
    const struct wk_fs *fs = c->root->fs;
    char path[WK_SHARE_PATH_BYTES];

    if (ps_now_us(c->root->clock) - c->beat_us < BEAT_US)
        return true;
    wk_share_path(c->root, "collector", path);
    c->has_lease = read_lease(c) == LEASE_OURS && fs->touch(fs, path) == 0;
    c->beat_us = ps_now_us(c->root->clock);
    return c->has_lease;
}

void wk_share_collect_destroy(struct wk_share_collect *c)
{
    char path[WK_SHARE_PATH_BYTES];

    if (c == NULL)
        return;
    close_dirs(c);
    if (c->has_lease && read_lease(c) == LEASE_OURS) {
        wk_share_path(c->root, "collector", path);
        c->root->fs->unlink(c->root->fs, path);
    }
    ps_free(c->old);
    ps_free(c);
}

/* ---- tmp and trash ---- */

static bool begin_round(struct wk_share_collect *c)
{
    int x = wk_share_time_sync(c->root);

    c->n_calls += 3;
    if (x != 0) {
        if (!c->told_failing)
            ps_warn("t3 directory fails", "path=%s error=%s", PS_Q(c->root->path),
                    PS_Q(strerror(-x)));
        c->told_failing = true;
        return false;
    }
    c->told_failing = false;
    if (!take_lease(c))
        return false;
    c->n_objects = c->n_bytes = c->n_unreadable = 0;
    c->n_old = 0;
    c->phase = TEMP;
    return true;
}

/* One entry of tmp or trash. */
static bool sweep_one(struct wk_share_collect *c, const char *dir, int64_t age_us, enum phase after)
{
    const struct wk_fs *fs = fs_of(c);
    char path[WK_SHARE_PATH_BYTES], below[WK_FS_NAME_BYTES + 8], name[WK_FS_NAME_BYTES];
    struct wk_fs_stat st;
    int x = 0;

    if (c->sweep == NULL) {
        wk_share_path(c->root, dir, path);
        x = fs->dir_open(fs, path, &c->sweep);
        if (x != 0)
            c->sweep = NULL;
    }
    if (x == 0)
        x = fs->dir_next(fs, c->sweep, name);
    if (x <= 0) {
        c->n_unreadable += x < 0;
        if (c->sweep != NULL)
            fs->dir_close(fs, c->sweep);
        c->sweep = NULL;
        c->phase = after;
        return true;
    }
    if ((size_t)snprintf(below, sizeof(below), "%s/%s", dir, name) >= 200)
        return true; /* no name of ours is that long */
    wk_share_path(c->root, below, path);
    if (fs->stat(fs, path, &st) == 0 && st.is_file &&
        wk_share_is_older(wk_share_now_us(c->root), st.mtime_us, age_us) &&
        fs->unlink(fs, path) == 0)
        c->stats.n_unlinked++;
    c->n_calls++;
    return true;
}

/* ---- the oldest objects: a heap with the newest on top ---- */

static void swap_old(struct old *a, struct old *b)
{
    struct old x = *a;

    *a = *b;
    *b = x;
}

static void heap_down(struct old *h, uint32_t n, uint32_t i)
{
    for (;;) {
        uint32_t m = i, l = 2 * i + 1;

        if (l < n && h[l].mtime_us > h[m].mtime_us)
            m = l;
        if (l + 1 < n && h[l + 1].mtime_us > h[m].mtime_us)
            m = l + 1;
        if (m == i)
            return;
        swap_old(&h[i], &h[m]);
        i = m;
    }
}

static void remember(struct wk_share_collect *c, const char *below, const struct wk_fs_stat *st)
{
    struct old *h = c->old;
    uint32_t i = c->n_old;

    if (c->n_old == c->n_oldest) {
        if (st->mtime_us >= h[0].mtime_us)
            return;
        i = 0;
    } else {
        c->n_old++;
    }
    h[i].mtime_us = st->mtime_us;
    h[i].n_bytes = st->n_bytes;
    snprintf(h[i].below, sizeof(h[i].below), "%s", below);
    if (i == 0)
        heap_down(h, c->n_old, 0);
    for (; i > 0 && h[(i - 1) / 2].mtime_us < h[i].mtime_us; i = (i - 1) / 2)
        swap_old(&h[i], &h[(i - 1) / 2]);
}

static int newest_first(const void *a, const void *b)
{
    const struct old *x = a, *y = b;

    return (x->mtime_us < y->mtime_us) - (x->mtime_us > y->mtime_us);
}

/* ---- objects ---- */

/* n lower-case hex digits; returns what follows, NULL when these are not. */
static const char *skip_hex(const char *s, uint32_t n)
{
    for (; n > 0; n--, s++) {
        if (!((*s >= '0' && *s <= '9') || (*s >= 'a' && *s <= 'f')))
            return NULL;
    }
    return s;
}

/* Is it the name of something of ours at this depth? Objects end in nothing, .g1, .r0, .g1.r0. */
static bool is_ours(const char *name, uint32_t depth)
{
    static const uint32_t n_hex[N_LEVELS] = {16, 16, 2, 2, 2 * PS_SHA256_BYTES};
    const char *s = skip_hex(name, n_hex[depth]);

    if (s == NULL || depth + 1 < N_LEVELS)
        return s != NULL && *s == '\0';
    for (uint32_t i = 0; i < 2; i++) {
        size_t n;

        if (s[0] != '.' || s[1] != (i == 0 ? 'g' : 'r'))
            continue;
        n = strspn(s + 2, "0123456789");
        if (n == 0 || n > 10)
            return false;
        s += 2 + n;
    }
    return *s == '\0';
}

/* Deletes unless somebody used it since it was looked at; true when it is gone. */
static bool drop(struct wk_share_collect *c, const char *below, int64_t mtime_us)
{
    const struct wk_fs *fs = fs_of(c);
    char path[WK_SHARE_PATH_BYTES];
    struct wk_fs_stat st;
    int x;

    wk_share_path(c->root, below, path);
    x = fs->stat(fs, path, &st);
    if (x == 0 && st.mtime_us == mtime_us) {
        x = wk_share_trash(c->root, path);
        if (x == 0) {
            c->n_dropped++;
            c->stats.n_deleted++;
        }
        return x == 0 || x == -ENOENT;
    }
    return x == -ENOENT; /* another collector was faster */
}

static void see_object(struct wk_share_collect *c, const char *below)
{
    const struct wk_fs *fs = fs_of(c);
    char path[WK_SHARE_PATH_BYTES];
    struct wk_fs_stat st;
    int x;

    wk_share_path(c->root, below, path);
    x = fs->stat(fs, path, &st);
    if (x != 0) {
        c->n_unreadable += x != -ENOENT && x != -ESTALE;
        return;
    }
    if (!st.is_file)
        return;
    if (c->keep_us > 0 && wk_share_now_us(c->root) - st.mtime_us > (int64_t)c->keep_us &&
        drop(c, below, st.mtime_us))
        return;
    c->n_objects++;
    c->n_bytes += st.n_bytes;
    remember(c, below, &st);
}

static void enter(struct wk_share_collect *c)
{
    const struct wk_fs *fs = fs_of(c);
    struct level *l = &c->level[c->n_level];
    char path[WK_SHARE_PATH_BYTES];
    int x;

    PS_ASSERT(c->n_level < N_LEVELS);
    wk_share_path(c->root, c->below, path);
    x = fs->dir_open(fs, path, &l->dir);
    if (x != 0) {
        c->n_unreadable += x != -ENOENT && x != -ESTALE && x != -ENOTDIR;
        return;
    }
    l->path_len = strlen(c->below);
    l->n_entries = 0;
    c->n_level++;
}

/* The deepest directory has no more entries. */
static void leave(struct wk_share_collect *c)
{
    const struct wk_fs *fs = fs_of(c);
    struct level *l = &c->level[--c->n_level];
    char path[WK_SHARE_PATH_BYTES];
    struct wk_fs_stat st;

    fs->dir_close(fs, l->dir);
    if (l->n_entries > 0 || c->n_level < 3) /* the upper ones are made at start only */
        return;
    c->below[l->path_len] = '\0';
    wk_share_path(c->root, c->below, path);
    if (fs->stat(fs, path, &st) == 0 &&
        wk_share_is_older(wk_share_now_us(c->root), st.mtime_us, EMPTY_AGE_US))
        fs->rmdir(fs, path); /* fails, rightly, when it is not empty any more */
}

/* One entry of the deepest open directory. False: the walk is over. */
static bool walk_one(struct wk_share_collect *c)
{
    const struct wk_fs *fs = fs_of(c);
    struct level *l = &c->level[c->n_level - 1];
    uint32_t depth = c->n_level - 1;
    char name[WK_FS_NAME_BYTES];
    int x = fs->dir_next(fs, l->dir, name);

    if (x <= 0) {
        c->n_unreadable += x < 0;
        l->n_entries += x < 0; /* not known to be empty */
        leave(c);
        return c->n_level > 0;
    }
    l->n_entries++;
    if (!is_ours(name, depth))
        return true;
    snprintf(c->below + l->path_len, sizeof(c->below) - l->path_len, "%s%s",
             l->path_len > 0 ? "/" : "", name);
    if (depth + 1 == N_LEVELS)
        see_object(c, c->below);
    else
        enter(c);
    return true;
}

static void begin_walk(struct wk_share_collect *c)
{
    c->below[0] = '\0';
    enter(c);
}

static void end_walk(struct wk_share_collect *c)
{
    qsort(c->old, c->n_old, sizeof(*c->old), newest_first);
    c->is_above = c->bytes_max > 0 && c->n_bytes > c->bytes_max;
    c->n_dropped = 0;
    c->phase = DROP;
}

/* False: the round is over. */
static bool drop_one(struct wk_share_collect *c)
{
    const uint64_t low = c->bytes_max - c->bytes_max / 16;

    if (c->is_above && c->n_bytes > low && c->n_old > 0) {
        struct old *o = &c->old[--c->n_old];

        if (drop(c, o->below, o->mtime_us)) {
            c->n_objects--;
            c->n_bytes -= o->n_bytes;
        }
        return true;
    }
    if (c->n_unreadable > 0 && !c->told_unreadable)
        ps_warn("t3 directory is partly unreadable", "path=%s entries=%llu", PS_Q(c->root->path),
                (unsigned long long)c->n_unreadable);
    c->told_unreadable = c->n_unreadable > 0;
    c->stats.n_rounds++;
    c->stats.n_objects = c->n_objects;
    c->stats.n_bytes = c->n_bytes;
    c->stats.n_unreadable = c->n_unreadable;
    if (!c->is_above || c->n_bytes <= c->bytes_max || c->n_dropped == 0)
        return stop(c);
    c->n_objects = c->n_bytes = c->n_unreadable = 0; /* remembered too few: look again */
    c->n_old = 0;
    c->phase = WALK;
    return true;
}

static bool step(struct wk_share_collect *c)
{
    if (c->phase != REST && !keep_lease(c))
        return stop(c);
    switch (c->phase) {
    case REST:
        return begin_round(c);
    case TEMP:
        return sweep_one(c, "tmp", TEMP_AGE_US, TRASH);
    case TRASH:
        return sweep_one(c, "trash", TRASH_AGE_US, WALK);
    case WALK:
        if (c->n_level == 0)
            begin_walk(c);
        if (c->n_level == 0 || !walk_one(c))
            end_walk(c);
        return true;
    case DROP:
        return drop_one(c);
    }
    return stop(c);
}

bool wk_share_collect_run(struct wk_share_collect *c, uint32_t n_ops)
{
    uint64_t until = c->n_calls + n_ops;

    while (c->n_calls < until) {
        if (!step(c))
            return false;
    }
    return true;
}
