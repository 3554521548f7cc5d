#pragma once

/*
 * Frames between peers: encode and decode, nothing else.
 *
 * Every frame is a head of 16 bytes {magic u32, kind u8, flags u8, zero u16, body bytes u32, id u32}
 * and a body; little-endian throughout. The head tells the body's size, and a head whose size its
 * kind cannot have is bad, so a reader knows what it must store before it stores it. Decoders take
 * any bytes: they never read outside of them and allocate only what a head that was accepted bounds.
 *
 *   CHALLENGE {version, zero, nonce}       both, first
 *   PROOF     {mac}                        the dialler, then the server
 *   HELLO     {wk_tier_ident}              both
 *   REFUSE    {reason}                     instead of any of these; then the sender closes
 *   FIND, GET {n, zero, n keys, ids}       -> FOUND, GOT {n_found}
 *   PIECE     {part, off, sum, bytes}      after GOT: all parts below n_found, in order
 *
 * Pure functions, any thread.
 */

#include "worker/tier/peer.h"

enum wk_peer_kind {
    WK_PEER_CHALLENGE = 1,
    WK_PEER_PROOF,
    WK_PEER_HELLO,
    WK_PEER_REFUSE,
    WK_PEER_FIND,
    WK_PEER_FOUND,
    WK_PEER_GET,
    WK_PEER_GOT,
    WK_PEER_PIECE,
    WK_PEER_N_KINDS
};

enum wk_peer_reason {
    WK_PEER_R_NONE,
    WK_PEER_R_VERSION, /* another version of this protocol */
    WK_PEER_R_SECRET,  /* it does not know the cluster's secret */
    WK_PEER_R_IDENT,   /* its items are other bytes */
    WK_PEER_R_BUSY,    /* too many connections */
    WK_PEER_N_REASONS
};

enum {
    WK_PEER_VERSION = 1,
    WK_PEER_HEAD_BYTES = 16,
    WK_PEER_NONCE_BYTES = 32,
    WK_PEER_KEY_BYTES = 96,
    WK_PEER_PIECE_HEAD_BYTES = 16,
    WK_PEER_PIECE_BYTES = 2 << 20,
    WK_PEER_PAGE_TOKENS_MAX = 256,
    WK_PEER_INFLIGHT = 4, /* FIND and GET on one connection that have no answer yet */
};

enum {
    WK_PEER_WIRE_OK,
    WK_PEER_WIRE_E_BAD, /* not a frame, or one that breaks a rule: cut the peer */
};

struct wk_peer_head {
    enum wk_peer_kind kind;
    bool urgent;         /* FIND and GET only */
    uint32_t body_bytes; /* for PIECE with its head */
    uint32_t id;         /* of the io: the answer has that of the question; 0 before READY */
};

struct wk_peer_challenge {
    uint32_t version;
    uint8_t nonce[WK_PEER_NONCE_BYTES];
};

struct wk_peer_piece {
    uint32_t part, off, n_bytes;
    uint64_t sum; /* XXH3-64 of the whole item */
};

/* page_tokens: of the ident; bounds the ids of a key. */
PS_MUST int wk_peer_head_decode(const uint8_t in[WK_PEER_HEAD_BYTES], uint32_t page_tokens,
                                struct wk_peer_head *out);
/* Bodies; n_bytes is the head's. */
PS_MUST int wk_peer_challenge_decode(const uint8_t *in, size_t n_bytes,
                                     struct wk_peer_challenge *out);
PS_MUST int wk_peer_hello_decode(const uint8_t *in, size_t n_bytes, struct wk_tier_ident *out);
PS_MUST int wk_peer_reason_decode(const uint8_t *in, size_t n_bytes, enum wk_peer_reason *out);
PS_MUST int wk_peer_count_decode(const uint8_t *in, size_t n_bytes, uint32_t *out_n);
PS_MUST int wk_peer_piece_decode(const uint8_t in[WK_PEER_PIECE_HEAD_BYTES],
                                 const struct wk_peer_head *h, struct wk_peer_piece *out);
/* Of a FIND or GET. out is one allocation with its parts and ids: wk_peers_ask_free frees it. */
PS_MUST int wk_peer_ask_decode(const uint8_t *in, const struct wk_peer_head *h,
                               const struct wk_tier_ident *ident, struct wk_peer_ask **out);

void wk_peer_put_challenge(struct ps_buf *b, const struct wk_peer_challenge *c);
void wk_peer_put_proof(struct ps_buf *b, const uint8_t mac[PS_SHA256_BYTES]);
void wk_peer_put_hello(struct ps_buf *b, const struct wk_tier_ident *ident);
void wk_peer_put_refuse(struct ps_buf *b, enum wk_peer_reason reason);
void wk_peer_put_ask(struct ps_buf *b, uint32_t id, const struct wk_tier_io *io);
/* kind: FOUND or GOT. */
void wk_peer_put_count(struct ps_buf *b, enum wk_peer_kind kind, uint32_t id, uint32_t n_found);
/* Head only; p->n_bytes bytes of the item follow. */
void wk_peer_put_piece(struct ps_buf *b, uint32_t id, const struct wk_peer_piece *p);

bool wk_peer_ident_is_equal(const struct wk_tier_ident *a, const struct wk_tier_ident *b);
const char *wk_peer_reason_text(enum wk_peer_reason r);
