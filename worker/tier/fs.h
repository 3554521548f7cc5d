#pragma once

/*
 * File system calls, behind a table: what the shared tier asks of a directory, and nothing else.
 *
 * Every call may block for as long as the file system likes. Results are >= 0 or a negative errno,
 * as plain data: on a shared file system most of them are everyday cases of the caller. A call that
 * was interrupted is repeated here. Any thread; the real table has no state, so it outlives all.
 * Nothing follows a symbolic link in the last part of a path.
 */

#include <sys/types.h>
#include <sys/uio.h>

#include "common/base.h"

enum wk_fs_open {
    WK_FS_READ,
    WK_FS_MAKE,  /* for writing, must not exist */
    WK_FS_WRITE, /* for writing, made when it does not exist */
};

enum { WK_FS_NAME_BYTES = 256 };

struct wk_fs_stat {
    uint64_t n_bytes;
    int64_t mtime_us; /* the file system's clock, since 1970 */
    bool is_file, is_dir;
};

struct wk_fs {
    void *ctx; /* the script's; NULL in the real one */
    int (*open)(const struct wk_fs *fs, const char *path, enum wk_fs_open how);
    /* May move less than asked; 0 from preadv: the end. */
    ssize_t (*preadv)(const struct wk_fs *fs, int fd, const struct iovec *v, int n, uint64_t off);
    ssize_t (*pwritev)(const struct wk_fs *fs, int fd, const struct iovec *v, int n, uint64_t off);
    int (*close)(const struct wk_fs *fs, int fd); /* closed even when it fails */
    int (*rename)(const struct wk_fs *fs, const char *from, const char *to);
    int (*unlink)(const struct wk_fs *fs, const char *path);
    int (*mkdir)(const struct wk_fs *fs, const char *path);
    int (*rmdir)(const struct wk_fs *fs, const char *path);
    int (*touch)(const struct wk_fs *fs, const char *path); /* its mtime is the file system's now */
    int (*stat)(const struct wk_fs *fs, const char *path, struct wk_fs_stat *out);
    int (*dir_open)(const struct wk_fs *fs, const char *path, void **out_dir);
    /* 1: name is filled; 0: the end. "." and ".." do not come. */
    int (*dir_next)(const struct wk_fs *fs, void *dir, char name[WK_FS_NAME_BYTES]);
    void (*dir_close)(const struct wk_fs *fs, void *dir);
};

const struct wk_fs *wk_fs_real(void);
