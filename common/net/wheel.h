#pragma once

/*
 * Coarse timers for many objects: a wheel of slots, one node per object.
 *
 * Owned by one thread. Arming is O(1); a node whose time moved later is found lazily when its old
 * slot comes round, so that the common case (one more byte, one more answer) costs a comparison.
 * A callback comes never early and at most two slots late; it may arm or disarm any node.
 */

#include "common/base.h"

enum { PS_WHEEL_SLOTS = 512 };

struct ps_wheel_node {
    struct ps_wheel_node *prev, *next; /* NULL: not armed */
    uint64_t due_ms, slot_ms; /* what was asked; where it hangs: slot_ms <= due_ms + one slot */
};

struct ps_wheel {
    struct ps_wheel_node slots[PS_WHEEL_SLOTS]; /* list heads */
    uint64_t slot_no; /* the slot that runs next: slots before it are done */
    uint32_t step_ms;
};

typedef void (*ps_wheel_fn)(struct ps_wheel_node *n, void *ud);

void ps_wheel_init(struct ps_wheel *w, uint32_t step_ms, uint64_t now_ms);
void ps_wheel_arm(struct ps_wheel *w, struct ps_wheel_node *n, uint64_t due_ms);
void ps_wheel_disarm(struct ps_wheel_node *n);
/* Calls fn for every node that is due; the node is disarmed before. */
void ps_wheel_run(struct ps_wheel *w, uint64_t now_ms, ps_wheel_fn fn, void *ud);
