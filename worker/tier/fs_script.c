#include "worker/tier/fs_script.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "common/hash.h"
#include "common/rng.h"

enum { FD_BASE = 1000, FILES_MAX = 128, PATH_BYTES = 512 };

struct node {
    char path[PATH_BYTES];
    uint64_t path_hash;
    bool is_dir, is_linked;
    uint8_t *data;
    uint64_t n_bytes;
    int64_t mtime_us;
    uint32_t n_open;
};

struct file {
    struct node *node; /* NULL: free */
    const struct mount *mount;
    bool is_writable;
};

struct mount {
    struct wk_fs fs; /* first: what callers hold */
    struct wk_fs_script *script;
    bool is_dead;
    uint32_t n_dirs; /* open directories */
};

struct dir { /* a listing, made when it was opened */
    struct mount *mount;
    char (*name)[WK_FS_NAME_BYTES];
    uint32_t n, at;
};

struct wk_fs_script {
    pthread_mutex_t lock;
    struct ps_rng rng;
    struct node **node;
    uint32_t n_node, cap_node;
    struct file file[FILES_MAX];
    struct mount mount[WK_FS_MOUNTS_MAX];
    uint32_t n_mount, fault[WK_FS_N_FAULTS];
    int64_t now_us;
    uint64_t n_calls;
    char denied[PATH_BYTES];
    wk_fs_hook_fn hook;
    void *hook_ud;
};

/* ---- nodes ---- */

static uint64_t hash_of(const char *path)
{
    return ps_hash64(path, strlen(path), 0);
}

static struct node *find(struct wk_fs_script *s, const char *path)
{
    uint64_t h = hash_of(path);

    for (uint32_t i = 0; i < s->n_node; i++) {
        struct node *n = s->node[i];

        if (n->path_hash == h && n->is_linked && strcmp(n->path, path) == 0)
            return n;
    }
    return NULL;
}

static struct node *parent_of(struct wk_fs_script *s, const char *path)
{
    char up[PATH_BYTES];
    char *slash;

    snprintf(up, sizeof(up), "%s", path);
    slash = strrchr(up, '/');
    PS_ASSERT(slash != NULL);
    *slash = '\0';
    return find(s, up);
}

static void set_path(struct node *n, const char *path)
{
    PS_ASSERT(strlen(path) < PATH_BYTES);
    snprintf(n->path, sizeof(n->path), "%s", path);
    n->path_hash = hash_of(path);
}

static struct node *add(struct wk_fs_script *s, const char *path, bool is_dir)
{
    struct node *n = ps_calloc(1, sizeof(*n)), *up = parent_of(s, path);

    if (s->n_node == s->cap_node) {
        s->cap_node = s->cap_node == 0 ? 64 : 2 * s->cap_node;
        s->node = ps_realloc(s->node, s->cap_node * sizeof(struct node *));
    }
    s->node[s->n_node++] = n;
    set_path(n, path);
    n->is_dir = is_dir;
    n->is_linked = true;
    n->mtime_us = s->now_us;
    if (up != NULL)
        up->mtime_us = s->now_us;
    return n;
}

static void free_if_gone(struct wk_fs_script *s, struct node *n)
{
    if (n->is_linked || n->n_open > 0)
        return;
    for (uint32_t i = 0; i < s->n_node; i++) {
        if (s->node[i] == n)
            s->node[i] = s->node[--s->n_node];
    }
    ps_free(n->data);
    ps_free(n);
}

static void unlink_node(struct wk_fs_script *s, struct node *n)
{
    struct node *up = parent_of(s, n->path);

    if (up != NULL)
        up->mtime_us = s->now_us;
    n->is_linked = false;
    free_if_gone(s, n);
}

static void resize(struct node *n, uint64_t n_bytes)
{
    n->data = ps_realloc(n->data, n_bytes);
    if (n_bytes > n->n_bytes)
        memset(n->data + n->n_bytes, 0, n_bytes - n->n_bytes);
    n->n_bytes = n_bytes;
}

/* ---- faults ---- */

static bool chance(struct wk_fs_script *s, enum wk_fs_fault f)
{
    return s->fault[f] > 0 && ps_rng_below(&s->rng, 1000000) < s->fault[f];
}

/* Every call begins so; returns with the lock, and 0 or how the call fails before it does a thing. */
static int begin(struct mount *m, const char *path)
{
    struct wk_fs_script *s = m->script;

    if (s->hook != NULL)
        s->hook(s->hook_ud, &m->fs);
    pthread_mutex_lock(&s->lock);
    s->n_calls++;
    if (m->is_dead || chance(s, WK_FS_EIO))
        return -EIO;
    if (chance(s, WK_FS_ESTALE))
        return -ESTALE;
    if (path != NULL && s->denied[0] != '\0' && strncmp(path, s->denied, strlen(s->denied)) == 0)
        return -EACCES;
    return path != NULL && chance(s, WK_FS_ENOENT) ? -ENOENT : 0;
}

static int end(struct mount *m, int r)
{
    pthread_mutex_unlock(&m->script->lock);
    return r;
}

static struct mount *mount_of(const struct wk_fs *fs)
{
    return fs->ctx;
}

/* ---- calls ---- */

static int open_node(struct mount *m, const char *path, enum wk_fs_open how)
{
    struct wk_fs_script *s = m->script;
    struct node *n = find(s, path);

    if (n == NULL && how == WK_FS_READ)
        return -ENOENT;
    if (n != NULL && how == WK_FS_MAKE)
        return -EEXIST;
    if (n != NULL && n->is_dir)
        return -EISDIR;
    if (n == NULL && parent_of(s, path) == NULL)
        return -ENOENT;
    if (n == NULL && chance(s, WK_FS_ENOSPC))
        return -ENOSPC;
    for (int fd = 0; fd < FILES_MAX; fd++) {
        if (s->file[fd].node != NULL)
            continue;
        if (n == NULL)
            n = add(s, path, false);
        s->file[fd] = (struct file){n, m, how != WK_FS_READ};
        n->n_open++;
        return FD_BASE + fd;
    }
    return -EMFILE;
}

static int script_open(const struct wk_fs *fs, const char *path, enum wk_fs_open how)
{
    struct mount *m = mount_of(fs);
    int x = begin(m, path);

    return end(m, x != 0 ? x : open_node(m, path, how));
}

static struct file *file_of(struct mount *m, int fd)
{
    struct file *f = &m->script->file[fd - FD_BASE];

    PS_ASSERT(fd >= FD_BASE && fd < FD_BASE + FILES_MAX);
    PS_ASSERT(f->node != NULL && f->mount == m);
    return f;
}

static ssize_t read_some(struct wk_fs_script *s, const struct node *n, const struct iovec *v,
                         int n_iov, uint64_t off)
{
    bool is_short = chance(s, WK_FS_SHORT);
    uint64_t got = 0;

    for (int i = 0; i < n_iov && off < n->n_bytes; i++) {
        uint64_t len = ps_min_u64(v[i].iov_len, n->n_bytes - off);

        if (is_short && len > 1)
            len = 1 + ps_rng_below(&s->rng, len);
        memcpy(v[i].iov_base, n->data + off, len);
        if (len > 0 && chance(s, WK_FS_FLIP))
            ((uint8_t *)v[i].iov_base)[ps_rng_below(&s->rng, len)] ^=
                (uint8_t)(1U << ps_rng_below(&s->rng, 8));
        off += len;
        got += len;
        if (len < v[i].iov_len)
            break;
    }
    return (ssize_t)got;
}

static ssize_t script_preadv(const struct wk_fs *fs, int fd, const struct iovec *v, int n,
                             uint64_t off)
{
    struct mount *m = mount_of(fs);
    struct wk_fs_script *s = m->script;
    ssize_t x = begin(m, NULL);

    if (m->is_dead) { /* its files were closed when it was killed */
        end(m, 0);
        return -EIO;
    }
    if (x == 0) {
        const struct node *node = file_of(m, fd)->node;

        /* Removed by somebody else: some servers keep it for the reader, some do not. */
        if (!node->is_linked && ps_rng_below(&s->rng, 2) == 0)
            x = -ESTALE;
        else
            x = read_some(s, node, v, n, off);
    }
    end(m, 0);
    return x;
}

static ssize_t script_pwritev(const struct wk_fs *fs, int fd, const struct iovec *v, int n,
                              uint64_t off)
{
    struct mount *m = mount_of(fs);
    struct wk_fs_script *s = m->script;
    ssize_t x = begin(m, NULL);
    bool is_short;

    if (m->is_dead)
        x = -EIO;
    else if (x == 0 && chance(s, WK_FS_ENOSPC))
        x = -ENOSPC;
    is_short = chance(s, WK_FS_SHORT);
    for (int i = 0; i < n && x >= 0; i++) {
        struct file *f = file_of(m, fd);
        uint64_t len = v[i].iov_len;

        PS_ASSERT(f->is_writable);
        if (is_short && len > 1)
            len = 1 + ps_rng_below(&s->rng, len);
        if (off + len > f->node->n_bytes)
            resize(f->node, off + len);
        memcpy(f->node->data + off, v[i].iov_base, len);
        f->node->mtime_us = s->now_us;
        off += len;
        x += (ssize_t)len;
        if (len < v[i].iov_len)
            break;
    }
    end(m, 0);
    return x;
}

static void close_file(struct wk_fs_script *s, struct file *f)
{
    struct node *n = f->node;

    f->node = NULL;
    n->n_open--;
    free_if_gone(s, n);
}

static int script_close(const struct wk_fs *fs, int fd)
{
    struct mount *m = mount_of(fs);
    struct wk_fs_script *s = m->script;
    int x = begin(m, NULL);
    struct file *f;

    if (m->is_dead)
        return end(m, -EIO);
    f = file_of(m, fd);
    if (f->is_writable && f->node->n_bytes > 0 && chance(s, WK_FS_LOST_CLOSE)) {
        resize(f->node, ps_rng_below(&s->rng, f->node->n_bytes));
        x = -EIO;
    }
    close_file(s, f);
    return end(m, x);
}

static int rename_node(struct wk_fs_script *s, const char *from, const char *to)
{
    struct node *n = find(s, from), *there = find(s, to);
    bool is_lost = chance(s, WK_FS_LOST_REPLY);

    if (n == NULL || parent_of(s, to) == NULL)
        return -ENOENT;
    PS_ASSERT(!n->is_dir);
    if (there != NULL && there->is_dir)
        return -EISDIR;
    if (there != NULL)
        unlink_node(s, there);
    parent_of(s, from)->mtime_us = s->now_us;
    parent_of(s, to)->mtime_us = s->now_us;
    set_path(n, to);
    return is_lost ? -ENOENT : 0;
}

static int script_rename(const struct wk_fs *fs, const char *from, const char *to)
{
    struct mount *m = mount_of(fs);
    int x = begin(m, to);

    return end(m, x != 0 ? x : rename_node(m->script, from, to));
}

static int script_unlink(const struct wk_fs *fs, const char *path)
{
    struct mount *m = mount_of(fs);
    int x = begin(m, path);
    struct node *n = find(m->script, path);

    if (x == 0 && n == NULL)
        x = -ENOENT;
    if (x == 0 && n->is_dir)
        x = -EISDIR;
    if (x == 0)
        unlink_node(m->script, n);
    return end(m, x);
}

static int script_mkdir(const struct wk_fs *fs, const char *path)
{
    struct mount *m = mount_of(fs);
    int x = begin(m, path);

    if (x == 0 && find(m->script, path) != NULL)
        x = -EEXIST;
    if (x == 0 && parent_of(m->script, path) == NULL)
        x = -ENOENT;
    if (x == 0 && chance(m->script, WK_FS_ENOSPC))
        x = -ENOSPC;
    if (x == 0)
        add(m->script, path, true);
    return end(m, x);
}

/* What follows the directory in a path directly below it; NULL: it is not. */
static const char *name_below(const struct node *n, const char *dir)
{
    size_t len = strlen(dir);

    if (!n->is_linked || strncmp(n->path, dir, len) != 0 || n->path[len] != '/')
        return NULL;
    return strchr(n->path + len + 1, '/') == NULL ? n->path + len + 1 : NULL;
}

static int script_rmdir(const struct wk_fs *fs, const char *path)
{
    struct mount *m = mount_of(fs);
    struct wk_fs_script *s = m->script;
    int x = begin(m, path);
    struct node *n = find(s, path);

    if (x == 0 && n == NULL)
        x = -ENOENT;
    for (uint32_t i = 0; i < s->n_node && x == 0; i++) {
        if (name_below(s->node[i], path) != NULL)
            x = -ENOTEMPTY;
    }
    if (x == 0)
        unlink_node(s, n);
    return end(m, x);
}

static int script_touch(const struct wk_fs *fs, const char *path)
{
    struct mount *m = mount_of(fs);
    int x = begin(m, path);
    struct node *n = find(m->script, path);

    if (x == 0 && n == NULL)
        x = -ENOENT;
    if (x == 0)
        n->mtime_us = m->script->now_us;
    return end(m, x);
}

static int script_stat(const struct wk_fs *fs, const char *path, struct wk_fs_stat *out)
{
    struct mount *m = mount_of(fs);
    int x = begin(m, path);
    const struct node *n = find(m->script, path);

    if (x == 0 && n == NULL)
        x = -ENOENT;
    if (x == 0)
        *out = (struct wk_fs_stat){n->n_bytes, n->mtime_us, !n->is_dir, n->is_dir};
    return end(m, x);
}

static int script_dir_open(const struct wk_fs *fs, const char *path, void **out_dir)
{
    struct mount *m = mount_of(fs);
    struct wk_fs_script *s = m->script;
    int x = begin(m, path);
    const struct node *n = find(s, path);
    struct dir *d;

    if (x == 0 && n == NULL)
        x = -ENOENT;
    if (x == 0 && !n->is_dir)
        x = -ENOTDIR;
    if (x != 0)
        return end(m, x);
    d = ps_calloc(1, sizeof(*d));
    d->mount = m;
    d->name = ps_calloc(s->n_node, sizeof(*d->name));
    for (uint32_t i = 0; i < s->n_node; i++) {
        const char *name = name_below(s->node[i], path);

        if (name != NULL)
            snprintf(d->name[d->n++], WK_FS_NAME_BYTES, "%s", name);
    }
    m->n_dirs++;
    *out_dir = d;
    return end(m, 0);
}

static int script_dir_next(const struct wk_fs *fs, void *dir, char name[WK_FS_NAME_BYTES])
{
    struct mount *m = mount_of(fs);
    struct dir *d = dir;
    int x = begin(m, NULL);

    PS_ASSERT(d->mount == m);
    if (x == 0 && d->at < d->n) {
        memcpy(name, d->name[d->at++], WK_FS_NAME_BYTES);
        x = 1;
    }
    return end(m, x);
}

static void script_dir_close(const struct wk_fs *fs, void *dir)
{
    struct mount *m = mount_of(fs);
    struct dir *d = dir;

    begin(m, NULL);
    m->n_dirs--;
    ps_free(d->name);
    ps_free(d);
    end(m, 0);
}

/* ---- the test's side ---- */

struct wk_fs_script *wk_fs_script_create(uint64_t seed)
{
    struct wk_fs_script *s = ps_calloc(1, sizeof(*s));

    pthread_mutex_init(&s->lock, NULL);
    ps_rng_seed(&s->rng, seed);
    s->now_us = INT64_C(1700000000000000); /* far from any clock of the workers */
    add(s, "/s", true);
    return s;
}

void wk_fs_script_destroy(struct wk_fs_script *s)
{
    for (uint32_t i = 0; i < s->n_node; i++) {
        ps_free(s->node[i]->data);
        ps_free(s->node[i]);
    }
    ps_free(s->node);
    pthread_mutex_destroy(&s->lock);
    ps_free(s);
}

const struct wk_fs *wk_fs_script_mount(struct wk_fs_script *s)
{
    struct mount *m = &s->mount[s->n_mount];

    PS_ASSERT(s->n_mount++ < WK_FS_MOUNTS_MAX);
    m->script = s;
    m->fs = (struct wk_fs){
        .ctx = m,
        .open = script_open,
        .preadv = script_preadv,
        .pwritev = script_pwritev,
        .close = script_close,
        .rename = script_rename,
        .unlink = script_unlink,
        .mkdir = script_mkdir,
        .rmdir = script_rmdir,
        .touch = script_touch,
        .stat = script_stat,
        .dir_open = script_dir_open,
        .dir_next = script_dir_next,
        .dir_close = script_dir_close,
    };
    return &m->fs;
}

void wk_fs_script_kill(struct wk_fs_script *s, const struct wk_fs *mount)
{
    struct mount *m = mount_of(mount);

    pthread_mutex_lock(&s->lock);
    m->is_dead = true;
    for (uint32_t i = 0; i < FILES_MAX; i++) {
        if (s->file[i].node != NULL && s->file[i].mount == m)
            close_file(s, &s->file[i]);
    }
    pthread_mutex_unlock(&s->lock);
}

void wk_fs_script_set_hook(struct wk_fs_script *s, wk_fs_hook_fn fn, void *ud)
{
    s->hook = fn;
    s->hook_ud = ud;
}

void wk_fs_script_set_fault(struct wk_fs_script *s, enum wk_fs_fault f, uint32_t per_million)
{
    pthread_mutex_lock(&s->lock);
    s->fault[f] = per_million;
    pthread_mutex_unlock(&s->lock);
}

void wk_fs_script_deny(struct wk_fs_script *s, const char *path)
{
    pthread_mutex_lock(&s->lock);
    snprintf(s->denied, sizeof(s->denied), "%s", path);
    pthread_mutex_unlock(&s->lock);
}

void wk_fs_script_advance(struct wk_fs_script *s, uint64_t us)
{
    pthread_mutex_lock(&s->lock);
    s->now_us += (int64_t)us;
    pthread_mutex_unlock(&s->lock);
}

static bool is_file_below(const struct node *n, const char *prefix)
{
    return n->is_linked && !n->is_dir && strncmp(n->path, prefix, strlen(prefix)) == 0;
}

bool wk_fs_script_rot(struct wk_fs_script *s, const char *prefix)
{
    struct node *found = NULL;
    uint32_t n = 0;

    pthread_mutex_lock(&s->lock);
    for (uint32_t i = 0; i < s->n_node; i++) { /* each file with equal chance */
        if (is_file_below(s->node[i], prefix) && s->node[i]->n_bytes > 0 &&
            ps_rng_below(&s->rng, ++n) == 0)
            found = s->node[i];
    }
    if (found != NULL && ps_rng_below(&s->rng, 4) == 0)
        resize(found, ps_rng_below(&s->rng, found->n_bytes));
    else if (found != NULL)
        found->data[ps_rng_below(&s->rng, found->n_bytes)] ^=
            (uint8_t)(1U << ps_rng_below(&s->rng, 8));
    pthread_mutex_unlock(&s->lock);
    return found != NULL;
}

uint32_t wk_fs_script_n_open(struct wk_fs_script *s)
{
    uint32_t n = 0;

    pthread_mutex_lock(&s->lock);
    for (uint32_t i = 0; i < FILES_MAX; i++)
        n += s->file[i].node != NULL;
    for (uint32_t i = 0; i < s->n_mount; i++)
        n += s->mount[i].n_dirs;
    pthread_mutex_unlock(&s->lock);
    return n;
}

uint64_t wk_fs_script_n_calls(struct wk_fs_script *s)
{
    uint64_t n;

    pthread_mutex_lock(&s->lock);
    n = s->n_calls;
    pthread_mutex_unlock(&s->lock);
    return n;
}

uint32_t wk_fs_script_sum(struct wk_fs_script *s, const char *prefix, uint64_t *out_bytes)
{
    uint32_t n = 0;

    *out_bytes = 0;
    pthread_mutex_lock(&s->lock);
    for (uint32_t i = 0; i < s->n_node; i++) {
        if (is_file_below(s->node[i], prefix)) {
            *out_bytes += s->node[i]->n_bytes;
            n++;
        }
    }
    pthread_mutex_unlock(&s->lock);
    return n;
}
