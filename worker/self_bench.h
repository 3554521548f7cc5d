#pragma once

/*
 * penstock-worker --self-bench: what the worker costs the host beside the model.
 *
 * Runs the real scheduler over exec_sim with steps that take no time, and the prefix tree alone; one
 * thread, no model, no network, a few seconds. Prints one table; figures are for comparing builds and
 * machines.
 */

#include <stdio.h>

#include "common/base.h"

/* n_steps: measured steps of each scheduler row; n_pages: of the tree. */
PS_MUST int wk_self_bench(FILE *out, uint32_t n_steps, uint32_t n_pages);

/* What the KV tiers move: T0 to T1 always; the disk's file and the shared directory when named (each
 * is measured beside the path, which is left as it is). self_bench_tier.c */
PS_MUST int wk_self_bench_tiers(FILE *out, const char *disk, const char *share);

/* Operations on the prefix tree alone. self_bench_kv.c */
struct wk_bench_kv { /* pages a second */
    double insert_per_s, match_per_s, evict_per_s;
};
void wk_self_bench_kv(struct wk_bench_kv *out, uint32_t n_pages);
