#pragma once

/*
 * What one instruction set provides: shares of operators, pure but for their outputs.
 *
 * Tables are chosen once, at open, by what the CPU and the kernel allow. Every table gives the bits of
 * kernels/ref. Functions are called from any compute thread, inside kn_fp_enter.
 */

#include "kernels/ref/math.h"
#include "kernels/ref/ref.h"

/* One linear, shared by its threads. Rows are cut into n_tile tiles of nearly equal size. */
struct kn_lin {
    const struct kn_mat *w;
    const float *bias;
    const void *x;
    uint32_t x_stride, n_row, n_tile;
    float *out;
    void *xp; /* the rows as the path wants them: room for n_tile * tile_rows * k_pad elements */
};

static inline uint32_t kn_lin_tile_row(const struct kn_lin *l, uint32_t tile)
{
    return (uint32_t)((uint64_t)l->n_row * tile / l->n_tile);
}

struct kn_lin_path {
    uint32_t tile_rows;  /* most rows of a tile */
    uint32_t unit;       /* panels worked on together */
    uint32_t elem_bytes; /* of xp; 0: pack and xp are not used */
    void (*pack)(const struct kn_lin *l, uint32_t tile);
    /* Panels [panel0, panel1). acc: this thread's scratch, [n_row + KN_PANEL][unit * KN_PANEL] f32. */
    void (*run)(const struct kn_lin *l, uint32_t panel0, uint32_t panel1, float *acc);
    /* Around each thread's share of a linear; NULL: nothing to do. */
    void (*enter)(void);
    void (*leave)(void);
};

/*
 * A block of attention: n_q query tokens of one sequence from its token i0 on, the group of query
 * heads of one KV head, splits [split0, split1). Its rows are (token, head of the group), token-major.
 * A row's state is d_pad floats of unnormalised output, then its maximum and sum.
 */
struct kn_attn_block {
    const struct kn_attn_args *a;
    const struct kn_seq *seq;
    uint32_t i0, n_q, kv_head, split0, split1;
    float *scratch; /* kn_attn_scratch_floats, this thread's */
};

/* Most rows of a block, but at least one token's. 64 rows share each tile's transposition. */
enum { KN_ATTN_ROWS = 64 };

static inline uint32_t kn_attn_d_pad(uint32_t d_head)
{
    return (d_head + KN_LANES - 1) / KN_LANES * KN_LANES;
}

static inline uint32_t kn_attn_state_floats(uint32_t d_head)
{
    return kn_attn_d_pad(d_head) + KN_LANES;
}

/* Queries, two states and scores a row; one tile of K and of V. */
static inline size_t kn_attn_scratch_floats(uint32_t d_head, uint32_t n_rows)
{
    size_t d = kn_attn_d_pad(d_head);

    return n_rows * (d + KN_ATTN_TILE + 2 * (size_t)kn_attn_state_floats(d_head)) +
           2 * KN_ATTN_TILE * d;
}

struct kn_cand; /* kernels/sample.h */
struct kn_draw;

struct kn_samp_isa { /* v: n numbers, -infinity among them, no NaN unless said; n > 0 */
    float (*max)(const float *v, uint32_t n, bool *out_nan); /* v may hold NaN */
    uint32_t (*find)(const float *v, uint32_t n, float x); /* first that equals x, which is there */
    uint32_t (*next_above)(const float *v, uint32_t from, uint32_t n,
                           float x); /* first above x, or n */
    uint32_t (*count_above)(const float *v, uint32_t n, float x);
    float (*sum_exp)(const float *v, uint32_t n, float max); /* EX5 sum of exp(v - max) */
    /* About the sum of exp(v - max) above floor: of any order, to find where to look. */
    float (*mass_above)(const float *v, uint32_t n, float max, float floor);
    void (*divide)(float *out, const float *v, uint32_t n, float by);
    /* Adds exp(c.z - max) to *sum from `from` on; stops behind the candidate that reaches mass: its
     * index + 1, else n. */
    uint32_t (*walk)(const struct kn_cand *c, uint32_t from, uint32_t n, float max, float mass,
                     float *sum);
    uint32_t (*draw)(const struct kn_draw *d);
};

/* kernels/cpu/sample_scalar.c */
extern const struct kn_samp_isa kn_samp_scalar;

struct kn_isa {
    const char *name;
    const struct kn_samp_isa *samp;
    struct kn_lin_path lin;     /* every type, any number of rows */
    struct kn_lin_path lin_big; /* bf16, at least KN_LIN_BIG_ROWS rows; run NULL: lin serves */
    void (*norm_rows)(const struct kn_add_norm *a, uint32_t row0, uint32_t row1);
    void (*qkv_row)(const struct kn_qkv_args *a, const struct kn_seq *s, uint32_t i);
    void (*silu_rows)(const float *gu, uint32_t dim, void *out, enum kn_dtype out_type,
                      uint32_t row0, uint32_t row1);
    /* NULL, with the next two: kn_ref_attn_row serves. All splits, merged and written to a->out. */
    void (*attn)(const struct kn_attn_block *b);
    /* One split (split1 = split0 + 1) into a state per row; rows that end before it are left alone. */
    void (*attn_part)(const struct kn_attn_block *b, float *states);
    /* Merges the states of splits [0, split1), [split][row][state], into the first and writes a->out. */
    void (*attn_merge)(const struct kn_attn_block *b, float *states);
    /* Elementary functions of n floats, for tests: 'e' exp, 'l' log, 's' sine, 'c' cosine. */
    void (*math)(char fn, const float *x, float *y, uint32_t n);
};

/* From here on AMX pays: a tile is 16 rows high whatever is in it. */
enum { KN_LIN_BIG_ROWS = 16 };

/* amx.c */
enum { KN_AMX_ROWS = 16, KN_AMX_UNIT = 2 };
void kn_amx_enter(void);
void kn_amx_leave(void);
void kn_amx_pack(const struct kn_lin *l, uint32_t tile);
void kn_amx_run(const struct kn_lin *l, uint32_t panel0, uint32_t panel1, float *acc);

extern const struct kn_isa kn_isa_scalar, kn_isa_avx2, kn_isa_avx512, kn_isa_amx;

/* The table named ("" the best) or NULL when this machine lacks it. *out_note: what was left out and
 * why, or "". */
const struct kn_isa *kn_isa_pick(const char *name, const char **out_note);
