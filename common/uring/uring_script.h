#pragma once

/*
 * A scripted disk: files in memory behind the ring's interface, with every fault a disk can have.
 *
 * For tests and simulations; one thread. A disk outlives its rings, as a disk outlives a process:
 * `kill` ends the ring in use with its operations half done, sector by sector, and the next ring
 * finds what is left. Everything that is by chance comes from the seed: the same calls give the
 * same disk, bit for bit. A sector is 4 KiB and is never torn itself.
 */

#include "common/rng.h"
#include "common/uring/uring.h"

enum { PS_SCRIPT_FILES_MAX = 4, PS_SCRIPT_SECTOR_BYTES = 4096 };

struct ps_script_faults { /* of 1,000 operations, how many, by chance */
    uint32_t short_io;    /* some leading bytes only */
    uint32_t read_eio;
    uint32_t write_eio;    /* some sectors were written */
    uint32_t write_enospc; /* as above */
    uint32_t read_flip;    /* one bit of what is read, not of the disk */
    uint32_t slow;         /* overtaken by up to a few dozen waits */
    uint32_t hang;         /* never ends (until kill or the next set of faults) */
};

struct ps_script_disk;

/* Files 0 .. n_files - 1 are zeros at first; their numbers are their descriptors. */
struct ps_script_disk *ps_script_disk_create(uint64_t seed, uint32_t n_files, uint64_t file_bytes);
void ps_script_disk_destroy(struct ps_script_disk *d); /* NULL is fine; its ring is destroyed */
/* At most one ring at a time. Operations end in random order, some at each wait. */
struct ps_uring *ps_script_ring_create(struct ps_script_disk *d, uint32_t depth);
void ps_script_set_faults(struct ps_script_disk *d,
                          const struct ps_script_faults *f);     /* NULL: none */
void ps_script_set_hung(struct ps_script_disk *d, bool is_hung); /* while true nothing ends */
/* The process that has the ring dies: of each write on its way, each sector is on disk by chance.
 * The ring's operations end with -ECANCELED, and later ones too, without touching the disk. */
void ps_script_kill(struct ps_script_disk *d);
/* Dies by itself once n more writes were accepted, the last one being on its way. 0: never. */
void ps_script_kill_after(struct ps_script_disk *d, uint64_t n_writes);
bool ps_script_is_killed(const struct ps_script_disk *d);    /* until the next ring */
uint8_t *ps_script_file(struct ps_script_disk *d, int fd);   /* the bytes: tests may change them */
uint64_t ps_script_n_writes(const struct ps_script_disk *d); /* accepted, over all rings */
