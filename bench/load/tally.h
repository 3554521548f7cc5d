#pragma once

/*
 * How calls ended: a count for each kind of error and the first message of each; and the result file.
 *
 * Owned by one thread; merged after the threads ended.
 */

#include "bench/load/client.h"

struct bn_tally {
    uint64_t n[BN_N_ERRORS];
    char said[BN_N_ERRORS][160];
};

void bn_tally_add(struct bn_tally *t, const struct bn_call *call);
void bn_tally_merge(struct bn_tally *t, const struct bn_tally *from);
uint64_t bn_tally_failed(const struct bn_tally *t);
/* `"requests":{"ok":..,"failed":..},"errors":{kind:n,..}` */
void bn_tally_json(const struct bn_tally *t, struct ps_buf *out);
/* A line for each kind of error that came. */
void bn_tally_lines(const struct bn_tally *t, struct ps_buf *out);

uint64_t bn_thread_cpu_us(void);
PS_MUST bool bn_write_file(const char *path, const struct ps_buf *b);
/* The text for a positive or negative result of bn_client_create and bn_client_poll. */
const char *bn_client_said(int r);
