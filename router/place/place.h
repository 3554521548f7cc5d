#pragma once

/*
 * Placement: which worker gets a generation.
 *
 * Rendezvous hashing of the prompt's first stride (64 tokens) with bounded load, so that equal prefixes
 * meet on one worker until it is clearly busier than the others. Pure reading of the fleet's view; any
 * thread.
 *
 * Invariants
 *   P1 a SUSPECT, DRAINING or DEAD worker is never chosen.
 *   P2 with equal load, the same key gives the same worker while the set of live workers is the same;
 *      when one leaves only its keys move.
 *   P3 nobody gets more than 5/4 of the mean number of open requests (rounded up).
 */

#include "common/base.h"
#include "router/fleet/fleet.h"

enum {
    RT_PLACE_OK,
    RT_PLACE_E_BUSY, /* live workers exist, all at their limit: wait in the queue */
    RT_PLACE_E_NONE, /* no live worker */
};

struct rt_place_req {
    uint64_t key;                /* rt_place_key */
    uint64_t space_id, arith_id; /* not 0: only workers whose bytes (and bits) are the same */
    /* Slots that refused or lost this very request lately: taken only if nobody else is there. */
    uint32_t n_avoid, avoid[4];
};

/* Affinity wins when given (not 0); else the chain hash after the first stride, or of what there is. */
uint64_t rt_place_key(uint64_t seed, const uint32_t *ids, uint32_t n, uint64_t affinity);
PS_MUST int rt_place_pick(const struct rt_fleet *f, const struct rt_place_req *req,
                          uint32_t *out_slot);
