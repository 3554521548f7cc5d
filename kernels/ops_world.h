#pragma once

/*
 * The world of ops_test: the reference device, every ISA of this machine with one thread and more,
 * memory that ends at a page nobody may touch, and inputs of several tempers.
 */

#include "common/rng.h"
#include "kernels/half.h"
#include "kernels/ops.h"

enum { WORLD_DEVS = 16 };

struct world {
    const struct kn_backend *ref, *cpu;
    struct kn_dev *ref_dev;
    struct kn_dev *dev[WORLD_DEVS];
    uint32_t n_dev;
    struct ps_rng rng;
    bool full; /* every shape, not the quick choice */
};

void world_open(struct world *w, bool full); /* prints "skip: no X" for an ISA this machine lacks */
void world_close(struct world *w);

/* n_bytes whose last byte is the last of a page; the next page faults. Aligned to 64 when n_bytes is. */
void *guard_new(size_t n_bytes);
void guard_free_all(void);

enum temper {
    MODERATE, /* about +-2 */
    WIDE,     /* any exponent, now and then an infinity */
    TINY,     /* products around and below the smallest normal number */
    CANCEL,   /* large terms that nearly sum to zero */
    N_TEMPER,
};

float world_value(struct world *w, enum temper t);
/* n values of the type; returns guarded memory. */
void *world_values(struct world *w, enum kn_dtype type, size_t n, enum temper t);
float value_at(const void *p, enum kn_dtype type, size_t i);

/* Fails the test at the first differing element; a NaN equals a NaN. */
void same_bits(const char *what, const char *dev, const void *want, const void *got,
               enum kn_dtype type, size_t n);
void near_to(const char *what, double want, double got, double tolerance);
const char *dtype_name(enum kn_dtype t);

/* A paged KV component of one layer: pages in scrambled order, rows and arena without slack. */
struct world_kv {
    struct kn_kv_view view;
    size_t arena_bytes;
    uint32_t n_page;
};

struct world_kv world_kv(struct world *w, enum kn_dtype fmt, uint32_t page_shift,
                         uint32_t n_kv_head, uint32_t d_head, const uint32_t *seq_len,
                         uint32_t n_seq, bool filled);

/* ops_rows_test.c, ops_linear_test.c, ops_attn_test.c, ops_bench.c */
extern struct world *the_world;
void add_norm_equals_reference_and_truth(void **state);
void silu_mul_equals_reference_and_truth(void **state);
void embed_and_gather_copy_rows(void **state);
void qkv_rope_write_equals_reference_and_truth(void **state);
void no_kv_write_leaves_pages_alone(void **state);
void elementary_functions_equal_reference_and_truth(void **state);
void linear_equals_reference_and_truth(void **state);
void linear_rows_do_not_depend_on_batch(void **state);
void denormals_are_zero_and_the_callers_state_stays(void **state);
void packing_in_parts_is_packing_at_once(void **state);
void attn_equals_reference_and_truth(void **state);
void attn_rows_do_not_depend_on_chunk_or_batch(void **state);
void arith_id_is_one_for_all(void **state);
int ops_bench(void);
