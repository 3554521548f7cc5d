#include <poll.h>

#include "common/log.h"
#include "common/test.h"
#include "worker/kv/store_world.h"
#include "worker/tier/fs_script.h"

/* Letters of a path of n pages that nobody else has. */
static void fresh(char *out, uint32_t n, uint32_t k)
{
    for (uint32_t i = 0; i < n; i++)
        out[i] = (char)('A' + (k * 7 + i * 3) % 50);
    out[0] = (char)('A' + k % 50);
    out[n] = '\0';
}

static void t0_alone_keeps_what_it_can(void **state)
{
    struct world w;
    struct path p;

    (void)state;
    world_init(&w, 8, 0);
    world_open(&w);
    path_make(&w, &p, 1, "abcd");
    assert_int_equal(world_request(&w, &p), 0);
    assert_int_equal(world_request(&w, &p), 4);
    path_make(&w, &p, 2, "abcd"); /* another tenant */
    assert_int_equal(world_request(&w, &p), 0);
    world_fini(&w);
}

static void pages_evicted_from_t0_come_back_from_t1(void **state)
{
    struct world w;
    struct path p;
    char text[8];

    (void)state;
    world_init(&w, 16, 64);
    world_open(&w);
    for (uint32_t k = 0; k < 8; k++) {
        fresh(text, 6, k);
        path_make(&w, &p, 1, text);
        assert_int_equal(world_request(&w, &p), 0);
        world_settle(&w, 3);
    }
    for (uint32_t k = 0; k < 8; k++) {
        fresh(text, 6, k);
        path_make(&w, &p, 1, text);
        assert_int_equal(world_request(&w, &p), 6);
    }
    world_fini(&w);
}

static void two_that_want_the_same_pages_share_one_move(void **state)
{
    struct world w;
    struct path p, q;
    struct run a, b;
    uint64_t n_write;

    (void)state;
    world_init(&w, 16, 64);
    world_open(&w);
    path_make(&w, &p, 1, "abcdefgh");
    world_request(&w, &p);
    assert_int_equal(world_request(&w, &p), 8); /* what is used again is copied down */
    world_settle(&w, 4);
    path_make(&w, &q, 1, "ABCDEFGHIJKLMNOP"); /* pushes the first out */
    world_request(&w, &q);
    world_settle(&w, 4);
    n_write = w.exec.n_write;
    assert_true(run_begin(&w, &a, &p) && run_begin(&w, &b, &p));
    assert_int_equal(a.n_use, 8);
    assert_int_equal(b.n_use, 8);
    world_settle(&w, 4);
    assert_int_equal(run_state(&w, &a), WK_STORE_READY);
    run_check_bytes(&w, &a);
    assert_int_equal(w.exec.n_write - n_write, 8);
    run_end(&w, &a);
    run_check_bytes(&w, &b);
    run_end(&w, &b);
    world_fini(&w);
}

static void nobody_waits_and_the_item_of_t0_is_free_at_once(void **state)
{
    struct world w;
    struct path p, q;
    struct run a;

    (void)state;
    world_init(&w, 16, 64);
    world_open(&w);
    path_make(&w, &p, 1, "abcdefgh");
    world_request(&w, &p);
    assert_int_equal(world_request(&w, &p), 8); /* what is used again is copied down */
    world_settle(&w, 4);
    path_make(&w, &q, 1, "ABCDEFGHIJKLMNOP");
    world_request(&w, &q);
    world_settle(&w, 4);
    assert_true(run_begin(&w, &a, &p));
    run_end(&w, &a); /* before a tick: nothing has begun */
    assert_int_equal(wk_kv_tree_n_avail(w.tree, WK_KV_T0, 0), 16);
    wk_store_check(w.store);
    world_settle(&w, 4);
    assert_int_equal(wk_kv_tree_n_avail(w.tree, WK_KV_T0, 0), 16);
    world_fini(&w);
}

/* ---- with a disk that has 8 paths of 6 pages, of which T0 and T1 hold the last ones ---- */

enum { DISK_PATHS = 8, DISK_PAGES = 6 };

static void disk_open(struct world *w, struct ps_script_disk *disk, uint32_t n_t0)
{
    world_init(w, n_t0, 16);
    w->conf.t2_path = "script";
    w->conf.t2_bytes = 100 * WORLD_ITEM;
    w->conf.t2_script = ps_script_ring_create(disk, 32);
    world_open(w);
    world_settle(w, 50);
}

static void disk_path(const struct world *w, struct path *p, uint32_t k)
{
    char text[DISK_PAGES + 1];

    fresh(text, DISK_PAGES, k);
    path_make(w, p, 1, text);
}

static void disk_fill(struct world *w)
{
    struct path p;

    for (uint32_t k = 0; k < DISK_PATHS; k++) {
        disk_path(w, &p, k);
        world_request(w, &p);
        world_settle(w, 6);
    }
}

static void disk_again(struct world *w, struct ps_script_disk *disk)
{
    world_close(w, 1000);
    w->conf.t2_script = ps_script_ring_create(disk, 32);
    world_open(w);
    world_settle(w, 50);
}

static void the_disk_survives_the_process(void **state)
{
    struct ps_script_disk *disk = ps_script_disk_create(1, 1, 4 << 20);
    struct world w;
    struct path p;

    (void)state;
    disk_open(&w, disk, 16);
    for (uint32_t life = 0; life < 3; life++) {
        for (uint32_t k = 0; k < DISK_PATHS; k++) {
            disk_path(&w, &p, k);
            assert_int_equal(world_request(&w, &p), life == 0 ? 0 : DISK_PAGES);
            world_settle(&w, 4);
        }
        disk_again(&w, disk);
    }
    world_fini(&w);
    ps_script_disk_destroy(disk);
}

static void a_hung_disk_holds_nothing_of_t0(void **state)
{
    struct ps_script_disk *disk = ps_script_disk_create(1, 1, 4 << 20);
    struct path first, last;
    struct world w;
    struct run r;

    (void)state;
    disk_open(&w, disk, 16);
    disk_fill(&w);
    disk_path(&w, &first, 0);
    disk_path(&w, &last, DISK_PATHS - 1);
    ps_script_set_hung(disk, true);
    assert_true(run_begin(&w, &r, &first));
    assert_int_equal(r.n_use, DISK_PAGES);
    world_settle(&w, 20);
    assert_int_equal(run_state(&w, &r), WK_STORE_MOVING);
    run_end(&w, &r);
    assert_int_equal(wk_kv_tree_n_avail(w.tree, WK_KV_T0, 0), 16);
    /* The next one is told that waiting is not worth it, and what is in T0 and T1 is as near as ever. */
    ps_clock_advance(&w.clock, 5000000);
    assert_true(run_begin(&w, &r, &first));
    assert_int_equal(r.n_use, 0);
    run_end(&w, &r);
    assert_int_equal(world_request(&w, &last), DISK_PAGES);
    ps_script_set_hung(disk, false);
    world_settle(&w, 50);
    assert_int_equal(world_request(&w, &first), DISK_PAGES);
    world_fini(&w);
    ps_script_disk_destroy(disk);
}

static void a_flush_forgets_every_tier(void **state)
{
    struct ps_script_disk *disk = ps_script_disk_create(1, 1, 4 << 20);
    struct world w;

    (void)state;
    disk_open(&w, disk, 16);
    disk_fill(&w);
    wk_store_flush(w.store);
    world_settle(&w, 50);
    assert_int_equal(wk_kv_tree_n_nodes(w.tree), 0);
    disk_again(&w, disk);
    assert_int_equal(wk_kv_tree_n_nodes(w.tree), 0);
    world_fini(&w);
    ps_script_disk_destroy(disk);
}

static struct wk_store_stats stats_of(const struct world *w)
{
    struct wk_store_stats st;

    wk_store_stats(w->store, &st);
    return st;
}

/* The store sees what the disk can do: the last path comes in 10 ms. */
static void disk_measure(struct world *w, struct ps_script_disk *disk)
{
    struct path p;
    struct run r;

    disk_path(w, &p, DISK_PATHS - 1);
    ps_script_set_hung(disk, true);
    assert_true(run_begin(w, &r, &p));
    assert_int_equal(r.n_use, DISK_PAGES);
    world_turn(w);
    ps_clock_advance(&w->clock, 10000);
    ps_script_set_hung(disk, false);
    world_settle(w, 50);
    assert_int_equal(run_state(w, &r), WK_STORE_READY);
    run_end(w, &r);
    assert_true(stats_of(w).read_bytes_per_s[WK_KV_T2] > 0);
}

static void many_that_wait_for_the_disk_share_one_fetch(void **state)
{
    struct ps_script_disk *disk = ps_script_disk_create(1, 1, 4 << 20);
    struct world w;
    struct path p;
    struct run r[8];

    (void)state;
    disk_open(&w, disk, 24);
    disk_fill(&w);
    disk_again(&w, disk); /* now it is only there */
    disk_path(&w, &p, 0);
    for (uint32_t i = 0; i < 8; i++) {
        assert_true(run_begin(&w, &r[i], &p));
        assert_int_equal(r[i].n_use, DISK_PAGES);
        if (i == 3)
            world_turn(&w); /* the others join what is on its way */
    }
    assert_int_equal(wk_kv_tree_n_avail(w.tree, WK_KV_T0, 0), 24 - DISK_PAGES);
    world_settle(&w, 50);
    assert_int_equal(stats_of(&w).read_bytes[WK_KV_T2], DISK_PAGES * WORLD_ITEM);
    assert_int_equal(stats_of(&w).fetched_tokens[WK_KV_T2], DISK_PAGES * w.pt);
    for (uint32_t i = 0; i < 8; i++) {
        assert_int_equal(run_state(&w, &r[i]), WK_STORE_READY);
        run_check_bytes(&w, &r[i]);
        run_end(&w, &r[i]);
    }
    world_fini(&w);
    ps_script_disk_destroy(disk);
}

static void a_fetch_that_nobody_waits_for_any_more_is_cancelled(void **state)
{
    struct ps_script_disk *disk = ps_script_disk_create(1, 1, 4 << 20);
    struct world w;
    struct path p;
    struct run a, b;

    (void)state;
    disk_open(&w, disk, 24);
    disk_fill(&w);
    disk_again(&w, disk);
    disk_path(&w, &p, 0);
    assert_true(run_begin(&w, &a, &p) && run_begin(&w, &b, &p));
    run_end(&w, &a); /* one still waits */
    assert_int_equal(run_state(&w, &b), WK_STORE_MOVING);
    run_end(&w, &b);
    assert_int_equal(wk_kv_tree_n_avail(w.tree, WK_KV_T0, 0), 24);
    world_settle(&w, 50);
    assert_int_equal(stats_of(&w).read_bytes[WK_KV_T2], 0);
    /* One that the disk has begun ends in T1: the next one has it from there. */
    assert_true(run_begin(&w, &a, &p));
    (void)wk_store_tick(w.store);
    run_end(&w, &a);
    assert_int_equal(wk_kv_tree_n_avail(w.tree, WK_KV_T0, 0), 24);
    world_settle(&w, 50);
    assert_int_equal(stats_of(&w).read_bytes[WK_KV_T2], DISK_PAGES * WORLD_ITEM);
    assert_int_equal(world_request(&w, &p), DISK_PAGES);
    assert_int_equal(stats_of(&w).read_bytes[WK_KV_T2], DISK_PAGES * WORLD_ITEM);
    world_fini(&w);
    ps_script_disk_destroy(disk);
}

static void only_what_is_cheaper_than_computing_is_fetched(void **state)
{
    struct ps_script_disk *disk = ps_script_disk_create(1, 1, 4 << 20);
    struct world w;
    struct path p;
    struct run r;

    (void)state;
    disk_open(&w, disk, 24);
    disk_fill(&w);
    disk_again(&w, disk);
    disk_measure(&w, disk);
    disk_path(&w, &p, 0);
    wk_store_set_prefill_rate(w.store, 1e9);
    assert_true(run_begin(&w, &r, &p));
    assert_int_equal(r.n_use, 0);
    run_end(&w, &r);
    wk_store_set_prefill_rate(w.store, 100);
    assert_int_equal(world_request(&w, &p), DISK_PAGES);
    world_fini(&w);
    ps_script_disk_destroy(disk);
}

/* One request while the disk takes 4 s for what is computed in one. Whether the disk was asked. */
static bool use_slowly(struct world *w, struct ps_script_disk *disk, uint32_t k)
{
    uint64_t n_bytes = stats_of(w).read_bytes[WK_KV_T2];
    struct path p;
    struct run r;

    disk_path(w, &p, k);
    ps_script_set_hung(disk, true);
    PS_ASSERT(run_begin(w, &r, &p));
    for (uint32_t i = 0; i < 4 && run_state(w, &r) == WK_STORE_MOVING; i++) {
        world_turn(w);
        ps_clock_advance(&w->clock, 1000000);
    }
    ps_script_set_hung(disk, false);
    world_settle(w, 50);
    PS_ASSERT(run_state(w, &r) == WK_STORE_READY);
    run_check_bytes(w, &r);
    run_compute(w, &r);
    run_end(w, &r);
    world_settle(w, 50);
    ps_clock_advance(&w->clock, 2000000);
    return stats_of(w).read_bytes[WK_KV_T2] > n_bytes;
}

static void use_a_slow_disk(void *ud)
{
    struct ps_script_disk *disk = ps_script_disk_create(1, 1, 4 << 20);
    uint32_t n = 0, n_asked = 0;
    struct world w;

    (void)ud;
    ps_log_init("store_test", PS_LOG_WARN);
    disk_open(&w, disk, 24);
    disk_fill(&w);
    for (; n < 100 && stats_of(&w).is_open[WK_KV_T2]; n++)
        n_asked += use_slowly(&w, disk, n % DISK_PATHS);
    PS_ASSERT(n > 10 && n < 100 && n_asked > 3 && n_asked < n);
    for (uint32_t i = 0; i < 15; i++) /* nothing is asked of it now */
        PS_ASSERT(!use_slowly(&w, disk, n++ % DISK_PATHS));
    world_fini(&w);
    ps_script_disk_destroy(disk);
}

static void a_tier_slower_than_computing_for_a_minute_is_given_up_with_one_line(void **state)
{
    char said[4096];
    const char *line;

    (void)state;
    if (ps_test_run(use_a_slow_disk, NULL, said, sizeof(said)) != 0)
        fail_msg("%s", said);
    line = strstr(said, "slower than computing");
    assert_non_null(line);
    assert_null(strstr(line + 1, "slower than computing"));
}

static void a_bad_payload_is_computed_again_counted_and_never_found_again(void **state)
{
    struct ps_script_disk *disk = ps_script_disk_create(1, 1, 4 << 20);
    uint8_t want[WORLD_ITEM], *at;
    struct world w;
    struct path p;
    struct run r;

    (void)state;
    disk_open(&w, disk, 24);
    disk_fill(&w);
    disk_again(&w, disk);
    disk_path(&w, &p, 0);
    page_bytes(&p, 2, want);
    at = memmem(ps_script_file(disk, 0), 4 << 20, want, sizeof(want));
    assert_non_null(at);
    at[1234] ^= 16;
    assert_true(run_begin(&w, &r, &p));
    world_settle(&w, 50);
    assert_int_equal(run_state(&w, &r), WK_STORE_GONE);
    assert_int_equal(stats_of(&w).n_bad[WK_KV_T2], 1);
    run_end(&w, &r);
    world_settle(&w, 50);
    world_close(&w, 0);
    at[1234] ^= 16; /* the payload is right again: it must be the header that has gone */
    w.conf.t2_script = ps_script_ring_create(disk, 32);
    world_open(&w);
    world_settle(&w, 50);
    assert_true(run_begin(&w, &r, &p));
    assert_int_equal(r.n_use, 2);
    run_end(&w, &r);
    assert_int_equal(world_request(&w, &p), 2);
    assert_int_equal(world_request(&w, &p), DISK_PAGES);
    world_fini(&w);
    ps_script_disk_destroy(disk);
}

static void a_disk_that_cannot_be_read_is_given_up_for_a_minute(void **state)
{
    struct ps_script_disk *disk = ps_script_disk_create(1, 1, 4 << 20);
    uint64_t n_bytes;
    struct world w;

    (void)state;
    disk_open(&w, disk, 24);
    disk_fill(&w);
    disk_fill(&w);
    ps_script_set_faults(disk, &(struct ps_script_faults){.read_eio = 1000});
    for (uint32_t i = 0; i < 10 && stats_of(&w).is_open[WK_KV_T2]; i++)
        disk_fill(&w);
    assert_false(stats_of(&w).is_open[WK_KV_T2]);
    ps_script_set_faults(disk, NULL);
    n_bytes = stats_of(&w).read_bytes[WK_KV_T2];
    disk_fill(&w);
    assert_int_equal(stats_of(&w).read_bytes[WK_KV_T2], n_bytes);
    ps_clock_advance(&w.clock, 61 * 1000000);
    for (uint32_t i = 0; i < 3; i++)
        disk_fill(&w);
    assert_true(stats_of(&w).is_open[WK_KV_T2]);
    assert_true(stats_of(&w).read_bytes[WK_KV_T2] > n_bytes);
    world_fini(&w);
    ps_script_disk_destroy(disk);
}

static void a_disk_that_cannot_be_written_is_still_read(void **state)
{
    struct ps_script_disk *disk = ps_script_disk_create(1, 1, 4 << 20);
    uint64_t n_bytes;
    struct world w;

    (void)state;
    disk_open(&w, disk, 24);
    disk_fill(&w);
    disk_fill(&w);
    ps_script_set_faults(disk, &(struct ps_script_faults){.write_eio = 1000});
    for (uint32_t i = 0; i < 20; i++) {
        char text[DISK_PAGES + 1];
        struct path p;

        fresh(text, DISK_PAGES, 100 + i);
        path_make(&w, &p, 2, text);
        world_request(&w, &p);
        world_settle(&w, 6);
        ps_clock_advance(&w.clock, 11 * 1000000);
    }
    assert_true(stats_of(&w).n_fault[WK_KV_T2] > 16);
    assert_true(stats_of(&w).is_open[WK_KV_T2]);
    n_bytes = stats_of(&w).read_bytes[WK_KV_T2];
    disk_fill(&w);
    assert_true(stats_of(&w).read_bytes[WK_KV_T2] > n_bytes);
    world_fini(&w);
    ps_script_disk_destroy(disk);
}

static void a_full_disk_is_not_written_to_for_a_while(void **state)
{
    struct ps_script_disk *disk = ps_script_disk_create(1, 1, 4 << 20);
    uint64_t n_writes;
    struct world w;

    (void)state;
    disk_open(&w, disk, 24);
    ps_script_set_faults(disk, &(struct ps_script_faults){.write_enospc = 1000});
    disk_fill(&w);
    assert_true(stats_of(&w).n_full[WK_KV_T2] > 0);
    n_writes = ps_script_n_writes(disk);
    ps_script_set_faults(disk, NULL);
    disk_fill(&w);
    assert_int_equal(ps_script_n_writes(disk), n_writes);
    ps_clock_advance(&w.clock, 11 * 1000000);
    disk_fill(&w);
    assert_true(ps_script_n_writes(disk) > n_writes);
    assert_true(stats_of(&w).cleaned_pages[WK_KV_T2] > 0);
    world_fini(&w);
    ps_script_disk_destroy(disk);
}

static void
what_is_computed_meanwhile_is_ready_for_all_and_holds_nothing_of_a_hung_disk(void **state)
{
    struct ps_script_disk *disk = ps_script_disk_create(1, 1, 4 << 20);
    struct world w;
    struct path p;
    struct run a, b;

    (void)state;
    disk_open(&w, disk, 24);
    disk_fill(&w);
    disk_again(&w, disk);
    disk_path(&w, &p, 0);
    ps_script_set_hung(disk, true);
    assert_true(run_begin(&w, &a, &p));
    assert_int_equal(a.n_use, DISK_PAGES);
    world_settle(&w, 5);
    wk_store_set_prefill_rate(w.store, 1e9);
    ps_clock_advance(&w.clock, 1000000);
    assert_true(run_begin(&w, &b, &p));
    assert_int_equal(b.n_use, 0);
    run_compute(&w, &b);
    assert_int_equal(run_state(&w, &a), WK_STORE_READY);
    run_check_bytes(&w, &a);
    assert_int_equal(wk_kv_tree_n_avail(w.tree, WK_KV_T0, 0), 24 - DISK_PAGES);
    run_end(&w, &a);
    run_check_bytes(&w, &b);
    run_end(&w, &b);
    world_settle(&w, 5);
    assert_int_equal(wk_kv_tree_n_avail(w.tree, WK_KV_T0, 0), 24);
    ps_script_set_hung(disk, false);
    world_settle(&w, 50);
    assert_int_equal(wk_kv_tree_n_avail(w.tree, WK_KV_T0, 0), 24);
    world_fini(&w);
    ps_script_disk_destroy(disk);
}

static void a_page_computed_again_keeps_its_copy_on_disk(void **state)
{
    struct ps_script_disk *disk = ps_script_disk_create(1, 1, 4 << 20);
    uint64_t n_writes;
    struct world w;
    struct path p;
    struct run r;

    (void)state;
    disk_open(&w, disk, 24);
    disk_fill(&w);
    disk_again(&w, disk);
    n_writes = ps_script_n_writes(disk);
    disk_measure(&w, disk);
    disk_path(&w, &p, 0);
    wk_store_set_prefill_rate(w.store, 1e9);
    assert_true(run_begin(&w, &r, &p));
    run_compute(&w, &r);
    for (uint32_t i = 0; i < DISK_PAGES; i++) {
        const struct wk_kv_cell *c = wk_kv_tree_cell(w.tree, r.nodes[i], 0);

        assert_true(c->hot == WK_KV_READY && c->t2 != WK_KV_NO_ITEM);
    }
    run_end(&w, &r);
    world_request(&w, &p); /* used again, and pressed: still nothing new for the disk */
    world_request(&w, &p);
    world_settle(&w, 20);
    assert_int_equal(ps_script_n_writes(disk), n_writes);
    world_fini(&w);
    ps_script_disk_destroy(disk);
}

static void a_flush_under_load_loses_no_holder(void **state)
{
    struct ps_script_disk *disk = ps_script_disk_create(1, 1, 4 << 20);
    struct world w;
    struct path p[3];
    struct run r[3];

    (void)state;
    disk_open(&w, disk, 24);
    disk_fill(&w);
    for (uint32_t i = 0; i < 3; i++)
        disk_path(&w, &p[i], i == 2 ? DISK_PATHS - 1 : i);
    assert_true(run_begin(&w, &r[0], &p[0]));
    (void)wk_store_tick(w.store);             /* the first is on its way, */
    assert_true(run_begin(&w, &r[1], &p[1])); /* the second is queued, */
    assert_true(run_begin(&w, &r[2], &p[2])); /* the third is in T0 or T1 */
    world_settle(&w, 0);
    wk_store_flush(w.store);
    wk_store_check(w.store);
    for (uint32_t i = 0; i < 3; i++) {
        struct run other;

        assert_true(run_begin(&w, &other, &p[i]));
        assert_int_equal(other.n_use, 0);
        run_end(&w, &other);
    }
    world_settle(&w, 50);
    for (uint32_t i = 0; i < 3; i++)
        assert_int_not_equal(run_state(&w, &r[i]), WK_STORE_MOVING);
    for (uint32_t i = 0; i < 3; i++)
        run_end(&w, &r[i]);
    world_settle(&w, 50);
    assert_int_equal(wk_kv_tree_n_nodes(w.tree), 0);
    assert_int_equal(wk_kv_tree_n_avail(w.tree, WK_KV_T0, 0), 24);
    assert_int_equal(stats_of(&w).n_moving, 0);
    world_fini(&w);
    ps_script_disk_destroy(disk);
}

/* ---- a directory whose calls never return, with threads and the real clock ---- */

struct gate {
    pthread_mutex_t lock;
    bool is_shut;
};

static void gate_hook(void *ud, const struct wk_fs *mount)
{
    struct gate *g = ud;
    struct pollfd nobody = {.fd = -1};
    bool is_shut;

    (void)mount;
    pthread_mutex_lock(&g->lock);
    is_shut = g->is_shut;
    pthread_mutex_unlock(&g->lock);
    while (is_shut) /* until the process ends */
        (void)poll(&nobody, 1, 1000);
}

static uint32_t live_request(struct world *w, const struct path *p)
{
    struct pollfd fd = {.fd = w->conf.wake->fd, .events = POLLIN};
    uint32_t n_use, n_turns = 0;
    struct run r;

    PS_ASSERT(run_begin(w, &r, p));
    n_use = r.n_use;
    for (; n_turns < 1000; n_turns++) {
        ps_wake_arm(w->conf.wake);
        (void)wk_store_tick(w->store);
        if (run_state(w, &r) != WK_STORE_MOVING)
            break;
        (void)poll(&fd, 1, 5);
        ps_wake_clear(w->conf.wake);
    }
    PS_ASSERT(run_state(w, &r) == WK_STORE_READY);
    run_check_bytes(w, &r);
    run_compute(w, &r);
    PS_ASSERT(r.n_attached == p->n);
    run_end(w, &r);
    for (uint32_t i = 0; i < 5; i++) { /* the copier has a moment */
        ps_wake_arm(w->conf.wake);
        (void)wk_store_tick(w->store);
        (void)poll(&fd, 1, 2);
        ps_wake_clear(w->conf.wake);
    }
    return n_use;
}

static void live_on_a_hung_directory(void *ud)
{
    struct gate gate = {.lock = PTHREAD_MUTEX_INITIALIZER};
    struct wk_fs_script *fs = wk_fs_script_create(1);
    struct ps_wake wake;
    struct world w;
    struct path p;
    uint64_t was_us;

    (void)ud;
    world_init_pages(&w, 64, 16, 64);
    ps_clock_real(&w.clock);
    PS_ASSERT(ps_wake_init(&wake) == 0);
    wk_fs_script_set_hook(fs, gate_hook, &gate);
    w.conf.wake = &wake;
    w.conf.no_threads = false;
    w.conf.t3_path = "/s";
    w.conf.t3_fs = wk_fs_script_mount(fs);
    world_open(&w);
    pthread_mutex_lock(&gate.lock);
    gate.is_shut = true;
    pthread_mutex_unlock(&gate.lock);
    for (uint32_t round = 0; round < 2; round++) {
        for (uint32_t k = 0; k < 6; k++) {
            char text[9];

            fresh(text, 8, k);
            path_make(&w, &p, 1, text);
            PS_ASSERT(live_request(&w, &p) == (round == 0 ? 0 : 8)); /* from T1, as ever */
        }
    }
    PS_ASSERT(stats_of(&w).n_queued[WK_KV_T3] > 0 && stats_of(&w).cleaned_pages[WK_KV_T3] == 0);
    was_us = ps_now_us(&w.clock);
    wk_store_destroy(w.store, 100);
    PS_ASSERT(ps_now_us(&w.clock) - was_us < 5 * 1000000);
}

static void a_directory_that_hangs_for_ever_delays_neither_serving_nor_the_end(void **state)
{
    char said[4096];

    (void)state;
    /* In a process of its own, because what hangs keeps its memory. */
    if (ps_test_run(live_on_a_hung_directory, NULL, said, sizeof(said)) != 0)
        fail_msg("%s", said);
}

static void a_question_that_nobody_waits_for_is_taken_back(void **state)
{
    struct wk_fs_script *fs = wk_fs_script_create(1);
    struct wk_probe *probe;
    struct world w;
    struct path p;

    (void)state;
    world_init(&w, 64, 16);
    w.conf.t3_path = "/s";
    w.conf.t3_fs = wk_fs_script_mount(fs);
    world_open(&w);
    path_make(&w, &p, 1, "abcdefghijklmnopqrstuvwxyzABCDEF");
    for (uint32_t i = 0; i < 2; i++) { /* one that is owed an answer would not be asked again */
        probe = wk_store_probe(w.store, p.seed, p.ids, p.n * w.pt, p.hashes);
        assert_non_null(probe);
        assert_false(wk_store_probe_is_over(probe));
        wk_store_probe_end(w.store, probe); /* before the tier had a turn */
        (void)wk_store_tick(w.store);
    }
    world_fini(&w);
    wk_fs_script_destroy(fs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(t0_alone_keeps_what_it_can),
        cmocka_unit_test(a_question_that_nobody_waits_for_is_taken_back),
        cmocka_unit_test(pages_evicted_from_t0_come_back_from_t1),
        cmocka_unit_test(two_that_want_the_same_pages_share_one_move),
        cmocka_unit_test(nobody_waits_and_the_item_of_t0_is_free_at_once),
        cmocka_unit_test(the_disk_survives_the_process),
        cmocka_unit_test(a_hung_disk_holds_nothing_of_t0),
        cmocka_unit_test(a_flush_forgets_every_tier),
        cmocka_unit_test(many_that_wait_for_the_disk_share_one_fetch),
        cmocka_unit_test(a_fetch_that_nobody_waits_for_any_more_is_cancelled),
        cmocka_unit_test(only_what_is_cheaper_than_computing_is_fetched),
        cmocka_unit_test(a_tier_slower_than_computing_for_a_minute_is_given_up_with_one_line),
        cmocka_unit_test(a_bad_payload_is_computed_again_counted_and_never_found_again),
        cmocka_unit_test(a_disk_that_cannot_be_read_is_given_up_for_a_minute),
        cmocka_unit_test(a_disk_that_cannot_be_written_is_still_read),
        cmocka_unit_test(a_full_disk_is_not_written_to_for_a_while),
        cmocka_unit_test(
            what_is_computed_meanwhile_is_ready_for_all_and_holds_nothing_of_a_hung_disk),
        cmocka_unit_test(a_page_computed_again_keeps_its_copy_on_disk),
        cmocka_unit_test(a_flush_under_load_loses_no_holder),
        cmocka_unit_test(a_directory_that_hangs_for_ever_delays_neither_serving_nor_the_end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
