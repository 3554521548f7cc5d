#pragma once

/*
 * A file of T2: opened, locked, made as large as it should be, and its superblock.
 *
 *     superblock  4 KiB: what the slots are, for whom, and their generation
 *     slot 0 .. n_slot - 1, each slot_bytes (disk_slot.h)
 *
 * A file of another model, format or version is started over: a new id in the superblock makes all
 * its slots void. A file that is none of ours is left alone. The caller's thread; may wait for the
 * disk, though never longer than WK_DISK_ANSWER_MS for one answer.
 */

#include "worker/tier/disk.h"
#include "worker/tier/disk_slot.h"

enum { WK_DISK_SUPER_BYTES = WK_SLOT_BLOCK_BYTES, WK_DISK_ANSWER_MS = 10000 };

struct wk_disk_rates { /* of this disk, by a short measurement; 0: not known */
    double read_bytes_per_s, write_bytes_per_s, latency_us;
    bool is_direct; /* O_DIRECT is possible, and not clearly slower than the page cache */
};

struct wk_disk_file {
    int fd;
    bool is_script; /* fd is a number of the script's */
    bool is_new;    /* made or started over: all slots are free */
    struct wk_slot_shape shape;
    uint32_t n_slot;
    uint8_t uuid[16];
    uint64_t file_id; /* the first half of uuid */
    uint64_t generation, created_us;
};

/* Reads and writes a nameless file beside path; WK_TIER_E_CONF when the disk does not answer. */
PS_MUST int wk_disk_probe(struct wk_disk_rates *out, const char *path, struct ps_uring *ring,
                          struct ps_buf *err);
/* f->fd is -1 or valid afterwards, also on failure. */
PS_MUST int wk_disk_file_open(struct wk_disk_file *f, const struct wk_tier_disk_conf *conf,
                              uint32_t group, struct ps_uring *ring, bool is_direct,
                              struct ps_buf *err);
void wk_disk_file_close(struct wk_disk_file *f);
/* WK_DISK_SUPER_BYTES for offset 0. */
void wk_disk_file_super(const struct wk_disk_file *f, const struct wk_tier_ident *id, uint8_t *out);

static inline uint64_t wk_disk_slot_offset(const struct wk_disk_file *f, uint32_t slot)
{
    return WK_DISK_SUPER_BYTES + (uint64_t)slot * f->shape.slot_bytes;
}
