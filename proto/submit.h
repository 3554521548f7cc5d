#pragma once

/*
 * What a router asks of a worker, decoded: the one description of a generation request on the wire.
 *
 * The router fills it, proto encodes it (Submit: protobuf fields plus raw little-endian arrays), the
 * worker's link decodes and checks it here, once: after pb_submit_check every id is below n_vocab,
 * every length fits the context and every number is in its range, so that the scheduler asserts
 * instead of checking.
 *
 * Ownership: create gives one allocation that holds the struct and its arrays; destroy frees it.
 */

#include "common/base.h"

/* Stop ids: 1,024 of the client's and the model's own ends. */
enum { PB_MAX_STOP_IDS = 1024 + 32, PB_MAX_BIAS = 1024, PB_MAX_TOP = 20, PB_MAX_CUTS = 16 };
#define PB_NO_LIMIT UINT32_MAX

struct pb_sampling {
    float temperature, top_p, min_p;
    float rep_penalty, presence_penalty, frequency_penalty;
    int32_t top_k; /* <= 0: off */
    uint64_t seed; /* always set: the router draws one when the client has none */
    int32_t n_top; /* -1: no log-probabilities; else the token's own and the top n */
    /* -1: none; else prompt log-probabilities with top n (bypasses cache reads) */
    int32_t n_prompt_top;
};

struct pb_submit {
    uint64_t req;          /* unique within a router incarnation; never reused */
    uint32_t attempt;      /* rises with each dispatch of the same request */
    uint64_t dispatch_seq; /* stamped by the link thread at send */
    uint64_t space_id,
        arith_id;         /* what the router believes the worker serves; a mismatch is refused */
    uint64_t chain_seed;  /* H(space, adapter, tenant salt): first link of the block hash chain */
    int32_t priority;     /* lower is earlier */
    uint32_t deadline_ms; /* from receipt until the first token; 0: none */

    uint32_t n_prompt; /* prompt tokens */
    uint32_t n_done; /* tokens already emitted by earlier attempts; they follow the prompt in ids */
    uint32_t *ids;   /* [n_prompt + n_done] */
    uint32_t max_tokens; /* of the whole answer, n_done included; PB_NO_LIMIT: up to the context */
    uint32_t min_tokens;
    bool ignore_eos; /* the model's EOS ids do not end the answer */
    uint32_t n_stop_ids, n_bias, n_cuts;
    uint32_t *stop_ids;
    uint32_t *bias_ids;
    float *bias;
    /* positions worth a snapshot: end of system and tools, end of the last user turn */
    uint32_t *cuts;
    struct pb_sampling samp;
};

struct pb_limits { /* the worker's own facts */
    uint32_t n_vocab, context;
};

enum {
    PB_SUBMIT_OK,
    PB_SUBMIT_E_BAD, /* text in err */
};

struct pb_submit *pb_submit_create(uint32_t n_ids, uint32_t n_stop_ids, uint32_t n_bias,
                                   uint32_t n_cuts);
void pb_submit_destroy(struct pb_submit *s); /* NULL is fine */
/* Ranges of every field, against the worker's limits. err_size >= 128. */
PS_MUST int pb_submit_check(const struct pb_submit *s, const struct pb_limits *lim, char *err,
                            size_t err_size);

/* Why an attempt ended. */
enum pb_finish {
    PB_FIN_STOP_EOS = 1,
    PB_FIN_STOP_ID, /* a stop_token_ids member */
    PB_FIN_LENGTH,  /* max_tokens */
    PB_FIN_CONTEXT, /* the model's context is full */
    PB_FIN_CANCELLED,
    PB_FIN_NUMERICAL, /* NaN logits */
    PB_FIN_ERROR,
};

enum pb_reject {
    PB_REJ_FULL = 1, /* its queue is full: try another */
    PB_REJ_DRAINING,
    PB_REJ_TOO_LONG, /* can never fit this worker's KV memory */
    PB_REJ_BAD,      /* failed pb_submit_check, or space_id differs */
};

/* Log-probabilities of one token, as they travel and as both sides keep them. */
struct pb_logprob {
    float logprob;
    uint32_t rank;
    uint32_t n_top;
    struct {
        uint32_t id;
        float logprob;
    } top[PB_MAX_TOP];
};

/* What a worker tells of itself in Hello. Strings are bounded copies. */
struct pb_worker_info {
    uint64_t uid, incarnation;
    uint64_t space_id, arith_id;
    uint8_t tokenizer_digest[32];
    char model[128]; /* served name */
    char device[64]; /* "cpu avx512, 1 thread" */
    char dtype[8];
    uint32_t context, n_vocab, page_tokens, stride_tokens,
        n_slots; /* n_slots: rows it can run at once */
    uint64_t kv_pages_total;
    uint32_t max_waiting;
    bool exact;
};
