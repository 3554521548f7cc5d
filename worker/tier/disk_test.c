#include "worker/tier/disk.h"

#include "common/test.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/syscall.h>

#include "worker/tier/disk_slot.h"
#include "worker/tier/disk_world.h"

enum { ROWS, SNAPS };

static int make(void **state)
{
    *state = world_create(1);
    return world_open(*state);
}

static int unmake(void **state)
{
    struct world *w = *state;
    int r = w->tier != NULL ? world_close(w) : 0;

    world_destroy(w);
    return r;
}

static void reopen(struct world *w)
{
    assert_int_equal(world_close(w), WK_TIER_OK);
    assert_int_equal(world_open(w), WK_TIER_OK);
}

static uint64_t slot_offset(struct world *w, uint32_t group, uint32_t slot)
{
    struct wk_slot_shape s;

    wk_slot_shape_init(&s, &w->conf.ident, group);
    return 4096 + slot * s.slot_bytes;
}

/* ---- slots ---- */

static void header_grows_with_ids_and_checksums(void **state)
{
    struct wk_tier_ident id = {.n_group = 2, .page_tokens = 16, .item_bytes = {4096, 144 << 20}};
    struct wk_slot_shape s;

    (void)state;
    wk_slot_shape_init(&s, &id, 0);
    assert_int_equal(s.head_bytes, 4096);
    assert_int_equal(s.slot_bytes, 8192);
    id.page_tokens = 256;
    wk_slot_shape_init(&s, &id, 1);
    assert_int_equal(s.n_sum, 2304);
    assert_int_equal(s.head_bytes, 5 * 4096); /* 152 + 1024 + 18432 */
}

/* ---- the scripted disk ---- */

static void what_was_put_is_got_under_its_key_alone(void **state)
{
    struct world *w = *state;

    assert_int_equal(world_do(w, WK_TIER_GET, ROWS, 0, 0), WK_TIER_MISS);
    assert_int_equal(world_do(w, WK_TIER_PUT, ROWS, 0, 0), WK_TIER_DONE);
    assert_int_equal(world_do(w, WK_TIER_PUT, SNAPS, 1, 5), WK_TIER_DONE);
    assert_int_equal(world_do(w, WK_TIER_GET, ROWS, 0, 0), WK_TIER_DONE);
    assert_int_equal(world_do(w, WK_TIER_GET, SNAPS, 1, 5), WK_TIER_DONE);
    assert_int_equal(world_do(w, WK_TIER_GET, ROWS, 1, 0), WK_TIER_MISS);
    w->keys[ROWS][0].seed++;
    assert_int_equal(world_do(w, WK_TIER_GET, ROWS, 0, 0), WK_TIER_MISS);
    w->keys[ROWS][0].seed--;
    w->ids[0][15]++;
    assert_int_equal(world_do(w, WK_TIER_GET, ROWS, 0, 0), WK_TIER_MISS);
    w->ids[0][15]--;
    assert_int_equal(world_do(w, WK_TIER_PUT, ROWS, 3, 0), WK_TIER_DONE);
    assert_int_equal(world_do(w, WK_TIER_GET, ROWS, 0, 0), WK_TIER_MISS);
    assert_int_equal(world_do(w, WK_TIER_GET, ROWS, 3, 0), WK_TIER_DONE);
    assert_int_equal(world_do(w, WK_TIER_ERASE, ROWS, 3, 0), WK_TIER_DONE);
    assert_int_equal(world_do(w, WK_TIER_GET, ROWS, 3, 0), WK_TIER_MISS);
}

static void parts_are_independent(void **state)
{
    struct world *w = *state;
    struct world_io *o;
    uint32_t n;

    for (uint32_t i = 0; i < 3; i++)
        world_part(w, 0, WK_TIER_PUT, ROWS, i, i);
    assert_int_equal(world_submit(w, 0), WK_TIER_OK);
    assert_int_equal(w->tier->ops->pump(w->tier, 1), 1);
    assert_non_null(world_take(w, &n));
    assert_int_equal(n, 3);
    world_part(w, 0, WK_TIER_GET, ROWS, 0, 0);
    world_part(w, 0, WK_TIER_GET, ROWS, 5, 1);
    world_part(w, 0, WK_TIER_GET, ROWS, 2, 2);
    assert_int_equal(world_submit(w, 0), WK_TIER_OK);
    assert_int_equal(w->tier->ops->pump(w->tier, 1), 1);
    o = world_take(w, &n);
    assert_int_equal(o->parts[0].status, WK_TIER_DONE);
    assert_int_equal(o->parts[1].status, WK_TIER_MISS);
    assert_int_equal(o->parts[2].status, WK_TIER_DONE);
    assert_true(world_holds(w, ROWS, 2, o->parts[2].buf));
}

static void any_damaged_byte_is_found(void **state)
{
    struct world *w = *state;
    uint64_t at = slot_offset(w, SNAPS, 2);
    const uint64_t places[] = {0, 9, 100, 4000, 4096, 4096 + 65535, 4096 + 65536, 4096 + 69631};

    assert_int_equal(world_do(w, WK_TIER_PUT, SNAPS, 0, 2), WK_TIER_DONE);
    for (uint32_t i = 0; i < PS_ARRAY_LEN(places); i++) {
        uint8_t *b = ps_script_file(w->disk, SNAPS) + at + places[i];

        *b ^= 0x10;
        assert_int_equal(world_do(w, WK_TIER_GET, SNAPS, 0, 2), WK_TIER_BAD);
        *b ^= 0x10;
        assert_int_equal(world_do(w, WK_TIER_GET, SNAPS, 0, 2), WK_TIER_DONE);
    }
}

static void device_errors_are_told_apart(void **state)
{
    struct world *w = *state;
    struct ps_script_faults f = {.read_eio = 1000, .write_enospc = 1000};

    ps_script_set_faults(w->disk, &f);
    assert_int_equal(world_do(w, WK_TIER_PUT, ROWS, 0, 0), WK_TIER_FULL);
    assert_int_equal(world_do(w, WK_TIER_GET, ROWS, 0, 0), WK_TIER_FAULT);
    f = (struct ps_script_faults){.write_eio = 1000, .read_flip = 1000};
    ps_script_set_faults(w->disk, &f);
    assert_int_equal(world_do(w, WK_TIER_PUT, ROWS, 0, 0), WK_TIER_FAULT);
    ps_script_set_faults(w->disk, NULL);
    assert_int_equal(world_do(w, WK_TIER_PUT, ROWS, 0, 0), WK_TIER_DONE);
    f.write_eio = 0;
    ps_script_set_faults(w->disk, &f);
    assert_int_equal(world_do(w, WK_TIER_GET, ROWS, 0, 0), WK_TIER_BAD);
    f = (struct ps_script_faults){.short_io = 500};
    ps_script_set_faults(w->disk, &f);
    for (uint32_t i = 0; i < 20; i++) {
        assert_int_equal(world_do(w, WK_TIER_PUT, SNAPS, i % 12, 0), WK_TIER_DONE);
        assert_int_equal(world_do(w, WK_TIER_GET, SNAPS, i % 12, 0), WK_TIER_DONE);
    }
}

/* ---- restart ---- */

static void restart_tells_paths_parents_first_and_orphans_never(void **state)
{
    struct world *w = *state;
    uint32_t at[WORLD_GROUPS][WORLD_SLOTS];

    /* 0 <- 2 <- 6 by rows, 6 <- 10.. missing; 5 has no parent; slots in the order of children first */
    assert_int_equal(world_do(w, WK_TIER_PUT, ROWS, 6, 0), WK_TIER_DONE);
    assert_int_equal(world_do(w, WK_TIER_PUT, ROWS, 2, 1), WK_TIER_DONE);
    assert_int_equal(world_do(w, WK_TIER_PUT, ROWS, 4, 3), WK_TIER_DONE); /* below 1 */
    assert_int_equal(world_do(w, WK_TIER_PUT, ROWS, 0, 5), WK_TIER_DONE);
    assert_int_equal(world_do(w, WK_TIER_PUT, SNAPS, 6, 4), WK_TIER_DONE);
    reopen(w);
    assert_int_equal(world_scan(w, at), 4);
    assert_int_equal(at[ROWS][0], 6);
    assert_int_equal(at[ROWS][1], 2);
    assert_int_equal(at[ROWS][5], 0);
    assert_int_equal(at[SNAPS][4], 6);
    assert_int_equal(world_do(w, WK_TIER_GET, ROWS, 6, 0), WK_TIER_DONE);
    assert_int_equal(world_do(w, WK_TIER_GET, SNAPS, 6, 4), WK_TIER_DONE);
}

static void of_two_slots_with_one_item_one_is_told(void **state)
{
    struct world *w = *state;
    uint32_t at[WORLD_GROUPS][WORLD_SLOTS];

    for (uint32_t s = 0; s < 4; s++)
        assert_int_equal(world_do(w, WK_TIER_PUT, ROWS, s / 2 * 2, s), WK_TIER_DONE);
    reopen(w);
    assert_int_equal(world_scan(w, at), 2);
}

static void header_that_gives_another_digest_is_never_told(void **state)
{
    struct world *w = *state;
    uint32_t at[WORLD_GROUPS][WORLD_SLOTS];

    w->keys[ROWS][0].digest[3] ^= 1; /* the checksum is right: made elsewhere */
    assert_int_equal(world_do(w, WK_TIER_PUT, ROWS, 0, 0), WK_TIER_DONE);
    w->keys[ROWS][1].seed++; /* its parent is the root of another seed */
    assert_int_equal(world_do(w, WK_TIER_PUT, ROWS, 1, 1), WK_TIER_DONE);
    w->keys[SNAPS][1].first_pos += 16;
    assert_int_equal(world_do(w, WK_TIER_PUT, SNAPS, 1, 1), WK_TIER_DONE);
    reopen(w);
    assert_int_equal(world_scan(w, at), 0);
}

static void slot_is_not_written_before_it_was_told_or_found_empty(void **state)
{
    struct world *w = *state;
    struct wk_disk_found f;

    assert_true(wk_tier_disk_may_write(w->tier, ROWS, 0)); /* a new file has nothing to tell */
    assert_int_equal(world_do(w, WK_TIER_PUT, ROWS, 0, 0), WK_TIER_DONE);
    assert_int_equal(world_do(w, WK_TIER_PUT, ROWS, 5, 1), WK_TIER_DONE); /* an orphan */
    reopen(w);
    for (uint32_t s = 0; s < WORLD_SLOTS; s++)
        assert_false(wk_tier_disk_may_write(w->tier, ROWS, s));
    assert_int_equal(wk_tier_disk_scan(w->tier, &f), WK_DISK_SCAN_E_NONE);
    (void)w->tier->ops->pump(w->tier, 1);
    assert_false(wk_tier_disk_may_write(w->tier, ROWS, 0));
    assert_true(wk_tier_disk_may_write(w->tier, ROWS, 2));
    assert_int_equal(wk_tier_disk_scan(w->tier, &f), WK_DISK_SCAN_OK);
    assert_true(wk_tier_disk_may_write(w->tier, ROWS, 0));
    assert_true(wk_tier_disk_may_write(w->tier, ROWS, 1));
    assert_int_equal(wk_tier_disk_scan(w->tier, &f), WK_DISK_SCAN_E_OVER);
}

static void file_of_another_model_is_started_over(void **state)
{
    struct world *w = *state;
    uint32_t at[WORLD_GROUPS][WORLD_SLOTS];

    assert_int_equal(world_do(w, WK_TIER_PUT, ROWS, 0, 0), WK_TIER_DONE);
    w->conf.ident.space_id++;
    reopen(w);
    assert_true(wk_tier_disk_may_write(w->tier, ROWS, 0));
    assert_int_equal(world_scan(w, at), 0);
    assert_int_equal(world_do(w, WK_TIER_GET, ROWS, 0, 0), WK_TIER_MISS);
    w->conf.ident.space_id--;
    reopen(w); /* the old id is back, the old slots are not */
    assert_int_equal(world_scan(w, at), 0);
    assert_int_equal(world_do(w, WK_TIER_GET, ROWS, 0, 0), WK_TIER_MISS);
}

static void damaged_superblock_starts_over_and_another_program_s_file_is_left_alone(void **state)
{
    struct world *w = *state;

    assert_int_equal(world_do(w, WK_TIER_PUT, ROWS, 0, 0), WK_TIER_DONE);
    assert_int_equal(world_close(w), WK_TIER_OK);
    ps_script_file(w->disk, ROWS)[200] ^= 1;
    assert_int_equal(world_open(w), WK_TIER_OK);
    assert_int_equal(world_do(w, WK_TIER_GET, ROWS, 0, 0), WK_TIER_MISS);
    assert_int_equal(world_close(w), WK_TIER_OK);
    memcpy(ps_script_file(w->disk, ROWS), "GGUF", 4);
    assert_int_equal(world_open(w), WK_TIER_E_CONF);
    assert_memory_equal(ps_script_file(w->disk, ROWS), "GGUF", 4);
}

static void reset_voids_what_is_there_also_after_a_restart(void **state)
{
    struct world *w = *state;
    uint32_t at[WORLD_GROUPS][WORLD_SLOTS];
    uint32_t n;

    assert_int_equal(world_do(w, WK_TIER_PUT, ROWS, 0, 0), WK_TIER_DONE);
    assert_int_equal(world_do(w, WK_TIER_PUT, ROWS, 1, 1), WK_TIER_DONE);
    world_part(w, 3, WK_TIER_PUT, ROWS, 2, 2); /* submitted before, written after */
    assert_int_equal(world_submit(w, 3), WK_TIER_OK);
    wk_tier_disk_reset(w->tier);
    assert_int_equal(w->tier->ops->pump(w->tier, 1), 1);
    assert_ptr_equal(world_take(w, &n), &w->ios[3]);
    assert_int_equal(w->ios[3].parts[0].status, WK_TIER_CANCELLED);
    assert_int_equal(world_do(w, WK_TIER_GET, ROWS, 0, 0), WK_TIER_MISS);
    assert_int_equal(world_do(w, WK_TIER_PUT, ROWS, 4, 3), WK_TIER_DONE);
    assert_int_equal(world_do(w, WK_TIER_PUT, ROWS, 1, 1), WK_TIER_DONE);
    reopen(w);
    assert_int_equal(world_scan(w, at), 2);
    assert_int_equal(at[ROWS][1], 1);
    assert_int_equal(at[ROWS][3], 4);
    assert_int_equal(world_do(w, WK_TIER_GET, ROWS, 0, 0), WK_TIER_MISS);
    wk_tier_disk_reset(w->tier); /* close comes at once: it is written all the same */
    reopen(w);
    assert_int_equal(world_scan(w, at), 0);
    reopen(w);
    wk_tier_disk_reset(w->tier); /* in the middle of a scan */
    assert_int_equal(world_scan(w, at), 0);
}

static void tier_that_cannot_write_a_reset_down_is_closed(void **state)
{
    struct world *w = *state;
    struct ps_script_faults f = {.write_eio = 1000};
    uint32_t n;

    assert_int_equal(world_do(w, WK_TIER_PUT, ROWS, 0, 0), WK_TIER_DONE);
    ps_script_set_faults(w->disk, &f);
    wk_tier_disk_reset(w->tier);
    world_part(w, 0, WK_TIER_PUT, ROWS, 1, 1);
    assert_int_equal(world_submit(w, 0), WK_TIER_OK);
    assert_int_equal(w->tier->ops->pump(w->tier, 1), 1);
    assert_non_null(world_take(w, &n));
    assert_int_equal(w->ios[0].parts[0].status, WK_TIER_FAULT);
    world_part(w, 0, WK_TIER_GET, ROWS, 0, 0);
    assert_int_equal(world_submit(w, 0), WK_TIER_E_CLOSED);
}

/* ---- queue ---- */

static void urgent_overtakes_and_the_queue_has_an_end(void **state)
{
    struct world *w = *state;
    struct wk_tier_io *many = ps_calloc(w->tier->depth + 1, sizeof(*many));
    struct wk_tier_part *parts = ps_calloc(w->tier->depth + 1, sizeof(*parts));
    uint32_t n_before = 0, n = w->tier->depth;
    struct wk_tier_io *io;

    for (uint32_t i = 0; i <= n; i++) {
        parts[i] = (struct wk_tier_part){
            .key = w->keys[ROWS][0], .buf = w->ios[i % 6].bufs[0], .slot = i % 6};
        many[i] = (struct wk_tier_io){.op = WK_TIER_GET, .n_part = 1, .part = &parts[i]};
    }
    many[n - 1].urgent = true;
    for (uint32_t i = 0; i < n; i++)
        assert_int_equal(w->tier->ops->submit(w->tier, &many[i]), WK_TIER_OK);
    assert_int_equal(w->tier->ops->submit(w->tier, &many[n]), WK_TIER_E_FULL);
    assert_int_equal(w->tier->ops->pump(w->tier, n), n);
    for (uint32_t i = 0; (io = wk_tier_take(&w->inbox)) != NULL; i++) {
        if (io == &many[n - 1])
            n_before = i;
        n--;
    }
    assert_int_equal(n, 0);
    assert_true(n_before < 2 * w->conf.depth); /* only what began together with it */
    ps_free(many);
    ps_free(parts);
}

static void what_has_not_begun_is_cancelled_by_wish_or_by_time(void **state)
{
    struct world *w = *state;
    uint32_t n;

    world_part(w, 0, WK_TIER_PUT, ROWS, 0, 0);
    assert_int_equal(world_submit(w, 0), WK_TIER_OK);
    w->tier->ops->cancel(w->tier, &w->ios[0].io);
    world_part(w, 1, WK_TIER_PUT, ROWS, 0, 0);
    w->ios[1].io.deadline_us = ps_now_us(&w->clock) + 10;
    assert_int_equal(world_submit(w, 1), WK_TIER_OK);
    ps_clock_advance(&w->clock, 11);
    (void)w->tier->ops->pump(w->tier, 2);
    for (uint32_t i = 0; i < 2; i++) {
        assert_ptr_equal(world_take(w, &n), &w->ios[i]);
        assert_int_equal(w->ios[i].parts[0].status, WK_TIER_CANCELLED);
    }
    assert_int_equal(ps_script_n_writes(w->disk), WORLD_GROUPS); /* the superblocks alone */
}

static void close_leaves_what_hangs_and_gives_back_the_rest(void **state)
{
    struct world *w = *state;
    uint32_t n, n_back = 0;

    ps_script_set_hung(w->disk, true);
    for (uint32_t i = 0; i < 6; i++) {
        world_part(w, i, WK_TIER_PUT, ROWS, i, i);
        assert_int_equal(world_submit(w, i), WK_TIER_OK);
    }
    assert_int_equal(w->tier->ops->pump(w->tier, 6), 0);
    assert_int_equal(w->tier->ops->close(w->tier, 10), WK_TIER_E_BUSY);
    while (world_take(w, &n) != NULL)
        n_back++;
    assert_int_equal(n_back, 6 - w->conf.depth);
    ps_script_set_hung(w->disk, false); /* at last: and the rest can be given back here */
    assert_int_equal(w->tier->ops->close(w->tier, 10), WK_TIER_OK);
    while (world_take(w, &n) != NULL)
        n_back++;
    assert_int_equal(n_back, 6);
    assert_int_equal(ps_uring_destroy(w->conf.script, 0), PS_URING_OK);
    w->tier = NULL;
}

/* ---- real files ---- */

struct dir {
    char name[64], file[80];
};

static struct world *open_real(struct dir *d, bool is_threads)
{
    struct world *w = world_create(1);

    snprintf(d->name, sizeof(d->name), "/tmp/tier_disk_test.XXXXXX");
    assert_non_null(mkdtemp(d->name));
    snprintf(d->file, sizeof(d->file), "%s/kv", d->name);
    assert_int_equal(
        is_threads ? setenv("PENSTOCK_IO_URING", "0", 1) : unsetenv("PENSTOCK_IO_URING"), 0);
    ps_clock_real(&w->clock);
    w->conf.path = d->file;
    assert_int_equal(world_open(w), WK_TIER_OK);
    return w;
}

static void remove_dir(struct dir *d)
{
    char second[96];

    snprintf(second, sizeof(second), "%s.1", d->file);
    (void)unlink(d->file);
    (void)unlink(second);
    assert_int_equal(rmdir(d->name), 0); /* nothing else is left */
}

static void live_and_restart(bool is_threads)
{
    struct dir d;
    struct world *w = open_real(&d, is_threads);
    uint32_t at[WORLD_GROUPS][WORLD_SLOTS], n, n_back = 0;

    assert_int_equal(world_scan(w, at), 0);
    for (uint32_t i = 0; i < 6; i++) {
        world_part(w, i, WK_TIER_PUT, i % 2, i / 2 * 2, i);
        w->ios[i].io.urgent = i > 3;
        assert_int_equal(world_submit(w, i), WK_TIER_OK);
    }
    for (uint32_t t = 0; n_back < 6 && t < 5000; t++) {
        struct world_io *o = world_take(w, &n);

        if (o == NULL) {
            (void)poll(NULL, 0, 1);
            continue;
        }
        assert_int_equal(o->parts[0].status, WK_TIER_DONE);
        n_back++;
    }
    assert_int_equal(n_back, 6);
    assert_int_equal(world_do(w, WK_TIER_GET, ROWS, 2, 2), WK_TIER_DONE);
    assert_int_equal(world_do(w, WK_TIER_GET, ROWS, 0, 2), WK_TIER_MISS);
    reopen(w);
    assert_int_equal(world_scan(w, at), 4); /* 0 and 2; 4 lacks its parent */
    assert_int_equal(world_do(w, WK_TIER_GET, SNAPS, 2, 3), WK_TIER_DONE);
    w->conf.n_slot[ROWS] = 3; /* a smaller file keeps its first slots */
    reopen(w);
    assert_int_equal(wk_tier_disk_n_slot(w->tier, ROWS), 3);
    assert_int_equal(world_do(w, WK_TIER_GET, ROWS, 2, 2), WK_TIER_DONE);
    wk_tier_disk_reset(w->tier);
    w->conf.n_slot[ROWS] = WORLD_SLOTS;
    reopen(w);
    assert_int_equal(world_scan(w, at), 0);
    assert_true(w->tier->read_bytes_per_s > 0 && w->tier->write_bytes_per_s > 0);
    assert_int_equal(world_close(w), WK_TIER_OK);
    world_destroy(w);
    remove_dir(&d);
}

static void real_file_by_io_uring_lives_and_restarts(void **state)
{
    (void)state;
    live_and_restart(false);
}

static void real_file_by_threads_lives_and_restarts(void **state)
{
    (void)state;
    live_and_restart(true);
}

static void file_in_use_or_unusable_is_refused_with_a_reason(void **state)
{
    struct dir d;
    struct world *w = open_real(&d, false), *other = world_create(2);
    struct ps_buf err = PS_BUF_INIT;
    struct wk_tier *t = NULL;

    (void)state;
    ps_clock_real(&other->clock);
    other->conf.path = d.file;
    assert_int_equal(wk_tier_disk_create(&t, &other->conf, &err), WK_TIER_E_CONF);
    assert_non_null(strstr(err.data, "another process uses it"));
    ps_buf_clear(&err);
    other->conf.path = d.name;
    assert_int_equal(wk_tier_disk_create(&t, &other->conf, &err), WK_TIER_E_CONF);
    ps_buf_clear(&err);
    other->conf.path = "/nonexistent/kv";
    assert_int_equal(wk_tier_disk_create(&t, &other->conf, &err), WK_TIER_E_CONF);
    assert_non_null(strstr(err.data, "/nonexistent/kv"));
    ps_buf_fini(&err);
    assert_int_equal(world_close(w), WK_TIER_OK);
    other->conf.path = d.file;
    assert_int_equal(world_open(other), WK_TIER_OK); /* the lock went with its owner */
    assert_int_equal(world_close(other), WK_TIER_OK);
    world_destroy(other);
    world_destroy(w);
    remove_dir(&d);
}

/* This program's own pwritev, which the ring's threads call: it waits while `hung` is locked. */
static pthread_mutex_t hung = PTHREAD_MUTEX_INITIALIZER;
static _Atomic uint32_t n_begun, n_written;

ssize_t pwritev(int fd, const struct iovec *iov, int n_iov, off_t offset)
{
    ssize_t n;

    atomic_fetch_add(&n_begun, 1);
    pthread_mutex_lock(&hung);
    pthread_mutex_unlock(&hung);
    n = syscall(SYS_pwritev, fd, iov, (long)n_iov, (long)offset, 0L);
    atomic_fetch_add(&n_written, 1);
    return n;
}

static void disk_that_hangs_does_not_delay_close_and_keeps_its_buffers(void **state)
{
    static struct world *left; /* ios, buffers and clock are the disk's for ever */
    static struct wk_tier *left_tier;
    struct dir d;
    struct world *w = open_real(&d, true);
    uint32_t n_before = atomic_load(&n_written), n;
    uint64_t t0;

    (void)state;
    assert_true(n_before > 0); /* it is called at all */
    pthread_mutex_lock(&hung);
    world_part(w, 0, WK_TIER_PUT, ROWS, 0, 0);
    assert_int_equal(world_submit(w, 0), WK_TIER_OK);
    for (uint32_t i = 0; i < 5000 && atomic_load(&n_begun) == n_before; i++)
        (void)poll(NULL, 0, 1);
    left = w;
    left_tier = w->tier;
    t0 = ps_now_us(&w->clock);
    assert_int_equal(w->tier->ops->close(w->tier, 20), WK_TIER_E_BUSY);
    assert_in_range(ps_now_us(&w->clock) - t0, 20000, 5000000);
    pthread_mutex_unlock(&hung);
    for (uint32_t i = 0; i < 5000 && atomic_load(&n_written) == n_before; i++)
        (void)poll(NULL, 0, 1);
    (void)poll(NULL, 0, 50); /* a thread that came back would post now */
    assert_null(world_take(w, &n));
    assert_true(left->tier == left_tier);
    remove_dir(&d);
}

/* A limit of the process's own stands for a full disk. */
static void disk_too_small_gives_as_many_slots_as_fit(void **state)
{
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    struct rlimit old, small;
    struct dir d;
    struct world *w = open_real(&d, false);
    struct ps_buf err = PS_BUF_INIT;

    (void)state;
    assert_int_equal(world_close(w), WK_TIER_OK);
    assert_int_equal(truncate(d.file, 0), 0);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    assert_int_equal(sigaction(SIGXFSZ, &ignore, NULL), 0);
    small = old;
    small.rlim_cur = slot_offset(w, ROWS, 5) - 1;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    w->conf.ident.n_group = 1;
    assert_int_equal(world_open(w), WK_TIER_OK);
    assert_int_equal(wk_tier_disk_n_slot(w->tier, ROWS), 4);
    assert_int_equal(world_do(w, WK_TIER_PUT, ROWS, 0, 3), WK_TIER_DONE);
    assert_int_equal(world_close(w), WK_TIER_OK);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_int_equal(truncate(d.file, 0), 0);
    small.rlim_cur = 8000;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    assert_int_equal(wk_tier_disk_create(&w->tier, &w->conf, &err), WK_TIER_E_CONF);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_non_null(strstr(err.data, "no room"));
    ps_buf_fini(&err);
    world_destroy(w);
    remove_dir(&d);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, make, unmake)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(header_grows_with_ids_and_checksums),
        T(what_was_put_is_got_under_its_key_alone),
        T(parts_are_independent),
        T(any_damaged_byte_is_found),
        T(device_errors_are_told_apart),
        T(restart_tells_paths_parents_first_and_orphans_never),
        T(of_two_slots_with_one_item_one_is_told),
        T(header_that_gives_another_digest_is_never_told),
        T(slot_is_not_written_before_it_was_told_or_found_empty),
        T(file_of_another_model_is_started_over),
        T(damaged_superblock_starts_over_and_another_program_s_file_is_left_alone),
        T(reset_voids_what_is_there_also_after_a_restart),
        T(tier_that_cannot_write_a_reset_down_is_closed),
        T(urgent_overtakes_and_the_queue_has_an_end),
        T(what_has_not_begun_is_cancelled_by_wish_or_by_time),
        T(close_leaves_what_hangs_and_gives_back_the_rest),
        cmocka_unit_test(real_file_by_io_uring_lives_and_restarts),
        cmocka_unit_test(real_file_by_threads_lives_and_restarts),
        cmocka_unit_test(file_in_use_or_unusable_is_refused_with_a_reason),
        cmocka_unit_test(disk_that_hangs_does_not_delay_close_and_keeps_its_buffers),
        cmocka_unit_test(disk_too_small_gives_as_many_slots_as_fit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
