#pragma once

/*
 * The shared directory as one worker sees it: where things lie, and the ios on it, one at a time.
 *
 *     <root>/<space_id>/<arith_id>/<2 hex>/<next 2>/<digest>[.g1][.r0]   objects
 *     <root>/tmp/<maker>-<number>       being written; renamed into place when complete
 *     <root>/trash/<maker>-<number>     deleted; unlinked later, so that open readers go on
 *     <root>/collector                  lease of the one that deletes (share_collect.h)
 *
 * Every call here may block for ever. Any number of threads and processes at once: whatever appears
 * under an object's name was renamed there complete. Ages are told by the file system's own clock.
 * Directories above the two of the digest are made by open alone, so a directory that was unmounted
 * under us is an error and not a tree on the local disk.
 *
 * When an object was used, its file is touched, and so are the runs before it on its path (each names
 * the one before): thus a run is never much older than those that need it. An object is touched when
 * its time is an hour old; those before it when theirs is a minute old, which keeps both cheap.
 */

#include "common/buf.h"
#include "worker/tier/fs.h"
#include "worker/tier/share_object.h"

enum {
    WK_SHARE_ROOT_BYTES = 1024,
    WK_SHARE_PATH_BYTES = WK_SHARE_ROOT_BYTES + 256,
};

struct wk_share_root {
    const struct wk_fs *fs;
    const struct ps_clock *clock;
    struct wk_tier_ident ident;
    struct wk_share_shape shape[4];
    char path[WK_SHARE_ROOT_BYTES];
    char maker[40];                 /* nobody else's names begin like this */
    _Atomic uint64_t n_made;        /* names handed out */
    _Atomic int64_t time_offset_us; /* file system's clock minus clock->now_us */
};

/* How an io ended. */
struct wk_share_end {
    enum wk_tier_status status; /* of all parts, but FIND sets each */
    int err;                    /* negative errno behind FAULT and FULL, else 0 */
    bool was_there;             /* PUT: nothing was written */
};

/* A use to be noted; see above. */
struct wk_share_use {
    uint8_t digest[PS_SHA256_BYTES];
    uint32_t group;
    uint32_t first_pos_below; /* what is found must begin before this */
    bool is_before;           /* not the object used, but one it needs */
};

/* Calls nothing. False: err says what is wrong with the path or the identity. */
bool wk_share_root_init(struct wk_share_root *r, const struct wk_fs *fs,
                        const struct ps_clock *clock, const char *path,
                        const struct wk_tier_ident *ident, struct ps_buf *err);
/* Makes what is missing below the path. False: err says why the directory cannot be used. */
bool wk_share_root_open(struct wk_share_root *r, struct ps_buf *err);
void wk_share_root_close(struct wk_share_root *r); /* removes what open made for itself */

struct wk_share_end wk_share_get(struct wk_share_root *r, struct wk_tier_io *io);
struct wk_share_end wk_share_put(struct wk_share_root *r, struct wk_tier_io *io);
struct wk_share_end wk_share_find(struct wk_share_root *r, struct wk_tier_io *io);
struct wk_share_end wk_share_erase(struct wk_share_root *r, struct wk_tier_io *io);

/* Fills *out when io (ended with e) was a use of something; false: it was none. */
bool wk_share_use_of(const struct wk_tier_io *io, const struct wk_share_end *e,
                     struct wk_share_use *out);
/* Notes a use of one object; true: *u is now the next one, call again. */
bool wk_share_use_note(struct wk_share_root *r, struct wk_share_use *u);

/* ---- for the collector ---- */

void wk_share_path(const struct wk_share_root *r, const char *below, char *out);
/* A name of our own below dir ("tmp" or "trash"). */
void wk_share_path_new(struct wk_share_root *r, const char *dir, char *out);
int wk_share_trash(struct wk_share_root *r, const char *path); /* 0 or a negative errno */
int wk_share_time_sync(struct wk_share_root *r);               /* 0 or a negative errno */
int64_t wk_share_now_us(const struct wk_share_root *r); /* of the file system, as far as known */
/* Older than this, or that far in the future, which no clock in order writes. */
bool wk_share_is_older(int64_t now_us, int64_t mtime_us, int64_t age_us);
