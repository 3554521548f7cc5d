#pragma once

/*
 * The messages of the wire as plain structs, and their one encoder and decoder.
 *
 * pb_msg_decode checks everything that does not need the receiver's own facts: kinds, lengths, counts
 * against the bytes that are there, bounded strings. Arrays of Tokens, Finished and OpenList stay in
 * the frame and are read by iterators, so the frame must outlive the message; a Submit is copied out.
 * Protobuf unpacks through an allocator that gives at most 8 x the frame + 64 KiB. Pure functions.
 *
 * Invariants
 *   M1 a message that decodes has exactly the bytes that its counts say.
 *   M2 nothing allocates more than a small multiple of the frame that arrived.
 */

#include "proto/frame.h"
#include "proto/load.h"
#include "proto/submit.h"

struct pb_hello {
    uint32_t nonce;
    struct pb_worker_info info;
};

struct pb_welcome {
    uint32_t nonce, interval_ms;
};

struct pb_beat {
    uint32_t interval_ms;
    struct pb_load load;
    struct pb_kv_load kv;
    uint64_t applied;
    uint32_t n_open;
    uint64_t digest_id, digest_n;
    uint64_t tick;
    bool draining, drained;
};

struct pb_attempt { /* Accept, FinAck, Cancel, Resend */
    uint64_t req;
    uint32_t attempt;
    uint64_t dispatch_seq;
    uint32_t from;
};

struct pb_refusal {
    uint64_t req;
    uint32_t attempt;
    enum pb_reject reason;
    uint32_t predicted_wait_ms;
};

struct pb_finished {
    uint64_t req;
    uint32_t attempt;
    enum pb_finish reason;
    uint32_t n_total, matched_id, n_cached, n_prompt_scores;
    struct pb_raw scores; /* decoded: for pb_logprobs_read */
};

struct pb_token_row {
    uint64_t req;
    uint32_t attempt, first, n;
    bool has_logprobs;
    const uint8_t *ids;     /* [n] u32 little-endian, for pb_load_u32 */
    struct pb_raw logprobs; /* for pb_logprobs_read */
};

struct pb_tokens { /* an iterator; copy it before use to walk twice */
    uint32_t n_rows, n_ids;
    struct pb_raw rows, ids, logprobs;
};

struct pb_open_row {
    uint64_t req, dispatch_seq;
    uint32_t attempt, n_sent;
    bool ended; /* its end is not acknowledged yet */
};

struct pb_open_list { /* an iterator */
    uint64_t applied;
    uint32_t n_rows;
    struct pb_raw rows;
};

enum pb_admin_op { PB_ADMIN_DRAIN = 1, PB_ADMIN_UNDRAIN, PB_ADMIN_FLUSH };

struct pb_admin {
    uint32_t id;
    enum pb_admin_op op; /* Admin only */
};

struct pb_msg {
    struct pb_head head;
    union {
        struct pb_hello hello;
        struct pb_welcome welcome;
        uint32_t echo_epoch; /* Who */
        struct pb_beat beat;
        struct pb_submit *submit; /* owned by the message; set to NULL to take it */
        struct pb_attempt attempt;
        struct pb_refusal refusal;
        struct pb_tokens tokens;
        struct pb_finished finished;
        struct pb_open_list open_list;
        struct pb_admin admin;
    };
};

enum {
    PB_MSG_OK,
    PB_MSG_E_BAD, /* not a message: count it and drop it */
};

/* Header alone: the receiver checks incarnations and epoch before it pays for the rest. */
PS_MUST int pb_msg_peek(const uint8_t *data, size_t len, struct pb_head *out);
PS_MUST int pb_msg_decode(const uint8_t *data, size_t len, struct pb_msg *out);
void pb_msg_fini(struct pb_msg *m);

/* Appends one frame; head.kind says which member is read. Tokens and OpenList have builders below. */
void pb_msg_encode(struct ps_buf *out, const struct pb_msg *m);
void pb_finished_encode(struct ps_buf *out, const struct pb_head *h, const struct pb_finished *f,
                        const struct pb_logprob *scores);

/* Iterators: false at the end. */
bool pb_tokens_next(struct pb_tokens *t, struct pb_token_row *out);
bool pb_open_next(struct pb_open_list *l, struct pb_open_row *out);
/* Fails on a count of alternatives above PB_MAX_TOP or at the end of the bytes. */
bool pb_logprobs_read(struct pb_raw *r, struct pb_logprob *out, uint32_t n);
void pb_logprob_add(struct ps_buf *b, const struct pb_logprob *lp);

/* Builds one Tokens frame: rows, then its bytes. Reused from step to step. */
struct pb_tokens_builder {
    struct ps_buf rows, ids, logprobs;
    uint32_t n_rows, n_ids;
};

void pb_tokens_builder_init(struct pb_tokens_builder *t);
void pb_tokens_builder_fini(struct pb_tokens_builder *t);
void pb_tokens_builder_clear(struct pb_tokens_builder *t);
/* logprobs: NULL or [n] pointers. */
void pb_tokens_add(struct pb_tokens_builder *t, uint64_t req, uint32_t attempt, uint32_t first,
                   uint32_t n, const uint32_t *ids, struct pb_logprob *const *logprobs);
size_t pb_tokens_bytes(const struct pb_tokens_builder *t);
void pb_tokens_encode(struct ps_buf *out, const struct pb_head *h,
                      const struct pb_tokens_builder *t);
void pb_open_list_encode(struct ps_buf *out, const struct pb_head *h, uint64_t applied,
                         const struct pb_open_row *rows, uint32_t n_rows);

/* What beats compare: XOR of these over the open attempts. */
uint64_t pb_digest_id(uint64_t req, uint32_t attempt);
uint64_t pb_digest_n(uint64_t req, uint32_t attempt, uint32_t n_sent);
