#pragma once

/*
 * safetensors: a directory's tensors, mapped read-only and checked before anything looks at them.
 *
 * model.safetensors, or model.safetensors.index.json with its shards (shard names may hold no path).
 * Every range is inside the file, none overlap, together they cover the data without a hole, shape
 * times type equals the range, no name occurs twice. Data need not be aligned. Immutable after open;
 * any thread may read.
 */

#include "common/base.h"
#include "common/buf.h"

enum ps_st_dtype {
    PS_ST_F64,
    PS_ST_F32,
    PS_ST_F16,
    PS_ST_BF16,
    PS_ST_I64,
    PS_ST_I32,
    PS_ST_I16,
    PS_ST_I8,
    PS_ST_U64,
    PS_ST_U32,
    PS_ST_U16,
    PS_ST_U8,
    PS_ST_BOOL,
    PS_ST_F8_E4M3,
    PS_ST_F8_E5M2,
    PS_ST_F8_E8M0
};

enum { PS_ST_MAX_RANK = 8 };

struct ps_tensor {
    const char *name;
    enum ps_st_dtype dtype;
    uint32_t rank;
    uint64_t shape[PS_ST_MAX_RANK];
    const uint8_t *data;
    uint64_t n_bytes;
};

enum {
    PS_ST_OK,
    PS_ST_E_BAD, /* one clear sentence in err */
};

struct ps_st;

PS_MUST int ps_st_open(struct ps_st **out, const char *dir, struct ps_buf *err);
void ps_st_close(struct ps_st *s);                                           /* NULL is fine */
const struct ps_tensor *ps_st_find(const struct ps_st *s, const char *name); /* NULL when absent */
/* Digest of which files these are (device, inode, size, times): equal means the very same unchanged files. */
uint64_t ps_st_identity(const struct ps_st *s);
/* Digest of names, shapes, types and bytes: reads everything. */
uint64_t ps_st_digest(const struct ps_st *s);
uint32_t ps_st_n(const struct ps_st *s);
const struct ps_tensor *ps_st_at(const struct ps_st *s, uint32_t i); /* sorted by name */
