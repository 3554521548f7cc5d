#include "common/ring.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>

#include "common/test.h"

struct msg {
    uint64_t seq, twice;
    uint32_t src;
};

static void order_is_kept_and_full_and_empty_are_named(void **state)
{
    struct ps_ring *r = ps_ring_create(4, sizeof(struct msg));
    struct msg m = {0};

    (void)state;
    assert_int_equal(ps_ring_pop(r, &m), PS_RING_E_EMPTY);
    for (uint64_t turn = 0; turn < 10; turn++) {
        for (uint64_t i = 0; i < 4; i++) {
            assert_int_equal(ps_ring_n(r), i);
            m = (struct msg){.seq = turn * 4 + i};
            assert_int_equal(ps_ring_push(r, &m), PS_RING_OK);
        }
        assert_int_equal(ps_ring_push(r, &m), PS_RING_E_FULL);
        assert_int_equal(ps_ring_n(r), 4);
        for (uint64_t i = 0; i < 4; i++) {
            assert_int_equal(ps_ring_pop(r, &m), PS_RING_OK);
            assert_int_equal(m.seq, turn * 4 + i);
        }
    }
    ps_ring_destroy(r);
    ps_ring_destroy(NULL);
}

/* Two producers with a ring each, one consumer that sleeps: the shape of the link thread. */
enum { N_SRC = 2, N_MSG = 500000 };

struct shared {
    struct ps_ring *ring[N_SRC];
    struct ps_wake wake;
};

struct producer {
    struct shared *sh;
    uint32_t src;
    uint64_t n_full;
};

static void *produce(void *ud)
{
    struct producer *p = ud;

    for (uint64_t i = 0; i < N_MSG;) {
        struct msg m = {.seq = i, .twice = 2 * i, .src = p->src};

        if (ps_ring_push(p->sh->ring[p->src], &m) == PS_RING_OK) {
            ps_wake_ring(&p->sh->wake);
            i++;
        } else {
            p->n_full++;
            sched_yield();
        }
    }
    return NULL;
}

static uint64_t drain(struct shared *sh, uint64_t *next)
{
    uint64_t n = 0;
    struct msg m;

    for (uint32_t s = 0; s < N_SRC; s++) {
        while (ps_ring_pop(sh->ring[s], &m) == PS_RING_OK) {
            if (m.seq != next[s]++ || m.twice != 2 * m.seq || m.src != s)
                fail_msg("message %llu of %u is wrong", (unsigned long long)m.seq, s);
            n++;
        }
    }
    return n;
}

/* The bound on each sleep is the test: a lost wake-up makes poll time out. */
static void a_million_messages_arrive_in_order_and_no_wake_is_lost(void **state)
{
    struct shared sh;
    struct producer prod[N_SRC];
    pthread_t thread[N_SRC];
    uint64_t next[N_SRC] = {0}, n_got = 0, n_slept = 0;

    (void)state;
    assert_int_equal(ps_wake_init(&sh.wake), 0);
    for (uint32_t s = 0; s < N_SRC; s++) {
        sh.ring[s] = ps_ring_create(256, sizeof(struct msg));
        prod[s] = (struct producer){.sh = &sh, .src = s};
        assert_int_equal(pthread_create(&thread[s], NULL, produce, &prod[s]), 0);
    }
    while (n_got < (uint64_t)N_SRC * N_MSG) {
        struct pollfd pfd = {.fd = sh.wake.fd, .events = POLLIN};
        uint64_t n;

        n_got += drain(&sh, next);
        ps_wake_arm(&sh.wake);
        n = drain(&sh, next);
        n_got += n;
        if (n == 0 && n_got < (uint64_t)N_SRC * N_MSG) {
            n_slept++;
            if (poll(&pfd, 1, 20000) != 1)
                fail_msg("asleep after %llu messages with nobody to wake us",
                         (unsigned long long)n_got);
        }
        ps_wake_clear(&sh.wake);
    }
    for (uint32_t s = 0; s < N_SRC; s++) {
        pthread_join(thread[s], NULL);
        ps_ring_destroy(sh.ring[s]);
    }
    ps_wake_fini(&sh.wake);
    assert_true(n_slept > 0);
}

static bool is_readable(const struct ps_wake *w)
{
    struct pollfd pfd = {.fd = w->fd, .events = POLLIN};

    return poll(&pfd, 1, 0) == 1;
}

static void only_a_sleeper_is_woken_and_only_once(void **state)
{
    struct ps_wake w;
    uint64_t n_written = 0;

    (void)state;
    assert_int_equal(ps_wake_init(&w), 0);
    ps_wake_ring(&w);
    assert_false(is_readable(&w)); /* awake: no system call was made */
    ps_wake_arm(&w);
    assert_false(is_readable(&w));
    ps_wake_ring(&w);
    ps_wake_ring(&w);
    assert_true(is_readable(&w));
    assert_int_equal(read(w.fd, &n_written, sizeof(n_written)), sizeof(n_written));
    assert_int_equal(n_written, 1);
    ps_wake_clear(&w);
    ps_wake_arm(&w);
    ps_wake_ring(&w);
    assert_true(is_readable(&w));
    ps_wake_clear(&w);
    assert_false(is_readable(&w));
    ps_wake_ring(&w);
    assert_false(is_readable(&w));
    ps_wake_fini(&w);
    assert_int_equal(w.fd, -1);
}

static void descriptors_that_run_out_are_a_fault(void **state)
{
    struct rlimit old, none;
    struct ps_wake w = {.fd = -1};

    (void)state;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
    none = (struct rlimit){.rlim_cur = 3, .rlim_max = old.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    assert_int_equal(ps_wake_init(&w), -EMFILE);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
    assert_int_equal(w.fd, -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(order_is_kept_and_full_and_empty_are_named),
        cmocka_unit_test(only_a_sleeper_is_woken_and_only_once),
        cmocka_unit_test(descriptors_that_run_out_are_a_fault),
        cmocka_unit_test(a_million_messages_arrive_in_order_and_no_wake_is_lost),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
