#pragma once

/*
 * A libuv loop and what our threads need of it: timers, wake-ups by eventfd, signals, tick hooks.
 *
 * One per thread; every call but ps_loop_stop belongs to that thread. Callbacks only append and
 * mark; the tick hook runs once per turn after all callbacks, before the loop blocks, and does the
 * work for what was marked.
 *
 * The first loop of a process ignores SIGPIPE for it and sets UV_USE_IO_URING=0 unless it is set; so it
 * is made before other threads read the environment. Servers on a loop are destroyed before the loop.
 */

#include "common/base.h"

struct ps_loop;
struct ps_timer;

typedef void (*ps_loop_fn)(void *ud);

PS_MUST int ps_loop_create(struct ps_loop **out);
void ps_loop_destroy(struct ps_loop *l); /* NULL is fine; closes what is still open */
void ps_loop_run(struct ps_loop *l);     /* until ps_loop_stop */
void ps_loop_stop(struct ps_loop *l);    /* any thread, and signal-safe */
void ps_loop_on_tick(struct ps_loop *l, ps_loop_fn fn, void *ud);
/* fn runs when fd is readable (an eventfd of ps_wake, typically). */
PS_MUST int ps_loop_watch(struct ps_loop *l, int fd, ps_loop_fn fn, void *ud);
PS_MUST int ps_loop_on_signal(struct ps_loop *l, int signo, ps_loop_fn fn, void *ud);

struct ps_timer *ps_timer_create(struct ps_loop *l, ps_loop_fn fn, void *ud);
void ps_timer_start(struct ps_timer *t, uint64_t delay_ms, uint64_t repeat_ms);
void ps_timer_stop(struct ps_timer *t);
void ps_timer_destroy(struct ps_timer *t);
