#include "worker/kv/announce.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "common/rng.h"

enum { N_HASHES = 300, KEPT = 64, ABSENT = WK_KV_N_TIERS };

static uint64_t hash_of(uint32_t i)
{
    return (i + 1) * UINT64_C(0x9e3779b97f4a7c15);
}

static void digest(const uint8_t *set, struct wk_kv_bucket *out)
{
    memset(out, 0, WK_KV_BUCKETS * sizeof(*out));
    for (uint32_t i = 0; i < N_HASHES; i++) {
        uint32_t b = wk_kv_bucket_of(hash_of(i));

        if (set[i] == ABSENT)
            continue;
        out[b].n++;
        out[b].xor_of ^= wk_kv_bucket_mix(hash_of(i), (enum wk_kv_tier)set[i]);
    }
}

/* One legal change at random. */
static void change(struct wk_announce *a, struct ps_rng *r, uint8_t *set)
{
    uint32_t i = (uint32_t)ps_rng_below(r, N_HASHES);
    enum wk_kv_tier to = (enum wk_kv_tier)ps_rng_below(r, WK_KV_PEER);

    if (ps_rng_below(r, 4000) == 0) {
        wk_announce_cleared(a);
        memset(set, ABSENT, N_HASHES);
    } else if (set[i] == ABSENT) {
        wk_announce_stored(a, hash_of(i), to);
        set[i] = (uint8_t)to;
    } else if (set[i] == to) {
        wk_announce_removed(a, hash_of(i), to);
        set[i] = ABSENT;
    } else {
        wk_announce_moved(a, hash_of(i), (enum wk_kv_tier)set[i], to);
        set[i] = (uint8_t)to;
    }
}

static void apply(uint8_t *set, const struct wk_kv_event *e)
{
    uint32_t i = 0;

    if (e->kind == WK_KV_CLEARED) {
        memset(set, ABSENT, N_HASHES);
        return;
    }
    while (hash_of(i) != e->hash)
        i++;
    assert_int_equal(set[i], e->kind == WK_KV_STORED ? ABSENT : e->from);
    set[i] = e->kind == WK_KV_REMOVED ? (uint8_t)ABSENT : e->tier;
}

static void who_replays_the_log_has_the_set_and_its_digest(void **state)
{
    struct wk_announce *a = wk_announce_create(KEPT);
    uint8_t set[N_HASHES], heard[N_HASHES];
    struct wk_kv_bucket want[WK_KV_BUCKETS];
    struct ps_rng r;
    uint64_t at = 0;

    (void)state;
    ps_rng_seed(&r, 11);
    memset(set, ABSENT, sizeof(set));
    memset(heard, ABSENT, sizeof(heard));
    for (uint32_t step = 0; step < 3000; step++) {
        struct wk_kv_event e[5];
        uint32_t n = (uint32_t)ps_rng_below(&r, KEPT + 1);

        for (uint32_t i = 0; i < n; i++)
            change(a, &r, set);
        do {
            assert_int_equal(wk_announce_replay(a, at, e, 5, &n), WK_ANNOUNCE_OK);
            for (uint32_t i = 0; i < n; i++) {
                assert_int_equal(e[i].seq, ++at);
                apply(heard, &e[i]);
            }
        } while (n > 0);
        assert_int_equal(at, wk_announce_seq(a));
        assert_memory_equal(heard, set, sizeof(set));
        digest(heard, want);
        assert_memory_equal(wk_announce_buckets(a), want, sizeof(want));
    }
    wk_announce_destroy(a);
}

static void what_is_no_longer_kept_or_was_never_said_is_too_old(void **state)
{
    struct wk_announce *a = wk_announce_create(4);
    struct wk_kv_event e[8];
    uint32_t n = 77;

    (void)state;
    assert_int_equal(wk_announce_replay(a, 0, e, 8, &n), WK_ANNOUNCE_OK);
    assert_int_equal(n, 0);
    for (uint32_t i = 0; i < 5; i++)
        wk_announce_stored(a, hash_of(i), WK_KV_T0);
    n = 77;
    assert_int_equal(wk_announce_replay(a, 0, e, 8, &n), WK_ANNOUNCE_E_TOO_OLD);
    assert_int_equal(wk_announce_replay(a, 6, e, 8, &n), WK_ANNOUNCE_E_TOO_OLD);
    assert_int_equal(n, 77);
    assert_int_equal(wk_announce_replay(a, 1, e, 8, &n), WK_ANNOUNCE_OK);
    assert_int_equal(n, 4);
    assert_int_equal(e[0].seq, 2);
    wk_announce_destroy(a);
}

static void the_digest_tells_tiers_apart(void **state)
{
    (void)state;
    for (uint32_t a = 0; a < WK_KV_PEER; a++) {
        for (uint32_t b = 0; b < a; b++)
            assert_true(wk_kv_bucket_mix(5, (enum wk_kv_tier)a) !=
                        wk_kv_bucket_mix(5, (enum wk_kv_tier)b));
    }
    /* Both ends of a wire must agree for ever. */
    assert_true(wk_kv_bucket_mix(UINT64_C(0x0123456789abcdef), WK_KV_T2) ==
                UINT64_C(0xcacde058b43005fd));
    assert_int_equal(wk_kv_bucket_of(UINT64_C(0xab23456789abcdef)), 0xab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_replays_the_log_has_the_set_and_its_digest),
        cmocka_unit_test(what_is_no_longer_kept_or_was_never_said_is_too_old),
        cmocka_unit_test(the_digest_tells_tiers_apart),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
