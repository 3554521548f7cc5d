#include "common/net/loop.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/ring.h"
#include "common/test.h"

struct world {
    struct ps_loop *loop;
    struct ps_timer *timer;
    struct ps_wake wake;
    uint32_t n_fired, n_ticks, n_marks, n_done;
};

static struct world make(void)
{
    struct world w = {0};

    assert_int_equal(ps_loop_create(&w.loop), 0);
    return w;
}

static void count_and_stop(void *ud)
{
    struct world *w = ud;

    w->n_fired++;
    ps_loop_stop(w->loop);
}

static void count_until_three(void *ud)
{
    struct world *w = ud;

    if (++w->n_fired == 3)
        ps_loop_stop(w->loop);
}

static void timer_repeats_until_stopped(void **state)
{
    struct world w = make();

    (void)state;
    w.timer = ps_timer_create(w.loop, count_until_three, &w);
    ps_timer_start(w.timer, 1, 1);
    ps_loop_run(w.loop);
    assert_int_equal(w.n_fired, 3);
    ps_timer_stop(w.timer);
    ps_timer_destroy(w.timer);
    ps_loop_destroy(w.loop);
}

static void mark(void *ud)
{
    struct world *w = ud;

    w->n_marks++;
    ps_loop_stop(w->loop);
}

static void tick(void *ud)
{
    struct world *w = ud;

    w->n_ticks++;
    w->n_done = w->n_marks;
}

static void tick_sees_what_the_last_callback_marked(void **state)
{
    struct world w = make();

    (void)state;
    ps_loop_on_tick(w.loop, tick, &w);
    w.timer = ps_timer_create(w.loop, mark, &w);
    ps_timer_start(w.timer, 1, 0);
    ps_loop_run(w.loop);
    assert_int_equal(w.n_marks, 1);
    assert_int_equal(w.n_done, 1);
    ps_loop_destroy(w.loop); /* the timer is still there: the loop closes it */
}

static void a_stop_before_run_is_not_lost_nor_is_the_work_that_was_marked(void **state)
{
    struct world w = make();

    (void)state;
    ps_loop_on_tick(w.loop, tick, &w);
    w.n_marks = 1; /* as by a callback of the turn that was stopped */
    ps_loop_stop(w.loop);
    ps_loop_run(w.loop);
    assert_int_equal(w.n_done, 1);
    ps_loop_destroy(w.loop);
}

static void *ring_from_outside(void *ud)
{
    struct world *w = ud;

    ps_wake_ring(&w->wake);
    return NULL;
}

static void on_woken(void *ud)
{
    struct world *w = ud;

    ps_wake_clear(&w->wake);
    count_and_stop(w);
}

static void another_thread_wakes_the_loop(void **state)
{
    struct world w = make();
    pthread_t t;

    (void)state;
    assert_int_equal(ps_wake_init(&w.wake), 0);
    assert_int_equal(ps_loop_watch(w.loop, w.wake.fd, on_woken, &w), 0);
    ps_wake_arm(&w.wake);
    assert_int_equal(pthread_create(&t, NULL, ring_from_outside, &w), 0);
    ps_loop_run(w.loop);
    assert_int_equal(pthread_join(t, NULL), 0);
    assert_int_equal(w.n_fired, 1);
    ps_loop_destroy(w.loop);
    ps_wake_fini(&w.wake);
}

static void signal_reaches_the_loop(void **state)
{
    struct world w = make();

    (void)state;
    assert_int_equal(ps_loop_on_signal(w.loop, SIGUSR1, count_and_stop, &w), 0);
    assert_int_equal(kill(getpid(), SIGUSR1), 0);
    ps_loop_run(w.loop);
    assert_int_equal(w.n_fired, 1);
    ps_loop_destroy(w.loop);
}

static void *stop_from_outside(void *ud)
{
    ps_loop_stop(ud);
    return NULL;
}

static void stop_works_from_any_thread(void **state)
{
    struct world w = make();
    pthread_t t;

    (void)state;
    assert_int_equal(pthread_create(&t, NULL, stop_from_outside, w.loop), 0);
    ps_loop_run(w.loop);
    assert_int_equal(pthread_join(t, NULL), 0);
    ps_loop_destroy(w.loop);
}

static void a_loop_sets_up_its_process(void **state)
{
    struct world w = make();
    struct sigaction old;

    (void)state;
    assert_string_equal(getenv("UV_USE_IO_URING"), "0");
    assert_int_equal(sigaction(SIGPIPE, NULL, &old), 0);
    assert_true(old.sa_handler == SIG_IGN);
    ps_loop_destroy(w.loop);
    ps_loop_destroy(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(timer_repeats_until_stopped),
        cmocka_unit_test(tick_sees_what_the_last_callback_marked),
        cmocka_unit_test(a_stop_before_run_is_not_lost_nor_is_the_work_that_was_marked),
        cmocka_unit_test(another_thread_wakes_the_loop),
        cmocka_unit_test(signal_reaches_the_loop),
        cmocka_unit_test(stop_works_from_any_thread),
        cmocka_unit_test(a_loop_sets_up_its_process),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
