#include <string.h>

#include "proto/generate.pb-c.h"
#include "proto/msg_internal.h"

enum {
    TOKEN_ROW_BYTES = 24,
    OPEN_ROW_BYTES = 32,
    ROW_HAS_LOGPROBS = 1,
    OPEN_ENDED = 1,
};

/* ---- log-probabilities ---- */

bool pb_logprobs_read(struct pb_raw *r, struct pb_logprob *out, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        struct pb_logprob *lp = &out[i];

        if (!pb_raw_f32(r, &lp->logprob) || !pb_raw_u32(r, &lp->rank) || !pb_raw_u32(r, &lp->n_top))
            return false;
        if (lp->n_top > PB_MAX_TOP)
            return false;
        for (uint32_t k = 0; k < lp->n_top; k++) {
            if (!pb_raw_u32(r, &lp->top[k].id) || !pb_raw_f32(r, &lp->top[k].logprob))
                return false;
        }
    }
    return true;
}

/* Passes over n of them: the same checks, nothing stored. */
static bool logprobs_skip(struct pb_raw *r, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        const uint8_t *p, *tops;

        if (!pb_raw_skip(r, 3, 4, &p) || pb_load_u32(p + 8) > PB_MAX_TOP ||
            !pb_raw_skip(r, pb_load_u32(p + 8), 8, &tops))
            return false;
    }
    return true;
}

void pb_logprob_add(struct ps_buf *b, const struct pb_logprob *lp)
{
    PS_ASSERT(lp->n_top <= PB_MAX_TOP);
    pb_add_f32(b, lp->logprob);
    ps_buf_add_u32(b, lp->rank);
    ps_buf_add_u32(b, lp->n_top);
    for (uint32_t k = 0; k < lp->n_top; k++) {
        ps_buf_add_u32(b, lp->top[k].id);
        pb_add_f32(b, lp->top[k].logprob);
    }
}

/* ---- Tokens ---- */

bool pb_tokens_next(struct pb_tokens *t, struct pb_token_row *out)
{
    const uint8_t *p, *ids;
    uint32_t flags;

    if (t->n_rows == 0 || !pb_raw_skip(&t->rows, 1, TOKEN_ROW_BYTES, &p))
        return false;
    t->n_rows--;
    out->req = pb_load_u64(p);
    out->attempt = pb_load_u32(p + 8);
    out->first = pb_load_u32(p + 12);
    out->n = pb_load_u32(p + 16);
    flags = pb_load_u32(p + 20);
    if (!pb_raw_skip(&t->ids, out->n, 4, &ids))
        return false;
    out->ids = ids;
    out->has_logprobs = (flags & ROW_HAS_LOGPROBS) != 0;
    out->logprobs = t->logprobs;
    if (out->has_logprobs && !logprobs_skip(&t->logprobs, out->n))
        return false;
    return true;
}

/* Walks once, so that later walks of the same message cannot fail (M1). */
static bool tokens_whole(struct pb_tokens t)
{
    struct pb_token_row row;
    uint32_t n_rows = t.n_rows;

    for (uint32_t i = 0; i < n_rows; i++) {
        if (!pb_tokens_next(&t, &row) || row.n == 0 || row.first > UINT32_MAX - row.n)
            return false;
    }
    return t.ids.left == 0 && t.logprobs.left == 0;
}

static int decode_tokens(const struct pb_raw *pb, struct pb_raw *raw, ProtobufCAllocator *a,
                         struct pb_tokens *t)
{
    Penstock__Tokens *p = penstock__tokens__unpack(a, pb->left, pb->p);
    const uint8_t *rows, *ids;

    if (p == NULL)
        return PB_MSG_E_BAD;
    t->n_rows = p->n_rows;
    t->n_ids = p->n_ids;
    penstock__tokens__free_unpacked(p, a);
    if (!pb_raw_skip(raw, t->n_rows, TOKEN_ROW_BYTES, &rows) ||
        !pb_raw_skip(raw, t->n_ids, 4, &ids))
        return PB_MSG_E_BAD;
    t->rows = (struct pb_raw){rows, (size_t)t->n_rows * TOKEN_ROW_BYTES};
    t->ids = (struct pb_raw){ids, (size_t)t->n_ids * 4};
    t->logprobs = *raw;
    return tokens_whole(*t) ? PB_MSG_OK : PB_MSG_E_BAD;
}

void pb_tokens_builder_init(struct pb_tokens_builder *t)
{
    memset(t, 0, sizeof(*t));
}

void pb_tokens_builder_fini(struct pb_tokens_builder *t)
{
    ps_buf_fini(&t->rows);
    ps_buf_fini(&t->ids);
    ps_buf_fini(&t->logprobs);
}

void pb_tokens_builder_clear(struct pb_tokens_builder *t)
{
    ps_buf_clear(&t->rows);
    ps_buf_clear(&t->ids);
    ps_buf_clear(&t->logprobs);
    t->n_rows = t->n_ids = 0;
}

void pb_tokens_add(struct pb_tokens_builder *t, uint64_t req, uint32_t attempt, uint32_t first,
                   uint32_t n, const uint32_t *ids, struct pb_logprob *const *logprobs)
{
    PS_ASSERT(n > 0);
    ps_buf_add_u64(&t->rows, req);
    ps_buf_add_u32(&t->rows, attempt);
    ps_buf_add_u32(&t->rows, first);
    ps_buf_add_u32(&t->rows, n);
    ps_buf_add_u32(&t->rows, logprobs != NULL ? ROW_HAS_LOGPROBS : 0);
    pb_add_u32s(&t->ids, ids, n);
    for (uint32_t i = 0; logprobs != NULL && i < n; i++)
        pb_logprob_add(&t->logprobs, logprobs[i]);
    t->n_rows++;
    t->n_ids += n;
}

size_t pb_tokens_bytes(const struct pb_tokens_builder *t)
{
    return t->rows.len + t->ids.len + t->logprobs.len;
}

void pb_tokens_encode(struct ps_buf *out, const struct pb_head *h,
                      const struct pb_tokens_builder *t)
{
    Penstock__Tokens p = PENSTOCK__TOKENS__INIT;

    PS_ASSERT(h->kind == PB_TOKENS);
    p.n_rows = t->n_rows;
    p.n_ids = t->n_ids;
    pb_pack_add(out, h, &p.base);
    ps_buf_add(out, t->rows.data, t->rows.len);
    ps_buf_add(out, t->ids.data, t->ids.len);
    ps_buf_add(out, t->logprobs.data, t->logprobs.len);
}

/* ---- Finished, Reject and the messages that only name an attempt ---- */

static int decode_finished(const struct pb_raw *pb, struct pb_raw *raw, ProtobufCAllocator *a,
                           struct pb_finished *f)
{
    Penstock__Finished *p = penstock__finished__unpack(a, pb->left, pb->p);

    if (p == NULL)
        return PB_MSG_E_BAD;
    *f = (struct pb_finished){
        .req = p->req,
        .attempt = p->attempt,
        .reason = (enum pb_finish)p->reason,
        .n_total = p->n_total,
        .matched_id = p->matched_id,
        .n_cached = p->n_cached,
        .n_prompt_scores = p->n_prompt_scores,
        .scores = *raw,
    };
    penstock__finished__free_unpacked(p, a);
    if (f->reason < PB_FIN_STOP_EOS || f->reason > PB_FIN_ERROR)
        return PB_MSG_E_BAD;
    if (!logprobs_skip(raw, f->n_prompt_scores) || raw->left != 0)
        return PB_MSG_E_BAD;
    return PB_MSG_OK;
}

void pb_finished_encode(struct ps_buf *out, const struct pb_head *h, const struct pb_finished *f,
                        const struct pb_logprob *scores)
{
    Penstock__Finished p = PENSTOCK__FINISHED__INIT;

    PS_ASSERT(h->kind == PB_FINISHED && (f->n_prompt_scores == 0 || scores != NULL));
    p.req = f->req;
    p.attempt = f->attempt;
    p.reason = (uint32_t)f->reason;
    p.n_total = f->n_total;
    p.matched_id = f->matched_id;
    p.n_cached = f->n_cached;
    p.n_prompt_scores = f->n_prompt_scores;
    pb_pack_add(out, h, &p.base);
    for (uint32_t i = 0; i < f->n_prompt_scores; i++)
        pb_logprob_add(out, &scores[i]);
}

static int decode_reject(const struct pb_raw *pb, ProtobufCAllocator *a, struct pb_refusal *f)
{
    Penstock__Reject *p = penstock__reject__unpack(a, pb->left, pb->p);

    if (p == NULL)
        return PB_MSG_E_BAD;
    *f = (struct pb_refusal){p->req, p->attempt, (enum pb_reject)p->reason, p->predicted_wait_ms};
    penstock__reject__free_unpacked(p, a);
    return f->reason >= PB_REJ_FULL && f->reason <= PB_REJ_BAD ? PB_MSG_OK : PB_MSG_E_BAD;
}

static int decode_attempt(const struct pb_raw *pb, ProtobufCAllocator *a, struct pb_attempt *t)
{
    Penstock__Attempt *p = penstock__attempt__unpack(a, pb->left, pb->p);

    if (p == NULL)
        return PB_MSG_E_BAD;
    *t = (struct pb_attempt){p->req, p->attempt, p->dispatch_seq, p->from};
    penstock__attempt__free_unpacked(p, a);
    return PB_MSG_OK;
}

/* ---- OpenList, OpenQuery ---- */

bool pb_open_next(struct pb_open_list *l, struct pb_open_row *out)
{
    const uint8_t *p;

    if (l->n_rows == 0 || !pb_raw_skip(&l->rows, 1, OPEN_ROW_BYTES, &p))
        return false;
    l->n_rows--;
    out->req = pb_load_u64(p);
    out->dispatch_seq = pb_load_u64(p + 8);
    out->attempt = pb_load_u32(p + 16);
    out->n_sent = pb_load_u32(p + 20);
    out->ended = (pb_load_u32(p + 24) & OPEN_ENDED) != 0;
    return true;
}

static int decode_open_list(const struct pb_raw *pb, struct pb_raw *raw, ProtobufCAllocator *a,
                            struct pb_open_list *l)
{
    Penstock__OpenList *p = penstock__open_list__unpack(a, pb->left, pb->p);

    if (p == NULL)
        return PB_MSG_E_BAD;
    l->applied = p->applied;
    l->n_rows = p->n_rows;
    l->rows = *raw;
    penstock__open_list__free_unpacked(p, a);
    return raw->left == (size_t)l->n_rows * OPEN_ROW_BYTES ? PB_MSG_OK : PB_MSG_E_BAD;
}

void pb_open_list_encode(struct ps_buf *out, const struct pb_head *h, uint64_t applied,
                         const struct pb_open_row *rows, uint32_t n_rows)
{
    Penstock__OpenList p = PENSTOCK__OPEN_LIST__INIT;

    PS_ASSERT(h->kind == PB_OPENLIST);
    p.applied = applied;
    p.n_rows = n_rows;
    pb_pack_add(out, h, &p.base);
    for (uint32_t i = 0; i < n_rows; i++) {
        ps_buf_add_u64(out, rows[i].req);
        ps_buf_add_u64(out, rows[i].dispatch_seq);
        ps_buf_add_u32(out, rows[i].attempt);
        ps_buf_add_u32(out, rows[i].n_sent);
        ps_buf_add_u32(out, rows[i].ended ? OPEN_ENDED : 0);
        ps_buf_add_u32(out, 0);
    }
}

static int decode_open_query(const struct pb_raw *pb, ProtobufCAllocator *a)
{
    Penstock__OpenQuery *p = penstock__open_query__unpack(a, pb->left, pb->p);

    if (p == NULL)
        return PB_MSG_E_BAD;
    penstock__open_query__free_unpacked(p, a);
    return PB_MSG_OK;
}

/* ---- by kind ---- */

int pb_generate_decode(const struct pb_raw *pb, struct pb_raw *raw, ProtobufCAllocator *a,
                       struct pb_msg *out)
{
    switch (out->head.kind) {
    case PB_SUBMIT:
        return pb_submit_decode(pb, raw, a, &out->submit);
    case PB_TOKENS:
        return decode_tokens(pb, raw, a, &out->tokens);
    case PB_FINISHED:
        return decode_finished(pb, raw, a, &out->finished);
    case PB_OPENLIST:
        return decode_open_list(pb, raw, a, &out->open_list);
    default:
        break;
    }
    if (raw->left != 0)
        return PB_MSG_E_BAD;
    switch (out->head.kind) {
    case PB_ACCEPT:
    case PB_FINACK:
    case PB_CANCEL:
    case PB_RESEND:
        return decode_attempt(pb, a, &out->attempt);
    case PB_REJECT:
        return decode_reject(pb, a, &out->refusal);
    case PB_OPENQUERY:
        return decode_open_query(pb, a);
    default:
        return PB_MSG_E_BAD;
    }
}

void pb_generate_encode(struct ps_buf *out, const struct pb_msg *m)
{
    Penstock__Attempt attempt = PENSTOCK__ATTEMPT__INIT;
    Penstock__Reject reject = PENSTOCK__REJECT__INIT;
    Penstock__OpenQuery query = PENSTOCK__OPEN_QUERY__INIT;

    switch (m->head.kind) {
    case PB_SUBMIT:
        pb_submit_encode(out, &m->head, m->submit);
        break;
    case PB_REJECT:
        reject.req = m->refusal.req;
        reject.attempt = m->refusal.attempt;
        reject.reason = (uint32_t)m->refusal.reason;
        reject.predicted_wait_ms = m->refusal.predicted_wait_ms;
        pb_pack_add(out, &m->head, &reject.base);
        break;
    case PB_OPENQUERY:
        pb_pack_add(out, &m->head, &query.base);
        break;
    default:
        PS_ASSERT(m->head.kind == PB_ACCEPT || m->head.kind == PB_FINACK ||
                  m->head.kind == PB_CANCEL || m->head.kind == PB_RESEND);
        attempt.req = m->attempt.req;
        attempt.attempt = m->attempt.attempt;
        attempt.dispatch_seq = m->attempt.dispatch_seq;
        attempt.from = m->attempt.from;
        pb_pack_add(out, &m->head, &attempt.base);
        break;
    }
}
