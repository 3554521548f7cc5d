#include "common/uring/uring_script.h"

#include <errno.h>
#include <string.h>

#include "common/uring/uring_int.h"

enum { SLOW_WAITS_MAX = 32, ENDS_PER_WAIT_MAX = 4 };
#define NEVER UINT32_MAX

struct act { /* an operation on its way */
    struct ps_uring_op op;
    uint32_t n_waits; /* how many more go by before it may end */
};

struct ps_script_disk {
    struct ps_rng rng;
    struct ps_script_faults faults;
    uint8_t *files[PS_SCRIPT_FILES_MAX];
    uint32_t n_files;
    uint64_t file_bytes, n_writes, kill_at; /* kill_at: n_writes of the last one; 0: never */
    bool is_hung, is_killed;
    struct script *ring;
};

struct script {
    struct ps_uring u;
    struct ps_script_disk *disk;
    struct act *acts; /* [u.n_busy], in no order */
    uint32_t n_acts;
};

static bool chance(struct ps_script_disk *d, uint32_t per_mille)
{
    return per_mille > 0 && ps_rng_below(&d->rng, 1000) < per_mille;
}

static uint64_t op_bytes(const struct ps_uring_op *op)
{
    uint64_t n = 0;

    for (uint32_t i = 0; i < op->n_iov; i++)
        n += op->iov[i].iov_len;
    return n;
}

/* Moves bytes [from, from + n) of the operation. */
static void move(struct ps_script_disk *d, const struct ps_uring_op *op, uint64_t from, uint64_t n)
{
    uint8_t *file = d->files[op->fd] + op->offset;
    uint64_t at = 0;

    for (uint32_t i = 0; i < op->n_iov && n > 0; i++) {
        uint64_t len = op->iov[i].iov_len;
        uint64_t skip = from > at ? ps_min_u64(from - at, len) : 0;
        uint64_t take = ps_min_u64(len - skip, n);
        uint8_t *mem = (uint8_t *)op->iov[i].iov_base + skip;

        if (take > 0) {
            if (op->dir == PS_URING_READ)
                memcpy(mem, file + at + skip, take);
            else
                memcpy(file + at + skip, mem, take);
            n -= take;
            from += take;
        }
        at += len;
    }
    PS_ASSERT(n == 0);
}

/* Each sector of a write by chance; for about one write in four, the leading ones only. */
static void tear(struct ps_script_disk *d, const struct ps_uring_op *op, uint64_t n_bytes)
{
    bool leading = chance(d, 250);
    uint64_t n_sectors = ps_div_up_u64(n_bytes, PS_SCRIPT_SECTOR_BYTES);
    uint64_t n_lead = ps_rng_below(&d->rng, n_sectors + 1);

    for (uint64_t i = 0; i < n_sectors; i++) {
        uint64_t at = i * PS_SCRIPT_SECTOR_BYTES;
        bool is_written = leading ? i < n_lead : chance(d, 500);

        if (is_written)
            move(d, op, at, ps_min_u64(PS_SCRIPT_SECTOR_BYTES, n_bytes - at));
    }
}

static void flip_read(struct ps_script_disk *d, const struct ps_uring_op *op, uint64_t n_bytes)
{
    uint64_t at = ps_rng_below(&d->rng, n_bytes);

    for (uint32_t i = 0; i < op->n_iov; i++) {
        if (at < op->iov[i].iov_len) {
            ((uint8_t *)op->iov[i].iov_base)[at] ^= (uint8_t)(1u << ps_rng_below(&d->rng, 8));
            return;
        }
        at -= op->iov[i].iov_len;
    }
}

static int32_t perform(struct ps_script_disk *d, const struct ps_uring_op *op)
{
    uint64_t n = op_bytes(op);

    n = op->offset < d->file_bytes ? ps_min_u64(n, d->file_bytes - op->offset) : 0;
    if (n == 0)
        return op->dir == PS_URING_READ ? 0 : -ENOSPC;
    if (op->dir == PS_URING_READ && chance(d, d->faults.read_eio))
        return -EIO;
    if (op->dir == PS_URING_WRITE && chance(d, d->faults.write_eio)) {
        tear(d, op, n);
        return -EIO;
    }
    if (op->dir == PS_URING_WRITE && chance(d, d->faults.write_enospc)) {
        tear(d, op, n);
        return -ENOSPC;
    }
    if (chance(d, d->faults.short_io))
        n = 1 + ps_rng_below(&d->rng, n);
    move(d, op, 0, n);
    if (op->dir == PS_URING_READ && chance(d, d->faults.read_flip))
        flip_read(d, op, n);
    return (int32_t)n;
}

/* ---- ring ---- */

static void script_submit(struct ps_uring *u, const struct ps_uring_op *op)
{
    struct script *s = PS_CONTAINER(u, struct script, u);
    struct ps_script_disk *d = s->disk;
    struct act *a = &s->acts[s->n_acts++];

    PS_ASSERT((uint32_t)op->fd < d->n_files && op_bytes(op) <= INT32_MAX);
    *a = (struct act){*op, 0};
    if (d->is_killed)
        return;
    if (chance(d, d->faults.hang))
        a->n_waits = NEVER;
    else if (chance(d, d->faults.slow))
        a->n_waits = 1 + (uint32_t)ps_rng_below(&d->rng, SLOW_WAITS_MAX);
    if (op->dir == PS_URING_WRITE && ++d->n_writes == d->kill_at)
        ps_script_kill(d);
}

/* The i-th of those that may end now; there are more than i. */
static uint32_t ready_at(const struct script *s, uint64_t i)
{
    uint32_t at = 0;

    for (;; at++) {
        PS_ASSERT(at < s->n_acts);
        if (s->acts[at].n_waits == 0 && i-- == 0)
            return at;
    }
}

static uint32_t script_wait(struct ps_uring *u, uint32_t wait_ms, struct ps_uring_done *out,
                            uint32_t n)
{
    struct script *s = PS_CONTAINER(u, struct script, u);
    struct ps_script_disk *d = s->disk;
    uint32_t n_ready = 0, n_end, n_slow = 0, at;

    (void)wait_ms; /* nothing here takes time */
    if (d->is_hung && !d->is_killed)
        return 0;
    for (uint32_t i = 0; i < s->n_acts; i++)
        n_slow += s->acts[i].n_waits > 0 && s->acts[i].n_waits != NEVER;
    for (uint32_t i = 0; i < s->n_acts; i++) {
        if (s->acts[i].n_waits > 0 && s->acts[i].n_waits != NEVER)
            s->acts[i].n_waits--;
        n_ready += s->acts[i].n_waits == 0;
    }
    /* Waiting for slow ones alone is waiting until the first of them is there. */
    while (n_ready == 0 && n_slow > 0) {
        for (uint32_t i = 0; i < s->n_acts; i++) {
            if (s->acts[i].n_waits != NEVER)
                s->acts[i].n_waits--;
            n_ready += s->acts[i].n_waits == 0;
        }
    }
    if (n_ready == 0)
        return 0;
    n_end = d->is_killed ? n_ready : 1 + (uint32_t)ps_rng_below(&d->rng, ENDS_PER_WAIT_MAX);
    n_end = ps_min_u32(ps_min_u32(n_end, n_ready), n);
    for (uint32_t i = 0; i < n_end; i++) {
        at = ready_at(s, d->is_killed ? 0 : ps_rng_below(&d->rng, n_ready - i));
        out[i].ud = s->acts[at].op.ud;
        out[i].res = d->is_killed ? -ECANCELED : perform(d, &s->acts[at].op);
        s->acts[at] = s->acts[--s->n_acts];
    }
    return n_end;
}

static void script_poke(struct ps_uring *u)
{
    (void)u;
}

static void script_free(struct ps_uring *u)
{
    struct script *s = PS_CONTAINER(u, struct script, u);

    PS_ASSERT(s->n_acts == 0 && s->disk->ring == s);
    s->disk->ring = NULL;
    ps_free(s->acts);
    ps_free(s);
}

static const struct ps_uring_verbs script_verbs = {
    .name = "script",
    .submit = script_submit,
    .wait = script_wait,
    .poke = script_poke,
    .free = script_free,
};

struct ps_uring *ps_script_ring_create(struct ps_script_disk *d, uint32_t depth)
{
    struct script *s = ps_calloc(1, sizeof(*s));

    PS_ASSERT(d->ring == NULL && depth > 0);
    s->u = (struct ps_uring){&script_verbs, depth, 0};
    s->disk = d;
    s->acts = ps_calloc(depth, sizeof(*s->acts));
    d->ring = s;
    d->is_killed = false;
    return &s->u;
}

/* ---- disk ---- */

struct ps_script_disk *ps_script_disk_create(uint64_t seed, uint32_t n_files, uint64_t file_bytes)
{
    struct ps_script_disk *d = ps_calloc(1, sizeof(*d));

    PS_ASSERT(n_files > 0 && n_files <= PS_SCRIPT_FILES_MAX);
    PS_ASSERT(file_bytes > 0 && file_bytes % PS_SCRIPT_SECTOR_BYTES == 0);
    ps_rng_seed(&d->rng, seed);
    d->n_files = n_files;
    d->file_bytes = file_bytes;
    for (uint32_t i = 0; i < n_files; i++)
        d->files[i] = ps_calloc(1, file_bytes);
    return d;
}

void ps_script_disk_destroy(struct ps_script_disk *d)
{
    if (d == NULL)
        return;
    PS_ASSERT(d->ring == NULL);
    for (uint32_t i = 0; i < d->n_files; i++)
        ps_free(d->files[i]);
    ps_free(d);
}

/* What hung under the old faults goes on. */
void ps_script_set_faults(struct ps_script_disk *d, const struct ps_script_faults *f)
{
    d->faults = f != NULL ? *f : (struct ps_script_faults){0};
    for (uint32_t i = 0; d->ring != NULL && i < d->ring->n_acts; i++) {
        if (d->ring->acts[i].n_waits == NEVER)
            d->ring->acts[i].n_waits = 0;
    }
}

void ps_script_set_hung(struct ps_script_disk *d, bool is_hung)
{
    d->is_hung = is_hung;
}

void ps_script_kill(struct ps_script_disk *d)
{
    struct script *s = d->ring;

    PS_ASSERT(s != NULL && !d->is_killed);
    d->is_killed = true;
    d->kill_at = 0;
    for (uint32_t i = 0; i < s->n_acts; i++) {
        const struct ps_uring_op *op = &s->acts[i].op;
        uint64_t n = op_bytes(op);

        s->acts[i].n_waits = 0;
        if (op->dir == PS_URING_WRITE && op->offset < d->file_bytes)
            tear(d, op, ps_min_u64(n, d->file_bytes - op->offset));
    }
}

void ps_script_kill_after(struct ps_script_disk *d, uint64_t n_writes)
{
    d->kill_at = n_writes > 0 ? d->n_writes + n_writes : 0;
}

bool ps_script_is_killed(const struct ps_script_disk *d)
{
    return d->is_killed;
}

uint8_t *ps_script_file(struct ps_script_disk *d, int fd)
{
    PS_ASSERT((uint32_t)fd < d->n_files);
    return d->files[fd];
}

uint64_t ps_script_n_writes(const struct ps_script_disk *d)
{
    return d->n_writes;
}
