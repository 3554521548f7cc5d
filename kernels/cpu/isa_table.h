#pragma once

/* The rows of a kn_isa table that the *_body.h texts fill; included last by one file per ISA. */

#define KN_ISA_BODY \
    .lin = {.tile_rows = KN_LIN_MR, \
            .unit = KN_LIN_NP, \
            .elem_bytes = sizeof(float), \
            .pack = lin_pack, \
            .run = lin_run}, \
    .samp = &samp_table, .norm_rows = norm_rows, .qkv_row = qkv_row, .silu_rows = silu_rows, \
    .attn = attn, .attn_part = attn_part, .attn_merge = attn_merge, .math = math_rows
