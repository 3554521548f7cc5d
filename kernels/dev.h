#pragma once

/*
 * A device as the worker sees it: memory, copies, one ordered stream of operators.
 *
 * A backend is one table: `cpu` (the real thing on machines without a GPU), `ref` (every operator's
 * order in scalar C; slow, the oracle), later `cuda` as a plug-in library that exports the same
 * table. Operators are enqueued in order and may run later; kn_sync waits for all of them. On cpu
 * and ref every call has finished when it returns. One thread (the executor's) makes all calls.
 *
 * After a negative return of any call but open the device is finished: nothing else is called but
 * close.
 */

#include "common/base.h"

struct kn_dev;
struct kn_ops;

struct kn_dev_conf {
    uint32_t n_threads; /* compute threads, the caller's included; 0: 1 */
    /* "" best the machine has, or "scalar" "avx2" "avx512" "amx": forced (tests) */
    const char *isa;
};

enum {
    KN_OK,
    KN_E_UNSUPPORTED, /* open: the machine lacks the forced ISA */
    KN_E_MEM,         /* alloc: device memory is exhausted */
};

enum { KN_BACKEND_VERSION = 1 };

struct kn_backend {
    uint32_t size,
        version;      /* sizeof(struct kn_backend), KN_BACKEND_VERSION: checked after loading */
    const char *name; /* "cpu", "ref" */
    int (*open)(struct kn_dev **out, const struct kn_dev_conf *conf);
    void (*close)(struct kn_dev *d); /* NULL is fine */
    /* Identifies operator order and device class: part of arith_id. Equal for cpu and ref, any ISA, any thread count. */
    uint64_t (*arith_id)(const struct kn_dev *d);
    const char *(*describe)(const struct kn_dev *d); /* "avx512, 2 threads" */
    int (*mem_alloc)(struct kn_dev *d, size_t n_bytes,
                     void **out); /* 64-byte aligned, zeroed; E_MEM */
    void (*mem_free)(struct kn_dev *d, void *p, size_t n_bytes);
    int (*to_dev)(struct kn_dev *d, void *dst, const void *src, size_t n_bytes);
    int (*to_host)(struct kn_dev *d, void *dst, const void *src, size_t n_bytes); /* after a sync */
    int (*copy)(struct kn_dev *d, void *dst, const void *src,
                size_t n_bytes); /* device to device */
    int (*sync)(struct kn_dev *d);
    const struct kn_ops *ops;
};

const struct kn_backend *kn_backend_cpu(void);
const struct kn_backend *kn_backend_ref(void);
