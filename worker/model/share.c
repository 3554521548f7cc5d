#include "worker/model/share.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Changes whenever the packed layout of any operator changes. */
static const char magic[8] = {'p', 'e', 'n', 's', 't', 'k', 'w', '1'};

enum {
    SEALS = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL,
    MAX_REGISTRY_BYTES = 4096,
    LOCK_TRIES = 100,
};

struct header {
    char magic[8];
    uint64_t key, n_bytes, digest;
};
_Static_assert(sizeof(struct header) <= WK_SHARE_PAGE, "the header lies in the first page");

static void forget_map(void *p, size_t n)
{
    if (p != NULL && p != MAP_FAILED)
        (void)munmap(p, n);
}

/* Maps fd if it is what we look for: sealed, right size, right key. */
static bool adopt(struct wk_share *out, int fd, uint64_t key, size_t n_bytes)
{
    const struct header *h;
    struct stat st;
    void *p;

    if (fcntl(fd, F_GET_SEALS) != SEALS || fstat(fd, &st) < 0 ||
        (size_t)st.st_size != n_bytes + WK_SHARE_PAGE)
        return false;
    p = mmap(NULL, n_bytes + WK_SHARE_PAGE, PROT_READ, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED)
        return false;
    h = p;
    if (memcmp(h->magic, magic, sizeof(magic)) != 0 || h->key != key || h->n_bytes != n_bytes) {
        forget_map(p, n_bytes + WK_SHARE_PAGE);
        return false;
    }
    out->data = (const uint8_t *)p + WK_SHARE_PAGE;
    out->n_bytes = n_bytes;
    out->digest = h->digest;
    out->fd = fd;
    return true;
}

/* Tries each "pid fd" line of the registry but this process's own `skip_fd`. */
static bool find(struct wk_share *out, const char *lines, int skip_fd, uint64_t key, size_t n_bytes)
{
    const char *p = lines;
    char path[64];
    long pid;
    int fd, used;

    while (sscanf(p, "%ld %d\n%n", &pid, &fd, &used) == 2) {
        p += used;
        if (pid == (long)getpid() && fd == skip_fd)
            continue;
        (void)snprintf(path, sizeof(path), "/proc/%ld/fd/%d", pid, fd);
        /* The number may mean another file by now, also one whose opening waits for a peer. */
        fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
        if (fd < 0)
            continue; /* that process is gone, or is not ours to look into */
        if (adopt(out, fd, key, n_bytes)) {
            out->found = true;
            return true;
        }
        (void)close(fd);
    }
    return false;
}

static int make(struct wk_share *out, uint64_t key, size_t n_bytes, wk_share_fill_fn fill, void *ud)
{
    struct header h = {.key = key, .n_bytes = n_bytes};
    uint8_t *p;
    int fd, r;

    fd = memfd_create("penstock-weights", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return PS_FAULT(-errno);
    if (ftruncate(fd, (off_t)(n_bytes + WK_SHARE_PAGE)) < 0) {
        r = PS_FAULT(-errno);
        goto fail;
    }
    p = mmap(NULL, n_bytes + WK_SHARE_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED) {
        r = PS_FAULT(-errno);
        goto fail;
    }
    memcpy(h.magic, magic, sizeof(magic));
    h.digest = fill(p + WK_SHARE_PAGE, n_bytes, ud);
    memcpy(p, &h, sizeof(h));
    forget_map(p, n_bytes + WK_SHARE_PAGE);
    if (fcntl(fd, F_ADD_SEALS, SEALS) < 0) {
        r = PS_FAULT(-errno);
        goto fail;
    }
    if (!adopt(out, fd, key, n_bytes)) {
        r = PS_FAULT(-EIO);
        goto fail;
    }
    return 0;
fail:
    (void)close(fd);
    return r;
}

/*
 * The registry lies in shared memory, where it vanishes with the machine's boot as the weights do. Returns
 * it locked: a file that its last user removed while we waited for the lock is nobody's, so look again.
 */
static int lock_registry(uint64_t key, char *path, size_t path_bytes, int flags)
{
    struct stat st, now;
    int fd, n;

    n = snprintf(path, path_bytes, "/dev/shm/penstock-%ld", (long)getuid());
    PS_ASSERT(n > 0 && (size_t)n < path_bytes);
    if (mkdir(path, 0700) < 0 && errno != EEXIST)
        return PS_FAULT(-errno);
    /* Everybody may make entries there: what another user made is not believed. */
    if (lstat(path, &st) < 0 || !S_ISDIR(st.st_mode) || st.st_uid != getuid() ||
        (st.st_mode & 077) != 0)
        return PS_FAULT(-EPERM);
    n = snprintf(path, path_bytes, "/dev/shm/penstock-%ld/weights-%016lx", (long)getuid(),
                 (unsigned long)key);
    PS_ASSERT(n > 0 && (size_t)n < path_bytes);
    for (int i = 0; i < LOCK_TRIES; i++) {
        fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | flags, 0600);
        if (fd < 0)
            return PS_FAULT(-errno);
        while (flock(fd, LOCK_EX) < 0) {
            if (errno != EINTR) {
                n = -errno;
                (void)close(fd);
                return PS_FAULT(n);
            }
        }
        if (fstat(fd, &st) == 0 && stat(path, &now) == 0 && st.st_ino == now.st_ino)
            return fd;
        (void)close(fd);
    }
    return PS_FAULT(-EAGAIN);
}

static ssize_t read_lines(int reg, char *lines)
{
    ssize_t n = pread(reg, lines, MAX_REGISTRY_BYTES, 0);

    lines[n > 0 ? n : 0] = '\0';
    return n;
}

int wk_share_open(struct wk_share *out, uint64_t key, size_t n_bytes, wk_share_fill_fn fill,
                  void *ud)
{
    char lines[MAX_REGISTRY_BYTES + 1], line[64], path[96];
    PS_AUTO(ps_close_fd) int reg = lock_registry(key, path, sizeof(path), O_CREAT);
    ssize_t n;
    int r, len;

    *out = (struct wk_share){.fd = -1};
    if (reg < 0) /* no shared memory file system: weights are this process's own */
        return make(out, key, n_bytes, fill, ud);
    n = read_lines(reg, lines);
    if (!find(out, lines, -1, key, n_bytes)) {
        r = make(out, key, n_bytes, fill, ud);
        if (r != 0)
            return r;
        n = 0; /* whoever was listed is of no use any more */
    }
    len = snprintf(line, sizeof(line), "%ld %d\n", (long)getpid(), out->fd);
    if (n < 0 || n + len > MAX_REGISTRY_BYTES)
        n = 0; /* full of lines, most of them of the dead: start again with one that lives */
    /* When the line cannot be written, later processes pack for themselves: memory, not correctness. */
    if (ftruncate(reg, n) < 0 || pwrite(reg, line, (size_t)len, n) != len)
        (void)!ftruncate(reg, 0);
    return 0;
}

/* The last user removes the registry. */
static void leave(const struct wk_share *s)
{
    const struct header *h = (const struct header *)(const void *)(s->data - WK_SHARE_PAGE);
    char lines[MAX_REGISTRY_BYTES + 1], path[96];
    PS_AUTO(ps_close_fd) int reg = lock_registry(h->key, path, sizeof(path), 0);
    struct wk_share other = {.fd = -1};

    if (reg < 0)
        return;
    (void)read_lines(reg, lines);
    if (!find(&other, lines, s->fd, h->key, s->n_bytes)) {
        (void)unlink(path);
        return;
    }
    forget_map((void *)(uintptr_t)(other.data - WK_SHARE_PAGE), other.n_bytes + WK_SHARE_PAGE);
    (void)close(other.fd);
}

void wk_share_close(struct wk_share *s)
{
    if (s->data != NULL) {
        leave(s);
        forget_map((void *)(uintptr_t)(s->data - WK_SHARE_PAGE), s->n_bytes + WK_SHARE_PAGE);
    }
    if (s->fd >= 0)
        (void)close(s->fd);
    *s = (struct wk_share){.fd = -1};
}
