#include "kernels/cpu/vec_avx512.h"

/* 32 registers: twelve rows of two panels leave eight for weights and x. */
#define KN_LIN_MR   12
#define KN_LIN_NP   2
#define KN_LIN_BOTH 8
#define KN_ATTN_MR  6
#define KN_ATTN_NV  4

#include "kernels/cpu/vecmath.h"

#include "kernels/cpu/linear_body.h"
#include "kernels/cpu/row_body.h"
#include "kernels/cpu/sample_body.h"

#include "kernels/cpu/attn_body.h"
#include "kernels/cpu/isa_table.h"

const struct kn_isa kn_isa_avx512 = {.name = "avx512", KN_ISA_BODY};

/* Every CPU with AMX has AVX-512, which serves few rows and everything but bf16 products. */
const struct kn_isa kn_isa_amx = {
    .name = "amx",
    KN_ISA_BODY,
    .lin_big = {.tile_rows = KN_AMX_ROWS,
                .unit = KN_AMX_UNIT,
                .elem_bytes = sizeof(uint16_t),
                .pack = kn_amx_pack,
                .run = kn_amx_run,
                .enter = kn_amx_enter,
                .leave = kn_amx_leave},
};
