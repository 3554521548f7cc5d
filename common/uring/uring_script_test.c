#include "common/uring/uring_script.h"

#include "common/hash.h"
#include "common/test.h"

#include <errno.h>

enum { FILE_BYTES = 1 << 16, DEPTH = 8, SECTOR = PS_SCRIPT_SECTOR_BYTES };

struct act {
    struct iovec iov;
    uint8_t bytes[4 * SECTOR];
    int32_t res;
    uint32_t n_done;
};

struct world {
    struct ps_script_disk *disk;
    struct ps_uring *ring;
    struct act acts[DEPTH];
};

static int make(void **state)
{
    struct world *w = ps_calloc(1, sizeof(*w));

    w->disk = ps_script_disk_create(1, 2, FILE_BYTES);
    w->ring = ps_script_ring_create(w->disk, DEPTH);
    *state = w;
    return 0;
}

static int unmake(void **state)
{
    struct world *w = *state;
    int r = ps_uring_destroy(w->ring, 0);

    ps_script_disk_destroy(w->disk);
    ps_free(w);
    return r;
}

static void begin(struct world *w, uint32_t i, enum ps_uring_dir dir, uint64_t at, uint8_t fill)
{
    struct act *a = &w->acts[i];
    struct ps_uring_op op = {0, dir, &a->iov, 1, at, a};

    a->iov = (struct iovec){a->bytes, sizeof(a->bytes)};
    a->n_done = 0;
    memset(a->bytes, fill, sizeof(a->bytes));
    assert_int_equal(ps_uring_submit(w->ring, &op), PS_URING_OK);
}

static uint32_t reap(struct world *w)
{
    struct ps_uring_done done[DEPTH];
    uint32_t n = ps_uring_wait(w->ring, 1000, done, DEPTH);

    for (uint32_t i = 0; i < n; i++) {
        struct act *a = done[i].ud;

        a->res = done[i].res;
        a->n_done++;
    }
    return n;
}

static void reap_all(struct world *w)
{
    while (ps_uring_n_busy(w->ring) > 0)
        assert_true(reap(w) > 0);
}

static bool file_is(struct world *w, uint64_t at, uint64_t n, uint8_t value)
{
    for (uint64_t i = at; i < at + n; i++) {
        if (ps_script_file(w->disk, 0)[i] != value)
            return false;
    }
    return true;
}

static void without_faults_it_is_a_disk(void **state)
{
    struct world *w = *state;

    begin(w, 0, PS_URING_WRITE, 0, 7);
    assert_true(file_is(w, 0, FILE_BYTES, 0)); /* not before it ended */
    reap_all(w);
    assert_int_equal(w->acts[0].res, 4 * SECTOR);
    assert_true(file_is(w, 0, 4 * SECTOR, 7));
    begin(w, 1, PS_URING_READ, SECTOR, 0);
    begin(w, 2, PS_URING_READ, FILE_BYTES - SECTOR, 0);
    begin(w, 3, PS_URING_READ, FILE_BYTES, 0);
    begin(w, 4, PS_URING_WRITE, FILE_BYTES, 0);
    reap_all(w);
    assert_int_equal(w->acts[1].bytes[3 * SECTOR - 1], 7);
    assert_int_equal(w->acts[1].bytes[3 * SECTOR], 0);
    assert_int_equal(w->acts[2].res, SECTOR);
    assert_int_equal(w->acts[3].res, 0);
    assert_int_equal(w->acts[4].res, -ENOSPC);
}

static void each_fault_happens(void **state)
{
    struct world *w = *state;
    struct ps_script_faults f = {.read_eio = 1000};
    bool torn = false;

    ps_script_set_faults(w->disk, &f);
    begin(w, 0, PS_URING_READ, 0, 0);
    reap_all(w);
    assert_int_equal(w->acts[0].res, -EIO);
    f = (struct ps_script_faults){.write_enospc = 1000};
    ps_script_set_faults(w->disk, &f);
    for (uint8_t i = 1; i < 50 && !torn; i++) {
        begin(w, 0, PS_URING_WRITE, 0, i);
        reap_all(w);
        assert_int_equal(w->acts[0].res, -ENOSPC);
        torn = !file_is(w, 0, 4 * SECTOR, i) && !file_is(w, 0, 4 * SECTOR, (uint8_t)(i - 1));
    }
    assert_true(torn);
    f = (struct ps_script_faults){.short_io = 1000, .read_flip = 1000};
    ps_script_set_faults(w->disk, &f);
    begin(w, 0, PS_URING_READ, FILE_BYTES / 2, 0);
    reap_all(w);
    assert_in_range(w->acts[0].res, 1, 4 * SECTOR);
    torn = false;
    for (uint32_t i = 0; i < 4 * SECTOR; i++)
        torn |= w->acts[0].bytes[i] != 0;
    assert_true(torn);
    assert_true(file_is(w, FILE_BYTES / 2, 4 * SECTOR, 0));
    f = (struct ps_script_faults){.hang = 1000};
    ps_script_set_faults(w->disk, &f);
    begin(w, 0, PS_URING_READ, 0, 0);
    assert_int_equal(reap(w), 0);
    assert_int_equal(ps_uring_destroy(w->ring, 0), PS_URING_E_BUSY);
    ps_script_set_faults(w->disk, NULL);
    reap_all(w);
    assert_int_equal(w->acts[0].n_done, 1);
}

static void kill_leaves_sectors_of_what_was_in_flight_and_all_of_what_had_ended(void **state)
{
    struct world *w = *state;
    uint32_t n_new = 0, n_old = 0;

    for (uint32_t i = 0; i < 4; i++)
        begin(w, i, PS_URING_WRITE, i * 4 * SECTOR, 1);
    reap_all(w);
    ps_script_kill_after(w->disk, 3);
    for (uint32_t i = 0; i < 4; i++)
        begin(w, i, PS_URING_WRITE, i * 4 * SECTOR, 2); /* the last one comes after the end */
    assert_true(ps_script_is_killed(w->disk));
    reap_all(w);
    for (uint32_t i = 0; i < 4; i++)
        assert_int_equal(w->acts[i].res, -ECANCELED);
    for (uint32_t i = 0; i < 12; i++) {
        n_new += file_is(w, i * SECTOR, SECTOR, 2);
        n_old += file_is(w, i * SECTOR, SECTOR, 1);
    }
    assert_int_equal(n_new + n_old, 12);
    assert_in_range(n_new, 1, 11);
    assert_true(file_is(w, 12 * SECTOR, 4 * SECTOR, 1));
    assert_int_equal(ps_uring_destroy(w->ring, 0), PS_URING_OK);
    w->ring = ps_script_ring_create(w->disk, DEPTH);
    begin(w, 0, PS_URING_WRITE, 0, 9);
    reap_all(w);
    assert_true(file_is(w, 0, 4 * SECTOR, 9));
}

static uint64_t history(uint64_t seed)
{
    struct ps_script_faults f = {100, 50, 50, 50, 50, 300, 0};
    struct world *w = ps_calloc(1, sizeof(*w));
    uint64_t h = 0;

    w->disk = ps_script_disk_create(seed, 2, FILE_BYTES);
    w->ring = ps_script_ring_create(w->disk, DEPTH);
    ps_script_set_faults(w->disk, &f);
    ps_script_kill_after(w->disk, 60);
    for (uint32_t n = 0; n < 200; n++) {
        for (uint32_t i = 0; i < DEPTH; i++)
            begin(w, i, i % 3 == 0 ? PS_URING_READ : PS_URING_WRITE, (n * 7 + i) % 12 * SECTOR,
                  (uint8_t)n);
        reap_all(w);
        for (uint32_t i = 0; i < DEPTH; i++)
            h = ps_hash64(&w->acts[i].res, sizeof(w->acts[i].res), h);
    }
    h = ps_hash64(ps_script_file(w->disk, 0), FILE_BYTES, h);
    assert_int_equal(ps_uring_destroy(w->ring, 0), PS_URING_OK);
    ps_script_disk_destroy(w->disk);
    ps_free(w);
    return h;
}

static void same_seed_same_disk(void **state)
{
    (void)state;
    assert_int_equal(history(3), history(3));
    assert_int_not_equal(history(3), history(4));
}

static void operations_end_in_another_order_than_they_began(void **state)
{
    struct world *w = *state;
    struct ps_uring_done done[DEPTH];
    bool overtaken = false;

    for (uint32_t n = 0; n < 10; n++) {
        uint32_t at = 0;

        for (uint32_t i = 0; i < DEPTH; i++)
            begin(w, i, PS_URING_READ, 0, 0);
        while (at < DEPTH) {
            uint32_t got = ps_uring_wait(w->ring, 0, done, DEPTH);

            assert_true(got > 0);
            for (uint32_t i = 0; i < got; i++)
                overtaken |= done[i].ud != &w->acts[at + i];
            at += got;
        }
    }
    assert_true(overtaken);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, make, unmake)
    const struct CMUnitTest tests[] = {
        T(without_faults_it_is_a_disk),
        T(each_fault_happens),
        T(kill_leaves_sectors_of_what_was_in_flight_and_all_of_what_had_ended),
        T(operations_end_in_another_order_than_they_began),
        cmocka_unit_test(same_seed_same_disk),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
