#pragma once

/*
 * A slot of T2's file: a header that says all about the item, then the item's bytes.
 *
 *     header  4 KiB multiple: identity, key, token ids, a checksum per 64 KiB of payload, its own
 *     payload item_bytes of the group (4 KiB multiple)
 *
 * The size of the header follows from the identity alone. The header names the file, its generation
 * and the slot, so bytes of an older file, bytes from before a reset and misdirected writes are never
 * taken for the item. Numbers are little endian. Pure functions, any thread, no allocation.
 *
 * Invariant: a header that passes wk_slot_check and wk_slot_is_key, with a payload that passes
 * wk_slot_payload_ok, holds exactly the bytes that were encoded under an equal key.
 */

#include "worker/tier/tier.h"

enum {
    WK_SLOT_OK,
    WK_SLOT_E_EMPTY, /* erased, or never written */
    WK_SLOT_E_OLD,   /* intact, but of another file, generation or place */
    WK_SLOT_E_BAD,   /* torn or damaged */
};

enum { WK_SLOT_BLOCK_BYTES = 4096, WK_SLOT_CHUNK_BYTES = 64 << 10 };

struct wk_slot_shape { /* of the slots of one group */
    uint32_t group, page_tokens, payload_bytes;
    uint32_t n_sum, sums_off, head_bytes;
    uint64_t slot_bytes;
};

struct wk_slot_place { /* where a slot is */
    uint64_t file_id, generation;
    uint32_t slot;
};

void wk_slot_shape_init(struct wk_slot_shape *s, const struct wk_tier_ident *id, uint32_t group);
/* Fills head_bytes at out. The checksums are those of payload, read once. */
void wk_slot_encode(const struct wk_slot_shape *s, const struct wk_slot_place *place,
                    const struct wk_kv_key *key, uint64_t wall_us, const uint8_t *payload,
                    uint8_t *out);
PS_MUST int wk_slot_check(const struct wk_slot_shape *s, const struct wk_slot_place *place,
                          const uint8_t *head);
/* The rest is for headers that passed. */
bool wk_slot_is_key(const uint8_t *head, const struct wk_kv_key *key);
bool wk_slot_payload_ok(const struct wk_slot_shape *s, const uint8_t *head, const uint8_t *payload);
void wk_slot_key(const uint8_t *head, struct wk_kv_key *out); /* ids point into the header */
