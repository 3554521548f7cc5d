#pragma once

/*
 * Bounded single-producer single-consumer ring of fixed-size messages, plus a wake.
 *
 * One thread pushes, one pops; neither blocks. A full ring is a named case for the producer. The
 * consumer sleeps on its own descriptor (an eventfd that several rings may share): ps_wake_arm is
 * called before sleeping, and a producer writes the eventfd only when the consumer is asleep.
 *
 * Invariant: a message pushed before ps_wake_ring returned is seen by the consumer before or after
 * at most one wake-up; no message waits for a second push.
 */

#include "common/base.h"

enum {
    PS_RING_OK,
    PS_RING_E_FULL,
    PS_RING_E_EMPTY,
};

struct ps_ring;

struct ps_ring *ps_ring_create(uint32_t n_msg, size_t msg_bytes); /* n_msg: power of two */
void ps_ring_destroy(struct ps_ring *r);                          /* NULL is fine */
PS_MUST int ps_ring_push(struct ps_ring *r, const void *msg);     /* E_FULL */
PS_MUST int ps_ring_pop(struct ps_ring *r, void *out_msg);        /* E_EMPTY */
uint32_t ps_ring_n(const struct ps_ring *r); /* either side: a lower/upper bound */

/* The sleeping side of one consumer thread. */
struct ps_wake {
    int fd; /* eventfd, non-blocking; readable when rung */
    _Atomic uint32_t asleep;
};

PS_MUST int ps_wake_init(struct ps_wake *w); /* negative errno when descriptors run out */
void ps_wake_fini(struct ps_wake *w);
void ps_wake_ring(struct ps_wake *w); /* any thread, after a push */
void ps_wake_arm(
    struct ps_wake *w); /* consumer: I am going to sleep; look at the rings once more after this */
void ps_wake_clear(struct ps_wake *w); /* consumer: awake again; empties the eventfd */
