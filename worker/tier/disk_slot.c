#include "worker/tier/disk_slot.h"

#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "headers are written as they lie");

static const char MAGIC[8] = {'P', 'S', 'K', 'V', 'S', 'L', 'O', 'T'};

enum { VERSION = 1 };

struct head {
    char magic[8];
    uint32_t version, head_bytes;
    uint64_t checksum; /* of the whole header with this field 0 */
    uint64_t file_id, generation, written_us;
    uint64_t seed, hash;
    uint32_t slot, group, first_pos, n_tok;
    uint32_t payload_bytes, n_sum;
    uint8_t digest[PS_SHA256_BYTES], parent[PS_SHA256_BYTES];
    uint32_t ids[]; /* [page_tokens]; after them, at sums_off, the checksums [n_sum] */
};

_Static_assert(sizeof(struct head) == 152, "a header's size on disk");

void wk_slot_shape_init(struct wk_slot_shape *s, const struct wk_tier_ident *id, uint32_t group)
{
    uint64_t bytes;

    PS_ASSERT(group < id->n_group && id->page_tokens > 0 &&
              id->page_tokens <= WK_KV_PAGE_TOKENS_MAX);
    PS_ASSERT(id->item_bytes[group] > 0 && id->item_bytes[group] % WK_SLOT_BLOCK_BYTES == 0);
    s->group = group;
    s->page_tokens = id->page_tokens;
    s->payload_bytes = id->item_bytes[group];
    s->n_sum = (uint32_t)ps_div_up_u64(s->payload_bytes, WK_SLOT_CHUNK_BYTES);
    bytes = sizeof(struct head) + (uint64_t)s->page_tokens * sizeof(uint32_t);
    s->sums_off = (uint32_t)((bytes + 7) & ~UINT64_C(7));
    bytes = s->sums_off + (uint64_t)s->n_sum * sizeof(uint64_t);
    bytes = ps_div_up_u64(bytes, WK_SLOT_BLOCK_BYTES) * WK_SLOT_BLOCK_BYTES;
    s->head_bytes = (uint32_t)bytes;
    s->slot_bytes = bytes + s->payload_bytes;
}

/* Chunks are numbered into their checksums: two that changed places are found as well. */
static uint64_t chunk_sum(const struct wk_slot_shape *s, const uint8_t *payload, uint32_t i)
{
    uint64_t at = (uint64_t)i * WK_SLOT_CHUNK_BYTES;

    return ps_hash64(payload + at, ps_min_u64(WK_SLOT_CHUNK_BYTES, s->payload_bytes - at), i);
}

static uint64_t head_sum(const uint8_t *head, uint32_t head_bytes)
{
    const size_t at = offsetof(struct head, checksum), after = at + sizeof(uint64_t);

    return ps_hash64(head + after, head_bytes - after, ps_hash64(head, at, head_bytes));
}

void wk_slot_encode(const struct wk_slot_shape *s, const struct wk_slot_place *place,
                    const struct wk_kv_key *key, uint64_t wall_us, const uint8_t *payload,
                    uint8_t *out)
{
    struct head *h = (struct head *)(void *)out;

    PS_ASSERT(key->group == s->group && key->n_tok > 0 && key->n_tok <= s->page_tokens);
    memset(out, 0, s->head_bytes);
    memcpy(h->magic, MAGIC, sizeof(MAGIC));
    h->version = VERSION;
    h->head_bytes = s->head_bytes;
    h->file_id = place->file_id;
    h->generation = place->generation;
    h->written_us = wall_us;
    h->seed = key->seed;
    h->hash = key->hash;
    h->slot = place->slot;
    h->group = key->group;
    h->first_pos = key->first_pos;
    h->n_tok = key->n_tok;
    h->payload_bytes = s->payload_bytes;
    h->n_sum = s->n_sum;
    memcpy(h->digest, key->digest, PS_SHA256_BYTES);
    memcpy(h->parent, key->parent, PS_SHA256_BYTES);
    memcpy(h->ids, key->ids, key->n_tok * sizeof(uint32_t));
    for (uint32_t i = 0; i < s->n_sum; i++) {
        uint64_t sum = chunk_sum(s, payload, i);

        memcpy(out + s->sums_off + i * sizeof(sum), &sum, sizeof(sum));
    }
    h->checksum = head_sum(out, s->head_bytes);
}

static bool is_zero(const uint8_t *p, size_t n)
{
    return p[0] == 0 && memcmp(p, p + 1, n - 1) == 0;
}

int wk_slot_check(const struct wk_slot_shape *s, const struct wk_slot_place *place,
                  const uint8_t *head)
{
    const struct head *h = (const struct head *)(const void *)head;

    if (memcmp(h->magic, MAGIC, sizeof(MAGIC)) != 0)
        return is_zero(head, s->head_bytes) ? WK_SLOT_E_EMPTY : WK_SLOT_E_BAD;
    if (h->checksum != head_sum(head, s->head_bytes))
        return WK_SLOT_E_BAD;
    if (h->version != VERSION || h->head_bytes != s->head_bytes || h->file_id != place->file_id ||
        h->generation != place->generation || h->slot != place->slot || h->group != s->group ||
        h->payload_bytes != s->payload_bytes || h->n_sum != s->n_sum)
        return WK_SLOT_E_OLD;
    return h->n_tok > 0 && h->n_tok <= s->page_tokens ? WK_SLOT_OK : WK_SLOT_E_BAD;
}

bool wk_slot_is_key(const uint8_t *head, const struct wk_kv_key *key)
{
    const struct head *h = (const struct head *)(const void *)head;

    return h->seed == key->seed && h->hash == key->hash && h->group == key->group &&
           h->first_pos == key->first_pos && h->n_tok == key->n_tok &&
           memcmp(h->digest, key->digest, PS_SHA256_BYTES) == 0 &&
           memcmp(h->parent, key->parent, PS_SHA256_BYTES) == 0 &&
           memcmp(h->ids, key->ids, key->n_tok * sizeof(uint32_t)) == 0;
}

bool wk_slot_payload_ok(const struct wk_slot_shape *s, const uint8_t *head, const uint8_t *payload)
{
    for (uint32_t i = 0; i < s->n_sum; i++) {
        uint64_t sum;

        memcpy(&sum, head + s->sums_off + i * sizeof(sum), sizeof(sum));
        if (sum != chunk_sum(s, payload, i))
            return false;
    }
    return true;
}

void wk_slot_key(const uint8_t *head, struct wk_kv_key *out)
{
    const struct head *h = (const struct head *)(const void *)head;

    memcpy(out->digest, h->digest, PS_SHA256_BYTES);
    memcpy(out->parent, h->parent, PS_SHA256_BYTES);
    out->seed = h->seed;
    out->hash = h->hash;
    out->group = h->group;
    out->first_pos = h->first_pos;
    out->n_tok = h->n_tok;
    out->ids = h->ids;
}
