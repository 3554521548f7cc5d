#pragma once

/*
 * A shared file system in memory, for tests: several mounts of one directory, faults by seed.
 *
 * The root is "/s". A mount is one worker's view; killing it fails its calls from then on and leaves
 * what it had half written. Before each call the hook runs, without the lock: a test lets others act
 * there (so any interleaving of calls happens in one thread), kills the caller, or blocks (a call
 * that hangs). Its clock is its own and moves only by wk_fs_script_advance. Any thread.
 */

#include "worker/tier/fs.h"

enum wk_fs_fault {
    WK_FS_SHORT,      /* reads and writes move less than asked */
    WK_FS_EIO,        /* any call */
    WK_FS_ESTALE,     /* any call on a path or file */
    WK_FS_ENOENT,     /* something that is there is not seen */
    WK_FS_ENOSPC,     /* writes and new names */
    WK_FS_LOST_CLOSE, /* close fails and the file has lost its end */
    WK_FS_LOST_REPLY, /* rename is done and says it found nothing */
    WK_FS_FLIP,       /* a bit of what is read is wrong */
    WK_FS_N_FAULTS,
};

enum { WK_FS_MOUNTS_MAX = 8 };

struct wk_fs_script;
typedef void (*wk_fs_hook_fn)(void *ud, const struct wk_fs *mount);

struct wk_fs_script *wk_fs_script_create(uint64_t seed);
void wk_fs_script_destroy(struct wk_fs_script *s); /* also its mounts */
const struct wk_fs *wk_fs_script_mount(struct wk_fs_script *s);
void wk_fs_script_kill(struct wk_fs_script *s, const struct wk_fs *mount);
void wk_fs_script_set_hook(struct wk_fs_script *s, wk_fs_hook_fn fn, void *ud);
void wk_fs_script_set_fault(struct wk_fs_script *s, enum wk_fs_fault f, uint32_t per_million);
/* Calls with paths that begin like this get EACCES; "": none. */
void wk_fs_script_deny(struct wk_fs_script *s, const char *path);
void wk_fs_script_advance(struct wk_fs_script *s, uint64_t us);
/* Damages a file at rest, one of those under prefix: a bit, or its end, is lost. False: none. */
bool wk_fs_script_rot(struct wk_fs_script *s, const char *prefix);
uint32_t wk_fs_script_n_open(struct wk_fs_script *s); /* files and directories, of living mounts */
uint64_t wk_fs_script_n_calls(struct wk_fs_script *s);
/* Files under prefix. */
uint32_t wk_fs_script_sum(struct wk_fs_script *s, const char *prefix, uint64_t *out_bytes);
