#include "worker/tier/disk.h"

#include "common/test.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>

#include "worker/tier/disk_world.h"

/*
 * Random histories: puts, gets, erases, cancels and resets over a disk that fails in every way it
 * can, killed at a random write with what was in flight half done, and opened again; a few lives a
 * history. What must hold at every step:
 *
 *   - a GET that is DONE has exactly the bytes that were put under its key (compared each time)
 *   - what was erased, or put before a reset, is never DONE again, in no later life
 *   - every io comes back once
 *   - while the disk is sound, what was put is there: in this life and, with its path, in the next
 */
enum { HISTORIES = 2000, LIVES = 3, STEPS = 40 };
#define NOTHING UINT32_MAX

/* What a slot may hold, as the caller can know it. */
struct slot {
    uint32_t page;         /* of the last PUT that was DONE; NOTHING */
    bool is_sure;          /* nothing has happened to it since */
    bool is_busy;          /* an io names it */
    bool may[WORLD_PAGES]; /* what a GET could find there without being wrong */
};

struct model {
    struct slot slots[WORLD_GROUPS][WORLD_SLOTS];
    uint32_t n_out, n_done, n_killed, n_found;
    bool is_sound; /* the disk has no faults in this life */
    bool is_reset; /* there was a reset in this life: a PUT of before it may have begun */
};

static void forget(struct slot *s)
{
    bool is_busy = s->is_busy;

    memset(s, 0, sizeof(*s));
    s->page = NOTHING;
    s->is_busy = is_busy;
}

static void ended_part(struct world *w, struct model *m, struct world_io *o, uint32_t i)
{
    struct wk_tier_part *p = &o->parts[i];
    struct slot *s = &m->slots[p->key.group][p->slot];
    uint32_t page = o->pages[i];

    s->is_busy = false;
    if (o->io.op == WK_TIER_GET) {
        if (p->status == WK_TIER_DONE) {
            assert_true(world_holds(w, p->key.group, page, p->buf));
            assert_true(s->may[page]);
            m->n_done++;
        } else if (m->is_sound && s->is_sure && p->status != WK_TIER_CANCELLED &&
                   !ps_script_is_killed(w->disk)) {
            assert_int_not_equal(s->page, page);
            assert_int_equal(p->status, WK_TIER_MISS);
        }
    } else if (p->status == WK_TIER_CANCELLED && !m->is_reset) {
        return; /* not begun */
    } else if (o->io.op == WK_TIER_ERASE) {
        if (p->status == WK_TIER_DONE)
            forget(s);
        s->is_sure = false;
    } else if (p->status == WK_TIER_DONE) {
        forget(s);
        s->page = page;
        s->is_sure = true;
        s->may[page] = true;
    } else { /* some of it may be there, beside what was */
        s->may[page] = true;
        s->is_sure = false;
    }
}

static void take_all(struct world *w, struct model *m)
{
    struct world_io *o;
    uint32_t n;

    while ((o = world_take(w, &n)) != NULL) {
        for (uint32_t i = 0; i < n; i++)
            ended_part(w, m, o, i);
        m->n_out--;
    }
}

static void submit_some(struct world *w, struct model *m)
{
    uint32_t i = (uint32_t)ps_rng_below(&w->rng, WORLD_IOS);
    uint32_t group = (uint32_t)ps_rng_below(&w->rng, WORLD_GROUPS);
    uint32_t n = 1 + (uint32_t)ps_rng_below(&w->rng, 3), dice = (uint32_t)ps_rng_below(&w->rng, 10);
    enum wk_tier_op op = dice < 5 ? WK_TIER_PUT : dice < 9 ? WK_TIER_GET : WK_TIER_ERASE;

    if (w->ios[i].is_out)
        return;
    for (uint32_t k = 0; k < n; k++) {
        uint32_t s = (uint32_t)ps_rng_below(&w->rng, WORLD_SLOTS);
        struct slot *slot = &m->slots[group][s];
        uint32_t page = (uint32_t)ps_rng_below(&w->rng, WORLD_PAGES);

        if (slot->is_busy || !wk_tier_disk_may_write(w->tier, group, s))
            continue;
        if (op == WK_TIER_GET && slot->page != NOTHING && ps_rng_below(&w->rng, 4) > 0)
            page = slot->page;
        world_part(w, i, op, group, page, s);
        slot->is_busy = true;
    }
    if (w->ios[i].io.n_part == 0)
        return;
    w->ios[i].io.urgent = ps_rng_below(&w->rng, 3) == 0;
    if (ps_rng_below(&w->rng, 10) == 0)
        w->ios[i].io.deadline_us = ps_now_us(&w->clock) + ps_rng_below(&w->rng, 20);
    n = w->ios[i].io.n_part;
    if (world_submit(w, i) == WK_TIER_OK) {
        m->n_out++;
        return;
    }
    for (uint32_t k = 0; k < n; k++)
        m->slots[group][w->ios[i].parts[k].slot].is_busy = false;
}

/* Nothing of before may be found again. Where the process was killed, or the disk refused, it is not
 * known whether the reset was written. */
static void reset(struct world *w, struct model *m)
{
    m->is_reset = true;
    for (uint32_t g = 0; g < WORLD_GROUPS; g++) {
        for (uint32_t s = 0; s < WORLD_SLOTS; s++)
            m->slots[g][s].is_sure = false;
    }
    wk_tier_disk_reset(w->tier);
    (void)w->tier->ops->pump(w->tier, UINT32_MAX);
    take_all(w, m);
    assert_int_equal(m->n_out, 0);
    for (uint32_t g = 0; g < WORLD_GROUPS; g++) {
        for (uint32_t s = 0; s < WORLD_SLOTS; s++) {
            if (m->is_sound && !ps_script_is_killed(w->disk))
                forget(&m->slots[g][s]);
        }
    }
}

static void check_scan(struct world *w, struct model *m)
{
    uint32_t at[WORLD_GROUPS][WORLD_SLOTS];
    bool has[WORLD_PAGES] = {0}, told[WORLD_GROUPS][WORLD_PAGES] = {{0}};

    m->n_found += world_scan(w, at);
    for (uint32_t g = 0; g < WORLD_GROUPS; g++) {
        for (uint32_t s = 0; s < WORLD_SLOTS; s++) {
            const struct slot *slot = &m->slots[g][s];

            if (at[g][s] != NOTHING) {
                told[g][at[g][s]] = true;
                assert_true(slot->may[at[g][s]]);
                if (slot->is_sure)
                    assert_int_equal(at[g][s], slot->page);
            }
            if (slot->is_sure)
                has[slot->page] = true;
        }
    }
    for (uint32_t p = 0; p < WORLD_PAGES; p++) /* ascending: parents first */
        has[p] = has[p] && (world_parent(p) == NOTHING || has[world_parent(p)]);
    for (uint32_t g = 0; g < WORLD_GROUPS; g++) {
        for (uint32_t s = 0; s < WORLD_SLOTS; s++) {
            if (m->slots[g][s].is_sure && has[m->slots[g][s].page])
                assert_true(told[g][m->slots[g][s].page]);
        }
    }
}

static void choose_faults(struct world *w, struct model *m)
{
    struct ps_script_faults f = {0};
    uint32_t *rates[] = {&f.short_io,     &f.read_eio,  &f.write_eio,
                         &f.write_enospc, &f.read_flip, &f.slow};

    for (uint32_t i = 0; !m->is_sound && i < PS_ARRAY_LEN(rates); i++) {
        if (ps_rng_below(&w->rng, 3) == 0)
            *rates[i] = (uint32_t)ps_rng_below(&w->rng, 200);
    }
    if (m->is_sound) /* these are no faults */
        f.short_io = f.slow = 100;
    ps_script_set_faults(w->disk, &f);
}

/* A sound disk is scanned before the faults begin, in three lives of four; in the others the scan
 * goes on among the rest, and nothing is popped. */
static void live(struct world *w, struct model *m)
{
    if (ps_rng_below(&w->rng, 4) > 0)
        check_scan(w, m);
    choose_faults(w, m);
    if (ps_rng_below(&w->rng, 3) > 0)
        ps_script_kill_after(w->disk, 1 + ps_rng_below(&w->rng, STEPS));
    for (uint32_t i = 0; i < STEPS && !ps_script_is_killed(w->disk); i++) {
        uint64_t dice = ps_rng_below(&w->rng, 100);

        if (dice < 60)
            submit_some(w, m);
        else if (dice < 95)
            (void)w->tier->ops->pump(w->tier, (uint32_t)ps_rng_below(&w->rng, 4));
        else if (dice < 98 && w->ios[dice % WORLD_IOS].is_out)
            w->tier->ops->cancel(w->tier, &w->ios[dice % WORLD_IOS].io);
        else if (dice == 99 && i % 4 == 0)
            reset(w, m);
        ps_clock_advance(&w->clock, 5);
        take_all(w, m);
    }
    if (!ps_script_is_killed(w->disk) && ps_rng_below(&w->rng, 2) == 0) {
        (void)w->tier->ops->pump(w->tier, UINT32_MAX);
        take_all(w, m);
        assert_int_equal(m->n_out, 0);
    }
    m->n_killed += ps_script_is_killed(w->disk);
    /* The process ends; the script has torn what was in flight when it was killed. */
    assert_int_equal(w->tier->ops->close(w->tier, 0), WK_TIER_OK);
    take_all(w, m);
    assert_int_equal(m->n_out, 0);
    ps_script_set_faults(w->disk, NULL);
    ps_script_kill_after(w->disk, 0);
    assert_int_equal(ps_uring_destroy(w->conf.script, 0), PS_URING_OK);
    w->tier = NULL;
}

static void history(struct world *w, uint64_t seed, struct model *total)
{
    struct model *m = ps_calloc(1, sizeof(*m));

    world_begin_again(w, seed);
    for (uint32_t g = 0; g < WORLD_GROUPS; g++) {
        for (uint32_t s = 0; s < WORLD_SLOTS; s++)
            forget(&m->slots[g][s]);
    }
    for (uint32_t i = 0; i < LIVES; i++) {
        m->is_sound = ps_rng_below(&w->rng, 2) == 0;
        m->is_reset = false;
        assert_int_equal(world_open(w), WK_TIER_OK);
        live(w, m);
    }
    total->n_done += m->n_done;
    total->n_killed += m->n_killed;
    total->n_found += m->n_found;
    ps_free(m);
}

static void no_history_attaches_wrong_bytes_or_loses_an_io(void **state)
{
    const char *env = getenv("PENSTOCK_HISTORIES"); /* more, by hand */
    uint64_t n = env != NULL ? strtoull(env, NULL, 10) : HISTORIES;
    struct world *w = world_create(0);
    struct model total = {0};

    (void)state;
    for (uint64_t seed = 0; seed < n; seed++)
        history(w, seed, &total);
    world_destroy(w);
    print_message("# done %u, killed %u, found again %u\n", total.n_done, total.n_killed,
                  total.n_found);
    assert_true(total.n_done > n && total.n_killed > n / 4 && total.n_found > n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_history_attaches_wrong_bytes_or_loses_an_io),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
