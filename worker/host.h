#pragma once

/*
 * What this process may use of its host: cores (affinity and cgroup quota) and memory.
 *
 * Read once at start; nothing here is cached. A container that gives a quarter of a large machine
 * gives exactly that: threads beyond the quota would spin against each other.
 */

#include "common/base.h"

/* floor(min(affinity, quota)), one left for I/O when more than 2, shared out; at least 1. */
uint32_t wk_host_threads(uint32_t n_workers);
uint64_t wk_host_mem_available(void); /* bytes; the smaller of the machine's and the cgroup's */

/* "512M", "4GiB", "1000000"; units are powers of 1024. False: not a size. */
bool wk_size_parse(const char *text, uint64_t *out_bytes);

/* The parts, for the test. */
uint32_t wk_host_share(uint32_t n_cores, uint32_t n_workers);
/* Whole cores of "max 100000" or "150000 100000" (cpu.max), at least 1; UINT32_MAX: no limit. */
uint32_t wk_host_parse_quota(const char *text);
