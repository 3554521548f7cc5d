#pragma once

/*
 * What the cpu and ref backends share: a device that is this process's own memory.
 *
 * Every call has finished when it returns, so copies are memcpy and sync does nothing. Large
 * allocations are maps of their own, huge pages asked for (weights are streamed through the TLB).
 */

#include "kernels/ops.h"

struct kn_pool;
struct kn_isa;

struct kn_dev {
    char text[96];            /* describe */
    struct kn_pool *pool;     /* NULL for ref */
    const struct kn_isa *isa; /* NULL for ref */
    void *scratch;            /* grows, never shrinks; owned by the running operator */
    size_t scratch_bytes;
};

/* Names operator order and device class. The number changes whenever any bit of any operator does. */
#define KN_HOST_ARITH_ID 0x70732d6370750001u /* "ps-cpu", order 1 */

uint64_t kn_host_arith_id(const struct kn_dev *d);
const char *kn_host_describe(const struct kn_dev *d);
int kn_host_mem_alloc(struct kn_dev *d, size_t n_bytes, void **out);
void kn_host_mem_free(struct kn_dev *d, void *p, size_t n_bytes);
int kn_host_copy(struct kn_dev *d, void *dst, const void *src, size_t n_bytes);
int kn_host_sync(struct kn_dev *d);
/* 64-byte aligned memory of at least n_bytes, until the next call. Contents are undefined. */
void *kn_host_scratch(struct kn_dev *d, size_t n_bytes);
