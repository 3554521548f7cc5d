#include "worker/tier/peer_wire.h"

#include <string.h>

enum {
    CHALLENGE_BYTES = 8 + WK_PEER_NONCE_BYTES,
    HELLO_BYTES = 3 * 8 + 9 * 4,
    COUNT_BYTES = 4,
    ASK_HEAD_BYTES = 8,
    FLAG_URGENT = 1,
};

#define MAGIC UINT32_C(0x56704B50) /* "PKpV" as it lies on the wire */

_Static_assert(WK_PEER_KEY_BYTES == 2 * PS_SHA256_BYTES + 2 * 8 + 4 * 4, "a key on the wire");
_Static_assert(sizeof(((struct wk_tier_ident *)0)->item_bytes) == 4 * 4, "HELLO has four groups");

static uint32_t get_u32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static uint64_t get_u64(const uint8_t *p)
{
    return get_u32(p) | (uint64_t)get_u32(p + 4) << 32;
}

/* ---- head ---- */

static bool size_is_possible(const struct wk_peer_head *h, uint32_t page_tokens)
{
    const uint32_t key_max = WK_PEER_KEY_BYTES + 4 * page_tokens;
    const uint32_t n = h->body_bytes;

    switch (h->kind) {
    case WK_PEER_CHALLENGE:
        return n == CHALLENGE_BYTES;
    case WK_PEER_PROOF:
        return n == PS_SHA256_BYTES;
    case WK_PEER_HELLO:
        return n == HELLO_BYTES;
    case WK_PEER_REFUSE:
    case WK_PEER_FOUND:
    case WK_PEER_GOT:
        return n == COUNT_BYTES;
    case WK_PEER_FIND:
        return n > ASK_HEAD_BYTES && n <= ASK_HEAD_BYTES + WK_TIER_FIND_MAX * key_max;
    case WK_PEER_GET:
        return n > ASK_HEAD_BYTES && n <= ASK_HEAD_BYTES + WK_TIER_PARTS_MAX * key_max;
    case WK_PEER_PIECE:
        return n > WK_PEER_PIECE_HEAD_BYTES && n <= WK_PEER_PIECE_HEAD_BYTES + WK_PEER_PIECE_BYTES;
    case WK_PEER_N_KINDS:
        break;
    }
    return false;
}

int wk_peer_head_decode(const uint8_t in[WK_PEER_HEAD_BYTES], uint32_t page_tokens,
                        struct wk_peer_head *out)
{
    struct wk_peer_head h;
    bool may_flag;

    PS_ASSERT(page_tokens <= WK_PEER_PAGE_TOKENS_MAX);
    if (get_u32(in) != MAGIC || in[4] < WK_PEER_CHALLENGE || in[4] >= WK_PEER_N_KINDS ||
        in[6] != 0 || in[7] != 0)
        return WK_PEER_WIRE_E_BAD;
    h = (struct wk_peer_head){.kind = (enum wk_peer_kind)in[4],
                              .urgent = in[5] == FLAG_URGENT,
                              .body_bytes = get_u32(in + 8),
                              .id = get_u32(in + 12)};
    may_flag = h.kind == WK_PEER_FIND || h.kind == WK_PEER_GET;
    if (in[5] > (may_flag ? FLAG_URGENT : 0) || !size_is_possible(&h, page_tokens))
        return WK_PEER_WIRE_E_BAD;
    if (h.kind <= WK_PEER_REFUSE && h.id != 0)
        return WK_PEER_WIRE_E_BAD;
    *out = h;
    return WK_PEER_WIRE_OK;
}

static void put_head(struct ps_buf *b, enum wk_peer_kind kind, bool urgent, uint32_t body_bytes,
                     uint32_t id)
{
    const uint32_t flags = urgent ? FLAG_URGENT : 0;

    ps_buf_add_u32(b, MAGIC);
    ps_buf_add_u32(b, (uint32_t)kind | flags << 8);
    ps_buf_add_u32(b, body_bytes);
    ps_buf_add_u32(b, id);
}

/* ---- getting to know each other ---- */

void wk_peer_put_challenge(struct ps_buf *b, const struct wk_peer_challenge *c)
{
    put_head(b, WK_PEER_CHALLENGE, false, CHALLENGE_BYTES, 0);
    ps_buf_add_u32(b, c->version);
    ps_buf_add_u32(b, 0);
    ps_buf_add(b, c->nonce, sizeof(c->nonce));
}

int wk_peer_challenge_decode(const uint8_t *in, size_t n_bytes, struct wk_peer_challenge *out)
{
    /* The zero is not compared: another version may use it, and is to be told that it is one. */
    if (n_bytes != CHALLENGE_BYTES)
        return WK_PEER_WIRE_E_BAD;
    out->version = get_u32(in);
    memcpy(out->nonce, in + 8, sizeof(out->nonce));
    return WK_PEER_WIRE_OK;
}

void wk_peer_put_proof(struct ps_buf *b, const uint8_t mac[PS_SHA256_BYTES])
{
    put_head(b, WK_PEER_PROOF, false, PS_SHA256_BYTES, 0);
    ps_buf_add(b, mac, PS_SHA256_BYTES);
}

void wk_peer_put_hello(struct ps_buf *b, const struct wk_tier_ident *ident)
{
    put_head(b, WK_PEER_HELLO, false, HELLO_BYTES, 0);
    ps_buf_add_u64(b, ident->space_id);
    ps_buf_add_u64(b, ident->arith_id);
    ps_buf_add_u64(b, ident->layout_id);
    ps_buf_add_u32(b, ident->codec);
    ps_buf_add_u32(b, ident->n_group);
    ps_buf_add_u32(b, ident->page_tokens);
    for (uint32_t i = 0; i < 4; i++)
        ps_buf_add_u32(b, ident->item_bytes[i]);
    ps_buf_add_u32(b, ident->rank);
    ps_buf_add_u32(b, ident->n_ranks);
}

int wk_peer_hello_decode(const uint8_t *in, size_t n_bytes, struct wk_tier_ident *out)
{
    if (n_bytes != HELLO_BYTES)
        return WK_PEER_WIRE_E_BAD;
    *out = (struct wk_tier_ident){
        .space_id = get_u64(in),
        .arith_id = get_u64(in + 8),
        .layout_id = get_u64(in + 16),
        .codec = get_u32(in + 24),
        .n_group = get_u32(in + 28),
        .page_tokens = get_u32(in + 32),
        .item_bytes = {get_u32(in + 36), get_u32(in + 40), get_u32(in + 44), get_u32(in + 48)},
        .rank = get_u32(in + 52),
        .n_ranks = get_u32(in + 56)};
    return WK_PEER_WIRE_OK;
}

void wk_peer_put_refuse(struct ps_buf *b, enum wk_peer_reason reason)
{
    put_head(b, WK_PEER_REFUSE, false, COUNT_BYTES, 0);
    ps_buf_add_u32(b, reason);
}

int wk_peer_reason_decode(const uint8_t *in, size_t n_bytes, enum wk_peer_reason *out)
{
    if (n_bytes != COUNT_BYTES || get_u32(in) == WK_PEER_R_NONE || get_u32(in) >= WK_PEER_N_REASONS)
        return WK_PEER_WIRE_E_BAD;
    *out = (enum wk_peer_reason)get_u32(in);
    return WK_PEER_WIRE_OK;
}

/* ---- questions ---- */

static void put_key(struct ps_buf *b, const struct wk_kv_key *k)
{
    ps_buf_add(b, k->digest, PS_SHA256_BYTES);
    ps_buf_add(b, k->parent, PS_SHA256_BYTES);
    ps_buf_add_u64(b, k->seed);
    ps_buf_add_u64(b, k->hash);
    ps_buf_add_u32(b, k->group);
    ps_buf_add_u32(b, k->first_pos);
    ps_buf_add_u32(b, k->n_tok);
    ps_buf_add_u32(b, 0);
}

void wk_peer_put_ask(struct ps_buf *b, uint32_t id, const struct wk_tier_io *io)
{
    uint32_t n_ids = 0;

    PS_ASSERT(io->op == WK_TIER_FIND || io->op == WK_TIER_GET);
    for (uint32_t i = 0; i < io->n_part; i++)
        n_ids += io->part[i].key.n_tok;
    put_head(b, io->op == WK_TIER_FIND ? WK_PEER_FIND : WK_PEER_GET, io->urgent,
             ASK_HEAD_BYTES + io->n_part * WK_PEER_KEY_BYTES + 4 * n_ids, id);
    ps_buf_add_u32(b, io->n_part);
    ps_buf_add_u32(b, 0);
    for (uint32_t i = 0; i < io->n_part; i++)
        put_key(b, &io->part[i].key);
    for (uint32_t i = 0; i < io->n_part; i++) {
        for (uint32_t j = 0; j < io->part[i].key.n_tok; j++)
            ps_buf_add_u32(b, io->part[i].key.ids[j]);
    }
}

/* False: not a key of this layout. */
static bool get_key(const uint8_t *in, const struct wk_tier_ident *ident, struct wk_kv_key *k)
{
    memcpy(k->digest, in, PS_SHA256_BYTES);
    memcpy(k->parent, in + 32, PS_SHA256_BYTES);
    k->seed = get_u64(in + 64);
    k->hash = get_u64(in + 72);
    k->group = get_u32(in + 80);
    k->first_pos = get_u32(in + 84);
    k->n_tok = get_u32(in + 88);
    return k->group < ident->n_group && k->n_tok > 0 && k->n_tok <= ident->page_tokens &&
           k->first_pos <= UINT32_MAX - k->n_tok && get_u32(in + 92) == 0;
}

int wk_peer_ask_decode(const uint8_t *in, const struct wk_peer_head *h,
                       const struct wk_tier_ident *ident, struct wk_peer_ask **out)
{
    const bool is_find = h->kind == WK_PEER_FIND;
    const uint32_t n = get_u32(in), n_max = is_find ? WK_TIER_FIND_MAX : WK_TIER_PARTS_MAX;
    struct wk_peer_ask *ask;
    struct wk_tier_part *part;
    uint32_t n_ids, *ids, at = 0;

    PS_ASSERT(is_find || h->kind == WK_PEER_GET);
    PS_ASSERT(h->body_bytes > ASK_HEAD_BYTES);
    if (n == 0 || n > n_max || get_u32(in + 4) != 0 ||
        h->body_bytes - ASK_HEAD_BYTES < n * WK_PEER_KEY_BYTES)
        return WK_PEER_WIRE_E_BAD;
    n_ids = (h->body_bytes - ASK_HEAD_BYTES - n * WK_PEER_KEY_BYTES) / 4;
    if (ASK_HEAD_BYTES + n * WK_PEER_KEY_BYTES + 4 * n_ids != h->body_bytes)
        return WK_PEER_WIRE_E_BAD;
    ask = ps_calloc(1, sizeof(*ask) + n * sizeof(*part) + n_ids * sizeof(*ids));
    part = (struct wk_tier_part *)(void *)(ask + 1);
    ids = (uint32_t *)(void *)(part + n);
    in += ASK_HEAD_BYTES;
    for (uint32_t i = 0; i < n; i++, in += WK_PEER_KEY_BYTES) {
        struct wk_kv_key *k = &part[i].key;

        if (!get_key(in, ident, k) || k->n_tok > n_ids - at || k->group != part[0].key.group ||
            (i > 0 && k->first_pos <= part[i - 1].key.first_pos)) {
            ps_free(ask);
            return WK_PEER_WIRE_E_BAD;
        }
        k->ids = ids + at;
        at += k->n_tok;
    }
    if (at != n_ids) {
        ps_free(ask);
        return WK_PEER_WIRE_E_BAD;
    }
    for (uint32_t i = 0; i < n_ids; i++)
        ids[i] = get_u32(in + 4 * (size_t)i);
    ask->io.op = is_find ? WK_TIER_FIND : WK_TIER_GET;
    ask->io.urgent = h->urgent;
    ask->io.n_part = n;
    ask->io.part = part;
    ask->wants_bytes = !is_find;
    *out = ask;
    return WK_PEER_WIRE_OK;
}

void wk_peers_ask_free(struct wk_peer_ask *ask)
{
    ps_free(ask);
}

/* ---- answers ---- */

void wk_peer_put_count(struct ps_buf *b, enum wk_peer_kind kind, uint32_t id, uint32_t n_found)
{
    PS_ASSERT(kind == WK_PEER_FOUND || kind == WK_PEER_GOT);
    put_head(b, kind, false, COUNT_BYTES, id);
    ps_buf_add_u32(b, n_found);
}

int wk_peer_count_decode(const uint8_t *in, size_t n_bytes, uint32_t *out_n)
{
    if (n_bytes != COUNT_BYTES)
        return WK_PEER_WIRE_E_BAD;
    *out_n = get_u32(in);
    return WK_PEER_WIRE_OK;
}

void wk_peer_put_piece(struct ps_buf *b, uint32_t id, const struct wk_peer_piece *p)
{
    PS_ASSERT(p->n_bytes > 0 && p->n_bytes <= WK_PEER_PIECE_BYTES);
    put_head(b, WK_PEER_PIECE, false, WK_PEER_PIECE_HEAD_BYTES + p->n_bytes, id);
    ps_buf_add_u32(b, p->part);
    ps_buf_add_u32(b, p->off);
    ps_buf_add_u64(b, p->sum);
}

int wk_peer_piece_decode(const uint8_t in[WK_PEER_PIECE_HEAD_BYTES], const struct wk_peer_head *h,
                         struct wk_peer_piece *out)
{
    PS_ASSERT(h->kind == WK_PEER_PIECE && h->body_bytes > WK_PEER_PIECE_HEAD_BYTES);
    *out = (struct wk_peer_piece){.part = get_u32(in),
                                  .off = get_u32(in + 4),
                                  .sum = get_u64(in + 8),
                                  .n_bytes = h->body_bytes - WK_PEER_PIECE_HEAD_BYTES};
    return out->part < WK_TIER_PARTS_MAX ? WK_PEER_WIRE_OK : WK_PEER_WIRE_E_BAD;
}

/* ---- small things ---- */

bool wk_peer_ident_is_equal(const struct wk_tier_ident *a, const struct wk_tier_ident *b)
{
    bool same = a->space_id == b->space_id && a->arith_id == b->arith_id &&
                a->layout_id == b->layout_id && a->codec == b->codec && a->n_group == b->n_group &&
                a->page_tokens == b->page_tokens && a->rank == b->rank && a->n_ranks == b->n_ranks;

    for (uint32_t i = 0; same && i < a->n_group && i < PS_ARRAY_LEN(a->item_bytes); i++)
        same = a->item_bytes[i] == b->item_bytes[i];
    return same;
}

const char *wk_peer_reason_text(enum wk_peer_reason r)
{
    static const char *const texts[WK_PEER_N_REASONS] = {
        [WK_PEER_R_NONE] = "none",   [WK_PEER_R_VERSION] = "version", [WK_PEER_R_SECRET] = "secret",
        [WK_PEER_R_IDENT] = "ident", [WK_PEER_R_BUSY] = "busy",
    };

    PS_ASSERT(r < WK_PEER_N_REASONS);
    return texts[r];
}
