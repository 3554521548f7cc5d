#include "worker/tier/share.h"

#include <errno.h>
#include <ftw.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "common/log.h"
#include "worker/tier/fs_script.h"
#include "worker/tier/share_world.h"

#define S(n) (UINT64_C(1000000) * (n))

#define OBJECTS "/s/1122334455667788"

enum { WAIT_MS = 20000 /* for what must happen; a test that waits so long has failed */ };

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

static void remove_tree(const char *path)
{
    assert_int_equal(nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
}

static void create(struct wk_tier **out, const char *path, const struct wk_fs *fs,
                   uint32_t n_threads, uint64_t bytes_max, struct wk_tier_inbox *inbox,
                   const struct ps_clock *clock)
{
    const struct wk_tier_share_conf conf = {
        .path = path,
        .ident = world_ident(),
        .bytes_max = bytes_max,
        .n_threads = n_threads,
        .fs = fs,
        .inbox = inbox,
        .clock = clock,
    };
    struct ps_buf err = PS_BUF_INIT;

    assert_int_equal(wk_tier_share_create(out, &conf, &err), WK_TIER_OK);
    assert_int_equal(err.len, 0);
}

/* ---- one tier, driven by pump ---- */

struct solo {
    struct wk_tier *t;
    struct wk_tier_inbox inbox;
    struct ps_clock clock;
    struct world_io w;
    const char *path;
};

static void solo_open(struct solo *o, const char *path, const struct wk_fs *fs, uint32_t n_threads)
{
    o->path = path;
    ps_clock_real(&o->clock);
    wk_tier_inbox_init(&o->inbox, NULL);
    world_io_init(&o->w);
    create(&o->t, path, fs, n_threads, 0, &o->inbox, &o->clock);
}

static void solo_close(struct solo *o)
{
    assert_int_equal(o->t->ops->close(o->t, 0), WK_TIER_OK);
    wk_tier_inbox_fini(&o->inbox);
    world_io_fini(&o->w);
}

static enum wk_tier_status solo_run(struct solo *o, enum wk_tier_op op, uint32_t path, uint32_t run,
                                    uint32_t group)
{
    struct wk_tier_io *io = world_io_make(&o->w, op, path, run, group);

    assert_int_equal(o->t->ops->submit(o->t, io), WK_TIER_OK);
    assert_int_equal(io->part[0].status, WK_TIER_PENDING);
    assert_int_equal(o->t->ops->pump(o->t, 10), 1);
    assert_ptr_equal(wk_tier_take(&o->inbox), io);
    if (op == WK_TIER_GET && io->part[0].status == WK_TIER_DONE)
        assert_true(world_is_right(&o->w));
    assert_true(io->begin_us > 0 && io->end_us >= io->begin_us);
    return io->part[0].status;
}

static void what_was_put_is_found_and_got_by_another_process(void **state)
{
    char path[] = "/tmp/tier_share_XXXXXX";
    struct solo a, b;

    (void)state;
    assert_non_null(mkdtemp(path));
    solo_open(&a, path, NULL, 0);
    solo_open(&b, path, NULL, 0);
    assert_int_equal(a.t->part_run, WORLD_RUN_PAGES);
    assert_int_equal(solo_run(&b, WK_TIER_GET, 0, 0, 0), WK_TIER_MISS);
    for (uint32_t g = 0; g < 2; g++) {
        for (uint32_t run = 0; run < 3; run++) {
            assert_int_equal(solo_run(&a, WK_TIER_PUT, 0, run, g), WK_TIER_DONE);
            assert_int_equal(solo_run(&b, WK_TIER_PUT, 0, run, g), WK_TIER_DONE);
            assert_int_equal(solo_run(&b, WK_TIER_GET, 0, run, g), WK_TIER_DONE);
        }
    }
    assert_int_equal(solo_run(&b, WK_TIER_FIND, 1, 4, 0), WK_TIER_DONE);
    assert_int_equal(b.w.io.n_found, 2); /* a path that goes another way after two runs */
    assert_int_equal(b.w.part[1].status, WK_TIER_DONE);
    assert_int_equal(b.w.part[2].status, WK_TIER_MISS);
    assert_int_equal(solo_run(&a, WK_TIER_ERASE, 0, 1, 0), WK_TIER_DONE);
    assert_int_equal(solo_run(&a, WK_TIER_ERASE, 0, 1, 0), WK_TIER_DONE); /* already gone */
    assert_int_equal(solo_run(&b, WK_TIER_FIND, 0, 4, 0), WK_TIER_DONE);
    assert_int_equal(b.w.io.n_found, 1);
    assert_int_equal(solo_run(&b, WK_TIER_GET, 0, 1, 0), WK_TIER_MISS);
    assert_int_equal(solo_run(&b, WK_TIER_GET, 0, 1, 1), WK_TIER_DONE);
    solo_close(&a);
    solo_close(&b);
    remove_tree(path);
}

struct damage {
    enum { BITS, CUT, GROWN, OTHER, DIRECTORY, LINK } how;
    enum wk_tier_status get;
    bool is_found;
    enum wk_tier_status put; /* afterwards */
};

static char only_object[1024];

static int remember_object(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    if (type == FTW_F && strlen(path + ftw->base) == 2 * PS_SHA256_BYTES)
        snprintf(only_object, sizeof(only_object), "%s", path);
    return 0;
}

static void do_damage(const struct damage *d, const char *path)
{
    FILE *f;

    switch (d->how) {
    case BITS:
        f = fopen(path, "r+");
        assert_int_equal(fseek(f, 9000, SEEK_SET), 0);
        assert_int_equal(fwrite("damaged", 7, 1, f), 1);
        fclose(f);
        return;
    case CUT:
        assert_int_equal(truncate(path, 5000), 0);
        return;
    case GROWN:
        assert_int_equal(truncate(path, WORLD_OBJECT_BYTES + 1), 0);
        return;
    case OTHER: /* the caller's */
        return;
    case DIRECTORY:
        assert_int_equal(unlink(path), 0);
        assert_int_equal(mkdir(path, 0755), 0);
        return;
    case LINK:
        assert_int_equal(unlink(path), 0);
        assert_int_equal(symlink("/dev/zero", path), 0);
        return;
    }
}

static void damaged_and_foreign_files_are_never_done(void **state)
{
    static const struct damage damages[] = {
        {BITS, WK_TIER_BAD, true, WK_TIER_DONE},
        {CUT, WK_TIER_BAD, false, WK_TIER_DONE},
        {GROWN, WK_TIER_DONE, false, WK_TIER_DONE},
        {OTHER, WK_TIER_MISS, true, WK_TIER_DONE},
        {DIRECTORY, WK_TIER_FAULT, false, WK_TIER_FAULT},
        {LINK, WK_TIER_FAULT, false, WK_TIER_DONE},
    };

    (void)state;
    for (uint32_t i = 0; i < PS_ARRAY_LEN(damages); i++) {
        char path[] = "/tmp/tier_share_XXXXXX", object[1024], other[1100];
        const struct damage *d = &damages[i];
        struct solo o;

        assert_non_null(mkdtemp(path));
        solo_open(&o, path, NULL, 0);
        assert_int_equal(solo_run(&o, WK_TIER_PUT, 7, 0, 0), WK_TIER_DONE);
        assert_int_equal(nftw(path, remember_object, 16, FTW_PHYS), 0);
        snprintf(object, sizeof(object), "%s", only_object);
        snprintf(other, sizeof(other), "%s.other", object);
        if (d->how == OTHER) {
            assert_int_equal(rename(object, other), 0);
            assert_int_equal(solo_run(&o, WK_TIER_PUT, 9, 0, 0), WK_TIER_DONE);
            assert_int_equal(nftw(path, remember_object, 16, FTW_PHYS), 0);
            snprintf(object, sizeof(object), "%s", only_object);
            assert_int_equal(rename(other, object), 0);
        } else {
            do_damage(d, object);
        }
        assert_int_equal(solo_run(&o, WK_TIER_FIND, d->how == OTHER ? 9 : 7, 0, 0),
                         d->is_found ? WK_TIER_DONE : WK_TIER_MISS);
        assert_int_equal(solo_run(&o, WK_TIER_GET, d->how == OTHER ? 9 : 7, 0, 0), d->get);
        assert_int_equal(solo_run(&o, WK_TIER_PUT, d->how == OTHER ? 9 : 7, 0, 0), d->put);
        if (d->get == WK_TIER_BAD) /* it was put into the trash, so the put has written it again */
            assert_int_equal(solo_run(&o, WK_TIER_GET, 7, 0, 0), WK_TIER_DONE);
        solo_close(&o);
        remove_tree(path);
    }
}

static void urgent_ios_overtake_and_full_changes_nothing(void **state)
{
    struct wk_fs_script *fs = wk_fs_script_create(1);
    struct world_io *w = ps_calloc(65, sizeof(*w));
    struct solo o;

    (void)state;
    solo_open(&o, "/s", wk_fs_script_mount(fs), 0);
    for (uint32_t i = 0; i < 65; i++) {
        world_io_init(&w[i]);
        world_io_make(&w[i], WK_TIER_GET, 0, 0, 0)->urgent = i % 2 == 1;
        assert_int_equal(o.t->ops->submit(o.t, &w[i].io), i < 64 ? WK_TIER_OK : WK_TIER_E_FULL);
    }
    assert_null(w[64].io.tier);
    assert_int_equal(o.t->ops->pump(o.t, 3), 3);
    assert_int_equal(o.t->ops->pump(o.t, 100), 61);
    for (uint32_t i = 0; i < 64; i++)
        assert_ptr_equal(wk_tier_take(&o.inbox), &w[i < 32 ? 2 * i + 1 : 2 * (i - 32)].io);
    for (uint32_t i = 0; i < 65; i++)
        world_io_fini(&w[i]);
    ps_free(w);
    solo_close(&o);
    assert_int_equal(wk_fs_script_n_open(fs), 0);
    wk_fs_script_destroy(fs);
}

static void put_that_fails_leaves_nothing(void **state)
{
    static const struct {
        enum wk_fs_fault fault;
        enum wk_tier_status status;
    } cases[] = {
        {WK_FS_ENOSPC, WK_TIER_FULL},
        {WK_FS_LOST_CLOSE, WK_TIER_FAULT}, /* only close tells that bytes are lost */
        {WK_FS_SHORT, WK_TIER_DONE},
        {WK_FS_LOST_REPLY, WK_TIER_DONE},
    };

    (void)state;
    for (uint32_t i = 0; i < PS_ARRAY_LEN(cases); i++) {
        struct wk_fs_script *fs = wk_fs_script_create(1);
        bool is_done = cases[i].status == WK_TIER_DONE;
        uint64_t n_bytes;
        struct solo o;

        solo_open(&o, "/s", wk_fs_script_mount(fs), 0);
        wk_fs_script_set_fault(fs, cases[i].fault, 1000000);
        assert_int_equal(solo_run(&o, WK_TIER_PUT, 0, 0, 0), cases[i].status);
        wk_fs_script_set_fault(fs, cases[i].fault, 0);
        assert_int_equal(wk_fs_script_sum(fs, "/s/tmp/", &n_bytes), 1); /* the probe */
        assert_int_equal(wk_fs_script_sum(fs, OBJECTS, &n_bytes), is_done);
        assert_int_equal(solo_run(&o, WK_TIER_GET, 0, 0, 0), is_done ? WK_TIER_DONE : WK_TIER_MISS);
        solo_close(&o);
        wk_fs_script_destroy(fs);
    }
}

static void unusable_directories_are_refused_with_a_reason(void **state)
{
    static const char *const paths[] = {"", "/nonexistent/share", "/dev/null"};
    char long_path[2000];

    (void)state;
    memset(long_path, 'x', sizeof(long_path));
    long_path[0] = '/';
    long_path[sizeof(long_path) - 1] = '\0';
    for (uint32_t n = 0; n <= 2; n += 2) {
        for (uint32_t i = 0; i <= PS_ARRAY_LEN(paths); i++) {
            struct ps_buf err = PS_BUF_INIT;
            struct wk_tier_inbox inbox;
            struct ps_clock clock;
            struct wk_tier *t = NULL;
            const struct wk_tier_share_conf conf = {
                .path = i < PS_ARRAY_LEN(paths) ? paths[i] : long_path,
                .ident = world_ident(),
                .n_threads = n,
                .inbox = &inbox,
                .clock = &clock,
            };

            ps_clock_real(&clock);
            wk_tier_inbox_init(&inbox, NULL);
            assert_int_equal(wk_tier_share_create(&t, &conf, &err), WK_TIER_E_CONF);
            assert_null(t);
            assert_true(err.len > 0);
            ps_buf_fini(&err);
            wk_tier_inbox_fini(&inbox);
        }
    }
}

/* As when it is unmounted: nothing is made in the place where it was. */
static void use_vanished(void *ud)
{
    char path[] = "/tmp/tier_share_XXXXXX", away[64];
    struct stat st;
    struct solo o;

    (void)ud;
    ps_log_init("tier_share_test", PS_LOG_INFO);
    assert_non_null(mkdtemp(path));
    snprintf(away, sizeof(away), "%s.away", path);
    solo_open(&o, path, NULL, 0);
    assert_int_equal(solo_run(&o, WK_TIER_PUT, 0, 0, 0), WK_TIER_DONE);
    assert_int_equal(rename(path, away), 0);
    assert_int_equal(mkdir(path, 0755), 0);
    for (uint32_t i = 0; i < 5; i++) {
        assert_int_equal(solo_run(&o, WK_TIER_GET, 0, 0, 0), WK_TIER_MISS);
        assert_int_equal(solo_run(&o, WK_TIER_FIND, 0, 0, 0), WK_TIER_MISS);
        assert_int_equal(solo_run(&o, WK_TIER_ERASE, 0, 0, 0), WK_TIER_DONE);
        assert_int_equal(solo_run(&o, WK_TIER_PUT, 2, 0, 0), WK_TIER_FAULT);
        while (wk_tier_share_collect(o.t, 10)) {
        }
    }
    assert_int_equal(rmdir(path), 0); /* it is empty */
    assert_int_equal(rename(away, path), 0);
    assert_int_equal(solo_run(&o, WK_TIER_GET, 0, 0, 0), WK_TIER_DONE);
    assert_int_equal(solo_run(&o, WK_TIER_PUT, 2, 0, 0), WK_TIER_DONE);
    solo_close(&o);
    assert_int_not_equal(stat(away, &st), 0);
    remove_tree(path);
}

static uint32_t n_of(const char *said, const char *text)
{
    uint32_t n = 0;

    for (; (said = strstr(said, text)) != NULL; said++)
        n++;
    return n;
}

static void vanished_root_is_told_once_and_never_made_again(void **state)
{
    char said[4096];

    (void)state;
    assert_int_equal(ps_test_run(use_vanished, NULL, said, sizeof(said)), 0);
    assert_int_equal(n_of(said, "t3 fails"), 1);
    assert_int_equal(n_of(said, "t3 directory fails"), 1);
    assert_int_equal(n_of(said, "t3 works again"), 1);
    assert_int_equal(n_of(said, "\n"), 3);
}

/* ---- threads ---- */

struct gate { /* a hook that blocks calls, as a dead server does */
    pthread_mutex_t lock;
    pthread_cond_t moved;
    bool is_shut;
    uint32_t n_inside;
};

static void gate_init(struct gate *g)
{
    pthread_mutex_init(&g->lock, NULL);
    pthread_cond_init(&g->moved, NULL);
    g->is_shut = false;
    g->n_inside = 0;
}

static void gate_hook(void *ud, const struct wk_fs *mount)
{
    struct gate *g = ud;

    (void)mount;
    pthread_mutex_lock(&g->lock);
    g->n_inside++;
    pthread_cond_broadcast(&g->moved);
    while (g->is_shut)
        pthread_cond_wait(&g->moved, &g->lock);
    g->n_inside--;
    pthread_mutex_unlock(&g->lock);
}

static void gate_set(struct gate *g, bool is_shut)
{
    pthread_mutex_lock(&g->lock);
    g->is_shut = is_shut;
    pthread_cond_broadcast(&g->moved);
    pthread_mutex_unlock(&g->lock);
}

static void gate_wait(struct gate *g, uint32_t n_inside)
{
    pthread_mutex_lock(&g->lock);
    while (g->n_inside < n_inside)
        pthread_cond_wait(&g->moved, &g->lock);
    pthread_mutex_unlock(&g->lock);
}

static struct wk_tier_io *take_soon(struct wk_tier_inbox *b)
{
    struct pollfd p = {.fd = b->wake->fd, .events = POLLIN};

    for (;;) {
        struct wk_tier_io *io;

        ps_wake_arm(b->wake);
        io = wk_tier_take(b);
        if (io != NULL) {
            ps_wake_clear(b->wake);
            return io;
        }
        assert_int_equal(poll(&p, 1, WAIT_MS), 1);
        ps_wake_clear(b->wake);
    }
}

static void threads_serve_a_real_directory(void **state)
{
    char path[] = "/tmp/tier_share_XXXXXX";
    struct world_io w[16];
    struct wk_tier_inbox inbox;
    struct ps_clock clock;
    struct ps_wake wake;
    struct wk_tier *t;

    (void)state;
    assert_non_null(mkdtemp(path));
    ps_clock_real(&clock);
    assert_int_equal(ps_wake_init(&wake), 0);
    wk_tier_inbox_init(&inbox, &wake);
    create(&t, path, NULL, 4, 1, &inbox, &clock);
    for (uint32_t i = 0; i < 16; i++)
        world_io_init(&w[i]);
    for (uint32_t round = 0; round < 8; round++) {
        enum wk_tier_op op = round % 2 == 0 ? WK_TIER_PUT : WK_TIER_GET;

        for (uint32_t i = 0; i < 16; i++) {
            world_io_make(&w[i], op, 2 * (i + 16 * (round / 2)), 0, 0);
            assert_int_equal(t->ops->submit(t, &w[i].io), WK_TIER_OK);
        }
        for (uint32_t i = 0; i < 16; i++) {
            struct wk_tier_io *io = take_soon(&inbox);
            const struct world_io *of = PS_CONTAINER(io, struct world_io, io);

            /* A collector with no room at all runs beside; it may have been here. */
            if (op == WK_TIER_PUT)
                assert_int_equal(io->part[0].status, WK_TIER_DONE);
            else if (io->part[0].status != WK_TIER_MISS)
                assert_true(io->part[0].status == WK_TIER_DONE && world_is_right(of));
        }
    }
    assert_int_equal(t->ops->close(t, WAIT_MS), WK_TIER_OK);
    for (uint32_t i = 0; i < 16; i++)
        world_io_fini(&w[i]);
    wk_tier_inbox_fini(&inbox);
    ps_wake_fini(&wake);
    remove_tree(path);
}

struct hung { /* what a tier that does not end keeps using; reachable until the process ends */
    struct wk_fs_script *fs;
    struct gate gate;
    struct ps_clock clock;
    struct wk_tier_inbox inbox;
    struct ps_wake wake;
    struct wk_tier *t;
    struct world_io w[6];
};

/* What opening an empty directory and one round of the collector take. */
static uint64_t n_calls_to_rest(void)
{
    struct wk_fs_script *fs = wk_fs_script_create(1);
    struct solo o;
    uint64_t n;

    solo_open(&o, "/s", wk_fs_script_mount(fs), 0);
    while (wk_tier_share_collect(o.t, 10)) {
    }
    n = wk_fs_script_n_calls(fs);
    solo_close(&o);
    wk_fs_script_destroy(fs);
    return n;
}

static struct hung *hung_create(uint32_t n_threads)
{
    struct hung *h = ps_calloc(1, sizeof(*h));
    uint64_t n_calls = n_calls_to_rest();

    h->fs = wk_fs_script_create(1);
    gate_init(&h->gate);
    ps_clock_manual(&h->clock, S(1));
    assert_int_equal(ps_wake_init(&h->wake), 0);
    wk_tier_inbox_init(&h->inbox, &h->wake);
    create(&h->t, "/s", wk_fs_script_mount(h->fs), n_threads, 0, &h->inbox, &h->clock);
    for (uint32_t i = 0; i < PS_ARRAY_LEN(h->w); i++) {
        world_io_init(&h->w[i]);
        world_io_make(&h->w[i], WK_TIER_PUT, 2 * i, 0, 0);
    }
    /* The collector ends its first round, so that only ios meet the gate. */
    for (uint32_t i = 0; wk_fs_script_n_calls(h->fs) < n_calls; i++) {
        struct pollfd none = {.fd = -1};

        assert_true(i < WAIT_MS);
        poll(&none, 1, 1);
    }
    return h;
}

static void hung_destroy(struct hung *h)
{
    for (uint32_t i = 0; i < PS_ARRAY_LEN(h->w); i++)
        world_io_fini(&h->w[i]);
    wk_tier_inbox_fini(&h->inbox);
    ps_wake_fini(&h->wake);
    wk_fs_script_destroy(h->fs);
    ps_free(h);
}

static void while_all_threads_hang_queued_ios_end_in_time_and_the_tier_is_off(void **state)
{
    struct hung *h = hung_create(2);
    const struct wk_tier_ops *ops = h->t->ops;

    (void)state;
    wk_fs_script_set_hook(h->fs, gate_hook, &h->gate);
    gate_set(&h->gate, true);
    for (uint32_t i = 0; i < 2; i++) {
        h->w[i].io.deadline_us = S(2);
        assert_int_equal(ops->submit(h->t, &h->w[i].io), WK_TIER_OK);
    }
    gate_wait(&h->gate, 2);
    h->w[2].io.deadline_us = S(1) + 1000;
    assert_int_equal(ops->submit(h->t, &h->w[2].io), WK_TIER_OK);
    assert_int_equal(ops->submit(h->t, &h->w[3].io), WK_TIER_OK);
    assert_int_equal(ops->submit(h->t, &h->w[4].io), WK_TIER_OK);
    ops->cancel(h->t, &h->w[3].io);
    assert_ptr_equal(wk_tier_take(&h->inbox), &h->w[3].io); /* at once */
    assert_int_equal(h->w[3].part[1].status, WK_TIER_CANCELLED);
    assert_null(wk_tier_take(&h->inbox));
    ps_clock_advance(&h->clock, S(5));
    assert_ptr_equal(take_soon(&h->inbox), &h->w[2].io); /* by the timer */
    assert_int_equal(h->w[2].part[1].status, WK_TIER_CANCELLED);
    assert_null(wk_tier_take(&h->inbox)); /* those that hang do not come, deadline or not */
    assert_int_equal(ops->submit(h->t, &h->w[2].io), WK_TIER_OK);
    ps_clock_advance(&h->clock, S(5));
    assert_int_equal(ops->submit(h->t, &h->w[5].io), WK_TIER_E_CLOSED);
    gate_set(&h->gate, false);
    for (uint32_t i = 0; i < 4; i++)
        take_soon(&h->inbox);
    assert_int_equal(h->w[0].part[0].status, WK_TIER_CANCELLED);
    assert_int_equal(h->w[1].part[0].status, WK_TIER_CANCELLED);
    assert_int_equal(h->w[4].part[0].status, WK_TIER_DONE); /* it had no deadline */
    assert_int_equal(ops->submit(h->t, &h->w[5].io), WK_TIER_OK);
    assert_ptr_equal(take_soon(&h->inbox), &h->w[5].io);
    assert_int_equal(h->w[5].part[0].status, WK_TIER_DONE);
    assert_int_equal(ops->close(h->t, WAIT_MS), WK_TIER_OK);
    assert_int_equal(wk_fs_script_n_open(h->fs), 0);
    hung_destroy(h);
}

static void close_does_not_wait_for_a_hung_call(void **state)
{
    static struct hung *h; /* the thread that hung ends when it likes */
    struct ps_clock real;
    uint64_t was_us;

    (void)state;
    h = hung_create(2);
    ps_clock_real(&real);
    wk_fs_script_set_hook(h->fs, gate_hook, &h->gate);
    gate_set(&h->gate, true);
    for (uint32_t i = 0; i < 4; i++)
        assert_int_equal(h->t->ops->submit(h->t, &h->w[i].io), WK_TIER_OK);
    gate_wait(&h->gate, 2);
    was_us = ps_now_us(&real);
    assert_int_equal(h->t->ops->close(h->t, 20), WK_TIER_E_BUSY);
    assert_true(ps_now_us(&real) - was_us < S(WAIT_MS / 1000));
    for (uint32_t i = 0; i < 2; i++) {
        struct wk_tier_io *io = wk_tier_take(&h->inbox); /* those that had not begun */

        assert_true(io == &h->w[2].io || io == &h->w[3].io);
        assert_int_equal(io->part[0].status, WK_TIER_CANCELLED);
    }
    assert_null(wk_tier_take(&h->inbox));
    gate_set(&h->gate, false);
    for (uint32_t i = 0; i < WAIT_MS && wk_fs_script_n_open(h->fs) > 0; i++) {
        struct pollfd none = {.fd = -1};

        poll(&none, 1, 1);
    }
    assert_int_equal(wk_fs_script_n_open(h->fs), 0);
    assert_null(wk_tier_take(&h->inbox)); /* not any more */
}

/* ---- random histories: several workers, any interleaving of their calls, faults, kills ---- */

enum { HISTORIES = 2000, STEPS = 60, WORKERS_MAX = 3, IOS = 8, NEST_MAX = 3, PATHS = 3 };

struct worker {
    const struct wk_fs *mount;
    struct wk_tier *t;
    struct wk_tier_inbox inbox;
    struct world_io w[IOS];
    bool is_killed, is_collecting;
};

struct history {
    struct wk_fs_script *fs;
    struct ps_clock clock;
    struct ps_rng rng;
    struct worker worker[WORKERS_MAX];
    uint32_t n_worker, n_nested, n_mount;
    uint64_t bytes_max;
    uint64_t n_ended[WK_TIER_ERASE + 1][WK_TIER_CANCELLED + 1];
    uint64_t n_found, n_kills;
};

static uint32_t below(struct history *h, uint32_t n)
{
    return (uint32_t)ps_rng_below(&h->rng, n);
}

static void worker_open(struct history *h, struct worker *w)
{
    w->mount = wk_fs_script_mount(h->fs);
    w->is_killed = false;
    wk_tier_inbox_init(&w->inbox, NULL);
    create(&w->t, "/s", w->mount, 0, h->bytes_max, &w->inbox, &h->clock);
}

static void drain(struct history *h, struct worker *w)
{
    struct wk_tier_io *io;

    while ((io = wk_tier_take(&w->inbox)) != NULL) {
        struct world_io *of = PS_CONTAINER(io, struct world_io, io);

        assert_true(of->is_out); /* exactly once */
        of->is_out = false;
        for (uint32_t i = 0; i < io->n_part; i++)
            assert_int_not_equal(io->part[i].status, WK_TIER_PENDING);
        h->n_ended[io->op][io->part[0].status]++;
        h->n_found += io->n_found;
        if (io->op == WK_TIER_GET && io->part[0].status == WK_TIER_DONE)
            assert_true(world_is_right(of));
        if (io->op == WK_TIER_PUT)
            assert_true(world_is_right(of)); /* its buffers were not written to */
    }
}

static void worker_close(struct history *h, struct worker *w)
{
    assert_int_equal(w->t->ops->close(w->t, 0), WK_TIER_OK);
    drain(h, w);
    for (uint32_t i = 0; i < IOS; i++)
        assert_false(w->w[i].is_out);
    wk_tier_inbox_fini(&w->inbox);
}

static void submit_some(struct history *h, struct worker *w)
{
    static const enum wk_tier_op ops[] = {
        WK_TIER_PUT,  WK_TIER_PUT, WK_TIER_PUT, WK_TIER_GET,  WK_TIER_GET,  WK_TIER_GET,
        WK_TIER_FIND, WK_TIER_GET, WK_TIER_PUT, WK_TIER_PUT,  WK_TIER_PUT,  WK_TIER_GET,
        WK_TIER_GET,  WK_TIER_GET, WK_TIER_GET, WK_TIER_FIND, WK_TIER_FIND, WK_TIER_ERASE};
    struct world_io *io = &w->w[below(h, IOS)];

    drain(h, w);
    if (io->is_out)
        return;
    world_io_make(io, ops[below(h, PS_ARRAY_LEN(ops))], below(h, PATHS), below(h, 3),
                  below(h, 5) == 0);
    io->io.urgent = below(h, 2) == 0;
    if (below(h, 4) == 0)
        io->io.deadline_us = ps_now_us(&h->clock) + 1 + below(h, 5000);
    io->is_out = w->t->ops->submit(w->t, &io->io) == WK_TIER_OK;
}

static void advance(struct history *h)
{
    static const uint64_t spans[] = {100, 1000, 10000, S(1), S(30), S(125), S(700), S(3700)};
    uint64_t us = spans[below(h, PS_ARRAY_LEN(spans))];

    ps_clock_advance(&h->clock, us);
    wk_fs_script_advance(h->fs, us + below(h, 1000)); /* two clocks never agree */
}

static void collect_some(struct history *h, struct worker *w)
{
    if (w->is_collecting) /* one thread of a process does it */
        return;
    w->is_collecting = true;
    wk_tier_share_collect(w->t, 1 + below(h, 60));
    w->is_collecting = false;
}

static void act(struct history *h)
{
    struct worker *w = &h->worker[below(h, h->n_worker)];
    uint32_t dice = below(h, 100);
    struct world_io *io;

    if (dice < 35) {
        submit_some(h, w);
    } else if (dice < 75) {
        w->t->ops->pump(w->t, 1 + below(h, 4));
    } else if (dice < 87) {
        collect_some(h, w);
    } else if (dice < 93) {
        advance(h);
    } else if (dice < 96) {
        io = &w->w[below(h, IOS)];
        drain(h, w);
        if (io->is_out)
            w->t->ops->cancel(w->t, &io->io);
    } else if (dice < 98) {
        wk_fs_script_rot(h->fs, OBJECTS);
    } else if (h->n_mount < WK_FS_MOUNTS_MAX && !w->is_killed) {
        wk_fs_script_kill(h->fs, w->mount);
        w->is_killed = true;
        h->n_mount++; /* the one it starts again with */
        h->n_kills++;
    }
}

/* Between any two calls of one worker others may do anything, or time passes (the call hung). */
static void act_between(void *ud, const struct wk_fs *mount)
{
    struct history *h = ud;

    (void)mount;
    if (h->n_nested == NEST_MAX || below(h, 12) != 0)
        return;
    h->n_nested++;
    act(h);
    h->n_nested--;
}

static void set_faults(struct history *h, bool on)
{
    for (uint32_t f = 0; f < WK_FS_N_FAULTS; f++)
        wk_fs_script_set_fault(h->fs, f, on && below(h, 3) == 0 ? below(h, 60000) : 0);
}

/* Nothing fails any more: the directory gets in order by itself, and serves. */
static void settle(struct history *h)
{
    uint64_t n_bytes;

    wk_fs_script_set_hook(h->fs, NULL, NULL);
    set_faults(h, false);
    for (uint32_t i = 0; i < h->n_worker; i++) {
        struct worker *w = &h->worker[i];

        if (w->is_killed) {
            worker_close(h, w);
            worker_open(h, w);
        }
        while (w->t->ops->pump(w->t, 100) > 0) {
        }
        drain(h, w);
    }
    for (uint32_t round = 0; round < 3; round++) { /* deletes; empties the trash; has old leases */
        ps_clock_advance(&h->clock, S(3700));
        wk_fs_script_advance(h->fs, S(3700));
        for (uint32_t i = 0; i < h->n_worker; i++) {
            uint32_t n = 0;

            while (wk_tier_share_collect(h->worker[i].t, 50))
                assert_true(++n < 10000);
        }
    }
    assert_int_equal(wk_fs_script_sum(h->fs, "/s/tmp/", &n_bytes), h->n_worker); /* their probes */
    wk_fs_script_sum(h->fs, OBJECTS, &n_bytes);
    assert_true(n_bytes <= h->bytes_max);
    assert_int_equal(wk_fs_script_sum(h->fs, "/s/trash/", &n_bytes), 0);
    for (uint32_t i = 0; i < h->n_worker; i++) {
        struct worker *w = &h->worker[i];

        for (uint32_t op = WK_TIER_GET; op <= WK_TIER_PUT; op++) { /* ends what is damaged */
            world_io_make(&w->w[0], op, i, 5, 0);
            w->w[0].is_out = true;
            assert_int_equal(w->t->ops->submit(w->t, &w->w[0].io), WK_TIER_OK);
            assert_int_equal(w->t->ops->pump(w->t, 9), 1);
            drain(h, w);
        }
        assert_int_equal(w->w[0].part[0].status, WK_TIER_DONE);
    }
}

static void run_history(struct history *h, uint64_t seed)
{
    uint64_t n_bytes;

    ps_rng_seed(&h->rng, seed);
    h->fs = wk_fs_script_create(seed);
    ps_clock_manual(&h->clock, S(100) + seed);
    h->bytes_max = (4 + below(h, 12)) * WORLD_OBJECT_BYTES;
    h->n_worker = h->n_mount = 2 + below(h, WORKERS_MAX - 1);
    for (uint32_t i = 0; i < h->n_worker; i++)
        worker_open(h, &h->worker[i]);
    set_faults(h, true);
    wk_fs_script_set_hook(h->fs, act_between, h);
    for (uint32_t step = 0; step < STEPS; step++) {
        act(h);
        for (uint32_t i = 0; i < h->n_worker; i++) {
            struct worker *w = &h->worker[i];

            drain(h, w);
            if (w->is_killed && below(h, 3) == 0) {
                wk_fs_script_set_hook(h->fs, NULL, NULL); /* it starts while nothing fails */
                set_faults(h, false);
                worker_close(h, w);
                worker_open(h, w);
                set_faults(h, true);
                wk_fs_script_set_hook(h->fs, act_between, h);
            }
        }
    }
    settle(h);
    for (uint32_t i = 0; i < h->n_worker; i++)
        worker_close(h, &h->worker[i]);
    assert_int_equal(wk_fs_script_sum(h->fs, "/s/tmp/", &n_bytes), 0);
    assert_int_equal(wk_fs_script_n_open(h->fs), 0);
    wk_fs_script_destroy(h->fs);
}

static void run_histories(void *ud)
{
    struct history *h = ps_calloc(1, sizeof(*h));
    const char *only = getenv("TIER_SHARE_SEED");

    (void)ud;
    for (uint32_t i = 0; i < WORKERS_MAX * IOS; i++)
        world_io_init(&h->worker[i / IOS].w[i % IOS]);
    for (uint64_t seed = 1; seed <= HISTORIES; seed++) {
        if (only == NULL || strtoull(only, NULL, 10) == seed)
            run_history(h, seed);
    }
    /* Every way to end was met, so the checks above have met it. */
    for (uint32_t s = WK_TIER_DONE; s <= WK_TIER_CANCELLED; s++) {
        if (s != WK_TIER_FULL && only == NULL)
            assert_true(h->n_ended[WK_TIER_GET][s] > 20);
        if (s != WK_TIER_BAD && s != WK_TIER_MISS && only == NULL)
            assert_true(h->n_ended[WK_TIER_PUT][s] > 20);
    }
    if (only == NULL)
        assert_true(h->n_found > 1000 && h->n_kills > 500);
    for (uint32_t i = 0; i < WORKERS_MAX * IOS; i++)
        world_io_fini(&h->worker[i / IOS].w[i % IOS]);
    ps_free(h);
}

static void random_histories_never_give_wrong_bytes_and_leave_order(void **state)
{
    (void)state;
    run_histories(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_put_is_found_and_got_by_another_process),
        cmocka_unit_test(damaged_and_foreign_files_are_never_done),
        cmocka_unit_test(urgent_ios_overtake_and_full_changes_nothing),
        cmocka_unit_test(put_that_fails_leaves_nothing),
        cmocka_unit_test(unusable_directories_are_refused_with_a_reason),
        cmocka_unit_test(vanished_root_is_told_once_and_never_made_again),
        cmocka_unit_test(random_histories_never_give_wrong_bytes_and_leave_order),
        cmocka_unit_test(threads_serve_a_real_directory),
        cmocka_unit_test(while_all_threads_hang_queued_ios_end_in_time_and_the_tier_is_off),
        cmocka_unit_test(close_does_not_wait_for_a_hung_call),
    };

    ps_log_init("tier_share_test", PS_LOG_ERROR); /* what is made to fail on purpose is no news */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
