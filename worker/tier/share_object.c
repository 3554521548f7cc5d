#include "worker/tier/share_object.h"

#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "headers are written as they lie");

static const char MAGIC[8] = {'P', 'S', 'K', 'V', 'R', 'U', 'N', '\n'};

enum { VERSION = 1, BLOCK_BYTES = 4096, IDS_MAX = 4096 /* tokens of an object */ };

struct head {
    char magic[8];
    uint32_t version, head_bytes;
    uint64_t checksum; /* of the whole header with this field 0 */
    uint64_t space_id, arith_id, layout_id, seed;
    uint32_t codec, group, rank, n_ranks;
    uint32_t first_pos, n_tok; /* of all parts together */
    uint32_t n_part, part_bytes, page_tokens, chunk_bytes;
    uint8_t parent[PS_SHA256_BYTES]; /* the chain before the first part */
    uint8_t zero[128];
};

struct part {
    uint8_t digest[PS_SHA256_BYTES];
    uint64_t hash;
    uint32_t first_pos, n_tok;
};

_Static_assert(sizeof(struct head) == 256, "a header's size on disk");
_Static_assert(sizeof(struct part) == 48, "a part's size on disk");

uint32_t wk_share_run_pages(const struct wk_tier_ident *id)
{
    uint32_t n = WK_SHARE_RUN_TOKENS / id->page_tokens;

    return n == 0 ? 1 : n;
}

bool wk_share_shape(const struct wk_tier_ident *id, uint32_t group, struct wk_share_shape *out)
{
    uint64_t n_ids, head;

    PS_ASSERT(group < id->n_group && id->page_tokens >= 16);
    PS_ASSERT(id->item_bytes[group] > 0 && id->item_bytes[group] % BLOCK_BYTES == 0);
    out->n_part = group == 0 ? wk_share_run_pages(id) : 1;
    PS_ASSERT(out->n_part <= WK_TIER_PARTS_MAX);
    out->part_bytes = id->item_bytes[group];
    out->n_chunk = (uint32_t)ps_div_up_u64(out->part_bytes, WK_SHARE_CHUNK_BYTES);
    n_ids = (uint64_t)out->n_part * id->page_tokens;
    head = sizeof(struct head) + out->n_part * sizeof(struct part);
    out->ids_off = (uint32_t)head;
    head = (head + n_ids * sizeof(uint32_t) + 7) & ~UINT64_C(7);
    out->sums_off = (uint32_t)head;
    head += (uint64_t)out->n_part * out->n_chunk * sizeof(uint64_t);
    head = ps_div_up_u64(head, BLOCK_BYTES) * BLOCK_BYTES;
    if (n_ids > IDS_MAX || head > WK_SHARE_HEAD_BYTES_MAX)
        return false;
    out->head_bytes = (uint32_t)head;
    out->object_bytes = head + (uint64_t)out->n_part * out->part_bytes;
    return true;
}

void wk_share_head_encode(const struct wk_tier_ident *id, const struct wk_share_shape *s,
                          const struct wk_tier_part *parts, uint8_t *out)
{
    const struct wk_kv_key *first = &parts[0].key;
    struct head h = {
        .version = VERSION,
        .head_bytes = s->head_bytes,
        .space_id = id->space_id,
        .arith_id = id->arith_id,
        .layout_id = id->layout_id,
        .seed = first->seed,
        .codec = id->codec,
        .group = first->group,
        .rank = id->rank,
        .n_ranks = id->n_ranks,
        .first_pos = first->first_pos,
        .n_part = s->n_part,
        .part_bytes = s->part_bytes,
        .page_tokens = id->page_tokens,
        .chunk_bytes = WK_SHARE_CHUNK_BYTES,
    };
    uint8_t *ids = out + s->ids_off;

    memset(out, 0, s->head_bytes);
    memcpy(h.magic, MAGIC, sizeof(h.magic));
    memcpy(h.parent, first->parent, sizeof(h.parent));
    for (uint32_t i = 0; i < s->n_part; i++) {
        const struct wk_kv_key *k = &parts[i].key;
        struct part p = {.hash = k->hash, .first_pos = k->first_pos, .n_tok = k->n_tok};

        PS_ASSERT(k->n_tok <= id->page_tokens && k->group == first->group);
        memcpy(p.digest, k->digest, sizeof(p.digest));
        memcpy(out + sizeof(h) + i * sizeof(p), &p, sizeof(p));
        memcpy(ids, k->ids, k->n_tok * sizeof(uint32_t));
        ids += (size_t)id->page_tokens * sizeof(uint32_t);
        h.n_tok += k->n_tok;
    }
    memcpy(out, &h, sizeof(h));
}

static uint64_t chunk_sum(const struct wk_share_shape *s, const uint8_t *part, uint32_t chunk)
{
    uint32_t off = chunk * WK_SHARE_CHUNK_BYTES;

    return ps_hash64(part + off, ps_min_u32(s->part_bytes - off, WK_SHARE_CHUNK_BYTES), 0);
}

/* The field counts as 0: the header is hashed around it. */
static uint64_t head_sum(const struct wk_share_shape *s, const uint8_t *head)
{
    const size_t at = offsetof(struct head, checksum), behind = at + sizeof(uint64_t);

    return ps_hash64(head + behind, s->head_bytes - behind, ps_hash64(head, at, 0));
}

void wk_share_head_seal(const struct wk_share_shape *s, const struct wk_tier_part *parts,
                        uint8_t *head)
{
    uint8_t *out = head + s->sums_off;
    uint64_t sum;

    for (uint32_t i = 0; i < s->n_part; i++) {
        for (uint32_t c = 0; c < s->n_chunk; c++, out += sizeof(sum)) {
            sum = chunk_sum(s, parts[i].buf, c);
            memcpy(out, &sum, sizeof(sum));
        }
    }
    sum = head_sum(s, head);
    memcpy(head + offsetof(struct head, checksum), &sum, sizeof(sum));
}

static bool is_intact(const struct wk_share_shape *s, const uint8_t *head)
{
    uint64_t sum;

    memcpy(&sum, head + offsetof(struct head, checksum), sizeof(sum));
    return memcmp(head, MAGIC, sizeof(MAGIC)) == 0 && sum == head_sum(s, head);
}

int wk_share_head_check(const struct wk_share_shape *s, const uint8_t *got, const uint8_t *want)
{
    const size_t at = offsetof(struct head, checksum), behind = at + sizeof(uint64_t);

    if (!is_intact(s, got))
        return WK_SHARE_E_BAD;
    if (memcmp(got, want, at) != 0 ||
        memcmp(got + behind, want + behind, s->sums_off - behind) != 0)
        return WK_SHARE_E_OTHER;
    return WK_SHARE_OK;
}

bool wk_share_payload_check(const struct wk_share_shape *s, const uint8_t *head,
                            const struct wk_tier_part *parts)
{
    const uint8_t *in = head + s->sums_off;

    for (uint32_t i = 0; i < s->n_part; i++) {
        for (uint32_t c = 0; c < s->n_chunk; c++, in += sizeof(uint64_t)) {
            uint64_t sum;

            memcpy(&sum, in, sizeof(sum));
            if (sum != chunk_sum(s, parts[i].buf, c))
                return false;
        }
    }
    return true;
}

bool wk_share_head_parent(const struct wk_share_shape *s, const uint8_t *head,
                          uint8_t out_parent[PS_SHA256_BYTES], uint32_t *out_first_pos)
{
    struct head h;

    if (!is_intact(s, head))
        return false;
    memcpy(&h, head, sizeof(h));
    memcpy(out_parent, h.parent, sizeof(h.parent));
    *out_first_pos = h.first_pos;
    return true;
}
