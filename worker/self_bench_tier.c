#include "worker/self_bench.h"

#include <errno.h>
#include <ftw.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/rng.h"
#include "worker/exec/exec_sim.h"
#include "worker/tier/disk.h"
#include "worker/tier/hot.h"
#include "worker/tier/share.h"

enum {
    ITEM_BYTES = 1 << 20, /* a page of a model with a few billion weights */
    N_ITEMS = 256,
    IN_FLIGHT = 4, /* ios of 16 items: as the store keeps them */
    N_IOS = N_ITEMS / WK_TIER_PARTS_MAX,
    WAIT_MS = 30000,
    PT = WK_SIM_PAGE_TOKENS,
};

struct bench {
    struct ps_clock clock;
    struct ps_wake wake;
    struct wk_tier_inbox inbox;
    struct wk_kv_layout layout;
    uint8_t *bufs; /* [N_ITEMS][ITEM_BYTES] */
    uint32_t ids[N_ITEMS * PT];
    struct wk_kv_key keys[N_ITEMS];
    struct wk_tier_io ios[N_IOS];
    struct wk_tier_part parts[N_ITEMS];
    bool leaks; /* a device still owns buffers */
};

static void make_keys(struct bench *b)
{
    uint8_t digest[PS_SHA256_BYTES];

    wk_kv_root_digest(1, 1, digest);
    for (uint32_t i = 0; i < N_ITEMS; i++) {
        struct wk_kv_key *k = &b->keys[i];

        for (uint32_t j = 0; j < PT; j++)
            b->ids[i * PT + j] = i;
        *k = (struct wk_kv_key){
            .seed = 1, .hash = i, .first_pos = i * PT, .n_tok = PT, .ids = b->ids + (size_t)i * PT};
        memcpy(k->parent, digest, sizeof(digest));
        wk_kv_digest(k->parent, k->ids, PT, k->digest);
        memcpy(digest, k->digest, sizeof(digest));
    }
}

/* Waits for one io that ended well. */
static int reap(struct bench *b)
{
    struct pollfd fd = {.fd = b->wake.fd, .events = POLLIN};
    struct wk_tier_io *io = wk_tier_take(&b->inbox);
    uint64_t until = ps_now_us(&b->clock) + (uint64_t)WAIT_MS * 1000;

    while (io == NULL) {
        ps_wake_arm(&b->wake);
        io = wk_tier_take(&b->inbox);
        if (io == NULL && ps_now_us(&b->clock) > until)
            return PS_FAULT(-ETIMEDOUT);
        if (io == NULL)
            (void)poll(&fd, 1, 100);
        ps_wake_clear(&b->wake);
    }
    for (uint32_t i = 0; i < io->n_part; i++) {
        if (io->part[i].status != WK_TIER_DONE)
            return PS_FAULT(-EIO);
    }
    return 0;
}

/* Moves every item once; bytes a second, or negative. */
static double rate(struct bench *b, struct wk_tier *t, enum wk_tier_op op)
{
    uint64_t t0 = ps_now_us(&b->clock);
    uint32_t n_begun = 0, n_over = 0;

    while (n_over < N_IOS) {
        if (n_begun < N_IOS && n_begun - n_over < IN_FLIGHT) {
            struct wk_tier_io *io = &b->ios[n_begun];

            *io = (struct wk_tier_io){.op = op,
                                      .n_part = WK_TIER_PARTS_MAX,
                                      .part = b->parts + (size_t)n_begun * WK_TIER_PARTS_MAX};
            for (uint32_t i = 0; i < io->n_part; i++) {
                uint32_t at = n_begun * WK_TIER_PARTS_MAX + i;

                io->part[i] = (struct wk_tier_part){
                    .key = b->keys[at], .buf = b->bufs + (size_t)at * ITEM_BYTES, .slot = at};
            }
            if (t->ops->submit(t, io) != WK_TIER_OK)
                return -1;
            n_begun++;
        } else {
            if (reap(b) != 0)
                return -1;
            n_over++;
        }
    }
    return (double)N_ITEMS * ITEM_BYTES / (double)(ps_now_us(&b->clock) - t0 + 1) * 1e6;
}

static void close_tier(struct bench *b, struct wk_tier *t)
{
    b->leaks |= t->ops->close(t, WAIT_MS) != WK_TIER_OK;
}

static void say(FILE *out, const char *name, double write, double read)
{
    if (write < 0 || read < 0)
        (void)fprintf(out, "%-22s failed\n", name);
    else
        (void)fprintf(out, "%-22s %10.0f %10.0f\n", name, write / 1e6, read / 1e6);
}

static struct wk_tier_ident ident(const struct bench *b)
{
    return (struct wk_tier_ident){.space_id = 1,
                                  .arith_id = 1,
                                  .layout_id = b->layout.layout_id,
                                  .n_group = 1,
                                  .page_tokens = PT,
                                  .item_bytes = {ITEM_BYTES},
                                  .n_ranks = 1};
}

static void bench_host(struct bench *b, FILE *out, enum wk_kv_codec codec)
{
    const struct wk_exec_sim_conf ec = {.clock = &b->clock,
                                        .depth = 1,
                                        .n_slots = 1,
                                        .kv_bytes = (uint64_t)N_ITEMS * ITEM_BYTES,
                                        .item_bytes = ITEM_BYTES,
                                        .vocab = {.n_ids = 2}};
    struct ps_buf err = PS_BUF_INIT;
    struct wk_kv_format *format = NULL;
    struct wk_exec *exec = NULL;
    char name[32];

    (void)snprintf(name, sizeof(name), "T0 to T1, %s", wk_kv_codec_name(codec));
    if (wk_exec_sim_create(&exec, &ec, &err) == 0 &&
        wk_kv_format_create(&format, codec, &b->layout, &err) == WK_FORMAT_OK) {
        struct wk_tier *t = wk_tier_hot_create(&(struct wk_tier_hot_conf){.exec = exec,
                                                                          .format = format,
                                                                          .layout = &b->layout,
                                                                          .inbox = &b->inbox,
                                                                          .clock = &b->clock});
        double down = t != NULL ? rate(b, t, WK_TIER_GET) : -1;
        double up = t != NULL ? rate(b, t, WK_TIER_PUT) : -1;

        say(out, name, down, up);
        if (t != NULL)
            close_tier(b, t);
    }
    wk_kv_format_destroy(format);
    if (exec != NULL)
        exec->ops->destroy(exec);
    ps_buf_fini(&err);
}

static void bench_disk(struct bench *b, FILE *out, const char *path)
{
    struct wk_tier_disk_conf dc = {
        .ident = ident(b), .n_slot = {N_ITEMS}, .inbox = &b->inbox, .clock = &b->clock};
    struct ps_buf file = PS_BUF_INIT, err = PS_BUF_INIT;
    struct wk_tier *t;

    ps_buf_addf(&file, "%s.self-bench", path);
    dc.path = file.data;
    if (wk_tier_disk_create(&t, &dc, &err) == WK_TIER_OK) {
        struct wk_disk_found f;
        int r = wk_tier_disk_scan(t, &f);

        while (r != WK_DISK_SCAN_E_OVER) { /* a fresh file: soon read */
            (void)poll(NULL, 0, 1);
            r = wk_tier_disk_scan(t, &f);
        }
        double write = rate(b, t, WK_TIER_PUT), read = rate(b, t, WK_TIER_GET);

        say(out, "T1 to disk", write, read);
        close_tier(b, t);
    } else {
        (void)fprintf(out, "disk: %s\n", err.data);
    }
    (void)unlink(file.data);
    ps_buf_fini(&file);
    ps_buf_fini(&err);
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)st;
    (void)kind;
    (void)at;
    return remove(path);
}

static void bench_share(struct bench *b, FILE *out, const char *path)
{
    struct wk_tier_share_conf sc = {
        .ident = ident(b), .n_threads = 4, .inbox = &b->inbox, .clock = &b->clock};
    struct ps_buf dir = PS_BUF_INIT, err = PS_BUF_INIT;
    struct wk_tier *t;

    ps_buf_addf(&dir, "%s/self-bench-XXXXXX", path);
    if (mkdtemp(dir.data) == NULL) {
        (void)fprintf(out, "shared directory: %s\n", strerror(errno));
        ps_buf_fini(&dir);
        return;
    }
    sc.path = dir.data;
    if (wk_tier_share_create(&t, &sc, &err) == WK_TIER_OK) {
        double write = rate(b, t, WK_TIER_PUT), read = rate(b, t, WK_TIER_GET);

        say(out, "T1 to shared directory", write, read);
        close_tier(b, t);
    } else {
        (void)fprintf(out, "shared directory: %s\n", err.data);
    }
    (void)nftw(dir.data, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    ps_buf_fini(&dir);
    ps_buf_fini(&err);
}

int wk_self_bench_tiers(FILE *out, const char *disk, const char *share)
{
    struct bench *b = ps_calloc(1, sizeof(*b));
    int r = ps_wake_init(&b->wake);

    if (r != 0) {
        ps_free(b);
        return r;
    }
    ps_clock_real(&b->clock);
    wk_tier_inbox_init(&b->inbox, &b->wake);
    wk_exec_sim_layout(&b->layout, ITEM_BYTES);
    b->bufs = ps_alloc_aligned(4096, (size_t)N_ITEMS * ITEM_BYTES);
    ps_random_bytes(b->bufs, (size_t)N_ITEMS * ITEM_BYTES);
    make_keys(b);
    (void)fprintf(out,
                  "tiers: %d items of 1 MiB, MB/s\n"
                  "                             down         up\n",
                  N_ITEMS);
    bench_host(b, out, WK_KV_RAW);
    if (disk[0] != '\0')
        bench_disk(b, out, disk);
    if (share[0] != '\0')
        bench_share(b, out, share);
    if (b->leaks)
        return PS_FAULT(-ETIMEDOUT);
    ps_free(b->bufs);
    wk_tier_inbox_fini(&b->inbox);
    ps_wake_fini(&b->wake);
    ps_free(b);
    return 0;
}
