#include "worker/tier/share_collect.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>

#include "worker/tier/fs_script.h"
#include "worker/tier/share_world.h"

#define S(n) (UINT64_C(1000000) * (n))

#define OBJECTS "/s/1122334455667788"

struct worker {
    const struct wk_fs *mount;
    struct wk_share_root root;
    struct wk_share_collect *collect;
};

struct world {
    struct wk_fs_script *fs;
    struct ps_clock clock;
    struct worker w[2];
    struct world_io io;
    struct ps_buf err;
};

static void setup(struct world *x, uint64_t bytes_max, uint64_t keep_us, uint32_t n_oldest)
{
    const struct wk_tier_ident ident = world_ident();

    memset(x, 0, sizeof(*x));
    x->fs = wk_fs_script_create(1);
    ps_clock_manual(&x->clock, S(5));
    world_io_init(&x->io);
    for (uint32_t i = 0; i < 2; i++) {
        struct worker *w = &x->w[i];

        w->mount = wk_fs_script_mount(x->fs);
        assert_true(wk_share_root_init(&w->root, w->mount, &x->clock, "/s", &ident, &x->err));
        assert_true(wk_share_root_open(&w->root, &x->err));
        w->collect = wk_share_collect_create(&(struct wk_share_collect_conf){
            .root = &w->root, .bytes_max = bytes_max, .keep_us = keep_us, .n_oldest = n_oldest});
    }
}

static void teardown(struct world *x)
{
    uint64_t n_bytes;

    for (uint32_t i = 0; i < 2; i++) {
        wk_share_collect_destroy(x->w[i].collect);
        wk_share_root_close(&x->w[i].root);
    }
    assert_int_equal(wk_fs_script_n_open(x->fs), 0);
    assert_int_equal(wk_fs_script_sum(x->fs, "/s/tmp/", &n_bytes), 0);
    assert_int_equal(wk_fs_script_sum(x->fs, "/s/collector", &n_bytes), 0);
    wk_fs_script_destroy(x->fs);
    world_io_fini(&x->io);
    ps_buf_fini(&x->err);
}

static void advance(struct world *x, uint64_t us)
{
    ps_clock_advance(&x->clock, us);
    wk_fs_script_advance(x->fs, us);
}

static enum wk_tier_status put(struct world *x, uint32_t path, uint32_t run)
{
    struct wk_tier_io *io = world_io_make(&x->io, WK_TIER_PUT, path, run, 0);

    return wk_share_put(&x->w[0].root, io).status;
}

static enum wk_tier_status get(struct world *x, uint32_t path, uint32_t run)
{
    struct wk_tier_io *io = world_io_make(&x->io, WK_TIER_GET, path, run, 0);
    struct wk_share_end e = wk_share_get(&x->w[0].root, io);
    struct wk_share_use use;

    if (e.status == WK_TIER_DONE)
        assert_true(world_is_right(&x->io));
    if (wk_share_use_of(io, &e, &use)) {
        while (wk_share_use_note(&x->w[0].root, &use)) {
        }
    }
    return e.status;
}

static bool is_there(struct world *x, uint32_t path, uint32_t run)
{
    struct wk_tier_io *io = world_io_make(&x->io, WK_TIER_FIND, path, run, 0);

    io->part += run; /* this one alone */
    io->n_part = 1;
    return wk_share_find(&x->w[0].root, io).status == WK_TIER_DONE;
}

static void collect(struct worker *w)
{
    uint32_t n = 0;

    while (wk_share_collect_run(w->collect, 10))
        assert_true(++n < 10000);
}

static uint64_t object_bytes(struct world *x)
{
    uint64_t n_bytes;

    wk_fs_script_sum(x->fs, OBJECTS, &n_bytes);
    return n_bytes;
}

static uint32_t n_files(struct world *x, const char *prefix)
{
    uint64_t n_bytes;

    return wk_fs_script_sum(x->fs, prefix, &n_bytes);
}

static void plant(struct world *x, const char *path)
{
    const struct wk_fs *fs = x->w[1].mount;
    const struct iovec v = {"foreign", 7};
    int fd = fs->open(fs, path, WK_FS_MAKE);

    assert_true(fd >= 0);
    assert_int_equal(fs->pwritev(fs, fd, &v, 1, 0), 7);
    assert_int_equal(fs->close(fs, fd), 0);
}

static void longest_unused_go_until_a_sixteenth_is_free(void **state)
{
    struct wk_share_collect_stats st;
    struct world x;

    (void)state;
    setup(&x, 8 * WORLD_OBJECT_BYTES, 0, 0);
    for (uint32_t i = 0; i < 8; i++, advance(&x, S(10)))
        assert_int_equal(put(&x, 2 * i, 0), WK_TIER_DONE);
    collect(&x.w[0]);
    assert_int_equal(object_bytes(&x), 8 * WORLD_OBJECT_BYTES); /* not above it */
    assert_int_equal(put(&x, 16, 0), WK_TIER_DONE);
    advance(&x, S(3700));
    assert_int_equal(get(&x, 0, 0), WK_TIER_DONE); /* the oldest is used again */
    collect(&x.w[0]);
    assert_int_equal(object_bytes(&x), 7 * WORLD_OBJECT_BYTES);
    for (uint32_t i = 0; i < 9; i++)
        assert_int_equal(is_there(&x, 2 * i, 0), i != 1 && i != 2);
    wk_share_collect_stats(x.w[0].collect, &st);
    assert_int_equal(st.n_objects, 7);
    assert_int_equal(st.n_bytes, 7 * WORLD_OBJECT_BYTES);
    assert_int_equal(st.n_deleted, 2);
    teardown(&x);
}

static void what_is_deleted_stays_ten_minutes_in_the_trash(void **state)
{
    struct world x;

    (void)state;
    setup(&x, 0, S(100), 0);
    assert_int_equal(put(&x, 0, 0), WK_TIER_DONE);
    collect(&x.w[0]);
    assert_true(is_there(&x, 0, 0));
    advance(&x, S(101));
    collect(&x.w[0]);
    assert_false(is_there(&x, 0, 0));
    assert_int_equal(n_files(&x, "/s/trash/"), 1);
    advance(&x, S(599));
    collect(&x.w[0]);
    assert_int_equal(n_files(&x, "/s/trash/"), 1);
    advance(&x, S(2));
    collect(&x.w[0]);
    assert_int_equal(n_files(&x, "/s/trash/"), 0);
    teardown(&x);
}

static void files_of_dead_writers_go_after_an_hour(void **state)
{
    struct world x;

    (void)state;
    setup(&x, 0, 0, 0);
    plant(&x, "/s/tmp/0123456789abcdef-77-3");
    advance(&x, S(3599));
    collect(&x.w[0]);
    assert_int_equal(n_files(&x, "/s/tmp/0123456789abcdef-77-3"), 1);
    advance(&x, S(2));
    collect(&x.w[0]);
    assert_int_equal(n_files(&x, "/s/tmp/0123456789abcdef-77-3"), 0);
    teardown(&x);
}

static void foreign_names_are_left_alone_and_not_counted(void **state)
{
    static const char *const foreign[] = {
        "/s/README",
        "/s/1122334455667788/99aabbccddeeff00/notes",
        "/s/1122334455667788/99aabbccddeeff00/ab/cd/core.1234",
        "/s/1122334455667788/99aabbccddeeff00/ab/cd/"
        "00000000000000000000000000000000000000000000000000000000000000000",
        "/s/1122334455667788/99aabbccddeeff00/ab/cd/"
        "0000000000000000000000000000000000000000000000000000000000000000.tmp",
        "/s/1122334455667788/99aabbccddeeff00/ab/cd/"
        "0000000000000000000000000000000000000000000000000000000000000000.g",
    };
    struct wk_share_collect_stats st;
    const struct wk_fs *fs;
    struct world x;

    (void)state;
    setup(&x, 1, S(1), 0); /* everything of ours is too much and too old */
    fs = x.w[1].mount;
    assert_int_equal(fs->mkdir(fs, "/s/lost+found"), 0);
    assert_int_equal(fs->mkdir(fs, "/s/1122334455667788/99aabbccddeeff00/ab"), 0);
    assert_int_equal(fs->mkdir(fs, "/s/1122334455667788/99aabbccddeeff00/ab/cd"), 0);
    assert_int_equal(fs->mkdir(fs, "/s/1122334455667788/99aabbccddeeff00/zz"), 0);
    for (uint32_t i = 0; i < PS_ARRAY_LEN(foreign); i++)
        plant(&x, foreign[i]);
    plant(&x, "/s/1122334455667788/99aabbccddeeff00/ab/cd/"
              "0000000000000000000000000000000000000000000000000000000000000000.g1.r12");
    advance(&x, S(7300));
    collect(&x.w[0]);
    for (uint32_t i = 0; i < PS_ARRAY_LEN(foreign); i++)
        assert_int_equal(n_files(&x, foreign[i]), 1);
    wk_share_collect_stats(x.w[0].collect, &st);
    assert_int_equal(st.n_objects, 0);
    assert_int_equal(st.n_deleted, 1);
    teardown(&x);
}

static void more_than_can_be_remembered_takes_more_rounds(void **state)
{
    struct wk_share_collect_stats st;
    struct world x;

    (void)state;
    setup(&x, 4 * WORLD_OBJECT_BYTES, 0, 3);
    for (uint32_t i = 0; i < 20; i++, advance(&x, S(1)))
        assert_int_equal(put(&x, 2 * i, 0), WK_TIER_DONE);
    collect(&x.w[0]);
    assert_true(object_bytes(&x) <= 4 * WORLD_OBJECT_BYTES);
    for (uint32_t i = 0; i < 20; i++)
        assert_int_equal(is_there(&x, 2 * i, 0), i >= 17);
    wk_share_collect_stats(x.w[0].collect, &st);
    assert_int_equal(st.n_rounds, 6); /* 17 to delete */
    teardown(&x);
}

static void only_the_holder_of_the_lease_collects(void **state)
{
    struct wk_share_collect_stats st;
    struct world x;

    (void)state;
    setup(&x, 0, 0, 0);
    collect(&x.w[0]);
    for (uint32_t i = 0; i < 5; i++, advance(&x, S(60))) {
        collect(&x.w[0]);
        collect(&x.w[1]);
    }
    wk_share_collect_stats(x.w[0].collect, &st);
    assert_int_equal(st.n_rounds, 6);
    wk_share_collect_stats(x.w[1].collect, &st);
    assert_int_equal(st.n_rounds, 0);
    advance(&x, S(61)); /* the holder is silent */
    collect(&x.w[1]);
    wk_share_collect_stats(x.w[1].collect, &st);
    assert_int_equal(st.n_rounds, 1);
    collect(&x.w[0]);
    wk_share_collect_stats(x.w[0].collect, &st);
    assert_int_equal(st.n_rounds, 6); /* it is not its lease any more */
    teardown(&x);
}

/* A lease whose time lies in the future would otherwise never end. */
static void empty_lease_and_lease_from_the_future_are_taken_over(void **state)
{
    struct wk_share_collect_stats st;
    const struct wk_fs *fs;
    struct world x;

    (void)state;
    setup(&x, 0, 0, 0);
    fs = x.w[1].mount;
    wk_fs_script_advance(x.fs, S(100000));
    assert_true(fs->open(fs, "/s/collector", WK_FS_MAKE) >= 0);
    wk_fs_script_advance(x.fs, -S(100000));
    collect(&x.w[0]);
    wk_share_collect_stats(x.w[0].collect, &st);
    assert_int_equal(st.n_rounds, 1);
    wk_fs_script_kill(x.fs, fs);
    x.w[1].mount = wk_fs_script_mount(x.fs);
    x.w[1].root.fs = x.w[1].mount;
    teardown(&x);
}

/* Stops the first in the middle for so long that the second takes over; then both go on in turns. */
static void two_collectors_at_once_do_no_harm(void **state)
{
    (void)state;
    for (uint32_t at = 1; at < 120; at += 2) {
        struct wk_share_collect_stats st;
        bool more0 = true, more1 = true;
        struct world x;

        setup(&x, 5 * WORLD_OBJECT_BYTES, 0, 0);
        for (uint32_t i = 0; i < 8; i++, advance(&x, S(10)))
            assert_int_equal(put(&x, 2 * i, 0), WK_TIER_DONE);
        more0 = wk_share_collect_run(x.w[0].collect, at);
        wk_fs_script_advance(x.fs, S(130)); /* the first does not notice: its own clock stands */
        more1 = wk_share_collect_run(x.w[1].collect, 5 + at % 7);
        for (uint32_t i = 0; i < 1000 && (more0 || more1); i++) {
            more0 = more0 && wk_share_collect_run(x.w[0].collect, 1);
            more1 = more1 && wk_share_collect_run(x.w[1].collect, 2);
        }
        assert_false(more0 || more1);
        wk_share_collect_stats(x.w[1].collect, &st);
        assert_int_equal(st.n_rounds, 1);
        assert_true(object_bytes(&x) <= 5 * WORLD_OBJECT_BYTES);
        assert_true(object_bytes(&x) >= 4 * WORLD_OBJECT_BYTES);
        for (uint32_t i = 0; i < 8; i++)
            assert_int_equal(is_there(&x, 2 * i, 0), i >= 4);
        teardown(&x);
    }
}

static void holder_that_lost_its_lease_stops(void **state)
{
    struct wk_share_collect_stats st;
    struct world x;

    (void)state;
    setup(&x, 0, 0, 0);
    for (uint32_t i = 0; i < 8; i++)
        assert_int_equal(put(&x, 2 * i, 0), WK_TIER_DONE);
    assert_true(wk_share_collect_run(x.w[0].collect, 20));
    advance(&x, S(130));
    collect(&x.w[1]);
    assert_false(wk_share_collect_run(x.w[0].collect, 100));
    wk_share_collect_stats(x.w[0].collect, &st);
    assert_int_equal(st.n_rounds, 0);
    teardown(&x);
}

static void object_used_after_it_was_looked_at_is_kept(void **state)
{
    struct world x;
    uint32_t n = 0;

    (void)state;
    setup(&x, 2 * WORLD_OBJECT_BYTES, 0, 0);
    for (uint32_t i = 0; i < 4; i++, advance(&x, S(4000)))
        assert_int_equal(put(&x, 2 * i, 0), WK_TIER_DONE);
    /* In small pieces until the walk has seen all; the last piece of it sorts and goes on to drop. */
    while (n_files(&x, "/s/trash/") == 0 && wk_share_collect_run(x.w[0].collect, 1))
        assert_true(++n < 1000);
    assert_false(is_there(&x, 0, 0));
    assert_int_equal(get(&x, 2, 0), WK_TIER_DONE); /* the next victim */
    collect(&x.w[0]);
    assert_true(is_there(&x, 2, 0));
    teardown(&x);
}

/* A use of the last run keeps the whole path, and it goes from its end. */
static void path_that_is_used_at_its_end_is_kept_whole(void **state)
{
    struct world x;

    (void)state;
    setup(&x, 7 * WORLD_OBJECT_BYTES, 0, 0);
    for (uint32_t i = 0; i < 4; i++, advance(&x, S(100)))
        assert_int_equal(put(&x, 0, i), WK_TIER_DONE);
    for (uint32_t i = 1; i < 5; i++, advance(&x, S(100)))
        assert_int_equal(put(&x, 2 * i, 0), WK_TIER_DONE);
    advance(&x, S(3600));
    assert_int_equal(get(&x, 0, 3), WK_TIER_DONE);
    collect(&x.w[0]);
    for (uint32_t i = 0; i < 4; i++)
        assert_true(is_there(&x, 0, i));
    assert_false(is_there(&x, 2, 0));
    assert_false(is_there(&x, 4, 0));
    assert_true(is_there(&x, 6, 0));
    teardown(&x);
}

static void use_within_an_hour_costs_one_look(void **state)
{
    struct world x;
    uint64_t was;

    (void)state;
    setup(&x, 0, 0, 0);
    for (uint32_t i = 0; i < 4; i++)
        assert_int_equal(put(&x, 0, i), WK_TIER_DONE);
    was = wk_fs_script_n_calls(x.fs);
    assert_int_equal(get(&x, 0, 3), WK_TIER_DONE);
    assert_int_equal(wk_fs_script_n_calls(x.fs) - was, 5); /* open, 2 reads, close; stat */
    teardown(&x);
}

static void empty_directories_go_and_come_back(void **state)
{
    struct world x;

    (void)state;
    setup(&x, 0, S(10), 0);
    assert_int_equal(put(&x, 0, 0), WK_TIER_DONE);
    for (uint32_t i = 0; i < 4; i++, advance(&x, S(3700)))
        collect(&x.w[0]);
    {
        const struct wk_fs *fs = x.w[1].mount;
        char name[WK_FS_NAME_BYTES];
        void *dir;

        assert_int_equal(fs->dir_open(fs, "/s/1122334455667788/99aabbccddeeff00", &dir), 0);
        assert_int_equal(fs->dir_next(fs, dir, name), 0);
        fs->dir_close(fs, dir);
    }
    assert_int_equal(put(&x, 0, 0), WK_TIER_DONE);
    assert_int_equal(get(&x, 0, 0), WK_TIER_DONE);
    teardown(&x);
}

static void unreadable_rounds(void *ud)
{
    struct wk_share_collect_stats st;
    struct world x;

    (void)ud;
    setup(&x, 2 * WORLD_OBJECT_BYTES, 0, 0);
    for (uint32_t i = 0; i < 4; i++)
        assert_int_equal(put(&x, 2 * i, 0), WK_TIER_DONE);
    wk_fs_script_deny(x.fs, OBJECTS);
    for (uint32_t i = 0; i < 3; i++, advance(&x, S(60)))
        collect(&x.w[0]);
    wk_share_collect_stats(x.w[0].collect, &st);
    assert_int_equal(st.n_rounds, 3);
    assert_int_equal(st.n_unreadable, 1);
    assert_int_equal(st.n_objects, 0);
    wk_fs_script_deny(x.fs, "/s");
    for (uint32_t i = 0; i < 3; i++, advance(&x, S(60)))
        collect(&x.w[0]);
    wk_fs_script_deny(x.fs, "");
    collect(&x.w[0]);
    assert_true(object_bytes(&x) <= 2 * WORLD_OBJECT_BYTES);
    teardown(&x);
}

static uint32_t n_lines(const char *said)
{
    uint32_t n = 0;

    for (; *said != '\0'; said++)
        n += *said == '\n';
    return n;
}

static void unreadable_directories_are_left_out_with_one_line(void **state)
{
    char said[4096];

    (void)state;
    assert_int_equal(ps_test_run(unreadable_rounds, NULL, said, sizeof(said)), 0);
    assert_non_null(strstr(said, "t3 directory is partly unreadable"));
    assert_non_null(strstr(said, "t3 directory fails"));
    assert_int_equal(n_lines(said), 2);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

static void real_directory_is_kept_below_its_limit(void **state)
{
    const struct wk_tier_ident ident = world_ident();
    char path[] = "/tmp/share_collect_XXXXXX", odd[128];
    struct wk_share_collect_stats st;
    struct wk_share_root root;
    struct wk_share_collect *c;
    struct ps_buf err = PS_BUF_INIT;
    struct ps_clock clock;
    struct world_io w;
    uint32_t n = 0;

    (void)state;
    assert_non_null(mkdtemp(path));
    ps_clock_real(&clock);
    world_io_init(&w);
    assert_true(wk_share_root_init(&root, wk_fs_real(), &clock, path, &ident, &err));
    assert_true(wk_share_root_open(&root, &err));
    for (uint32_t i = 0; i < 12; i++) {
        struct wk_tier_io *io = world_io_make(&w, WK_TIER_PUT, 2 * i, 0, 0);

        assert_int_equal(wk_share_put(&root, io).status, WK_TIER_DONE);
    }
    snprintf(odd, sizeof(odd), "%s/0123456789abcdef", path); /* ours by name, but no directory */
    assert_int_equal(symlink("/", odd), 0);
    c = wk_share_collect_create(
        &(struct wk_share_collect_conf){.root = &root, .bytes_max = 6 * WORLD_OBJECT_BYTES});
    while (wk_share_collect_run(c, 7))
        assert_true(++n < 1000);
    wk_share_collect_stats(c, &st);
    assert_int_equal(st.n_rounds, 1);
    assert_int_equal(st.n_objects, 5);
    assert_int_equal(st.n_deleted, 7);
    assert_int_equal(st.n_bytes, 5 * WORLD_OBJECT_BYTES);
    wk_share_collect_destroy(c);
    wk_share_root_close(&root);
    world_io_fini(&w);
    ps_buf_fini(&err);
    assert_int_equal(nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(longest_unused_go_until_a_sixteenth_is_free),
        cmocka_unit_test(what_is_deleted_stays_ten_minutes_in_the_trash),
        cmocka_unit_test(files_of_dead_writers_go_after_an_hour),
        cmocka_unit_test(foreign_names_are_left_alone_and_not_counted),
        cmocka_unit_test(more_than_can_be_remembered_takes_more_rounds),
        cmocka_unit_test(only_the_holder_of_the_lease_collects),
        cmocka_unit_test(empty_lease_and_lease_from_the_future_are_taken_over),
        cmocka_unit_test(two_collectors_at_once_do_no_harm),
        cmocka_unit_test(holder_that_lost_its_lease_stops),
        cmocka_unit_test(object_used_after_it_was_looked_at_is_kept),
        cmocka_unit_test(path_that_is_used_at_its_end_is_kept_whole),
        cmocka_unit_test(use_within_an_hour_costs_one_look),
        cmocka_unit_test(empty_directories_go_and_come_back),
        cmocka_unit_test(unreadable_directories_are_left_out_with_one_line),
        cmocka_unit_test(real_directory_is_kept_below_its_limit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
