#pragma once

/*
 * An object of the shared directory: a run of pages, or one snapshot, as the bytes of a file.
 *
 *     header  4 KiB multiple: identity, keys, token ids, a checksum per 64 KiB of each part, its own
 *     part 0  part_bytes (4 KiB multiple)
 *     part 1  ...
 *
 * The header repeats all that the name stands for, so whoever reads a file knows what it is without
 * trusting the directory. Its size follows from the identity and the group alone. Numbers are little
 * endian. Pure functions, any thread, no allocation.
 *
 * Invariant: a header that wk_share_head_check takes for `want`, with a payload that
 * wk_share_payload_check takes, holds exactly the bytes that were sealed under equal keys.
 */

#include "worker/tier/tier.h"

enum {
    WK_SHARE_OK,
    WK_SHARE_E_BAD,   /* damaged */
    WK_SHARE_E_OTHER, /* intact, but something else than wanted */
};

enum {
    WK_SHARE_RUN_TOKENS = 256,
    WK_SHARE_CHUNK_BYTES = 64 << 10,
    WK_SHARE_HEAD_BYTES_MAX = 1 << 20, /* parts of 512 MiB; each io holds two headers */
};

struct wk_share_shape {                   /* of the objects of one group */
    uint32_t n_part, part_bytes, n_chunk; /* chunks of each part */
    uint32_t ids_off, sums_off, head_bytes;
    uint64_t object_bytes;
};

/* Pages of group 0 in an object. */
uint32_t wk_share_run_pages(const struct wk_tier_ident *id);
/* False: the header would be larger than it may be. */
bool wk_share_shape(const struct wk_tier_ident *id, uint32_t group, struct wk_share_shape *out);

/* The header of parts[0..shape.n_part) without checksums; what is read back is compared with it. */
void wk_share_head_encode(const struct wk_tier_ident *id, const struct wk_share_shape *s,
                          const struct wk_tier_part *parts, uint8_t *out);
/* Adds the checksums of the parts' buffers and its own: ready to be written. */
void wk_share_head_seal(const struct wk_share_shape *s, const struct wk_tier_part *parts,
                        uint8_t *head);
/* got is what a file has; want is wk_share_head_encode of what should be there. */
PS_MUST int wk_share_head_check(const struct wk_share_shape *s, const uint8_t *got,
                                const uint8_t *want);
bool wk_share_payload_check(const struct wk_share_shape *s, const uint8_t *head,
                            const struct wk_tier_part *parts);

/* Where a run begins, and the digest that names the run before it. False: damaged. */
bool wk_share_head_parent(const struct wk_share_shape *s, const uint8_t *head,
                          uint8_t out_parent[PS_SHA256_BYTES], uint32_t *out_first_pos);
