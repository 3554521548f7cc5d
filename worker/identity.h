#pragma once

/*
 * Who this worker is to routers: its own uid, whose cache bytes it could share, and whose bits equal
 * its own. Computed once at start.
 */

#include "common/buf.h"
#include "common/hash.h"
#include "common/model/config.h"
#include "worker/kv/layout.h"

enum {
    WK_IDENTITY_OK,
    WK_IDENTITY_E_BAD, /* one clear sentence in err */
};

/* SHA-256 of the bytes of tokenizer.json. */
PS_MUST int wk_tokenizer_digest(const char *model_dir, uint8_t out[PS_SHA256_BYTES],
                                struct ps_buf *err);
/* H(weights, tokenizer, rope, KV format, layout, hash block): equal ids could share KV bytes at all.
 * format_id: wk_kv_format_id of what lies below T0, 0 for raw. */
uint64_t wk_space_id(uint64_t weights_digest, const uint8_t tokenizer[PS_SHA256_BYTES],
                     const struct ps_model_config *c, const struct wk_kv_layout *l,
                     uint64_t format_id);
/* H(operator order and device class, parallel shape, KV profile): equal ids compute equal bits. */
uint64_t wk_arith_id(uint64_t device_arith_id, const struct wk_kv_layout *l);
/* From hex text, else from the file (made when absent), else drawn. Never 0. */
PS_MUST int wk_uid(const char *hex, const char *file, uint64_t *out, struct ps_buf *err);
