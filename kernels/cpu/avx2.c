#include "kernels/cpu/vec_avx2.h"

/* 16 registers: six rows of one panel (two registers each) leave four for weights and x. */
#define KN_LIN_MR   6
#define KN_LIN_NP   1
#define KN_LIN_BOTH 2
#define KN_ATTN_MR  3
#define KN_ATTN_NV  2

#include "kernels/cpu/vecmath.h"

#include "kernels/cpu/linear_body.h"
#include "kernels/cpu/row_body.h"
#include "kernels/cpu/sample_body.h"

#include "kernels/cpu/attn_body.h"
#include "kernels/cpu/isa_table.h"

const struct kn_isa kn_isa_avx2 = {.name = "avx2", KN_ISA_BODY};
